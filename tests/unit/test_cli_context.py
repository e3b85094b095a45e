"""The commands below `cooper context`: what they print for people, for tools, and how they end."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from zenml_cooper import cli

KEY = "-----BEGIN PRIVATE KEY-----\nthe-secret-itself\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project with things in it that an image does not need; the current directory."""
    root = tmp_path / "project"
    files: dict[str, str | bytes] = {
        "Dockerfile": "FROM scratch\n",
        "requirements.txt": "zenml\n",
        "src/run.py": "print()\n",
        "data/raw/a.csv": b"x" * 3000,
        "data/raw/b.csv": b"x" * 1000,
        "data/keep/c.csv": b"x" * 6000,
        "models/model.pt": b"x" * 50_000,
        "tls/server.key": KEY,
        ".dockerignore": "*.log\ndata\n!data/keep\nunused\n",
        "train.log": "x",
    }
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(root)
    return root


def on_a_terminal(*typed: str, columns: int = 80, **environment: str) -> str:
    """What a command writes to a terminal that is so wide."""
    reader, writer = pty.openpty()
    variables = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "PYTHONIOENCODING": "utf-8", **environment}
    command = [sys.executable, "-m", "zenml_cooper.cli", *typed]
    with subprocess.Popen(command, stdin=writer, stdout=writer, stderr=subprocess.DEVNULL, env=variables) as process:
        os.close(writer)
        output = b""
        try:
            while piece := os.read(reader, 65536):
                output += piece
        except OSError:
            # Linux says so when the other end is closed.
            pass
        process.wait(20)
    os.close(reader)
    return output.decode().replace("\r\n", "\n")


def test_lists_and_readers_that_go_away(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"a-file-with-a-rather-long-name-{number:04}").touch()
    command = [sys.executable, "-m", "zenml_cooper.cli", "context", "ls", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"a-file-with-a-rather-long-name-0000\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(10) == 1


def test_context_ls(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "file").write_text("12345")
    (tmp_path / "link").symlink_to("dir/file")
    (tmp_path / "gone.log").touch()
    (tmp_path / ".dockerignore").write_text("*.log\n")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")).touch()
    assert cli.main(["context", "ls", str(tmp_path)]) == 0
    assert capfdbinary.readouterr().out == b".dockerignore\ndir/\ndir/file\nlink -> dir/file\n\xff\xfe\n"
    assert cli.main(["context", "ls", "--json", str(tmp_path)]) == 0
    entries = json.loads(capfdbinary.readouterr().out)
    assert [os.fsencode(entry["path"]) for entry in entries] == [
        b".dockerignore",
        b"dir",
        b"dir/file",
        b"link",
        b"\xff\xfe",
    ]
    file = entries[2]
    assert (file["kind"], file["size"], file["target"]) == ("file", 5, None)
    other = tmp_path / "other-ignore"
    other.write_text("dir\n")
    assert cli.main(["context", "ls", "--ignorefile", str(other), str(tmp_path)]) == 0
    assert b"dir" not in capfdbinary.readouterr().out.replace(b"dir/file", b"")


def test_a_malformed_ignore_file_is_shown_with_its_place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".dockerignore").write_text("fine\na[1.txt\n")
    assert cli.main(["context", "ls", str(tmp_path)]) == 1
    err = capfd.readouterr().err
    assert ".dockerignore:2:" in err
    assert "a[1.txt" in err


def test_no_context(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["context", "ls", "/no/such/place"]) == 1
    assert "/no/such/place" in capfd.readouterr().err


def test_du_piped(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["context", "du"]) == 0
    out, err = capfd.readouterr()
    assert out == (
        "56.1 kB in 7 files; .dockerignore excludes 2 entries\n"
        "\n"
        " 50.0 kB  89%  models/  1 file\n"
        " 50.0 kB  89%  models/model.pt\n"
        "  6.0 kB  11%  data/  1 file\n"
        "  6.0 kB  11%  data/keep/  1 file\n"
        "  6.0 kB  11%  data/keep/c.csv\n"
        "\n"
        ".dockerignore: what each line excludes\n"
        "    1  *.log       1 entry\n"
        "    2  data        1 entry\n"
        "    3  !data/keep  takes back\n"
        "    4  unused      nothing\n"
    )
    assert "warning: `tls/server.key` is in the build context and looks like a private key\n" in err
    assert "warning: `models/model.pt` is in the build context and is model weights (50.0 kB)\n" in err
    assert "hint: `cooper context suggest`" in err
    assert "the-secret-itself" not in out + err
    assert cli.main(["context", "du", "--excluded", "--depth", "1"]) == 0
    out = capfd.readouterr().out
    assert "models/model.pt" not in out
    assert "    1  *.log       1 file, 1 B: train.log\n" in out
    assert "    2  data        2 files, 4.0 kB: data/\n" in out
    assert "    3  !data/keep  takes back 1 path\n" in out
    assert "    4  unused      nothing: nothing matches\n" in out


def test_du_on_a_terminal(project: Path) -> None:
    shown = on_a_terminal("context", "du", columns=60, NO_COLOR="")
    plain = re.sub(r"\x1b\[\d*m", "", shown)
    assert shown != plain
    assert " 50.0 kB  89%  ████████████████    ├─ models/  1 file\n" in plain
    assert "│  └─ model.pt\n" in plain
    assert max(map(len, plain.splitlines())) <= 60
    assert "\x1b" not in on_a_terminal("context", "du", NO_COLOR="1")
    assert "\x1b" not in on_a_terminal("context", "du", TERM="dumb")
    ascii_only = on_a_terminal("context", "du", NO_COLOR="", PYTHONIOENCODING="ascii")
    assert "################    |- \x1b[1mmodels/" in ascii_only.replace("\x1b[36m", "").replace("\x1b[0m", "")


def test_names_cannot_command_a_terminal(project: Path) -> None:
    (project / "evil\x1b[2Jname").write_bytes(b"x" * 9000)
    (project / ".dockerignore").write_bytes(b"x\x1b[2J]y\n")
    for typed in (["du"], ["ls"], ["ls", "--long"], ["why", "evil\x1b[2Jname"]):
        shown = on_a_terminal("context", *typed, NO_COLOR="1")
        assert "name" in shown
        assert "\x1b" not in shown


def test_du_of_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["context", "du", str(tmp_path)]) == 0
    assert capfd.readouterr() == ("0 B in 0 files; no ignore file\n", "")


def test_du_as_json(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["context", "du", "--json", "--excluded"]) == 0
    out, err = capfd.readouterr()
    report = json.loads(out)
    assert err == ""
    assert set(report) == {
        "root", "ignore_file", "summary", "tree", "largest_files", "largest_directories", "patterns", "removed",
        "warnings", "notices",
    }  # fmt: skip
    assert report["largest_files"][0] == {"path": "models/model.pt", "directory": False, "bytes": 50_000, "files": 1}
    assert [warning["code"] for warning in report["warnings"]] == ["credentials", "weights"]
    assert report["warnings"][0]["paths"] == ["tls/server.key"]
    assert report["removed"][1] == {
        "line": 2, "pattern": "data", "files": 2, "bytes": 4000, "examples": ["data/"], "matches": 1,
    }  # fmt: skip


def test_why(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["context", "why", "data/keep/c.csv"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("in   `data/keep/c.csv` is in the build context: `!data/keep` in ")
    assert "         2 | data                      excludes data/\n" in out
    assert "         3 | !data/keep                takes back data/keep/\n" in out
    assert cli.main(["context", "why", "data/raw"]) == 1
    out = capfd.readouterr().out
    assert out.startswith("out  `data/raw` is not in the build context: `data` in ")
    assert "in the context: 0 files, 0 B; excluded: 2 files, 4.0 kB\n" in out
    # One that is out is enough.
    assert cli.main(["context", "why", "--json", "Dockerfile", "train.log", "nothing"]) == 1
    answers = json.loads(capfd.readouterr().out)
    assert [(answer["path"], answer["included"], answer["reason"]) for answer in answers] == [
        ("Dockerfile", True, "no-pattern"),
        ("train.log", False, "excluded"),
        ("nothing", False, "missing"),
    ]


@pytest.mark.parametrize(
    ("here", "typed", "path"),
    [
        (".", "src/run.py", "src/run.py"),
        (".", "./data/../src//run.py", "src/run.py"),
        (".", "{root}/src/run.py", "src/run.py"),
        (".", "src/run.py .", "src/run.py"),
        (".", "src/run.py --dir .", "src/run.py"),
        ("..", "src/run.py project", "src/run.py"),
        ("..", "project/src/run.py project", "src/run.py"),
        ("src", "run.py ..", "src/run.py"),
        ("src", "src/run.py ..", "src/run.py"),
        ("src", "run.py {root}", "src/run.py"),
        ("/", "src/run.py {root}", "src/run.py"),
        ("/", "nothing {root}", "nothing"),
        ("..", "link/src/run.py link", "src/run.py"),
        ("..", "project/src/run.py link", "src/run.py"),
        (".", ".", ""),
        (".", "../other", "../other"),
    ],
)
def test_paths_are_taken_as_they_are_typed(
    here: str, typed: str, path: str, project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (project.parent / "link").symlink_to("project")
    monkeypatch.chdir(project / here)
    cli.main(["context", "why", "--json", *typed.format(root=project).split()])
    (answer,) = json.loads(capfd.readouterr().out)
    assert answer["path"] == path


def test_a_directory_may_be_a_path_too(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["context", "why", "--json", "data/raw", "src"]) == 1
    assert [answer["path"] for answer in json.loads(capfd.readouterr().out)] == ["data/raw", "src"]
    assert cli.main(["context", "why", "--json", "src/run.py", "src", "--dir", "."]) == 0
    assert [answer["path"] for answer in json.loads(capfd.readouterr().out)] == ["src/run.py", "src"]


def test_suggestions_can_be_appended(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["context", "suggest", "--json"]) == 0
    suggestion = json.loads(capfd.readouterr().out)
    assert [line["pattern"] for line in suggestion["lines"]] == ["tls/server.key", "models/model.pt"]
    assert suggestion["bytes"] == 50_000 + len(KEY)
    assert cli.main(["context", "suggest"]) == 0
    out = capfd.readouterr().out
    assert out == suggestion["text"]
    with (project / ".dockerignore").open("a") as file:
        file.write(out)
    assert cli.main(["context", "why", "models/model.pt"]) == 1
    assert cli.main(["context", "why", "Dockerfile", "requirements.txt", "data/keep"]) == 0
    capfd.readouterr()
    assert cli.main(["context", "suggest"]) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("nothing to suggest")


def test_long_and_null_lists(project: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (project / "link").symlink_to("src")
    (project / "src/run.py").chmod(0o750)
    assert cli.main(["context", "ls", "--long"]) == 0
    lines = capfdbinary.readouterr().out.splitlines()
    assert b"0750            8 src/run.py" in lines
    assert any(line.endswith(b" link -> src") for line in lines)
    assert cli.main(["context", "ls", "-0"]) == 0
    assert capfdbinary.readouterr().out.split(b"\0")[:2] == [b".dockerignore", b"Dockerfile"]


def test_the_command_starts_without_what_it_does_not_need(project: Path) -> None:
    script = (
        "import sys; from zenml_cooper import cli; code = cli.main(['context', 'du']);"
        "sys.exit(code or bool({'rich', 'zenml', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
