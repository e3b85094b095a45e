"""How a build shows what it does.

Every renderer takes the events of one build and writes to stderr, or to a logger; stdout belongs to results. Text of a
build is shown without control characters.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from zenml_cooper._text import count, entries, sanitize, seconds, size

if TYPE_CHECKING:
    from rich.console import RenderableType

Mode = Literal["auto", "tty", "plain", "json", "quiet"]
Event = Mapping[str, Any]
MODES: tuple[Mode, ...] = ("auto", "tty", "plain", "json", "quiet")

# A line of output without an end is shown when it has so many characters.
_LONGEST_LINE = 16_384
# How often a step that only counts bytes is worth a line in a log.
_PROGRESS_SECONDS = 5.0
# Lines of output that are shown below a running step, as many as `docker build` shows.
_WINDOW = 6


def renderer(mode: Mode = "auto", *, stream: TextIO | None = None, logger: logging.Logger | None = None) -> "Renderer":
    """A renderer, to be used as a context manager.

    Args:
        mode: `tty` draws a live tree, `plain` writes lines, `json` writes an object per event, `quiet` writes nothing.
            `auto` is `tty` on a terminal and `plain` elsewhere.
        stream: Where to write; stderr by default.
        logger: Where plain lines go in place of the stream.

    Raises:
        ValueError: If there is no such mode.

    """
    if mode not in MODES:
        raise ValueError(f"there is no progress mode `{mode}`; there are {', '.join(MODES)}")
    stream = stream or sys.stderr
    if mode == "auto":
        mode = "tty" if _is_live_terminal(stream) else "plain"
    if mode == "tty":
        return _Tree(stream)
    if mode == "plain":
        return _Plain(stream, logger)
    return _Json(stream) if mode == "json" else Renderer()


def _is_live_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("CI")


class Renderer(AbstractContextManager["Renderer"]):
    """Shows nothing; the base of those that show something."""

    def __call__(self, event: Event) -> None:
        """Shows one event. One that this version does not know is left out."""
        if show := getattr(self, f"on_{event['type']}", None):
            show(event)

    def finish(self, outcome: Mapping[str, Any]) -> None:
        """Shows what came out of it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the terminal back, whatever happened."""


def summary(outcome: Mapping[str, Any]) -> str:
    """One line: what was built, and where the time and the bytes went."""
    totals = outcome["totals"]
    sent = f", {size(totals['sent_bytes'])} sent" if totals["sent_bytes"] != totals["context_bytes"] else ""
    context = f"{count(totals['context_files'], 'file')}, {size(totals['context_bytes'])}{sent}"
    parts = [f"context {seconds(totals['context_seconds'])} ({context})"]
    steps = f"{totals['cached_steps']} of {count(totals['total_steps'], 'step')} cached"
    # A BuildKit worker pushes while it builds, and does not tell how much.
    apart = outcome["digest"] and totals["push_seconds"]
    what = "build" if apart or not outcome["digest"] else "build and push"
    parts.append(f"{what} {seconds(totals['build_seconds'])} ({steps})")
    if apart:
        parts.append(f"push {seconds(totals['push_seconds'])} ({size(totals['pushed_bytes'])})")
    return f"Built {outcome['image']} in {seconds(totals['seconds'])}: {', '.join(parts)}"


def _took(event: Event) -> str:
    return f" in {seconds(event['seconds'])}" if event["seconds"] else ""


def engine_line(event: Event) -> str:
    """What builds, and why."""
    reason = f": {event['reason']}" if event["reason"] else ""
    version = f" {event['version']}" if event["version"] else ""
    return f"{event['engine']}{version} at {event['endpoint']}, {event['builder']} builder{reason}"


def context_line(event: Event) -> str:
    """What the context holds, what the ignore file did, what is largest."""
    root = f" {event['root']}" if event["root"] else ""
    extra = f", {count(event['extra_files'], 'file')} from memory" if event["extra_files"] else ""
    text = f"context{root}: {count(event['files'], 'file')}, {size(event['bytes'])}{extra}"
    if event["ignore_file"]:
        text += f" ({os.path.basename(event['ignore_file'])} excludes {entries(event['excluded'])})"
    if largest := event["largest"]:
        slash = "/" if largest["directory"] else ""
        text += f"; largest: {largest['path']}{slash} {size(largest['bytes'])}"
    if "seconds" in event:
        text += f" ({seconds(event['seconds'])})"
    return sanitize(text)


def moved(current: int, total: int) -> str:
    """How far something is that counts bytes."""
    return f"{size(current)} of {size(total)}" if total else size(current)


class Lines:
    """Cuts the output of steps into lines."""

    def __init__(self) -> None:
        self._rest: dict[tuple[str, int], str] = {}

    def add(self, event: Event) -> list[str]:
        """The lines that are complete now."""
        key = (event["id"], event["stream"])
        *lines, rest = (self._rest.pop(key, "") + event["text"]).split("\n")
        if len(rest) > _LONGEST_LINE:
            lines.append(rest)
            rest = ""
        if rest:
            self._rest[key] = rest
        return [sanitize(line) for line in lines]

    def end(self, step: str) -> list[str]:
        """What a step left without an end of line."""
        return [sanitize(self._rest.pop(key)) for key in [key for key in self._rest if key[0] == step]]


class _Plain(Renderer):
    """Lines for a log: steps are numbered in the order in which they begin, as `docker build --progress=plain` does."""

    def __init__(self, stream: TextIO, logger: logging.Logger | None = None) -> None:
        self._stream = stream
        self._logger = logger
        self._numbers: dict[str, int] = {}
        self._began: dict[str, float] = {}
        self._counted: dict[tuple[str, str], float] = {}
        self._layers: dict[tuple[str, str], str] = {}
        self._lines = Lines()

    def _write(self, line: str, level: int = logging.INFO) -> None:
        if self._logger is not None:
            self._logger.log(level, "%s", line)
        else:
            print(line, file=self._stream, flush=True)

    def _number(self, event: Event) -> int:
        step = event["id"]
        if step not in self._numbers:
            self._numbers[step] = len(self._numbers) + 1
            self._began[step] = time.monotonic()
        return self._numbers[step]

    def on_engine(self, event: Event) -> None:
        self._write(f"building with {engine_line(event)}")

    def on_context(self, event: Event) -> None:
        self._write(context_line(event))

    def on_step_started(self, event: Event) -> None:
        # BuildKit may take a step up again.
        if event["id"] not in self._numbers:
            self._write(f"#{self._number(event)} {sanitize(event['name'])}")

    def on_step_progress(self, event: Event) -> None:
        key, now = (event["id"], event["name"]), time.monotonic()
        name, first = sanitize(event["name"]), key not in self._counted
        if not event["current"] and not event["total"]:
            # Nothing to count: it is the name that says something, once.
            if first:
                self._counted[key] = now
                self._write(f"#{self._number(event)} {name}")
            return
        done = event["current"] >= event["total"] > 0
        waited = now - self._counted.setdefault(key, now)
        if (first and event["total"]) or (done and waited >= 0) or waited >= _PROGRESS_SECONDS:
            self._counted[key] = float("inf") if done else now
            self._write(f"#{self._number(event)} {name} {moved(event['current'], event['total'])}")

    def on_step_log(self, event: Event) -> None:
        self._write_output(event, self._lines.add(event))

    def _write_output(self, event: Event, lines: list[str]) -> None:
        number = self._number(event)
        elapsed = time.monotonic() - self._began[event["id"]]
        for line in lines:
            self._write(f"#{number} {elapsed:.3f} {line}")

    def on_step_done(self, event: Event) -> None:
        number = self._number(event)
        self._write_output(event, self._lines.end(event["id"]))
        if event["error"]:
            self._write(f"#{number} ERROR: {sanitize(event['error'])}", logging.ERROR)
        else:
            self._write(f"#{number} {'CACHED' if event['cached'] else 'DONE ' + seconds(event['seconds'])}")

    def on_push(self, event: Event) -> None:
        # One line for each layer and word; the bytes in between are for the live view.
        key = (event["reference"], event["layer"])
        if self._layers.get(key) == event["status"]:
            return
        self._layers[key] = event["status"]
        total = f" {size(event['total'])}" if event["total"] else ""
        self._write(sanitize(f"push {event['reference']}: {event['layer']} {event['status']}{total}"))

    def on_pushed(self, event: Event) -> None:
        self._write(f"pushed {event['reference']}{_took(event)}: {event['digest']}")

    def on_warning(self, event: Event) -> None:
        self._write(f"warning: {sanitize(event['message'])}", logging.WARNING)

    def on_notice(self, event: Event) -> None:
        self._write(f"note: {sanitize(event['message'])}")

    def finish(self, outcome: Mapping[str, Any]) -> None:
        self._write(summary(outcome))


class _Json(Renderer):
    """An object per line: the events as they are, with the seconds since the start, and the outcome last."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._start = time.monotonic()

    def __call__(self, event: Event) -> None:
        # ASCII: what a build prints cannot reach the terminal as anything else than text.
        line = {**event, "time": round(time.monotonic() - self._start, 3)}
        print(json.dumps(line), file=self._stream, flush=True)

    def finish(self, outcome: Mapping[str, Any]) -> None:
        self({"type": "outcome", **outcome})


class _Step:
    """A step that runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.began = time.monotonic()
        self.window: list[str] = []
        self.counts: dict[str, tuple[int, int]] = {}

    def print(self, lines: list[str]) -> None:
        self.window = (self.window + [line for line in lines if line.strip()])[-_WINDOW:]


class _Tree(Renderer):
    """A live tree: what ended scrolls away above, what runs is drawn below with the end of its output."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream, highlight=False, soft_wrap=False, force_terminal=True)
        self._title = "building"
        self._steps: dict[str, _Step] = {}
        self._layers: dict[str, dict[str, tuple[str, int, int]]] = {}
        self._lines = Lines()
        # stdout is left alone; what others write to stderr meanwhile is drawn above the tree.
        self._live: Live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=10,
            transient=True,
            redirect_stdout=False,
        )

    def __enter__(self) -> "_Tree":  # noqa: PYI034
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for step in self._steps.values():
            self._line("interrupted" if kind else "ended", step.name, "yellow")
        self._steps.clear()
        self._layers.clear()
        self._live.stop()

    def _line(self, state: str, text: str, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text.assemble((f"{state:>9} ", style), sanitize(text)), overflow="ellipsis", no_wrap=True)

    def _paragraph(self, state: str, text: str, style: str = "") -> None:
        """As `_line`, but nothing of it is cut."""
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        table.add_column(width=9, justify="right")
        table.add_column(overflow="fold")
        table.add_row(Text(state, style), Text(sanitize(text)))
        self._console.print(table)

    def _draw(self) -> "RenderableType":
        from rich.text import Text
        from rich.tree import Tree as Drawing

        # Two lines of room, so that the terminal never scrolls while it is redrawn.
        room = max(self._console.height - 2, 3)
        tree = Drawing(_cut(Text(self._title, style="bold")))
        now = time.monotonic()
        for step in list(self._steps.values()):
            counts = [f"{name} {moved(*count) if any(count) else ''}" for name, count in step.counts.items()][-_WINDOW:]
            lines = [*counts, *step.window][-_WINDOW:] if room > 1 else []
            lines = lines[-max(room - 2, 0) :] if room > 2 else []
            room -= 1 + len(lines)
            if room < 0:
                break
            branch = tree.add(_cut(Text.assemble((seconds(now - step.began), "cyan"), f"  {step.name}")))
            for line in lines:
                branch.add(_cut(Text(line, style="dim")))
        for reference, layers in [(reference, dict(layers)) for reference, layers in list(self._layers.items())]:
            busy = [entry for entry in layers.items() if entry[1][2] and entry[1][1] < entry[1][2]]
            lines = [f"{layer} {status} {moved(done, of)}" for layer, (status, done, of) in busy[: max(room - 2, 0)]]
            current = sum(entry[1] for entry in layers.values())
            total = sum(entry[2] for entry in layers.values())
            branch = tree.add(_cut(Text(f"push {reference}  {moved(current, total)}")))
            for line in lines:
                branch.add(_cut(Text(line, style="dim")))
        return tree

    def on_engine(self, event: Event) -> None:
        self._title = f"building with {sanitize(engine_line(event))}"
        self._line("engine", engine_line(event), "bold")

    def on_context(self, event: Event) -> None:
        self._paragraph("context", context_line(event).removeprefix("context").lstrip(": "), "bold")

    def on_step_started(self, event: Event) -> None:
        self._steps[event["id"]] = _Step(sanitize(event["name"]))

    def _step(self, event: Event) -> _Step:
        return self._steps.setdefault(event["id"], _Step(sanitize(event.get("name", event["id"]))))

    def on_step_progress(self, event: Event) -> None:
        self._step(event).counts[sanitize(event["name"])] = (event["current"], event["total"])

    def on_step_log(self, event: Event) -> None:
        self._step(event).print(self._lines.add(event))

    def on_step_done(self, event: Event) -> None:
        step = self._step(event)
        step.print(self._lines.end(event["id"]))
        del self._steps[event["id"]]
        if event["error"]:
            self._line("failed", f"{step.name}: {event['error']}", "red")
        elif event["cached"]:
            self._line("cached", step.name, "blue")
        else:
            self._line(seconds(event["seconds"]), step.name, "green")

    def on_push(self, event: Event) -> None:
        entry = (sanitize(event["status"]), event["current"], event["total"])
        self._layers.setdefault(sanitize(event["reference"]), {})[sanitize(event["layer"])] = entry

    def on_pushed(self, event: Event) -> None:
        self._layers.pop(sanitize(event["reference"]), None)
        self._line("pushed", f"{event['reference']}{_took(event)}", "green")

    def on_warning(self, event: Event) -> None:
        self._paragraph("warning", event["message"], "yellow")

    def on_notice(self, event: Event) -> None:
        self._paragraph("note", event["message"], "dim")

    def finish(self, outcome: Mapping[str, Any]) -> None:
        self._live.stop()
        self._console.print(summary(outcome), markup=False, soft_wrap=True)


def _cut(text: Any) -> Any:
    """One line of the live view, cut at the terminal's edge."""
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text
