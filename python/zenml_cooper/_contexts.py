"""Looking into build contexts without a build: what is in them, how big it is, why, and what could be left out."""

from typing import TYPE_CHECKING, Any, TypedDict

from zenml_cooper._build import ExtraFiles, PathLike, context_spec, dockerfile_spec

if TYPE_CHECKING:
    from zenml_cooper._core import ContextList


class Entry(TypedDict):
    """One file, directory, link or special file of a context."""

    path: str
    #: `file`, `dir`, `symlink`, `hardlink`, `fifo`, `char_device` or `block_device`.
    kind: str
    #: Bytes of a file; the further names of a hard linked file have 0.
    size: int
    #: Permission bits.
    mode: int
    #: Where a symbolic link points to, or the first name of a hard linked file.
    target: str | None


class Size(TypedDict):
    """How big a file or directory is, with all that is in it."""

    path: str
    directory: bool
    bytes: int
    files: int


class Node(Size):
    """A directory or file, with the largest of what is in it."""

    children: list["Node"]


class Summary(TypedDict):
    """A context in numbers; `excluded` counts a directory that was not looked into as one."""

    files: int
    dirs: int
    symlinks: int
    special: int
    bytes: int
    extra_files: int
    excluded: int


class PatternUse(TypedDict):
    """A pattern of the ignore file, and how many entries it excluded, counted as in `Summary`."""

    line: int
    pattern: str
    excluded: int


class Removed(TypedDict):
    """What a pattern keeps out, with all that is in excluded directories."""

    line: int
    pattern: str
    files: int
    bytes: int
    examples: list[str]
    #: Paths that it matches, whatever other patterns say.
    matches: int


class Report(TypedDict):
    """What is in a context. `docs/context.md` describes the fields."""

    root: str | None
    ignore_file: str | None
    summary: Summary
    tree: Node
    largest_files: list[Size]
    largest_directories: list[Size]
    patterns: list[PatternUse]
    removed: list[Removed] | None
    #: Each has a `code`, a `message`, and more that depends on the code.
    warnings: list[dict[str, Any]]
    notices: list[dict[str, Any]]


class PatternMatch(TypedDict):
    """A pattern that had a say about a path."""

    #: The ignore file; `None` for a pattern that is added to every ignore file.
    file: str | None
    line: int
    source: str
    pattern: str
    excludes: bool
    #: What it matches: the path, or a directory that it is in.
    matches: str


class Contents(TypedDict):
    """What is in a directory."""

    files: int
    bytes: int
    excluded_files: int
    excluded_bytes: int


class Why(TypedDict):
    """Whether a path is in a context, and why."""

    path: str
    included: bool
    #: In: `root`, `no-pattern`, `taken-back`, `holds-included` or `extra-file`. Out: `excluded`, `parent-excluded`,
    #: `ignore-file`, `socket`, `missing`, `outside`, `behind-link`, `unreadable` or `appeared`.
    reason: str
    message: str
    #: In order: the last one decides.
    patterns: list[PatternMatch]
    contents: Contents | None


class SuggestedLine(TypedDict):
    """A line for an ignore file, and what it would remove."""

    pattern: str
    category: str
    what: str
    files: int
    bytes: int
    #: The image may need it: only you know.
    optional: bool


class Suggestion(TypedDict):
    """What an ignore file could exclude besides."""

    ignore_file: str | None
    lines: list[SuggestedLine]
    files: int
    bytes: int
    #: Ready to be appended to the ignore file.
    text: str


def context_entries(
    root: PathLike | None = ".",
    *,
    dockerfile: PathLike | None = None,
    ignore_file: PathLike | None = None,
    extra_files: ExtraFiles | None = None,
) -> "ContextList":
    """What a build would be sent, in that order.

    Args:
        root: The directory that COPY reads; `None` for the extra files alone.
        dockerfile: The Dockerfile, if it is not `Dockerfile` in the root: it may have an ignore file of its own.
        ignore_file: The ignore file, in place of `<Dockerfile>.dockerignore` or `.dockerignore`.
        extra_files: Files that are in the context and not on disk: path to content, or to content and mode.

    Returns:
        The entries: it has a length, an index and an iterator, and makes an entry when it is asked for.

    """
    from zenml_cooper import _core

    return _core.context_list(context_spec(root, ignore_file, extra_files), dockerfile=dockerfile_spec(dockerfile))


def context_digest(
    root: PathLike | None = ".",
    *,
    dockerfile: PathLike | None = None,
    ignore_file: PathLike | None = None,
    extra_files: ExtraFiles | None = None,
    index: bool = True,
) -> str:
    """A digest of the content, `sha256:...`: equal for equal paths, exec bits and bytes.

    The arguments are those of `context_entries`. Without `index`, every file is read; with it, only those that changed
    since an earlier digest.
    """
    from zenml_cooper import _core

    spec = context_spec(root, ignore_file, extra_files)
    return str(_core.context_digest(spec, dockerfile=dockerfile_spec(dockerfile), index=index)["digest"])


def context_report(
    root: PathLike | None = ".",
    *,
    dockerfile: PathLike | None = None,
    ignore_file: PathLike | None = None,
    extra_files: ExtraFiles | None = None,
    excluded: bool = False,
) -> Report:
    """What is in a context, what takes up the space, what patterns excluded, what should perhaps not be there.

    Args:
        root: As for `context_entries`, like the next three.
        dockerfile: See there.
        ignore_file: See there.
        extra_files: See there.
        excluded: Look into excluded directories as well, and fill in `removed`. This may take much longer.

    Returns:
        The report.

    """
    from zenml_cooper import _core

    spec = context_spec(root, ignore_file, extra_files)
    return _core.context_report(spec, dockerfile=dockerfile_spec(dockerfile), excluded=excluded)


def context_why(
    path: PathLike,
    root: PathLike | None = ".",
    *,
    dockerfile: PathLike | None = None,
    ignore_file: PathLike | None = None,
    extra_files: ExtraFiles | None = None,
) -> Why:
    """Why a path is in a context, or is not.

    Args:
        path: The path, relative to the root.
        root: As for `context_entries`, like the next three.
        dockerfile: See there.
        ignore_file: See there.
        extra_files: See there.

    Returns:
        The answer, with every pattern that had a say.

    """
    from zenml_cooper import _core

    spec = context_spec(root, ignore_file, extra_files)
    (why,) = _core.context_why(spec, [path], dockerfile=dockerfile_spec(dockerfile))
    return why


def context_suggest(
    root: PathLike | None = ".",
    *,
    dockerfile: PathLike | None = None,
    ignore_file: PathLike | None = None,
    extra_files: ExtraFiles | None = None,
) -> Suggestion:
    """Lines for the ignore file: what could be left out, and how much that is.

    The arguments are those of `context_entries`. No line removes the Dockerfile, a file that says what to install, or
    `.zen`.
    """
    from zenml_cooper import _core

    return _core.context_suggest(context_spec(root, ignore_file, extra_files), dockerfile=dockerfile_spec(dockerfile))
