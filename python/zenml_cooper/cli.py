"""The command `cooper`. Results go to stdout, everything else to stderr."""

import argparse
import difflib
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from zenml_cooper._text import count, sanitize, size

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

# Errors in what was typed, found by the native module.
_USAGE_CODES = frozenset(
    {"invalid-reference", "invalid-digest", "invalid-platform", "unknown-option", "invalid-option"}
)
_PACK_TYPES = ("tar", "tar.gz", "tar.zst", "zip")
_PACK_SUFFIXES = {
    ".tar": "tar",
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
    ".tar.zst": "tar.zst",
    ".tzst": "tar.zst",
    ".zip": "zip",
}
# How many of the largest files `context du` names.
_LARGEST = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        0 done, 1 failed, 2 wrong usage, 130 interrupted.

    """
    # A terminated build is cleaned up like an interrupted one.
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(arguments)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(arguments: Sequence[str] | None) -> int:
    from zenml_cooper.exceptions import CooperCancelled, CooperError

    try:
        parsed = _parser().parse_args(arguments)
        code: int = parsed.run(parsed)
        sys.stdout.flush()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    except (KeyboardInterrupt, CooperCancelled):
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`cooper context ls | head`). Python must not try to write the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except CooperError as error:
        _say(f"error: {error}")
        return USAGE if error.code in _USAGE_CODES else FAILED
    except OSError as error:
        _say(f"error: {error}")
        return FAILED
    return code


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Parser(argparse.ArgumentParser):
    """Whole option names only, and a suggestion for one that is not there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", _Help)
        super().__init__(*args, **kwargs)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses; an argument that means nothing is told by the command that got it."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            getattr(parsed, "parser", self).unknown(unknown[0])
        return parsed

    def unknown(self, argument: str) -> NoReturn:
        """Fails for an argument that means nothing."""
        known = [option for action in self._actions for option in action.option_strings]
        close = difflib.get_close_matches(argument.partition("=")[0], known, n=1) if argument.startswith("-") else []
        hint = f"\nhint: did you mean `{close[0]}`?" if close else ""
        self.error(f"unknown argument `{argument}`{hint}")

    def error(self, message: str) -> NoReturn:
        """Fails with a usage error."""
        _say(f"error: {message}\n{self.format_usage().rstrip()}\n`{self.prog} --help` says more")
        raise SystemExit(USAGE)


class _Help(argparse.HelpFormatter):
    """Room for the longer options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # `-f, --file FILE` in place of `-f FILE, --file FILE`.
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        shown = action.metavar or (
            f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper()
        )
        return f"{', '.join(action.option_strings)} {shown}"


def _parser() -> _Parser:
    parser = _Parser(prog="cooper", description="Build container images, and look into build contexts.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    parser.set_defaults(run=lambda _: parser.error("a command is missing"), parser=parser)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    _add_build(commands)
    _add_context(commands)
    _add_doctor(commands)
    _add_cache(commands)
    _add_zenml(commands)
    return parser


class _Version(argparse.Action):
    def __call__(self, *_: object) -> None:
        from zenml_cooper import __version__

        print(f"cooper {__version__}")
        raise SystemExit(DONE)


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int] | None, text: str) -> _Parser:
    parser: _Parser = commands.add_parser(name, help=text[0].lower() + text[1:].rstrip("."), description=text)
    parser.set_defaults(run=run or (lambda _: parser.error("a command is missing")), parser=parser)
    return parser


# cooper build


def _add_build(commands: Any) -> None:
    parser = _command(commands, "build", _build, "Build an image from a Dockerfile and a context.")
    parser.usage = "cooper build [OPTIONS] [CONTEXT]"
    add = parser.add_argument
    add("context", metavar="CONTEXT", nargs="?", default=".", help="directory that COPY reads (default: .)")
    add("-f", "--file", metavar="FILE", help="Dockerfile; - reads stdin (default: CONTEXT/Dockerfile)")
    add("-t", "--tag", metavar="NAME", action="append", default=[], help="name of the image; repeatable")
    add("--push", action="store_true", help="push every tag")
    add("--metadata-file", metavar="FILE", help="write the result as JSON")
    add("--progress", metavar="MODE", choices=("auto", "tty", "plain", "json", "quiet"), default="auto",
        help="auto, tty, plain, json or quiet; on stderr")  # fmt: skip

    where = parser.add_argument_group("where to build")
    add = where.add_argument
    add("--engine", metavar="ENGINE", choices=("auto", "native", "docker", "buildkit"), default="auto",
        help="auto or docker (default: auto)")  # fmt: skip
    add(
        "--endpoint", metavar="URL", action="append", default=[], help="address of the daemon (default: as docker does)"
    )
    add("--output", metavar="SPEC", help="type=docker: into the daemon, which is what happens anyway")
    add("--compression", metavar="KIND", help="not with the docker engine")

    how = parser.add_argument_group("how to build")
    add = how.add_argument
    for option, metavar, text in _REPEATED:
        add(f"--{option}", metavar=metavar, action="append", help=f"{text}; repeatable")
    for option, metavar, text in _SINGLE:
        add(f"--{option}", metavar=metavar, help=text)
    add("--no-cache", action="store_true", default=None, help="run every step again")
    add("--pull", action="store_true", default=None, help="look for newer base images")
    add("--ignorefile", metavar="FILE", help="in place of FILE.dockerignore and .dockerignore")


_REPEATED = (
    ("build-arg", "K=V", "build argument; K alone takes the value from the environment"),
    ("label", "K=V", "label of the image"),
    ("secret", "SPEC", "for RUN --mount=type=secret: id=ID,src=FILE or id=ID,env=VAR"),
    ("ssh", "SPEC", "for RUN --mount=type=ssh: default, ID=SOCKET or ID=KEY"),
    ("build-context", "NAME=SOURCE", "another context, for COPY --from=NAME"),
    ("cache-from", "REF", "take cached steps from there"),
    ("cache-to", "REF", "keep the cache there"),
    ("add-host", "HOST:ADDRESS", "another host name for RUN"),
    ("ulimit", "NAME=SOFT[:HARD]", "limit for RUN"),
)
_SINGLE = (
    ("target", "STAGE", "the stage to build"),
    ("platform", "OS/ARCH[/VARIANT]", "platform of the image"),
    ("network", "MODE", "network of RUN: host, none or default"),
    ("shm-size", "BYTES", "size of /dev/shm for RUN; 64m is fine too"),
    ("source-date-epoch", "N", "Unix time that replaces newer times in the image"),
)


def _build(arguments: argparse.Namespace) -> int:
    from zenml_cooper import _build as building

    _refuse(arguments)
    metadata = arguments.metadata_file
    if metadata and not os.access(Path(metadata).absolute().parent, os.W_OK):
        arguments.parser.error(f"--metadata-file: the directory of `{metadata}` cannot be written to")
    if arguments.push and not arguments.tag:
        arguments.parser.error("--push needs a name; give one with --tag")
    text = sys.stdin.read() if arguments.file == "-" else None
    given = vars(arguments)
    names = [option for option, _, _ in (*_REPEATED, *_SINGLE)] + ["no-cache", "pull"]
    request = building.make_request(
        context=building.context_spec(arguments.context, arguments.ignorefile),
        dockerfile=building.dockerfile_spec(None if text is not None else arguments.file, text),
        tags=arguments.tag,
        push=arguments.push,
        options={name: given[name.replace("-", "_")] for name in names},
        more_options=None,
        engine=building.engine_spec(arguments.engine, next(iter(arguments.endpoint), None)),
    )
    outcome = building.run(request, progress=arguments.progress)
    if metadata:
        totals = outcome["totals"]
        cache = {"cached_steps": totals["cached_steps"], "total_steps": totals["total_steps"]}
        write_atomically(metadata, json.dumps({**outcome, "cache": cache}, indent=2) + "\n")
    print(outcome["image"])
    return DONE


def _refuse(arguments: argparse.Namespace) -> None:
    """Fails for what this version's engine cannot do."""
    fail = arguments.parser.error
    if arguments.engine not in ("auto", "docker"):
        fail(f"--engine {arguments.engine}: this version has the docker engine only")
    if arguments.compression:
        fail("--compression: not with the docker engine; the daemon compresses layers as it likes")
    if len(arguments.endpoint) > 1:
        fail("--endpoint: the docker engine builds with one daemon")
    if arguments.output is not None and arguments.output.strip() != "type=docker":
        fail(f"--output {arguments.output}: not with the docker engine; it writes to the daemon, and --push pushes")


def write_atomically(path: str, text: str) -> None:
    """Writes a file that is there as a whole or not at all."""
    # A link is followed, so that what it points to is replaced; a device or pipe is no file to replace.
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        target.write_text(text, encoding="utf-8")
        return
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".cooper-")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        # As a file that is simply created, and not only for this user.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    except BaseException:
        temporary.unlink()
        raise


# cooper context


def _add_context(commands: Any) -> None:
    text = "Look into a build context: what a build would be sent."
    sub = _command(commands, "context", None, text).add_subparsers(metavar="COMMAND", title="commands")
    for name, run, text in (
        ("ls", _context_ls, "List the files, in the order in which they are sent."),
        ("du", _context_du, "Show what takes up the space, and what should perhaps not be there."),
        ("digest", _context_digest, "Print a digest of the content: equal for equal paths, modes and bytes."),
        ("pack", _context_pack, "Write the context as an archive; equal contexts make equal archives."),
    ):
        parser = _command(sub, name, run, text)
        parser.add_argument("dir", metavar="DIR", nargs="?", default=".", help="the context (default: .)")
        parser.add_argument("--ignorefile", metavar="FILE", help="in place of .dockerignore")
        if name == "pack":
            parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the archive; - is stdout")
            parser.add_argument("--type", metavar="TYPE", choices=_PACK_TYPES,
                                help=f"{', '.join(_PACK_TYPES)} (default: by the name of FILE, else tar)")  # fmt: skip
        else:
            parser.add_argument("--json", action="store_true", help="print JSON")


def _spec(arguments: argparse.Namespace) -> dict[str, Any]:
    from zenml_cooper import _build as building

    return building.context_spec(arguments.dir, arguments.ignorefile)


def _context_ls(arguments: argparse.Namespace) -> int:
    from zenml_cooper import _core

    entries = _core.context_list(_spec(arguments))
    if arguments.json:
        print(json.dumps(entries, indent=2))
        return DONE
    for entry in entries:
        suffix = "/" if entry["kind"] == "dir" else f" -> {entry['target']}" if entry["kind"] == "symlink" else ""
        # Names are bytes; a terminal decodes them as it likes.
        sys.stdout.buffer.write(os.fsencode(entry["path"] + suffix) + b"\n")
    return DONE


def _context_du(arguments: argparse.Namespace) -> int:
    from zenml_cooper import _core

    report = _core.context_report(_spec(arguments))
    if arguments.json:
        print(json.dumps(report, indent=2))
        return DONE
    summary = report["summary"]
    ignore_file = (
        f"{summary['excluded']:,} excluded by {report['ignore_file']}" if report["ignore_file"] else "no ignore file"
    )
    print(f"{size(summary['bytes'])} in {count(summary['files'], 'file')}, {ignore_file}")
    for title, sizes in (("directories", report["largest_directories"]), ("files", report["largest_files"])):
        if sizes:
            print(f"\nlargest {title}:")
        for entry in sizes[:_LARGEST]:
            files = f"  ({count(entry['files'], 'file')})" if title == "directories" else ""
            print(f"{size(entry['bytes']):>9}  {sanitize(entry['path'])}{files}")
    idle = [
        pattern for pattern in report["patterns"] if not pattern["excluded"] and not pattern["pattern"].startswith("!")
    ]
    if idle:
        print(
            "\npatterns that exclude nothing: "
            + ", ".join(f"{sanitize(p['pattern'])} (line {p['line']})" for p in idle)
        )
    for remark in (*report["warnings"], *report["notices"]):
        _say(f"warning: {sanitize(remark['message'])}")
    return DONE


def _context_digest(arguments: argparse.Namespace) -> int:
    from zenml_cooper import _core

    digest = _core.context_digest(_spec(arguments))
    print(json.dumps({"digest": digest}) if arguments.json else digest)
    return DONE


def _context_pack(arguments: argparse.Namespace) -> int:
    from zenml_cooper import _core

    output = arguments.output
    kind = arguments.type or next((kind for suffix, kind in _PACK_SUFFIXES.items() if output.endswith(suffix)), "tar")
    if output == "-":
        if sys.stdout.isatty():
            arguments.parser.error("an archive is nothing for a terminal; give -o FILE, or redirect stdout")
        packed = _core.context_pack(_spec(arguments), sys.stdout.buffer, kind)
        sys.stdout.buffer.flush()
    else:
        packed = _core.context_pack(_spec(arguments), output, kind)
    for notice in packed["notices"]:
        _say(f"note: {sanitize(notice['message'])}")
    _say(f"packed {count(packed['files'], 'file')}, {size(packed['bytes_in'])} into {size(packed['bytes_out'])}")
    return DONE


# cooper doctor


def _add_doctor(commands: Any) -> None:
    parser = _command(commands, "doctor", _doctor, "Say what works here, what does not, and what to do about it.")
    parser.add_argument("--engine", metavar="ENGINE", choices=("auto", "native", "docker", "buildkit"), default="auto",
                        help="auto or docker (default: auto)")  # fmt: skip
    parser.add_argument("--endpoint", metavar="URL", help="address of the daemon (default: as docker does)")
    parser.add_argument("--registry", metavar="REF", help="try this registry, or that of this image name, too")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _doctor(arguments: argparse.Namespace) -> int:
    from zenml_cooper import _build as building
    from zenml_cooper import _core

    if arguments.engine not in ("auto", "docker"):
        arguments.parser.error(f"--engine {arguments.engine}: this version has the docker engine only")
    engine = building.engine_spec(arguments.engine, arguments.endpoint)
    registry = arguments.registry and _image_in(arguments.registry)
    report = _core.doctor(engine, registry=registry)
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        for attempt in report["attempts"]:
            if attempt["error"]:
                _say(f"tried {attempt['endpoint']} ({attempt['source']}): {attempt['error']}")
        for finding in report["findings"]:
            print(f"{finding['status']:<4}  {finding['check']}: {sanitize(finding['text'])}")
            if finding["advice"]:
                print(f"      do: {sanitize(finding['advice'])}")
    return FAILED if report["status"] == "fail" else DONE


def _image_in(registry: str) -> str:
    """An image name in a registry; what has a slash is one already."""
    is_host = registry == "localhost" or re.fullmatch(r"[^/:]*\.[^/:]*(:\d+)?|[^/:]+:\d+", registry)
    return f"{registry}/cooper-doctor" if is_host else registry


# cooper cache


def _add_cache(commands: Any) -> None:
    text = "The native engine's store; this version has none."
    sub = _command(commands, "cache", None, text).add_subparsers(metavar="COMMAND", title="commands")
    for name, text in (("du", "Show what is in the store."), ("prune", "Make the store smaller.")):
        parser = _command(sub, name, _cache, text)
        if name == "prune":
            parser.add_argument("--keep-storage", metavar="SIZE", help="keep so much")
            parser.add_argument("--older-than", metavar="AGE", help="remove only what is older")


def _cache(arguments: argparse.Namespace) -> int:
    parser: _Parser = arguments.parser
    parser.error("not with the docker engine: its cache is the daemon's (`docker builder prune`)")


# cooper zenml


def _add_zenml(commands: Any) -> None:
    sub = _command(commands, "zenml", None, "Work with ZenML.").add_subparsers(metavar="COMMAND", title="commands")
    _command(sub, "register", _zenml_register, "Register the image builder flavors with ZenML.")


def _zenml_register(_arguments: argparse.Namespace) -> int:
    from zenml_cooper._register import FlavorNameTaken, register_flavors

    try:
        register_flavors()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "zenml":
            raise
        _say("error: ZenML is not installed here\nhint: pip install 'zenml-cooper[zenml]'")
        return FAILED
    except FlavorNameTaken as error:
        _say(f"error: {error}")
        return FAILED
    return DONE


if __name__ == "__main__":
    sys.exit(main())
