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


def report(title: str, rounds: Mapping[str, Sequence[Mapping[str, float]]], given: argparse.Namespace) -> None:
    """Prints the medians of all rounds (case to seconds, one mapping a round), compared with the first builder's."""
    medians = {
        name: {case: statistics.median(times[case] for times in all_times) for case in all_times[0]}
        for name, all_times in rounds.items()
    }
    first, *others = medians
    print(f"\n{title}, push included, medians of {given.rounds} rounds in seconds")
    print(f"{'':28}{first:>10}" + "".join(f"{name:>16}{'ratio':>8}" for name in others))
    for case, seconds in medians[first].items():
        ours = "".join(f"{medians[name][case]:16.2f}{seconds / medians[name][case]:7.1f}x" for name in others)
        print(f"{case:28}{seconds:10.2f}{ours}")
    if given.json:
        given.json.write_text(json.dumps({"files": given.files, "seconds": medians}, indent=2) + "\n")
