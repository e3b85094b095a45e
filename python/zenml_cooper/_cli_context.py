"""The commands below `cooper context`: what a build would be sent, and why."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zenml_cooper._text import count, sanitize, say, size

_DONE, _OUT = 0, 1
_PACK_TYPES = ("tar", "tar.gz", "tar.zst", "zip")
_PACK_SUFFIXES = {
    ".tar": "tar",
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
    ".tar.zst": "tar.zst",
    ".tzst": "tar.zst",
    ".zip": "zip",
}
# How deep `du` shows directories.
_DEPTH = 3

_WHY = """\
The exit code is 0 if all of the paths are in the context, and 1 if one is not.

A PATH is seen from the current directory, or from DIR. The last argument is DIR if it is a directory that holds the
others, or one outside of the current directory; --dir says it in so many words."""


def add(commands: Any, command: Callable[..., Any]) -> None:
    """Adds the commands to the parser; `command` makes one of them."""
    text = "Look into a build context: what a build would be sent."
    sub = command(commands, "context", None, text).add_subparsers(metavar="COMMAND", title="commands")

    parser = command(sub, "ls", _ls, "List the files, in the order in which they are sent.")
    _add_common(parser)
    parser.add_argument("-l", "--long", action="store_true", help="with mode and size")
    parser.add_argument("-0", "--null", action="store_true", help="end each path with a NUL byte, for xargs -0")

    parser = command(sub, "du", _du, "Show what takes up the space, and what should perhaps not be there.")
    _add_common(parser)
    parser.add_argument("--depth", metavar="N", type=_natural, default=_DEPTH,
                        help=f"levels of the tree (default: {_DEPTH})")  # fmt: skip
    parser.add_argument("--excluded", action="store_true",
                        help="look into excluded directories as well: files and bytes for each pattern")  # fmt: skip

    parser = command(sub, "why", _why, "Say why a path is in the context, or is not.")
    parser.usage = "cooper context why [OPTIONS] PATH... [DIR]"
    parser.epilog = _WHY
    parser.formatter_class = _Text
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a file or directory")
    parser.add_argument("--dir", metavar="DIR", help="the context (default: .)")
    parser.add_argument("--ignorefile", metavar="FILE", help="in place of .dockerignore")
    parser.add_argument("--json", action="store_true", help="print JSON")

    text = "Suggest lines for .dockerignore: `cooper context suggest >> .dockerignore`."
    _add_common(command(sub, "suggest", _suggest, text))
    text = "Print a digest of the content: equal for equal paths, modes and bytes."
    parser = command(sub, "digest", _digest, text)
    _add_common(parser)
    parser.add_argument("--no-index", action="store_true",
                        help="read every file, also those that did not change since the last digest")  # fmt: skip

    text = "Write the context as an archive; equal contexts make equal archives."
    parser = command(sub, "pack", _pack, text)
    _add_common(parser, with_json=False)
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the archive; - is stdout")
    parser.add_argument("--type", metavar="TYPE", choices=_PACK_TYPES,
                        help=f"{', '.join(_PACK_TYPES)} (default: by the name of FILE, else tar)")  # fmt: skip


class _Text(argparse.RawDescriptionHelpFormatter):
    """Leaves the lines of the epilog as they are."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"`{text}` is no number")
    return int(text)


def _add_common(parser: Any, *, with_json: bool = True) -> None:
    parser.add_argument("dir", metavar="DIR", nargs="?", default=".", help="the context (default: .)")
    parser.add_argument("--ignorefile", metavar="FILE", help="in place of .dockerignore")
    if with_json:
        parser.add_argument("--json", action="store_true", help="print JSON")


def _spec(arguments: argparse.Namespace) -> dict[str, Any]:
    from zenml_cooper import _build as building

    return building.context_spec(arguments.dir, arguments.ignorefile)


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2))


def _ls(arguments: argparse.Namespace) -> int:
    from zenml_cooper import _core

    if arguments.json and (arguments.long or arguments.null):
        arguments.parser.error("--json has all that there is; leave --long and --null away")
    if arguments.long and arguments.null:
        arguments.parser.error("give either --long or --null")
    if arguments.json:
        style = "json"
    elif arguments.null:
        style = "null"
    else:
        # Names are bytes; only a terminal must not take them for commands.
        style = ("long" if arguments.long else "names") if not sys.stdout.isatty() else (
            "long-terminal" if arguments.long else "terminal")  # fmt: skip
    _core.context_write_list(_spec(arguments), sys.stdout.buffer, style)
    return _DONE


def _du(arguments: argparse.Namespace) -> int:
    from zenml_cooper import _core
    from zenml_cooper._cli_draw import Look, report_lines

    report = _core.context_report(_spec(arguments), excluded=arguments.excluded)
    if arguments.json:
        _print_json(report)
        return _DONE
    for line in report_lines(report, Look(sys.stdout), arguments.depth):
        print(line)
    sys.stdout.flush()
    for warning in report["warnings"]:
        say(f"warning: {sanitize(warning['message'])}")
    for notice in report["notices"]:
        say(f"note: {sanitize(notice['message'])}")
    if report["warnings"]:
        say("hint: `cooper context suggest` proposes lines for .dockerignore, and says what each would save")
    return _DONE


def _why(arguments: argparse.Namespace) -> int:
    from zenml_cooper import _core
    from zenml_cooper._cli_draw import Look, why_lines

    paths, root = _paths_and_root(arguments.paths, arguments.dir)
    arguments.dir = root
    answers = _core.context_why(_spec(arguments), [_in_context(path, root) for path in paths])
    if arguments.json:
        _print_json(answers)
    else:
        look = Look(sys.stdout)
        for answer in answers:
            for line in why_lines(answer, look):
                print(line)
    return _DONE if all(answer["included"] for answer in answers) else _OUT


def _paths_and_root(typed: list[str], root: str | None) -> tuple[list[str], str]:
    """Which of the arguments are paths, and which one is the context."""
    *paths, last = typed
    if root is not None:
        return typed, root
    if not paths or not Path(last).is_dir():
        return typed, "."
    holds_all = all(_seen_from_here(path, last) or os.path.lexists(os.path.join(last, path)) for path in paths)
    is_elsewhere = _seen_from_here(last, ".") in (None, ".")
    # Nobody gives some paths in full and others not.
    differs = os.path.isabs(last) and not any(map(os.path.isabs, paths))
    return (paths, last) if holds_all or is_elsewhere or differs else (typed, ".")


def _seen_from_here(path: str, root: str) -> str | None:
    """The path relative to the root, if it is below it, or it itself."""
    parent, name = os.path.split(os.path.abspath(path))
    resolved = os.path.join(os.path.realpath(parent), name)
    # A link on the way to either must not hide that. The last part of the path is what is asked about, a link or not.
    for seen, base in ((os.path.abspath(path), os.path.abspath(root)), (resolved, os.path.realpath(root))):
        relative = os.path.relpath(seen, base)
        if relative != ".." and not relative.startswith("../"):
            return relative
    return None


def _in_context(path: str, root: str) -> str:
    """A path as somebody types it, relative to the root: seen from here if that is something, else from the root."""
    relative = _seen_from_here(path, root)
    only_there = not os.path.lexists(path) and os.path.lexists(os.path.join(root, path))
    return path if relative is None or only_there else relative


def _suggest(arguments: argparse.Namespace) -> int:
    from zenml_cooper import _core

    suggestion = _core.context_suggest(_spec(arguments))
    if arguments.json:
        _print_json(suggestion)
    elif suggestion["lines"]:
        # As it is: a terminal gets no control characters, since patterns have none.
        sys.stdout.write(suggestion["text"])
    else:
        say("nothing to suggest: there is nothing in this context that an image hardly ever needs")
    return _DONE


def _digest(arguments: argparse.Namespace) -> int:
    from zenml_cooper import _core

    digest = _core.context_digest(_spec(arguments), index=not arguments.no_index)
    print(json.dumps(digest) if arguments.json else digest["digest"])
    return _DONE


def _pack(arguments: argparse.Namespace) -> int:
    from zenml_cooper import _core

    output = arguments.output
    kind = arguments.type or next((kind for suffix, kind in _PACK_SUFFIXES.items() if output.endswith(suffix)), "tar")
    if output == "-":
        if sys.stdout.isatty():
            arguments.parser.error("an archive is nothing for a terminal; give -o FILE, or redirect stdout")
        packed = _core.context_pack(_spec(arguments), sys.stdout.buffer, kind, digest=False)
        sys.stdout.buffer.flush()
    else:
        packed = _core.context_pack(_spec(arguments), output, kind, digest=False)
    for warning in packed["context"]["warnings"]:
        say(f"warning: {sanitize(warning['message'])}")
    for notice in packed["notices"]:
        say(f"note: {sanitize(notice['message'])}")
    say(f"packed {count(packed['files'], 'file')}, {size(packed['bytes_in'])} into {size(packed['bytes_out'])}")
    return _DONE
