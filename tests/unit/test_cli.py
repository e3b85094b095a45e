"""The command: what it asks for, what it refuses, what it prints where, how it ends."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zenml_cooper import _build, _core, cli
from zenml_cooper.exceptions import CooperError

IMAGE = "localhost:5000/app@sha256:" + "ab" * 32
OUTCOME: dict[str, Any] = {
    **_core._exercise_for_test({}),
    "image": IMAGE,
    "tags": ["localhost:5000/app:1"],
    "digest": "sha256:" + "ab" * 32,
    "config_digest": "sha256:" + "cd" * 32,
}


class Builds:
    """Stands in for the builds of the native module."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.progress: list[str] = []
        self.error: BaseException | None = None

    def run(self, request: dict[str, Any], *, progress: str) -> dict[str, Any]:
        # What is asked for is what the native module would take.
        _core.check_request(request)
        self.requests.append(request)
        self.progress.append(progress)
        if self.error:
            raise self.error
        return OUTCOME


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> Builds:
    builds = Builds()
    monkeypatch.setattr(_build, "run", builds.run)
    return builds


def test_a_plain_build(builds: Builds, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["build"]) == 0
    assert capfd.readouterr().out == f"{IMAGE}\n"
    (request,) = builds.requests
    assert request == {
        "context": {"root": str(Path.cwd()), "ignore_file": None, "extra_files": []},
        "dockerfile": {"in_context": "Dockerfile"},
        "tags": [],
        "push": False,
        "options": {},
        "engine": {"kind": "auto", "endpoint": None, "docker_context": None, "tls": None, "builder": "auto"},
    }
    assert builds.progress == ["auto"]


def test_every_option_arrives(builds: Builds, tmp_path: Path) -> None:
    typed = (
        "build -f Other -t a:1 -t localhost:5000/b --engine docker --endpoint tcp://h:1 --build-arg A=1 --build-arg B "
        "--label k=v --target t --platform linux/arm64 --build-context base=docker-image://x --secret id=s,env=S "
        "--ssh default --no-cache --pull --cache-from r1 --cache-from r2 --cache-to type=inline --push "
        "--output type=docker --ignorefile ig --network host --shm-size 64m --source-date-epoch 1 --progress plain "
        "--add-host a:::1 --ulimit core=1"
    )
    assert cli.main([*typed.split(), str(tmp_path)]) == 0
    (request,) = builds.requests
    assert request["options"] == {
        "build-arg": ["A=1", "B"],
        "label": ["k=v"],
        "target": "t",
        "platform": "linux/arm64",
        "build-context": ["base=docker-image://x"],
        "secret": ["id=s,env=S"],
        "ssh": ["default"],
        "no-cache": True,
        "pull": True,
        "cache-from": ["r1", "r2"],
        "cache-to": ["type=inline"],
        "network": "host",
        "shm-size": "64m",
        "source-date-epoch": "1",
        "add-host": ["a:::1"],
        "ulimit": ["core=1"],
    }
    assert request["tags"] == ["a:1", "localhost:5000/b"]
    assert request["push"] is True
    assert request["dockerfile"] == {"path": str(Path("Other").absolute())}
    assert request["context"]["root"] == str(tmp_path)
    assert request["context"]["ignore_file"] == str(Path("ig").absolute())
    assert request["engine"]["endpoint"] == "tcp://h:1"
    assert builds.progress == ["plain"]


def test_every_option_is_one_of_the_native_module() -> None:
    names = {option for option, _, _ in (*cli._REPEATED, *cli._SINGLE)}
    assert names <= set(_core.build_option_names())


def test_a_dockerfile_from_stdin(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("FROM scratch\n"))
    assert cli.main(["build", "-f", "-", "."]) == 0
    assert builds.requests[0]["dockerfile"] == {"text": "FROM scratch\n"}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("build --engine native", "this version has the docker engine only"),
        ("build --engine buildkit", "this version has the docker engine only"),
        ("build --engine foo", "foo"),
        ("build --compression zstd:9", "not with the docker engine"),
        ("build --output type=oci,dest=x.tar", "not with the docker engine"),
        ("build --output type=local,dest=x", "not with the docker engine"),
        ("build --output type=docker,dest=x", "not with the docker engine"),
        ("build --endpoint a --endpoint b", "one daemon"),
        ("build --push", "--tag"),
        ("build --metadata-file /no/such/place/m.json", "--metadata-file"),
        ("build --bulid-arg A=1", "did you mean `--build-arg`?"),
        ("build --no-cach", "did you mean `--no-cache`?"),
        ("build a b", "unknown argument `b`"),
        ("build --progress loud", "loud"),
        ("biuld", "biuld"),
        ("", "a command is missing"),
        ("context", "a command is missing"),
        ("context ls --jsn", "did you mean `--json`?"),
        ("context pack .", "--output"),
        ("cache du", "not with the docker engine"),
        ("cache prune --keep-storage 1g", "not with the docker engine"),
        ("doctor --engine native", "this version has the docker engine only"),
    ],
)
def test_wrong_usage(typed: str, said: str, builds: Builds, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(typed.split()) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert builds.requests == []


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("build -t UPPER", "is no image name"),
        ("build --platform nowhere", "is no platform"),
        ("build --shm-size lots", "shm-size"),
        ("build --secret id", "secret"),
    ],
)
def test_wrong_values_are_wrong_usage(typed: str, code: str, builds: Builds, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(typed.split()) == 2
    assert code in capfd.readouterr().err


def sample(code: str) -> CooperError:
    with pytest.raises(CooperError) as info:
        _core._raise_for_test(code)
    return info.value


@pytest.mark.parametrize("code", _core.error_codes())
def test_every_error_has_an_exit_code_and_goes_to_stderr(
    code: str, builds: Builds, capfd: pytest.CaptureFixture[str]
) -> None:
    builds.error = sample(code)
    usage = {"invalid-reference", "invalid-digest", "invalid-platform", "unknown-option", "invalid-option"}
    expected = 2 if code in usage else 130 if code == "interrupted" else 1
    assert cli.main(["build"]) == expected
    out, err = capfd.readouterr()
    assert out == ""
    if code != "interrupted":
        assert err == f"error: {builds.error}\n"


def test_a_failed_step_is_shown_with_its_place(builds: Builds, capfd: pytest.CaptureFixture[str]) -> None:
    builds.error = sample("step-failed")
    assert cli.main(["build"]) == 1
    err = capfd.readouterr().err
    assert "--> Dockerfile:2:1" in err
    assert "the last words" in err


def test_ctrl_c(builds: Builds, capfd: pytest.CaptureFixture[str]) -> None:
    builds.error = KeyboardInterrupt()
    assert cli.main(["build"]) == 130
    assert capfd.readouterr() == ("", "interrupted\n")


def test_the_metadata_file(builds: Builds, tmp_path: Path) -> None:
    path = tmp_path / "meta.json"
    path.write_text("old")
    assert cli.main(["build", "--metadata-file", str(path)]) == 0
    data = json.loads(path.read_text())
    assert data["image"] == IMAGE
    assert data["digest"] == OUTCOME["digest"]
    assert data["config_digest"] == OUTCOME["config_digest"]
    assert data["steps"] == []
    assert data["cache"] == {"cached_steps": 0, "total_steps": 0}
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()
    assert list(tmp_path.iterdir()) == [path]


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_no_metadata_without_a_build(builds: Builds, tmp_path: Path) -> None:
    path = tmp_path / "meta.json"
    path.write_text("old")
    builds.error = sample("build-failed")
    assert cli.main(["build", "--metadata-file", str(path)]) == 1
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(UnicodeEncodeError):
        cli.write_atomically(str(path), "\udcff")
    assert list(tmp_path.iterdir()) == []
    # A link is followed; a device is written to, not replaced.
    target = tmp_path / "target"
    target.write_text("old")
    path.symlink_to(target)
    cli.write_atomically(str(path), "new")
    assert path.is_symlink()
    assert target.read_text() == "new"
    cli.write_atomically(os.devnull, "gone")
    assert not Path(os.devnull).is_file()


def test_help_is_short_and_complete(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for typed in ("", "build", "context", "context ls", "context du", "context digest", "context pack", "doctor",
                  "cache", "zenml", "zenml register"):  # fmt: skip
        assert cli.main([*typed.split(), "--help"]) == 0
        out = capsys.readouterr().out
        assert out.startswith("usage: cooper")
        assert len(out.splitlines()) < 60
    assert cli.main(["build", "--help"]) == 0
    out = capsys.readouterr().out
    for option in ("-f, --file FILE", "-t, --tag NAME", "--build-arg K=V", "--secret SPEC", "--metadata-file FILE"):
        assert option in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"cooper {_core.version}\n"


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


def test_it_is_terminated_like_interrupted() -> None:
    script = (
        "import os, signal, sys, threading; from zenml_cooper import cli, _build, _core\n"
        "_build.run = lambda *a, **k: _core._exercise_for_test({'seconds': 30, 'stop_seconds': 0.3})\n"
        "threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "sys.exit(cli.main(['build']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=20, check=False)
    assert done.returncode == 128 + 15
    assert done.stderr == b""
