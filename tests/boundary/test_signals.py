"""Ctrl-C and cancellation: answered within 200 ms, after the work has stopped, from whatever thread."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from zenml_cooper import _core
from zenml_cooper.exceptions import CooperCancelled

if TYPE_CHECKING:
    from .conftest import RunScript

# What the project promises.
ANSWER_SECONDS = 0.2


def test_ctrl_c_is_answered_at_once(run_script: RunScript) -> None:
    waited = run_script(
        """
        import json, os, signal, threading, time
        from zenml_cooper import _core

        def interrupt():
            global sent
            sent = time.monotonic()
            os.kill(os.getpid(), signal.SIGINT)

        answers = []
        for _ in range(5):
            threading.Timer(0.15, interrupt).start()
            try:
                _core._exercise_for_test({"seconds": 30})
            except KeyboardInterrupt:
                answers.append(time.monotonic() - sent)
        print(json.dumps(answers))
        """
    )
    assert len(waited) == 5
    assert max(waited) < ANSWER_SECONDS


def test_ctrl_c_waits_until_the_work_has_stopped(run_script: RunScript) -> None:
    waited = run_script(
        """
        import json, os, signal, threading, time
        from zenml_cooper import _core
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        start = time.monotonic()
        try:
            _core._exercise_for_test({"seconds": 30, "stop_seconds": 0.5})
        except KeyboardInterrupt:
            print(json.dumps(time.monotonic() - start))
        """
    )
    assert 0.6 <= waited < 1.0


def test_a_second_ctrl_c_does_not_wait(run_script: RunScript) -> None:
    waited = run_script(
        """
        import json, os, signal, threading, time
        from zenml_cooper import _core
        for delay in (0.1, 0.4):
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
        start = time.monotonic()
        try:
            _core._exercise_for_test({"seconds": 30, "stop_seconds": 30})
        except KeyboardInterrupt:
            print(json.dumps(time.monotonic() - start))
        """
    )
    assert 0.4 <= waited < 0.4 + ANSWER_SECONDS


def test_what_a_signal_handler_raises_is_raised(run_script: RunScript) -> None:
    raised = run_script(
        """
        import json, os, signal, threading
        from zenml_cooper import _core

        class Terminated(Exception): ...

        def handler(number, frame):
            raise Terminated("stop")

        signal.signal(signal.SIGTERM, handler)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        try:
            _core._exercise_for_test({"seconds": 30})
        except Terminated as error:
            print(json.dumps(str(error)))
        """
    )
    assert raised == "stop"


def test_a_signal_that_raises_nothing_stops_nothing(run_script: RunScript) -> None:
    seen = run_script(
        """
        import json, os, signal, threading
        from zenml_cooper import _core
        seen = []
        signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        outcome = _core._exercise_for_test({"seconds": 0.3})
        print(json.dumps([len(seen), outcome["image"]]))
        """
    )
    assert seen == [1, "exercise"]


def test_ctrl_c_reaches_the_main_thread_and_a_handle_the_others(run_script: RunScript) -> None:
    ends = run_script(
        """
        import json, os, signal, threading, time
        from zenml_cooper import _core
        from zenml_cooper.exceptions import CooperCancelled

        handle, ends = _core.CancelHandle(), {}

        def work():
            try:
                _core._exercise_for_test({"seconds": 30}, cancel=handle)
            except CooperCancelled as error:
                ends["thread"] = error.code

        thread = threading.Thread(target=work)
        thread.start()
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            _core._exercise_for_test({"seconds": 30})
        except KeyboardInterrupt:
            ends["main"] = thread.is_alive()
        handle.cancel()
        thread.join(5)
        print(json.dumps(ends))
        """
    )
    assert ends == {"main": True, "thread": "interrupted"}


def test_a_handle_stops_every_call_that_has_it() -> None:
    handle = _core.CancelHandle()
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(_core._exercise_for_test, {"seconds": 30}, cancel=handle) for _ in range(3)]
        time.sleep(0.2)
        start = time.monotonic()
        handle.cancel()
        for call in calls:
            with pytest.raises(CooperCancelled):
                call.result(timeout=5)
    assert time.monotonic() - start < ANSWER_SECONDS
    assert handle.cancelled


def test_a_handle_that_is_set_stops_before_anything_happens() -> None:
    handle = _core.CancelHandle()
    handle.cancel()
    events: list[dict[str, Any]] = []
    with pytest.raises(CooperCancelled):
        _core._exercise_for_test({"events": 5}, on_event=events.append, cancel=handle)
    assert events == []


def test_an_exception_in_one_call_leaves_the_handle_alone() -> None:
    handle = _core.CancelHandle()

    def fail(event: dict[str, Any]) -> None:
        raise LookupError(event["message"])

    with pytest.raises(LookupError, match="0"):
        _core._exercise_for_test({"events": 3, "seconds": 30}, on_event=fail, cancel=handle)
    assert not handle.cancelled
    child = handle.child()
    child.cancel()
    assert not handle.cancelled
    handle.cancel()
    assert handle.child().cancelled


@pytest.mark.parametrize("plan", [{"events": 100_000}, {"ask": "example.com"}], ids=["on_event", "credentials"])
def test_an_exception_in_a_function_cancels_and_propagates(plan: dict[str, Any]) -> None:
    error = RuntimeError("from the function")
    calls = 0

    def fail(*_: object) -> None:
        nonlocal calls
        calls += 1
        raise error

    start = time.monotonic()
    with pytest.raises(RuntimeError) as raised:
        _core._exercise_for_test({**plan, "seconds": 30}, on_event=fail, credentials=fail)
    assert raised.value is error
    assert calls == 1
    assert time.monotonic() - start < 5


def test_a_failing_output_cancels_and_propagates() -> None:
    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        _core._exercise_for_test({"write": 50_000_000, "seconds": 30}, output=Full())


def test_a_panic_is_an_error_of_ours(capfd: pytest.CaptureFixture[str]) -> None:
    from zenml_cooper.exceptions import InternalError

    with pytest.raises(InternalError, match="the plan says so") as raised:
        _core._exercise_for_test({"panic": True})
    assert raised.value.hint is not None


def test_functions_are_called_on_the_calling_thread() -> None:
    threads = set()

    def note(*_: object) -> None:
        threads.add(threading.get_ident())

    def work() -> int:
        _core._exercise_for_test({"events": 10, "ask": "a"}, on_event=note, credentials=note)
        return threading.get_ident()

    with ThreadPoolExecutor(1) as pool:
        assert {pool.submit(work).result()} == threads
