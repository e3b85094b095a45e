"""Every event in every mode; nothing on stdout; the terminal as it was."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pty
import re
import sys
import threading
from typing import Any, get_args

import pytest

from zenml_cooper import _core
from zenml_cooper.progress import MODES, Mode, Renderer, renderer, summary

EVENTS = _core._events_for_test()
OUTCOME: dict[str, Any] = {
    "image": "localhost:5000/app@sha256:" + "ab" * 32,
    "tags": ["localhost:5000/app:1"],
    "digest": "sha256:" + "ab" * 32,
    "config_digest": None,
    "engine": "docker",
    "builder": "buildkit",
    "steps": [],
    "totals": {
        "seconds": 12.34,
        "context_seconds": 0.21,
        "build_seconds": 9.87,
        "push_seconds": 2.1,
        "context_files": 1234,
        "context_bytes": 5_600_000,
        "sent_bytes": 12_000,
        "pushed_bytes": 34_000_000,
        "cached_steps": 3,
        "total_steps": 7,
    },
}

# What must be seen of each kind of event, in every mode that shows anything.
MARKS = {
    "engine": "27.0.1",
    "context": "34.6 kB",
    "step_started": "[2/3] RUN pip install",
    "step_progress": "512 B of 2.0 kB",
    "step_log": "Collecting cooper",
    "step_done": "1.5 s",
    "push": "3c8e1a2b9f00",
    "pushed": "localhost:5000/cooper:1",
    "warning": "the context is large",
    "notice": "a socket was left out",
}


def test_a_push_that_is_part_of_the_build_has_no_numbers_of_its_own() -> None:
    assert "build 9.9 s (3 of 7 steps cached), push 2.1 s (34.0 MB)" in summary(OUTCOME)
    unknown = {**OUTCOME["totals"], "push_seconds": 0.0, "pushed_bytes": 0}
    told = summary({**OUTCOME, "totals": unknown})
    assert told.endswith("build and push 9.9 s (3 of 7 steps cached)")
    assert summary({**OUTCOME, "digest": None, "totals": unknown}).endswith("build 9.9 s (3 of 7 steps cached)")
    stream = io.StringIO()
    with renderer("plain", stream=stream) as show:
        show({"type": "pushed", "reference": "r/a:1", "digest": "sha256:0", "seconds": 0.0})
    assert stream.getvalue() == "pushed r/a:1: sha256:0\n"


def test_there_is_a_mark_for_every_event() -> None:
    assert {event["type"] for event in EVENTS} == set(MARKS)
    assert get_args(Mode) == MODES


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event["type"])
def test_plain_shows_every_event(event: dict[str, Any]) -> None:
    stream = io.StringIO()
    with renderer("plain", stream=stream) as show:
        show(event)
    lines = stream.getvalue()
    assert MARKS[event["type"]] in lines
    assert lines.endswith("\n")


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event["type"])
def test_tree_shows_every_event(event: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("LINES", "40")
    stream = io.StringIO()
    with renderer("tty", stream=stream) as show:
        show(event)
        show._live.refresh()  # type: ignore[attr-defined]
    assert MARKS[event["type"]] in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event["type"])
def test_json_shows_every_event_as_it_is(event: dict[str, Any]) -> None:
    stream = io.StringIO()
    with renderer("json", stream=stream) as show:
        show(event)
    (line,) = stream.getvalue().splitlines()
    shown = json.loads(line)
    assert shown.pop("time") >= 0
    assert shown == event


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event["type"])
def test_quiet_shows_nothing(event: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    with renderer("quiet") as show:
        show(event)
        show.finish(OUTCOME)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("mode", MODES)
def test_a_whole_build_in_every_mode(mode: Mode, capfd: pytest.CaptureFixture[str]) -> None:
    with renderer(mode) as show:
        for event in EVENTS:
            show(event)
        show.finish(OUTCOME)
    out, err = capfd.readouterr()
    assert out == ""
    assert (err == "") == (mode == "quiet")


@pytest.mark.parametrize("mode", MODES)
def test_an_event_of_a_later_version_is_no_error(mode: Mode) -> None:
    stream = io.StringIO()
    with renderer(mode, stream=stream) as show:
        show({"type": "from_the_future", "field": 1})


def test_an_unknown_mode_is_an_error() -> None:
    with pytest.raises(ValueError, match="fancy"):
        renderer("fancy")  # type: ignore[arg-type]


def test_auto_is_plain_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with renderer("auto", stream=stream) as show:
        show(EVENTS[0])
    assert "\x1b" not in stream.getvalue()


def step(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"step_{kind}", "id": "s", "name": "RUN x", "current": 0, "total": 0, "stream": 1, **fields}


def plain(*events: dict[str, Any]) -> list[str]:
    stream = io.StringIO()
    with renderer("plain", stream=stream) as show:
        for event in events:
            show(event)
    return stream.getvalue().splitlines()


def test_plain_numbers_steps_and_joins_pieces_of_lines() -> None:
    lines = plain(
        step("started"),
        step("started", id="t", name="RUN y"),
        step("log", text="half a "),
        step("log", text="other\n", stream=2),
        step("log", text="line\nand\nthe rest"),
        step("done", seconds=2.0, cached=False, error=None),
        step("done", id="t", name="RUN y", seconds=0.0, cached=True, error=None),
    )
    assert [re.sub(r"(?<=#\d )\d+\.\d{3} ", "", line) for line in lines] == [
        "#1 RUN x",
        "#2 RUN y",
        "#1 other",
        "#1 half a line",
        "#1 and",
        "#1 the rest",
        "#1 DONE 2.0 s",
        "#2 CACHED",
    ]


def test_plain_shows_the_error_of_a_step() -> None:
    assert plain(step("done", seconds=1.0, cached=False, error="exit code 1"))[-1] == "#1 ERROR: exit code 1"


def test_an_endless_line_is_shown_in_pieces() -> None:
    lines = plain(*(step("log", text="x" * 1000) for _ in range(40)))
    assert [len(line) > 16_000 for line in lines] == [True, True]


def test_plain_does_not_flood_a_log_with_progress() -> None:
    counts = [step("progress", name="download", current=number, total=1000) for number in range(1, 1001)]
    push = {"type": "push", "reference": "r", "layer": "l", "total": 1000}
    pushes = [{**push, "status": "Pushing", "current": number} for number in range(1000)]
    lines = plain(*counts, *pushes, {**push, "status": "Pushed", "current": 1000})
    assert len(lines) <= 5
    assert any("1.0 kB of 1.0 kB" in line for line in lines)
    assert any("Pushed" in line for line in lines)


@pytest.mark.parametrize("mode", ["plain", "tty"])
def test_a_build_cannot_drive_the_terminal(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    evil = "\x1b]0;pwned\x07\x1b[2Jshown"
    stream = io.StringIO()
    events = [
        step("started", name=evil),
        step("log", text=evil + "\n", name=evil),
        step("progress", name=evil, current=1, total=2),
        step("done", name=evil, seconds=1.0, cached=False, error=evil),
        {"type": "warning", "code": "x", "message": evil},
        {"type": "notice", "message": evil},
        {"type": "push", "reference": "r", "layer": evil, "status": evil, "current": 1, "total": 2},
    ]
    with renderer(mode, stream=stream) as show:
        for event in events:
            show(event)
            if mode == "tty":
                show._live.refresh()  # type: ignore[attr-defined]
    shown = stream.getvalue()
    assert shown.count("shown") >= len(events)
    assert "pwned" not in shown
    assert "\x1b[2J" not in shown


def test_markup_in_output_is_text() -> None:
    stream = io.StringIO()
    with renderer("tty", stream=stream) as show:
        show(step("started", name="RUN echo [bold]x[/bold] [/]"))
        show({"type": "notice", "message": "[red]a[/red] [/]"})
        show._live.refresh()  # type: ignore[attr-defined]
    assert "[bold]x[/bold] [/]" in stream.getvalue()
    assert "[red]a[/red] [/]" in stream.getvalue()


def test_plain_can_write_to_a_logger(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.INFO)
    with renderer("plain", logger=logging.getLogger("somewhere")) as show:
        for event in EVENTS:
            show(event)
        show({"type": "notice", "message": "100% of %s"})
        show.finish(OUTCOME)
    levels = {record.levelname for record in caplog.records}
    assert levels == {"INFO", "WARNING"}
    assert "note: 100% of %s" in caplog.messages
    assert caplog.messages[-1] == summary(OUTCOME)


def test_the_summary_says_where_time_and_bytes_went() -> None:
    assert summary(OUTCOME) == (
        f"Built {OUTCOME['image']} in 12.3 s: context 0.2 s (1,234 files, 5.6 MB, 12.0 kB sent), "
        "build 9.9 s (3 of 7 steps cached), push 2.1 s (34.0 MB)"
    )
    local = {**OUTCOME, "image": "app:1", "digest": None}
    assert "push" not in summary(local)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), RuntimeError("x")])
def test_the_terminal_is_given_back(error: BaseException | None) -> None:
    """On a real terminal: the cursor is shown again, and no thread goes on drawing."""
    parent, child = pty.openpty()
    shown = bytearray()

    def read() -> None:
        try:
            while data := os.read(parent, 4096):
                shown.extend(data)
        except OSError:
            pass

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    threads = threading.active_count()
    expected = pytest.raises(type(error)) if error else contextlib.nullcontext()
    with expected, open(child, "w", encoding="utf-8") as stream, renderer("tty", stream=stream) as show:
        show(step("started"))
        show(step("log", text="working\n"))
        if error is not None:
            raise error
    reader.join(5)
    os.close(parent)
    assert threading.active_count() <= threads
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l") >= 0
    # What still ran is told, once.
    assert shown.count(b"interrupted") == (1 if error else 0)


def test_auto_is_a_tree_on_a_terminal_and_not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, child = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    with open(child, "w", encoding="utf-8") as stream:
        trees = [type(renderer("auto", stream=stream)).__name__]
        monkeypatch.setenv("CI", "true")
        trees.append(type(renderer("auto", stream=stream)).__name__)
        monkeypatch.delenv("CI")
        monkeypatch.setenv("TERM", "dumb")
        trees.append(type(renderer("auto", stream=stream)).__name__)
    os.close(parent)
    assert trees == ["_Tree", "_Plain", "_Plain"]


def test_a_small_terminal_is_not_overrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("LINES", "8")
    stream = io.StringIO()
    with renderer("tty", stream=stream) as show:
        for number in range(50):
            show(step("started", id=str(number), name=f"RUN number {number} with a name that is far too long"))
            show(step("log", id=str(number), text="output\n" * 20))
        drawing = show._draw()  # type: ignore[attr-defined]
        drawn = show._console.render_lines(drawing)  # type: ignore[attr-defined]
    assert 3 < len(drawn) <= 8


def test_what_others_print_stays_where_it_belongs(capsys: pytest.CaptureFixture[str]) -> None:
    with renderer("tty", stream=io.StringIO()) as show:
        show(step("started"))
        print("a result")
        print("a complaint", file=sys.stderr)
    assert capsys.readouterr().out == "a result\n"


def test_the_base_shows_nothing() -> None:
    assert isinstance(renderer("quiet"), Renderer)
