"""Contexts in a real local artifact store: one archive for each content, uploaded once."""

import contextlib
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest
from zenml.client import Client
from zenml.image_builders import BuildContext
from zenml.io import fileio
from zenml.utils.archivable import ArchiveType

from zenml_cooper.context import CooperBuildContext
from zenml_cooper.exceptions import ContextError
from zenml_cooper.image_builders.remote import RemoteImageBuilder

if TYPE_CHECKING:
    from conftest import Zenml

# What one process does: a context of a directory, uploaded, and what the store has then.
UPLOAD = """
import json, os
os.umask({umask})
from zenml_cooper.context import CooperBuildContext
from zenml_cooper.image_builders.kaniko import KanikoImageBuilder

packed = []
original = CooperBuildContext.pack
def pack(self, *arguments):
    packed.append(1)
    return original(self, *arguments)
CooperBuildContext.pack = pack

context = CooperBuildContext(root={root!r})
context.add_file("FROM scratch", "Dockerfile")
path = KanikoImageBuilder._upload_build_context(context, {directory!r})
found = os.stat(path)
print("RESULT", json.dumps({{
    "path": path, "inode": found.st_ino, "written": found.st_mtime_ns, "packed": len(packed),
    "there": os.listdir(os.path.dirname(path)),
}}))
"""


def uploaded(zenml: "Zenml", root: Path, directory: str, umask: int) -> dict[str, Any]:
    said = zenml.python(UPLOAD.format(root=str(root), directory=directory, umask=umask))
    # What ZenML writes to stderr may stand on the same line.
    found, _ = json.JSONDecoder().raw_decode(said.partition("RESULT ")[2])
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "here"
    (root / "package" / "deep").mkdir(parents=True)
    for number in range(50):
        (root / "package" / f"m{number}.py").write_text(f"x = {number}\n")
    (root / "package" / "deep" / "weights.bin").write_bytes(os.urandom(100_000))
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("run.sh")
    (root / ".dockerignore").write_text("*.log\n")
    (root / "a.log").write_text("ignored")
    return root


def copied(root: Path, place: Path) -> Path:
    """The same content elsewhere, written at another time by somebody with other habits."""
    before = os.umask(0o077)
    try:
        for directory, _, names in os.walk(root):
            target = place / Path(directory).relative_to(root)
            target.mkdir(parents=True)
            for name in reversed(names):
                source = Path(directory, name)
                if source.is_symlink():
                    (target / name).symlink_to(os.readlink(source))
                    continue
                shutil.copyfile(source, target / name)
                (target / name).chmod(0o700 if os.access(source, os.X_OK) else 0o600)
                os.utime(target / name, (1, 1))
    finally:
        os.umask(before)
    return place


def test_two_processes_upload_equal_contexts_once(zenml: "Zenml", tree: Path, tmp_path: Path) -> None:
    first = uploaded(zenml, tree, "two-processes", umask=0o022)
    elsewhere = copied(tree, tmp_path / "elsewhere")
    (elsewhere / "b.log").write_text("ignored too")
    second = uploaded(zenml, elsewhere, "two-processes", umask=0o077)

    assert first["packed"] == 1
    assert second["packed"] == 0, "what is there is not even packed"
    assert {**first, "packed": 0} == second, "the same file, not written again"
    assert first["there"] == [Path(first["path"]).name]
    with tarfile.open(first["path"]) as archive:
        names = archive.getnames()
        assert {"Dockerfile", "run.sh", "link", "package/deep/weights.bin"} <= set(names)
        assert not {".dockerignore", "a.log"} & set(names)

    (elsewhere / "run.sh").write_text("#!/bin/bash\n")
    third = uploaded(zenml, elsewhere, "two-processes", umask=0o022)
    assert third["packed"] == 1
    assert third["path"] != first["path"]
    assert len(third["there"]) == 2


def upload(context: BuildContext, directory: str, archive_type: ArchiveType = ArchiveType.TAR_GZ) -> Path:
    return Path(RemoteImageBuilder._upload_build_context(context, directory, archive_type))


def store(directory: str) -> list[str]:
    path = Path(Client().active_stack.artifact_store.path, directory)
    return sorted(found.name for found in path.iterdir()) if path.exists() else []


@pytest.mark.parametrize("archive_type", list(ArchiveType))
def test_every_kind_of_archive_has_a_name_of_its_own(zenml: "Zenml", tree: Path, archive_type: ArchiveType) -> None:
    context = CooperBuildContext(root=str(tree))
    path = upload(context, "kinds", archive_type)
    assert path.name == f"{context.digest().removeprefix('sha256:')}-1.{archive_type.value}"
    if archive_type == ArchiveType.ZIP:
        with zipfile.ZipFile(path) as archive:
            assert "run.sh" in archive.namelist()
    else:
        with tarfile.open(path) as archive:
            assert "run.sh" in archive.getnames()


def test_zenml_s_own_contexts_are_taken(zenml: "Zenml", tree: Path) -> None:
    ours, theirs = CooperBuildContext(root=str(tree)), BuildContext(root=str(tree))
    for context in (ours, theirs):
        context.add_file("FROM scratch", "Dockerfile")
    assert upload(ours, "both") == upload(theirs, "both")


def test_no_ignore_file_is_sent_that_the_builder_would_apply_again(zenml: "Zenml", tree: Path) -> None:
    (tree / "Dockerfile.dockerignore").write_text("*")
    (tree / "other.ignore").write_text("*.log")
    for ignore_file in (None, str(tree / "other.ignore")):
        context = CooperBuildContext(root=str(tree), dockerignore_file=ignore_file)
        context.add_file("FROM scratch", "Dockerfile")
        with tarfile.open(upload(context, "ignore-files")) as archive:
            assert "run.sh" in archive.getnames()
            assert not [name for name in archive.getnames() if name.endswith(".dockerignore")]


def test_a_failing_upload_leaves_nothing(zenml: "Zenml", tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = fileio.open

    class FullDisk:
        def __init__(self, file: IO[bytes]) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            self.file.write(data[:10])
            raise OSError("no space")

        def close(self) -> None:
            self.file.close()

    monkeypatch.setattr(fileio, "open", lambda path, mode="r": contextlib.closing(FullDisk(opened(path, mode))))
    with pytest.raises(Exception, match="no space"):
        upload(CooperBuildContext(root=str(tree)), "full")
    assert store("full") == []

    monkeypatch.undo()
    assert store("full") == []
    assert [upload(CooperBuildContext(root=str(tree)), "full").name] == store("full")


def test_an_interrupted_upload_leaves_nothing(zenml: "Zenml", tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CooperBuildContext, "pack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        upload(CooperBuildContext(root=str(tree)), "interrupted")
    assert store("interrupted") == []


def test_a_context_that_changes_meanwhile_is_not_kept(
    zenml: "Zenml", tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be found, under the name of what it was, by every later build of that."""
    pack = CooperBuildContext.pack

    def pack_after_a_change(self: CooperBuildContext, *arguments: Any) -> dict[str, Any]:
        (tree / "run.sh").write_text("changed")
        return pack(self, *arguments)

    monkeypatch.setattr(CooperBuildContext, "pack", pack_after_a_change)
    with pytest.raises(ContextError) as caught:
        upload(CooperBuildContext(root=str(tree)), "changed")
    assert caught.value.code == "context-changed"
    assert store("changed") == []


def test_what_was_uploaded_is_told(zenml: "Zenml", tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        upload(CooperBuildContext(root=str(tree)), "told")
        upload(CooperBuildContext(root=str(tree)), "told")
    first, second = (message for message in caplog.messages if "artifact store" in message or "Uploaded" in message)
    assert "kB" in first
    assert "already" in second
