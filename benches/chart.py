"""A picture of the results: bars of each case, and the curve of growth. It reads well on a light and on a dark page.

python benches/chart.py RESULTS.json PICTURE.svg
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from xml.sax.saxutils import escape

from results import MIB, OURS, Results

WIDTH = 760
LEFT = 130
BAR = 14
STEP = 19
LONGEST = 430
CURVE_HEIGHT = 200

STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.faint { fill: #59636e }
.ours { fill: #1a7f64 }
.peer { fill: #9aa4af }
.axis { stroke: #9aa4af; fill: none }
.line { stroke: #1a7f64; stroke-width: 2; fill: none }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .faint { fill: #9198a1 }
  .ours { fill: #3fb995 }
  .peer { fill: #5b6570 }
  .line { stroke: #3fb995 }
}"""


def svg(results: Results) -> str:
    """The picture."""
    parts: list[str] = []
    top = bars(results, parts, 10)
    if results.curve:
        top = curve(results, parts, top + 10)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}">'
    return "\n".join([head, f"<style>\n{STYLE}\n</style>", *parts, "</svg>", ""])


def label(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """One text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def bars(results: Results, parts: list[str], top: int) -> int:
    """Adds a group of bars for each case, each group to the scale of its longest; where they end."""
    for case in results.cases:
        top += STEP
        parts.append(label(10, top, f"{case.tree}, {case.work}", "title"))
        longest = max(cost.wall for cost in case.peers.values())
        for peer, cost in case.peers.items():
            kind = "ours" if peer == OURS else "peer"
            length = max(1, cost.wall / longest * LONGEST)
            ratio = "" if peer == OURS else f", {case.ratio(peer):.1f}x"
            parts.append(label(LEFT - 8, top + STEP, peer, "faint", "end"))
            parts.append(f'<rect x="{LEFT}" y="{top + 8}" width="{length:.1f}" height="{BAR}" rx="2" class="{kind}"/>')
            parts.append(label(LEFT + length + 8, top + STEP, f"{cost.wall:.3g} s{ratio}"))
            top += STEP
        top += 12
    return top


def curve(results: Results, parts: list[str], top: int) -> int:
    """Adds time by number of files, both in powers of ten; where it ends."""
    points = results.curve
    most, least = (edge(point["files"] for point in points) for edge in (max, min))
    slowest, fastest = (edge(point["wall"] for point in points) for edge in (max, min))

    def place(files: float, wall: float) -> tuple[float, float]:
        across = math.log(files / least) / math.log(most / least)
        up = math.log(wall / fastest) / math.log(slowest / fastest)
        return LEFT + across * LONGEST, bottom - 12 - up * (CURVE_HEIGHT - 40)

    parts.append(label(10, top + STEP, "growth: time of a tar by number of files (both logarithmic)", "title"))
    top += STEP + 10
    bottom = top + CURVE_HEIGHT
    parts.append(f'<path class="axis" d="M{LEFT - 20} {top} V{bottom} H{LEFT + LONGEST + 20}"/>')
    places = [place(point["files"], point["wall"]) for point in points]
    parts.append(f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>')
    for point, (x, y) in zip(points, places, strict=True):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="ours"/>')
        parts.append(label(x + 10, y + 14, f"{point['wall']:.3g} s, {point['peak'] / MIB:.0f} MiB"))
        parts.append(label(x, bottom + STEP, f"{point['files']:,}", "faint", "middle"))
    return bottom + 2 * STEP


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(svg(Results.read(Path(sys.argv[1]))))
