"""Text for people: output of builds made harmless, numbers made readable."""

import re
import sys

# Escape sequences (CSI, OSC and the like, with their arguments, or alone), then all control characters but the tab.
_CONTROLS = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
    # Marks that reorder or hide text.
    r"|[\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)


def sanitize(line: str) -> str:
    """A line of a build's output without what could move the cursor, change colours or reorder text.

    A carriage return restarts the line, as on a terminal: of a progress bar only the last state is kept.
    """
    if line.isascii() and line.isprintable():
        return line
    line = line.rstrip("\r\n").replace("\n", " ")
    _, _, last = line.rpartition("\r")
    return _CONTROLS.sub("", last or line).expandtabs(4)


def size(count: int) -> str:
    """Bytes with a decimal unit, as the Docker CLI writes them: `12.3 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def seconds(value: float) -> str:
    """A duration: `0.4 s`, `12.3 s`, `2 min 05 s`."""
    if value < 99.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def count(number: int, noun: str) -> str:
    """`1 file`, `1,234 files`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def entries(number: int) -> str:
    """`1 entry`, `1,234 entries`."""
    return f"{number:,} entry" if number == 1 else f"{number:,} entries"


def say(text: str) -> None:
    """Says something on stderr, at once."""
    print(text, file=sys.stderr, flush=True)
