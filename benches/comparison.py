"""What the comparisons of this folder share: their arguments, and how their results are printed and kept."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path


def arguments(description: str | None, files: int) -> argparse.Namespace:
    """The command's arguments; `files` is how many files a context has unless it is told otherwise."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=files)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the medians here too")
    return parser.parse_args()


def report(
    title: str,
    local: Sequence[Mapping[str, float]],
    cooper: Sequence[Mapping[str, float]],
    given: argparse.Namespace,
) -> None:
    """Prints the medians of all rounds (case to seconds, one mapping a round) and their ratios."""
    medians = {
        name: {case: statistics.median(times[case] for times in rounds) for case in rounds[0]}
        for name, rounds in (("local", local), ("cooper", cooper))
    }
    print(f"\n{title}, push included, medians of {given.rounds} rounds in seconds")
    print(f"{'':28}{'local':>10}{'cooper':>10}{'ratio':>8}")
    for case, seconds in medians["local"].items():
        ours = medians["cooper"][case]
        print(f"{case:28}{seconds:10.2f}{ours:10.2f}{seconds / ours:7.1f}x")
    if given.json:
        given.json.write_text(json.dumps({"files": given.files, "seconds": medians}, indent=2) + "\n")
