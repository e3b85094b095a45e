"""A drop-in for ZenML's build context: binary files, file modes, Moby's ignore rules, equal archives of equal files."""

import os
import posixpath
import stat
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from zenml.constants import REPOSITORY_DIRECTORY_NAME
from zenml.image_builders import BuildContext
from zenml.io import fileio
from zenml.logger import get_logger
from zenml.utils.archivable import ArchiveType

from zenml_cooper._text import sanitize
from zenml_cooper.progress import context_line

if TYPE_CHECKING:
    from zenml_cooper._contexts import Report, Suggestion, Why

logger = get_logger(__name__)

# The longest path that Linux takes; what is longer is content.
_PATH_MAX = 4096
_DEFAULT_MODE = 0o644
# The file systems of ZenML's artifact stores, known to it when the integration is loaded.
_OBJECT_STORES = ("s3://", "gs://", "az://", "abfs://", "adl://")


class ExtraFile(NamedTuple):
    """A file that is in the context and not in its root."""

    content: bytes
    mode: int


class CooperBuildContext(BuildContext):
    """The files that a build can see: those of a directory that no ignore file excludes, and extra ones.

    It is used as ZenML's own class is, and keeps its rules: extra files win over files of the directory and cannot be
    excluded, the ignore file itself stays out, `.zen` stays in. It differs where ZenML's class fails: extra files may
    be binary and keep their modes, ignore files mean what they mean to `docker build`, archives of equal contents are
    equal, and whatever a directory may hold (dangling links, sockets) can be archived.
    """

    def __init__(self, root: str | None = None, dockerignore_file: str | None = None) -> None:
        """Makes a context.

        Args:
            root: The directory; `None` for a context of extra files alone.
            dockerignore_file: The ignore file to use in place of the root's.
        """
        super().__init__(root=root, dockerignore_file=dockerignore_file)
        self._files: dict[str, ExtraFile] = {}
        # The user's Dockerfile, where it was added from a file: its own ignore file may stand next to it.
        self._dockerfile: str | None = None

    # What is in it

    @property
    def dockerignore_file(self) -> str | None:
        """The ignore file in use: the one given, else `<Dockerfile>.dockerignore`, else `.dockerignore` in the root."""
        if self._dockerignore_file:
            return str(self._dockerignore_file)
        if not self._root:
            return None
        candidates = [os.path.join(self._root, ".dockerignore")]
        if self._dockerfile:
            candidates.insert(0, f"{self._dockerfile}.dockerignore")
        return next(filter(os.path.isfile, candidates), None)

    def add_file(self, source: "str | bytes | os.PathLike[str]", destination: str) -> None:
        """Adds a file.

        Args:
            source: A path (local, or of a file system that ZenML knows), or the content. A text that names no existing
                file is content.
            destination: The path in the context.

        Raises:
            IsADirectoryError: If the source is a directory.
            FileNotFoundError: If the source is a path object and there is no such file.
            ValueError: If the destination is not within the context.
        """
        path = _context_path(destination)
        content_of = _existing_path(source)
        if content_of is None:
            assert isinstance(source, str | bytes)
            content = source.encode("utf-8", "surrogateescape") if isinstance(source, str) else source
            self._files[path] = ExtraFile(content, _DEFAULT_MODE)
        elif fileio.isdir(content_of):
            raise IsADirectoryError(f"`{content_of}` is a directory; add it with `add_directory`.")
        else:
            self._files[path] = _read(content_of)
        if path == "Dockerfile":
            self._dockerfile = content_of

    def add_directory(self, source: str, destination: str) -> None:
        """Adds all files below a directory; links to files are followed, directories without files are left out.

        Args:
            source: Path of the directory, local or of a file system that ZenML knows.
            destination: The path in the context.

        Raises:
            ValueError: If the source is no directory, or the destination is not within the context.
        """
        source = os.fspath(source)
        if not fileio.isdir(source):
            raise ValueError(
                f"Can't add directory {source} to the build context as it does not exist or is not a directory."
            )
        for path, relative in _walk(source):
            if _is_local(path) and not os.path.isfile(path):
                logger.warning("Leaving `%s` out of the build context: it is no file, or a link to nothing.", path)
                continue
            self._files[_context_path(posixpath.join(destination, relative))] = _read(path)

    def get_files(self) -> dict[str, str]:
        """The files of the directory that are not excluded: path in the context to path on this machine.

        Extra files are not among them. Directories are left out.
        """
        if not self._root:
            return {}
        entries = _core().context_list({**self.spec(), "extra_files": []})
        return {
            os.fsdecode(entry["path"]): os.path.join(self._root, os.fsdecode(entry["path"]))
            for entry in entries
            if entry["kind"] != "dir"
        }

    def get_extra_files(self) -> dict[str, Any]:
        """The extra files: path in the context to content, a `str` where it is UTF-8 text, else `bytes`."""
        return {path: _as_text(file.content) for path, file in self._files.items()}

    def spec(self) -> dict[str, Any]:
        """This context as the native module takes it."""
        ignore_file = self.dockerignore_file
        if ignore_file is None and self._root and self._dockerfile is None:
            # A generated Dockerfile is not the root's own one: what is ignored for that one is needed here.
            own = os.path.join(self._root, "Dockerfile.dockerignore")
            ignore_file = os.devnull if os.path.isfile(own) else None
        return {
            "root": os.path.abspath(self._root) if self._root else None,
            "ignore_file": os.path.abspath(ignore_file) if ignore_file else None,
            "extra_patterns": [f"!/{REPOSITORY_DIRECTORY_NAME}"],
            "extra_files": [
                {"path": path, "content": file.content, "mode": file.mode} for path, file in self._files.items()
            ],
            "omit_ignore_file": True,
        }

    # What can be done with it

    def write_archive(self, output_file: IO[bytes], archive_type: ArchiveType = ArchiveType.TAR_GZ) -> None:
        """Writes the context as an archive and rewinds the file.

        Equal contexts make equal archives. Fails with `ContextError` where a file cannot be read or changes meanwhile.

        Args:
            output_file: A file opened for writing bytes.
            archive_type: The kind of archive.
        """
        self.pack(output_file, archive_type)
        output_file.seek(0)

    def pack(self, output: IO[bytes], archive_type: ArchiveType) -> dict[str, Any]:
        """Writes the context as an archive to something that need not be a file on a disk: a pipe, an upload.

        Returns:
            What was packed: `files`, `entries`, `bytes_in`, `bytes_out`.
        """
        packed = dict(_core().context_pack(self.spec(), output, ArchiveType(archive_type).value, digest=False))
        log_context(packed["context"])
        return packed

    def digest(self) -> str:
        """A digest of the content, `sha256:...`: equal for equal paths, exec bits and bytes, whatever the times.

        Files that did not change since an earlier digest are not read: their hashes are kept in the user's cache.
        """
        return str(_core().context_digest(self.spec())["digest"])

    def report(self, *, excluded: bool = False) -> "Report":
        """What is in the context, what takes up the space, what patterns excluded, what should perhaps not be there.

        Args:
            excluded: Look into excluded directories as well, and fill in `removed`. This may take much longer.
        """
        report: Report = _core().context_report(self.spec(), excluded=excluded)
        return report

    def why(self, path: "str | os.PathLike[str]") -> "Why":
        """Why a path, relative to the root, is in the context or is not, with every pattern that had a say."""
        (why,) = _core().context_why(self.spec(), [path])
        answer: Why = why
        return answer

    def suggest(self) -> "Suggestion":
        """Lines for the ignore file: what could be left out of this context, and how much that is."""
        suggestion: Suggestion = _core().context_suggest(self.spec())
        return suggestion


def log_context(overview: Mapping[str, Any]) -> None:
    """Logs a context in one line, and what its user should look at."""
    logger.info(context_line(overview))
    for warning in overview["warnings"]:
        logger.warning(sanitize(warning["message"]))
    if overview["warnings"]:
        logger.info(overview["hint"])


def _core() -> Any:
    from zenml_cooper import _core as native

    return native


def _existing_path(source: "str | bytes | os.PathLike[str]") -> str | None:
    """The path that a source is, or `None` if it is content."""
    if isinstance(source, bytes):
        return None
    if isinstance(source, os.PathLike):
        path = os.fspath(source)
        if not fileio.exists(path):
            raise FileNotFoundError(f"There is no file `{path}` to add to the build context.")
        return path
    # Asking a file system about these would raise an error.
    if not source or len(source) > _PATH_MAX or "\0" in source or "\n" in source:
        return None
    try:
        return source if fileio.exists(source) else None
    except OSError:
        # A part of it is longer than any file name, for one.
        return None
    except ValueError:
        # No file system for what stands before `://`. A requirement may look like that (`git+https` does not,
        # `https://host/x.whl` does), but the address of an object is never meant as content.
        if source.startswith(_OBJECT_STORES):
            raise
        return None


def _is_local(path: str) -> bool:
    return "://" not in path


def _read(path: str) -> ExtraFile:
    with fileio.open(path, "rb") as file:
        content = file.read()
    mode = stat.S_IMODE(os.stat(path).st_mode) if _is_local(path) else _DEFAULT_MODE
    return ExtraFile(content, mode)


def _walk(source: str) -> Iterator[tuple[str, str]]:
    """All files below a directory: the path, and the path relative to the directory."""
    base = source.rstrip("/") or "/"
    for directory, _, names in fileio.walk(source):
        directory = fileio.convert_to_str(directory)
        below = directory[len(base) :].strip("/")
        for name in sorted(map(fileio.convert_to_str, names)):
            yield posixpath.join(directory, name), posixpath.join(below, name)


def _context_path(destination: str) -> str:
    path = posixpath.normpath(os.fspath(destination).lstrip("/"))
    if path in ("", ".", "..") or path.startswith("../"):
        raise ValueError(f"`{destination}` is not a path within the build context.")
    return path


def _as_text(content: bytes) -> str | bytes:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content
