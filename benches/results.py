"""Results of `benches/context.py`: medians and ratios, as a table for people and as Markdown for the docs.

python benches/results.py RESULTS.json      # prints the Markdown again
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from peers import Cost

OURS = "cooper"
MIB = 1 << 20


@dataclass
class Case:
    """One kind of work on one tree, by peer."""

    tree: str
    work: str
    peers: dict[str, Cost]

    def ratio(self, peer: str) -> float:
        """How many times our time the peer's is."""
        return self.peers[peer].wall / self.peers[OURS].wall


@dataclass
class Results:
    """All that was measured."""

    machine: dict[str, str | int]
    rounds: int
    cases: list[Case] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    """Growth: files, wall and cpu seconds, peak bytes."""

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        data = json.loads(path.read_text())
        cases = [
            Case(**{**case, "peers": {peer: Cost(**cost) for peer, cost in case["peers"].items()}})
            for case in data.pop("cases")
        ]
        return cls(cases=cases, **data)


def median(costs: Sequence[Cost]) -> Cost:
    """The median of each number; the peak is the highest, since it is held against a limit."""
    peaks = [cost.peak for cost in costs if cost.peak is not None]
    return Cost(
        wall=statistics.median(cost.wall for cost in costs),
        cpu=statistics.median(cost.cpu for cost in costs),
        size=max(cost.size for cost in costs),
        peak=max(peaks) if peaks else None,
    )


def text(results: Results) -> str:
    """A table for a terminal."""
    lines = [f"{'':34}{'wall s':>9}{'ratio':>8}{'cpu s':>9}{'out MB':>10}{'peak MiB':>10}"]
    for case in results.cases:
        lines.append(f"{case.tree}, {case.work}")
        for peer, cost in case.peers.items():
            size, peak = amount(cost.size, 1e6), amount(cost.peak, MIB)
            lines.append(f"  {peer:32}{cost.wall:9.3f}{case.ratio(peer):7.1f}x{cost.cpu:9.3f}{size:>10}{peak:>10}")
    if results.curve:
        lines.append("growth, tar")
        for point in results.curve:
            each, peak = point["wall"] / point["files"] * 1e6, amount(point["peak"], MIB)
            lines.append(f"  {point['files']:>12,} files{'':14}{point['wall']:9.3f}{each:6.1f} µs a file{peak:>12}")
    return "\n".join(lines)


def markdown(results: Results) -> str:
    """The tables of docs/benchmarks.md."""
    lines = [
        "| | | seconds | ratio | CPU seconds | MB out | peak MiB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in results.cases:
        for peer, cost in case.peers.items():
            title = f"{case.tree}, {case.work}" if peer == OURS else ""
            cells = [title, peer, f"{cost.wall:.3f}", f"{case.ratio(peer):.1f}", f"{cost.cpu:.3f}"]
            lines.append(f"| {' | '.join([*cells, amount(cost.size, 1e6), amount(cost.peak, MIB)])} |")
    if results.curve:
        lines += ["", "| files | seconds | µs a file | peak MiB |", "| ---: | ---: | ---: | ---: |"]
        for point in results.curve:
            cells = [f"{point['files']:,}", f"{point['wall']:.3f}", f"{point['wall'] / point['files'] * 1e6:.1f}"]
            lines.append(f"| {' | '.join([*cells, amount(point['peak'], MIB)])} |")
    return "\n".join(lines)


def amount(count: float | None, unit: float) -> str:
    """A number of units, or nothing where it does not apply."""
    return f"{count / unit:.1f}" if count else ""


if __name__ == "__main__":
    print(markdown(Results.read(Path(sys.argv[1]))))
