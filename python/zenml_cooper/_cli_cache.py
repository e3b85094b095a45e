"""The commands below `cooper cache`: what the native engine keeps between builds."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from zenml_cooper._text import count, sanitize, size

_DONE = 0


def add(commands: Any, command: Callable[..., Any]) -> None:
    """Adds the commands to the parser; `command` makes one of them."""
    text = "Look into the native engine's store, or make it smaller."
    sub = command(commands, "cache", None, text).add_subparsers(metavar="COMMAND", title="commands")

    parser = command(sub, "du", _du, "Show what is in the store.")
    parser.add_argument("--json", action="store_true", help="print JSON")

    text = "Make the store smaller. Without options, all goes that no running build has used."
    parser = command(sub, "prune", _prune, text)
    parser.add_argument("--keep-storage", metavar="SIZE", help="keep so much, e.g. 5g: what was used last stays")
    parser.add_argument("--older-than", metavar="AGE", help="remove what was not used for so long, e.g. 24h or 7d")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _du(arguments: argparse.Namespace) -> int:
    from zenml_cooper import _core

    usage = _core.store_usage()
    if arguments.json:
        print(json.dumps(usage, indent=2))
        return _DONE
    rows = [*sorted(usage["kinds"].items()), ("total", usage["total"])]
    width = max(len(kind) for kind, _ in rows)
    for kind, row in rows:
        print(f"{size(row['bytes']):>8}  {kind:<{width}}  {row['count']:,}")
    print(f"in {sanitize(usage['path'])}; a build keeps it to {size(usage['limit'])}")
    return _DONE


def _prune(arguments: argparse.Namespace) -> int:
    from zenml_cooper import _core

    pruned = _core.store_prune(keep_storage=arguments.keep_storage, older_than=arguments.older_than)
    if arguments.json:
        print(json.dumps(pruned, indent=2))
        return _DONE
    removed, kept = pruned["removed"], pruned["kept"]
    print(f"removed {count(removed['count'], 'file')} ({size(removed['bytes'])}); kept {size(kept['bytes'])}")
    return _DONE
