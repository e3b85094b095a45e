"""The build context: a drop-in for ZenML's own, without its defects."""

import copy
import io
import os
import pickle
import socket
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from zenml.image_builders import BuildContext
from zenml.io import fileio
from zenml.utils.archivable import ArchiveType

from zenml_cooper import CooperBuildContext
from zenml_cooper.exceptions import ContextError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "pkg/empty").mkdir(parents=True)
    (folder / "pkg/code.py").write_text("print()\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "drop.log").write_text("x")
    (folder / ".zen").mkdir()
    (folder / ".zen/config.yaml").write_text("a: b")
    (folder / ".dockerignore").write_text("*.log\n.zen\n")
    return folder


def archive(context: BuildContext, kind: ArchiveType = ArchiveType.TAR) -> io.BytesIO:
    with tempfile.TemporaryFile() as file:
        context.write_archive(file, kind)
        assert file.tell() == 0, "the file is rewound"
        return io.BytesIO(file.read())


def members(context: BuildContext) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=archive(context)) as tar:
        return {entry.name: entry for entry in tar.getmembers()}


def read(context: BuildContext, path: str) -> bytes:
    with tarfile.open(fileobj=archive(context)) as tar:
        file = tar.extractfile(path)
        assert file is not None
        return file.read()


# Extra files


@pytest.mark.parametrize(
    "content",
    [
        "",
        "one line",
        "two\nlines",
        "nul\0in it",
        "x" * 100_000,
        "a/" * 1000,
        "n" * 300,
        "git+https://host/repository.git",
        "https://host/package-1.0-py3-none-any.whl",
        "lone surrogate \udcff",
    ],
)
def test_content_is_taken_for_content(content: str) -> None:
    context = CooperBuildContext()
    context.add_file(content, "file")
    assert read(context, "file") == content.encode("utf-8", "surrogateescape")


def test_files_keep_bytes_and_modes(tmp_path: Path) -> None:
    source = tmp_path / "tool"
    source.write_bytes(bytes(range(256)) + b"\r\n")
    source.chmod(0o755)
    context = CooperBuildContext()
    context.add_file(str(source), "bin/tool")
    context.add_file(source, "bin/other")
    context.add_file(b"\xff\x00", "/raw")
    for path in ("bin/tool", "bin/other"):
        assert read(context, path) == source.read_bytes()
        assert members(context)[path].mode == 0o755
    assert read(context, "raw") == b"\xff\x00"
    assert context.get_extra_files() == {
        "bin/tool": source.read_bytes(),
        "bin/other": source.read_bytes(),
        "raw": b"\xff\x00",
    }


def test_text_comes_back_as_text() -> None:
    context = CooperBuildContext()
    context.add_file("FROM scratch\n# ü", "Dockerfile")
    assert context.get_extra_files() == {"Dockerfile": "FROM scratch\n# ü"}


def test_a_directory_is_added_with_all_it_holds(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/data.bin").write_bytes(b"\xff")
    (source / "run.sh").write_text("")
    (source / "run.sh").chmod(0o700)
    (source / "link").symlink_to("run.sh")
    (source / "dangling").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.getcwd()
        os.chdir(source)
        try:
            listener.bind("socket")
        finally:
            os.chdir(before)
        context = CooperBuildContext()
        context.add_directory(f"{source}/", "to/here")
    assert set(context.get_extra_files()) == {"to/here/sub/data.bin", "to/here/run.sh", "to/here/link"}
    # Archives know executable or not, so that they do not depend on the umask of a checkout.
    assert members(context)["to/here/run.sh"].mode == 0o755
    assert members(context)["to/here/sub/data.bin"].mode == 0o644


@pytest.mark.parametrize("destination", ["../x", "", ".", "a/../../x"])
def test_nothing_leaves_the_context(destination: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a path within"):
        CooperBuildContext().add_file("x", destination)


def test_wrong_sources_are_refused(tmp_path: Path) -> None:
    context = CooperBuildContext()
    with pytest.raises(IsADirectoryError, match="add_directory"):
        context.add_file(str(tmp_path), "x")
    with pytest.raises(FileNotFoundError, match="missing"):
        context.add_file(tmp_path / "missing", "x")
    with pytest.raises(ValueError, match="not a directory"):
        context.add_directory(str(tmp_path / "missing"), "x")
    with pytest.raises(ValueError, match="s3://"):
        context.add_file("s3://bucket/object-that-no-integration-can-read", "x")
    assert context.get_extra_files() == {}


def test_sources_of_other_file_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    store = {"s3://bucket/dir/a.bin": b"\xff\x00", "s3://bucket/dir/sub/b.txt": b"text"}
    monkeypatch.setattr(fileio, "exists", lambda path: str(path) in store)
    monkeypatch.setattr(fileio, "isdir", lambda path: str(path).rstrip("/") == "s3://bucket/dir")
    monkeypatch.setattr(fileio, "open", lambda path, mode="r": io.BytesIO(store[path]))
    monkeypatch.setattr(
        fileio, "walk", lambda path: [("s3://bucket/dir", ["sub"], ["a.bin"]), ("s3://bucket/dir/sub", [], ["b.txt"])]
    )
    context = CooperBuildContext()
    context.add_file("s3://bucket/dir/a.bin", "one.bin")
    context.add_directory("s3://bucket/dir/", "all")
    assert context.get_extra_files() == {"one.bin": b"\xff\x00", "all/a.bin": b"\xff\x00", "all/sub/b.txt": "text"}


# Walked files


def test_the_rules_of_zenml_are_kept(root: Path) -> None:
    context = CooperBuildContext(root=str(root))
    context.add_file("from memory", "pkg/code.py")
    context.add_file("cannot be excluded", "extra.log")
    found = members(context)
    assert {"pkg/code.py", "run.sh", "extra.log", ".zen/config.yaml"} <= found.keys()
    assert not {"drop.log", ".dockerignore"} & found.keys()
    assert read(context, "pkg/code.py") == b"from memory"
    assert found["run.sh"].mode == 0o755
    assert "pkg/empty" in found


def test_files_of_the_root(root: Path) -> None:
    context = CooperBuildContext(root=str(root))
    context.add_file("x", "extra")
    stock = BuildContext(root=str(root)).get_files()
    stock.pop(".dockerignore", None)  # older versions of ZenML leave it in
    assert context.get_files() == {path: where for path, where in stock.items() if not os.path.isdir(where)}
    assert CooperBuildContext().get_files() == {}


def test_which_ignore_file_counts(root: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_text("run.sh\n")
    own = root / "own.Dockerfile"
    own.write_text("FROM scratch")

    context = CooperBuildContext(root=str(root), dockerignore_file=str(given))
    assert context.dockerignore_file == str(given)
    assert "run.sh" not in members(context)
    assert "drop.log" in members(context)

    context = CooperBuildContext(root=str(root))
    context.add_file(str(own), "Dockerfile")
    assert context.dockerignore_file == str(root / ".dockerignore")
    (root / "own.Dockerfile.dockerignore").write_text("pkg\n")
    assert context.dockerignore_file == str(root / "own.Dockerfile.dockerignore")
    assert "pkg/code.py" not in members(context)

    # A Dockerfile that ZenML generates is not the Dockerfile of the root.
    (root / ".dockerignore").unlink()
    (root / "Dockerfile.dockerignore").write_text("*\n")
    context = CooperBuildContext(root=str(root))
    context.add_file("FROM python", "Dockerfile")
    assert "pkg/code.py" in members(context)

    assert CooperBuildContext().dockerignore_file is None


def test_a_missing_ignore_file_is_an_error(root: Path) -> None:
    context = CooperBuildContext(root=str(root), dockerignore_file=str(root / "typo"))
    with pytest.raises(ContextError, match="typo") as caught:
        archive(context)
    assert caught.value.code == "ignore-file"


def test_a_malformed_pattern_is_an_error_with_its_place(root: Path) -> None:
    (root / ".dockerignore").write_text("fine\na[1.txt\n")
    with pytest.raises(ContextError) as caught:
        archive(CooperBuildContext(root=str(root)))
    assert caught.value.code == "ignore-pattern"
    assert ".dockerignore:2" in str(caught.value)


def test_whatever_a_directory_holds_can_be_archived(root: Path) -> None:
    (root / "dangling").symlink_to("/nowhere")
    os.link(root / "run.sh", root / "hard")
    (root / ("long-" * 40 + "name")).mkdir()
    (root / ("long-" * 40 + "name") / ("n" * 200)).write_text("deep")
    (root / os.fsdecode(b"bytes-\xff")).write_text("x")
    before = os.getcwd()
    os.chdir(root)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
            found = members(CooperBuildContext(root=str(root)))
    finally:
        os.chdir(before)
    assert found["dangling"].issym()
    assert found["dangling"].linkname == "/nowhere"
    # Of two names of one file, the first is the file.
    assert found["run.sh"].islnk()
    assert found["run.sh"].linkname == "hard"
    assert "long-" * 40 + "name/" + "n" * 200 in found
    assert os.fsdecode(b"bytes-\xff") in found
    assert "socket" not in found
    for kind in ArchiveType:
        archive(CooperBuildContext(root=str(root)), kind).close()


# Archives


@pytest.mark.parametrize("kind", list(ArchiveType))
def test_every_kind_of_archive_can_be_read(kind: ArchiveType, root: Path) -> None:
    context = CooperBuildContext(root=str(root))
    context.add_file(b"\xff", "extra.bin")
    file = archive(context, kind)
    if kind == ArchiveType.ZIP:
        with zipfile.ZipFile(file) as zipped:
            assert zipped.testzip() is None
            assert zipped.read("extra.bin") == b"\xff"
            assert zipped.read("pkg/code.py") == b"print()\n"
            assert stat.S_IMODE(zipped.getinfo("run.sh").external_attr >> 16) == 0o755
            assert ".dockerignore" not in zipped.namelist()
    else:
        with tarfile.open(fileobj=file, mode="r:gz" if kind == ArchiveType.TAR_GZ else "r:") as tar:
            assert tar.extractfile("extra.bin").read() == b"\xff"  # type: ignore[union-attr]
            assert tar.getmember("run.sh").mode == 0o755


@pytest.mark.parametrize("kind", list(ArchiveType))
def test_equal_contexts_make_equal_archives(kind: ArchiveType, root: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    os.rename(root, copied)
    root.mkdir()
    # In another order, at another time.
    for path in sorted(copied.rglob("*"), reverse=True):
        target = root / path.relative_to(copied)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            target.chmod(path.stat().st_mode)
            os.utime(target, (1, 1))
    contexts = [CooperBuildContext(root=str(folder)) for folder in (root, copied)]
    contexts[0].add_file("1", "a")
    contexts[0].add_file("2", "b")
    contexts[1].add_file("2", "b")
    contexts[1].add_file("1", "a")
    assert archive(contexts[0], kind).read() == archive(contexts[1], kind).read()
    assert contexts[0].digest() == contexts[1].digest()
    contexts[1].add_file("3", "a")
    assert archive(contexts[0], kind).read() != archive(contexts[1], kind).read()
    assert contexts[0].digest() != contexts[1].digest()


def test_an_archive_goes_into_memory_too(root: Path) -> None:
    buffer = io.BytesIO()
    CooperBuildContext(root=str(root)).write_archive(buffer, ArchiveType.TAR_GZ)
    assert buffer.tell() == 0
    with tarfile.open(fileobj=buffer) as tar:
        assert "run.sh" in tar.getnames()


def test_what_zenml_uploads_has_a_stable_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ZenML skips the upload of a context that is there already; with its own class it never is."""
    from zenml.client import Client
    from zenml.image_builders import BaseImageBuilder

    class Stack:
        class artifact_store:
            path = str(root.parent / "store")

    monkeypatch.setattr(Client, "active_stack", Stack)

    def upload() -> str:
        return BaseImageBuilder._upload_build_context(CooperBuildContext(root=str(root)), "contexts")

    first = upload()
    os.utime(root / "run.sh", (1, 1))
    assert upload() == first


@pytest.mark.parametrize(("size", "ignored", "warned"), [(51, False, True), (51, True, True), (49, False, False)])
def test_a_large_context_is_worth_a_warning(
    size: int, ignored: bool, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.setattr("zenml_cooper.context.logger.propagate", True)
    root = tmp_path / "large"
    root.mkdir()
    with (root / "data").open("wb") as data:
        data.truncate(size * 2**20)
    if ignored:
        (root / ".dockerignore").write_text("")
    archive(CooperBuildContext(root=str(root))).close()
    assert "1 file" in caplog.text
    assert "largest: data" in caplog.text
    assert ("most of it in `data`" in caplog.text) == warned
    assert ("cooper context suggest" in caplog.text) == warned


def test_credentials_are_warned_of_by_name_only(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zenml_cooper.context.logger.propagate", True)
    (root / ".env").write_text("TOKEN=the-secret-itself\n")
    archive(CooperBuildContext(root=str(root))).close()
    assert "`.env` is in the build context and looks like environment variables with values" in caplog.text
    assert "the-secret-itself" not in caplog.text


def test_why_and_suggestions_know_zenmls_rules(root: Path) -> None:
    (root / ".dockerignore").write_text(".zen\n")
    (root / ".zen").mkdir(exist_ok=True)
    (root / ".zen" / "config.yaml").write_text("x")
    (root / ".env").write_text("A=1\n")
    context = CooperBuildContext(root=str(root))
    context.add_file("FROM scratch", "Dockerfile")
    assert context.why(".zen/config.yaml")["patterns"][-1]["file"] is None
    assert context.why(".zen/config.yaml")["reason"] == "taken-back"
    assert context.why("Dockerfile")["reason"] == "extra-file"
    assert context.why(".dockerignore")["reason"] == "ignore-file"
    assert [line["pattern"] for line in context.suggest()["lines"]] == [".env"]
    assert context.report(excluded=True)["removed"] is not None


def test_the_report_says_what_is_in_it(root: Path) -> None:
    (root / "big.bin").write_bytes(b"x" * 10_000)
    report = CooperBuildContext(root=str(root)).report()
    assert report["root"] == str(root)
    assert report["ignore_file"] == str(root / ".dockerignore")
    assert report["largest_files"][0]["path"] == "big.bin"


COPIES: list[Callable[[CooperBuildContext], CooperBuildContext]] = [
    copy.copy,
    copy.deepcopy,
    lambda context: pickle.loads(pickle.dumps(context)),
]


@pytest.mark.parametrize("make_copy", COPIES)
def test_it_can_be_copied(make_copy: Callable[[CooperBuildContext], CooperBuildContext], root: Path) -> None:
    context = CooperBuildContext(root=str(root))
    context.add_file(b"\xff", "a")
    assert make_copy(context).digest() == context.digest()
