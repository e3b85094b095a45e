"""The interpreter is free while the core works; nothing of the core breaks in a forked child."""

from __future__ import annotations

import io
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from zenml_cooper import _core
from zenml_cooper.exceptions import OptionError, RegistryError

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import RunScript


def test_python_threads_run_meanwhile() -> None:
    turns = 0
    stop = threading.Event()

    def count() -> None:
        nonlocal turns
        while not stop.is_set():
            turns += 1

    def rate(action: Any) -> float:
        nonlocal turns
        turns, start = 0, time.monotonic()
        action()
        return turns / (time.monotonic() - start)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        alone = rate(lambda: time.sleep(0.3))
        beside = rate(lambda: _core._exercise_for_test({"seconds": 0.3}))
    finally:
        stop.set()
        thread.join()
    # Other work may share the machine; with the interpreter held the thread would not run at all.
    assert beside > alone * 0.3


def test_events_come_in_order_and_none_is_lost() -> None:
    seen: list[str] = []
    _core._exercise_for_test({"events": 5000}, on_event=lambda event: seen.append(event["message"]))
    assert seen == [str(number) for number in range(5000)]


def test_a_slow_function_slows_the_work_and_loses_nothing() -> None:
    seen = 0

    def slow(event: dict[str, Any]) -> None:
        nonlocal seen
        seen += 1
        if seen % 500 == 0:
            time.sleep(0.02)

    _core._exercise_for_test({"events": 5000}, on_event=slow)
    assert seen == 5000


def test_credentials_are_asked_for_and_given() -> None:
    asked: list[tuple[str, bool]] = []
    events: list[dict[str, Any]] = []

    def give(registry: str, refresh: bool) -> dict[str, str]:
        asked.append((registry, refresh))
        return {"username": "ada", "password": "marker-secret"}

    _core._exercise_for_test({"ask": "example.com:5000"}, on_event=events.append, credentials=give)
    assert asked == [("example.com:5000", False)]
    assert [event["message"] for event in events] == ["user: ada"]
    for without in (None, lambda *_: None):
        events.clear()
        _core._exercise_for_test({"ask": "example.com"}, on_event=events.append, credentials=without)
        assert [event["message"] for event in events] == ["user: anonymous"]


@pytest.mark.parametrize(
    "answer",
    [
        "marker-secret",
        {"username": "ada", "passwort": "marker-secret"},
        {"username": "ada", "password": ["marker-secret"]},
        {"username": {"marker-secret": 1}},
        object(),
        {1: "marker-secret"},
    ],
)
def test_a_wrong_answer_for_credentials_is_told_without_it(answer: Any) -> None:
    with pytest.raises(RegistryError) as raised:
        _core._exercise_for_test({"ask": "example.com"}, credentials=lambda *_: answer)
    assert raised.value.code == "credentials"
    assert "example.com" in str(raised.value)
    assert "marker-secret" not in repr(raised.value) + str(raised.value) + str(raised.value.fields)


def test_output_arrives_whole_in_any_kind_of_file(tmp_path: Path) -> None:
    size = 3_500_000
    buffer = io.BytesIO()
    _core._exercise_for_test({"write": size}, output=buffer)
    assert buffer.getvalue() == b"x" * size

    class Partial:
        """Takes a part of what it is given, as an unbuffered file may."""

        def __init__(self) -> None:
            self.size = 0

        def write(self, data: bytes) -> int:
            taken = min(len(data), 300_000)
            self.size += taken
            return taken

    partial = Partial()
    _core._exercise_for_test({"write": size}, output=partial)
    assert partial.size == size
    descriptor = os.open(tmp_path / "raw", os.O_WRONLY | os.O_CREAT)
    with open(descriptor, "wb", buffering=0) as raw:
        _core._exercise_for_test({"write": size}, output=raw)
    assert (tmp_path / "raw").stat().st_size == size


def test_a_file_that_takes_nothing_is_an_error() -> None:
    class Stuck:
        def write(self, data: bytes) -> int:
            return 0

    with pytest.raises(OSError, match="takes no more data"):
        _core._exercise_for_test({"write": 1}, output=Stuck())


def test_wrong_arguments_are_refused() -> None:
    plans: list[Any] = [{"secnods": 1}, {"events": "many"}, {"panic": "yes"}, [], {1: 2}]
    for plan in plans:
        with pytest.raises(OptionError):
            _core._exercise_for_test(plan)


def test_a_forked_child_can_do_all_that_its_parent_did(run_script: RunScript) -> None:
    codes = run_script(
        """
        import asyncio, json, multiprocessing, sys, threading, time, warnings
        warnings.simplefilter("ignore")
        from zenml_cooper import _core

        def use():
            events = []
            _core._exercise_for_test({"events": 3, "write": 10, "ask": "a"}, on_event=events.append)
            assert len(events) == 4
            entries = _core.context_list({"extra_files": [{"path": "a", "content": b"b"}]})
            assert [entry["path"] for entry in entries] == ["a"]

            async def main():
                return await _core._exercise_async_for_test({"events": 3, "seconds": 0.05}, on_event=events.append)

            asyncio.run(main())
            assert len(events) == 7

        use()
        # Also while another thread is in the middle of a call.
        thread = threading.Thread(target=_core._exercise_for_test, args=({"seconds": 2},))
        thread.start()
        time.sleep(0.1)
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=use) for _ in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join(20)
        for child in children:
            child.kill()
        thread.join()
        print(json.dumps([child.exitcode for child in children]))
        """
    )
    assert codes == [0, 0, 0]
