"""Contexts across the boundary: any kind of output, cancellation, names that are no text."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import tarfile
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

import zenml_cooper
from zenml_cooper import _core, cli
from zenml_cooper.exceptions import ContextError, CooperCancelled, OptionError

if TYPE_CHECKING:
    from .conftest import RunScript


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Any]:
    root = tmp_path / "context"
    (root / "dir").mkdir(parents=True)
    (root / "dir" / "file").write_bytes(b"content")
    (root / "script").write_bytes(b"#!/bin/sh\n")
    (root / "script").chmod(0o755)
    extra = [{"path": "extra/bin", "content": b"\xff\x00", "mode": 0o755}, {"path": "extra/text", "content": "grüße"}]
    return {"root": str(root), "extra_files": extra}


def test_every_output_gets_the_same_bytes(tree: dict[str, Any], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    packed = _core.context_pack(tree, buffer)
    data = buffer.getvalue()
    assert packed["bytes_out"] == len(data)
    assert packed["digest"] == "sha256:" + hashlib.sha256(data).hexdigest()
    _core.context_pack(tree, tmp_path / "path.tar")
    assert (tmp_path / "path.tar").read_bytes() == data
    with (tmp_path / "file.tar").open("wb") as file:
        _core.context_pack(tree, file)
        assert file.tell() == len(data)
    descriptor = os.open(tmp_path / "fd.tar", os.O_WRONLY | os.O_CREAT)
    _core.context_pack(tree, descriptor)
    os.write(descriptor, b"still open")
    os.close(descriptor)
    assert (tmp_path / "fd.tar").read_bytes() == data + b"still open"


def test_files_on_disk_are_written_in_place(tree: dict[str, Any], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    assert _core.context_pack(tree, buffer, digest=False)["digest"] is None
    data, path = buffer.getvalue(), tmp_path / "file"

    def around(file: IO[bytes]) -> None:
        """Writes before and after, reads ahead, and looks where the file is."""
        file.write(b"before, not flushed")
        _core.context_pack(tree, file)
        assert file.tell() == 19 + len(data)
        file.write(b"after")
        file.seek(19)
        assert file.read(10) == data[:10]
        file.seek(19)
        _core.context_pack(tree, file)
        assert file.read() == b"after"
        file.seek(0)
        assert file.read() == b"before, not flushed" + data + b"after"

    with path.open("w+b") as buffered:
        around(buffered)
    with path.open("w+b", buffering=0) as unbuffered:
        around(unbuffered)
    with tempfile.NamedTemporaryFile() as wrapped:
        around(wrapped)
    with tempfile.TemporaryFile() as without_name:
        around(without_name)


def test_a_file_that_appends_appends(tree: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with path.open("ab") as file:
        file.seek(0)
        _core.context_pack(tree, file)
    buffer = io.BytesIO()
    _core.context_pack(tree, buffer)
    assert path.read_bytes() == b"before" + buffer.getvalue()


def test_a_class_of_the_callers_is_asked_to_write(tree: dict[str, Any], tmp_path: Path) -> None:
    class Counting(io.FileIO):
        written = 0

        def write(self, data: Any) -> int:
            self.written += len(data)
            return super().write(data)

    with Counting(tmp_path / "file", "w") as file:
        packed = _core.context_pack(tree, file)
        assert file.written == packed["bytes_out"] > 0
    with (tmp_path / "file").open("rb") as reading, pytest.raises(io.UnsupportedOperation):
        _core.context_pack(tree, reading)
    with pytest.raises(ValueError, match="closed file"):
        _core.context_pack(tree, file)


def test_archives_hold_what_was_given(tree: dict[str, Any]) -> None:
    for kind in ("tar", "tar.gz"):
        buffer = io.BytesIO()
        _core.context_pack(tree, buffer, kind)
        buffer.seek(0)
        with tarfile.open(fileobj=buffer) as archive:
            members = {member.name.rstrip("/"): member for member in archive}
            assert set(members) == {"dir", "dir/file", "extra", "extra/bin", "extra/text", "script"}
            assert members["script"].mode & 0o777 == 0o755
            extracted = archive.extractfile(members["extra/bin"])
            assert extracted is not None
            assert extracted.read() == b"\xff\x00"
    buffer = io.BytesIO()
    _core.context_pack(tree, buffer, "zip")
    with zipfile.ZipFile(buffer) as archive_zip:
        assert archive_zip.read("extra/text").decode() == "grüße"


def test_wrong_arguments(tree: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="rar"):
        _core.context_pack(tree, io.BytesIO(), "rar")
    with pytest.raises(TypeError):
        _core.context_pack(tree, object())  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="roto"):
        _core.context_list({"roto": "/"})
    with pytest.raises(ContextError) as raised:
        _core.context_list({"extra_files": [{"path": "../a", "content": ""}]})
    assert raised.value.code == "context-path"


def test_names_that_are_no_text_survive(tmp_path: Path) -> None:
    name = b"\xff\xfename"
    (tmp_path / os.fsdecode(name)).touch()
    (tmp_path / "link").symlink_to(os.fsdecode(name))
    entries = {entry["path"]: entry for entry in _core.context_list({"root": str(tmp_path)})}
    assert os.fsencode(entries["link"]["target"]) == name
    assert os.fsdecode(name) in entries


def test_kinds_of_entries(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("12")
    (tmp_path / "hard").hardlink_to(tmp_path / "file")
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        entries = _core.context_list({"root": str(tmp_path)})
    kinds = {entry["path"]: (entry["kind"], entry["size"], entry["target"]) for entry in entries}
    assert kinds == {
        "dir": ("dir", 0, None),
        "file": ("file", 2, None),
        "hard": ("hardlink", 0, "file"),
        "pipe": ("fifo", 0, None),
    }


def test_a_list_makes_its_items_when_they_are_asked_for(tree: dict[str, Any]) -> None:
    entries = _core.context_list(tree)
    paths = ["dir", "dir/file", "extra", "extra/bin", "extra/text", "script"]
    assert len(entries) == len(paths)
    assert [entry["path"] for entry in entries] == paths
    assert [entry["path"] for entry in entries] == paths
    assert entries[1] == {"path": "dir/file", "kind": "file", "size": 7, "mode": 0o644, "target": None}
    assert entries[-1]["path"] == "script"
    for index in (6, -7):
        with pytest.raises(IndexError):
            entries[index]


def test_lists_are_written_in_every_style(tmp_path: Path) -> None:
    name = b'\xff\n\xc3\xa9"'
    (tmp_path / os.fsdecode(name)).write_text("12")
    (tmp_path / "link").symlink_to("there")

    def written(style: str) -> bytes:
        buffer = io.BytesIO()
        _core.context_write_list({"root": str(tmp_path)}, buffer, style)
        return buffer.getvalue()

    assert written("names") == b"link -> there\n" + name + b"\n"
    assert written("null") == b"link\0" + name + b"\0"
    assert written("terminal") == b'link -> there\n\\xff\\n\xc3\xa9"\n'
    assert written("long").splitlines()[0] == b"0777            0 link -> there"
    assert json.loads(written("json")) == list(_core.context_list({"root": str(tmp_path)}))
    with pytest.raises(OptionError, match="style"):
        written("loud")


def test_a_list_that_nobody_reads_ends(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number:0200}").touch()

    class Full:
        def write(self, data: bytes) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        _core.context_write_list({"root": str(tmp_path)}, Full(), "names")


def test_looking_is_cancelled(tree: dict[str, Any]) -> None:
    handle = _core.CancelHandle()
    handle.cancel()
    for look in (
        lambda: _core.context_report(tree, cancel=handle),
        lambda: _core.context_report(tree, excluded=True, cancel=handle),
        lambda: _core.context_why(tree, ["dir"], cancel=handle),
        lambda: _core.context_suggest(tree, cancel=handle),
        lambda: _core.context_list(tree, cancel=handle),
        lambda: _core.context_write_list(tree, io.BytesIO(), cancel=handle),
    ):
        with pytest.raises(CooperCancelled):
            look()


def test_an_archive_comes_with_what_is_odd_about_it(tree: dict[str, Any]) -> None:
    Path(tree["root"], ".env").write_text("TOKEN=the-secret-itself\n")
    context = _core.context_pack(tree, io.BytesIO())["context"]
    assert (context["files"], context["extra_files"], context["largest"]["path"]) == (5, 2, ".env")
    (warning,) = context["warnings"]
    assert (warning["code"], warning["paths"]) == ("credentials", [".env"])
    assert "the-secret-itself" not in str(context)


def test_the_functions_of_the_package(tree: dict[str, Any]) -> None:
    root = tree["root"]
    Path(root, ".dockerignore").write_text("dir\n")
    Path(root, ".env").write_text("A=1\n")
    extra: dict[str, Any] = {"extra/text": "x", "run": ("#!/bin/sh", 0o755)}
    paths = [entry["path"] for entry in zenml_cooper.context_entries(root, extra_files=extra)]
    assert paths == [".dockerignore", ".env", "extra", "extra/text", "run", "script"]
    assert zenml_cooper.context_digest(root).startswith("sha256:")
    assert zenml_cooper.context_digest(root) != zenml_cooper.context_digest(root, extra_files=extra)
    report = zenml_cooper.context_report(root, excluded=True)
    assert report["removed"] is not None
    assert report["removed"][0]["bytes"] == len(b"content")
    assert zenml_cooper.context_why("dir/file", root)["reason"] == "parent-excluded"
    assert zenml_cooper.context_why(Path("dir/file"), root, ignore_file=os.devnull)["reason"] == "no-pattern"
    assert [line["pattern"] for line in zenml_cooper.context_suggest(root)["lines"]] == [".env"]


def test_a_digest_reads_only_what_changed(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COOPER_CACHE_DIR", str(tmp_path / "cache"))
    # A file is remembered when its times are old enough to tell a later change.
    time.sleep(0.2)

    def digest(*more: str) -> dict[str, Any]:
        assert cli.main(["context", "digest", "--json", *more, tree["root"]]) == 0
        return dict(json.loads(capsys.readouterr().out))

    first = digest()
    assert (first["hashed_files"], first["hashed_bytes"]) == (2, 17)
    assert digest() == {**first, "hashed_files": 0, "hashed_bytes": 0}
    assert digest("--no-index") == first
    assert zenml_cooper.context_digest(tree["root"], index=False) == first["digest"]
    (Path(tree["root"]) / "dir" / "file").write_bytes(b"CONTENT")
    changed = digest()
    assert changed["hashed_files"] == 1
    assert changed["digest"] == zenml_cooper.context_digest(tree["root"], index=False) != first["digest"]


def test_a_failing_output_leaves_no_thread_behind(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(1 << 20) * 40)

    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        _core.context_pack({"root": str(tmp_path)}, Full())
    # The kernel lists a thread for some time after it was waited for.
    deadline = time.monotonic() + 10
    while left := [thread for thread in os.listdir("/proc/self/task") if "cooper" in task_name(thread)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def task_name(thread: str) -> str:
    try:
        return Path(f"/proc/self/task/{thread}/comm").read_text()
    except OSError:
        return ""


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.zst", "zip"])
def test_packing_is_cancelled_at_once_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    block = os.urandom(1 << 20)
    for number in range(4):
        with (source / f"big-{number}").open("wb") as file:
            for _ in range(30):
                file.write(block)
    output = tmp_path / "output"
    output.mkdir()
    handle = _core.CancelHandle()
    ends: list[float] = []

    def pack() -> None:
        # zip and gzip take long, tar does not: it is packed again until it is interrupted.
        try:
            while True:
                _core.context_pack({"root": str(source)}, output / "archive", kind, cancel=handle)
        except CooperCancelled:
            ends.append(time.monotonic())

    thread = threading.Thread(target=pack)
    thread.start()
    time.sleep(0.3)
    start = time.monotonic()
    handle.cancel()
    thread.join(10)
    assert ends[0] - start < 0.2
    assert {path.name for path in output.iterdir()} <= {"archive"}


def test_python_threads_run_while_a_context_is_packed(tmp_path: Path) -> None:
    block = os.urandom(1 << 20)
    (tmp_path / "big").write_bytes(block * 30)
    turns = 0
    stop = threading.Event()

    def count() -> None:
        nonlocal turns
        while not stop.is_set():
            turns += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        start, elapsed = time.monotonic(), 0.0
        while elapsed < 0.3:  # however fast it packs
            _core.context_pack({"root": str(tmp_path)}, io.BytesIO(), "tar.gz")
            elapsed = time.monotonic() - start
    finally:
        stop.set()
        thread.join()
    assert turns > elapsed * 100


def test_memory_does_not_grow_with_the_context(run_script: RunScript, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "big").open("wb") as file:
        file.truncate(600 << 20)
    grown = run_script(
        f"""
        import json, resource
        from zenml_cooper import _core

        class Nowhere:
            def write(self, data):
                return len(data)

        _core.context_pack({{"extra_files": [{{"path": "a", "content": "b"}}]}}, Nowhere())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        packed = _core.context_pack({{"root": {str(source)!r}}}, Nowhere())
        assert packed["bytes_in"] == 600 << 20
        print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
        """
    )
    assert grown < 100 << 10


def test_forked_children_pack(run_script: RunScript, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x" * 100_000)
    digests = run_script(
        f"""
        import io, json, multiprocessing, warnings
        warnings.simplefilter("ignore")
        from zenml_cooper import _core

        def pack(_=None):
            return _core.context_pack({{"root": {str(tmp_path)!r}}}, io.BytesIO(), "tar.gz")["digest"]

        first = pack()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(json.dumps([first, *pool.map(pack, range(4))]))
        """
    )
    assert len(digests) == 5
    assert len(set(digests)) == 1


def test_a_dockerfile_brings_its_own_ignore_file(tmp_path: Path) -> None:
    for name in ("a", "b", "Other"):
        (tmp_path / name).touch()
    (tmp_path / ".dockerignore").write_text("a\n")
    (tmp_path / "Other.dockerignore").write_text("b\n")

    def names(**more: Any) -> set[str]:
        return {entry["path"] for entry in _core.context_list({"root": str(tmp_path)}, **more)} & {"a", "b"}

    assert names() == {"b"}
    assert names(dockerfile={"path": str(tmp_path / "Other")}) == {"a"}
    assert names(dockerfile={"in_context": "Other"}) == {"a"}
    with pytest.raises(OptionError, match="pth"):
        _core.context_list({"root": str(tmp_path)}, dockerfile={"pth": "x"})
