"""Builds as awaitables."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from zenml_cooper import _core, aio
from zenml_cooper.exceptions import CooperCancelled, InternalError

if TYPE_CHECKING:
    from .conftest import RunScript

exercise = _core._exercise_async_for_test


def test_several_run_at_once() -> None:
    async def main() -> float:
        start = time.monotonic()
        await asyncio.gather(*(aio.run(exercise, {"seconds": 0.4}) for _ in range(4)))
        return time.monotonic() - start

    assert 0.4 <= asyncio.run(main()) < 1.2


def test_events_arrive_on_the_loop_in_order_before_the_end() -> None:
    seen: list[str] = []
    threads = set()

    def note(event: dict[str, Any]) -> None:
        seen.append(event["message"])
        threads.add(threading.get_ident())

    async def main() -> int:
        outcome = await aio.run(exercise, {"events": 3000}, on_event=note)
        assert outcome["image"] == "exercise"
        return len(seen)

    assert asyncio.run(main()) == 3000
    assert seen == [str(number) for number in range(3000)]
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("stop_seconds", [0.0, 0.4])
def test_cancelling_the_task_cancels_the_work_and_waits_for_it(stop_seconds: float) -> None:
    async def main() -> float:
        task = asyncio.create_task(aio.run(exercise, {"seconds": 30, "stop_seconds": stop_seconds}))
        await asyncio.sleep(0.2)
        start = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - start

    waited = asyncio.run(main())
    assert stop_seconds <= waited < stop_seconds + 0.2


def test_a_timeout_is_a_cancellation() -> None:
    async def main() -> None:
        await asyncio.wait_for(aio.run(exercise, {"seconds": 30}), 0.1)

    start = time.monotonic()
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(main())
    assert time.monotonic() - start < 2


def test_a_handle_cancels() -> None:
    handle = _core.CancelHandle()

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.1, handle.cancel)
        await aio.run(exercise, {"seconds": 30}, cancel=handle)

    with pytest.raises(CooperCancelled):
        asyncio.run(main())


def test_exceptions_in_functions_cancel_and_propagate() -> None:
    def fail(*_: object) -> None:
        raise LookupError("from the function")

    async def fail_later(*_: object) -> None:
        await asyncio.sleep(0)
        fail()

    async def main(plan: dict[str, Any], credentials: Any) -> None:
        await aio.run(exercise, {**plan, "seconds": 30}, on_event=fail, credentials=credentials)

    for plan, credentials in (({"events": 5}, None), ({"ask": "a"}, fail), ({"ask": "a"}, fail_later)):
        start = time.monotonic()
        with pytest.raises(LookupError, match="from the function"):
            asyncio.run(main(plan, credentials))
        assert time.monotonic() - start < 5


def test_credentials_may_be_awaited_and_run_on_the_loop() -> None:
    events: list[dict[str, Any]] = []

    async def give(registry: str, refresh: bool) -> dict[str, str]:
        await asyncio.sleep(0.01)
        return {"username": str(threading.get_ident()), "password": "p"}

    async def main(credentials: Any) -> None:
        await aio.run(exercise, {"ask": "example.com"}, on_event=events.append, credentials=credentials)

    asyncio.run(main(give))
    asyncio.run(main({"example.com": {"username": "grace", "password": "p"}}))
    messages = [event["message"] for event in events]
    assert messages == [f"user: {threading.get_ident()}", "user: grace"]


def test_a_cancelled_task_does_not_wait_for_credentials() -> None:
    async def never(registry: str, refresh: bool) -> None:
        await asyncio.sleep(3600)

    async def main() -> None:
        await asyncio.wait_for(aio.run(exercise, {"ask": "a"}, credentials=never), 0.1)

    start = time.monotonic()
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(main())
    assert time.monotonic() - start < 3


def test_errors_are_the_same_as_without_asyncio(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        await aio.run(exercise, {"panic": True})

    with pytest.raises(InternalError, match="the plan says so"):
        asyncio.run(main())


def test_no_exit_is_disturbed(run_script: RunScript) -> None:
    """Threads that hand over a result must be gone before the interpreter is."""
    for _ in range(10):
        done = run_script(
            """
            import asyncio, json
            from zenml_cooper import _core

            async def main():
                await asyncio.gather(*(_core._exercise_async_for_test({"events": 20}) for _ in range(3)))

            asyncio.run(main())
            print(json.dumps("done"))
            """
        )
        assert done == "done"
