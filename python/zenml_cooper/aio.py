"""Builds for asyncio: `await zenml_cooper.aio.build(...)`, several at once.

The arguments are those of `zenml_cooper.build`. Cancelling the task cancels the build, and the task ends when the build
has stopped. `on_event` is called on the event loop's thread. `credentials` may be a coroutine function.
"""

import asyncio
import concurrent.futures
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from zenml_cooper import _build
from zenml_cooper._build import Credential, Event, ExtraFiles, PathLike
from zenml_cooper.outcome import Outcome

if TYPE_CHECKING:
    from zenml_cooper._core import CancelHandle
    from zenml_cooper.progress import Mode

Credentials = (
    Callable[[str, bool], Credential | None]
    | Callable[[str, bool], Awaitable[Credential | None]]
    | Mapping[str, Credential]
)


async def build(
    context: PathLike | None = ".",
    *,
    dockerfile: PathLike | None = None,
    dockerfile_text: str | None = None,
    tags: Sequence[str] = (),
    push: bool = False,
    outputs: Sequence[str | Mapping[str, Any]] = (),
    build_args: Mapping[str, str | None] | None = None,
    labels: Mapping[str, str] | None = None,
    target: str | None = None,
    platform: str | Sequence[str] | None = None,
    no_cache: bool = False,
    no_cache_filter: Sequence[str] | None = None,
    pull: bool = False,
    cache_from: Sequence[str] | None = None,
    cache_to: Sequence[str] | None = None,
    compression: str | None = None,
    fold: bool | None = None,
    secrets: Sequence[str | Mapping[str, str | bytes]] | None = None,
    options: Mapping[str, Any] | None = None,
    ignore_file: PathLike | None = None,
    extra_files: ExtraFiles | None = None,
    engine: Literal["auto", "native", "docker", "buildkit"] = "auto",
    endpoint: str | Sequence[str] | None = None,
    docker_context: str | None = None,
    tls: Mapping[str, Any] | None = None,
    token: str | None = None,
    pool: Mapping[str, Any] | None = None,
    builder: Literal["auto", "buildkit", "classic"] = "auto",
    sandbox: Literal["root", "subordinate", "single", "chroot"] | None = None,
    runtime: str | None = None,
    credentials: Credentials | None = None,
    progress: "Mode" = "quiet",
    on_event: Callable[[Event], object] | None = None,
    cancel: "CancelHandle | None" = None,
) -> Outcome:
    """Builds an image as `zenml_cooper.build` does, without blocking the event loop."""
    from zenml_cooper import _core
    from zenml_cooper.progress import renderer

    request = _build.make_request(
        context=_build.context_spec(context, ignore_file, extra_files),
        dockerfile=_build.dockerfile_spec(dockerfile, dockerfile_text),
        tags=tags,
        push=push,
        outputs=outputs,
        options={
            "build-arg": build_args,
            "label": labels,
            "target": target,
            "platform": platform,
            "no-cache": no_cache or None,
            "no-cache-filter": no_cache_filter,
            "pull": pull or None,
            "cache-from": cache_from,
            "cache-to": cache_to,
            "compression": compression,
            "fold": fold,
            "secret": secrets,
        },
        more_options=options,
        engine=_build.engine_spec(
            engine, endpoint, docker_context, tls, builder, sandbox, runtime, token=token, pool=pool
        ),
    )
    with renderer(progress) as show:

        def deliver(event: Event) -> None:
            show(event)
            if on_event is not None:
                on_event(event)

        outcome = await run(_core.build_async, request, on_event=deliver, credentials=credentials, cancel=cancel)
        show.finish(outcome)
    return Outcome.from_dict(outcome)


async def run(
    start: Callable[..., Awaitable[dict[str, Any]]],
    request: Mapping[str, Any],
    *,
    on_event: Callable[[Event], object] | None = None,
    credentials: Credentials | None = None,
    cancel: "CancelHandle | None" = None,
) -> dict[str, Any]:
    """Awaits one of the native module's asynchronous functions.

    An exception in `on_event` or `credentials` cancels the work and is raised when the work has stopped; so is the
    cancellation of the task.
    """
    from zenml_cooper import _core

    loop = asyncio.get_running_loop()
    stop = cancel.child() if cancel is not None else _core.CancelHandle()
    raised: list[BaseException] = []
    asking: set[concurrent.futures.Future[Any]] = set()

    def deliver(event: Event) -> None:
        if raised or on_event is None:
            return
        try:
            on_event(event)
        except BaseException as error:  # noqa: BLE001 - it is raised by the task that waits
            raised.append(error)
            stop.cancel()

    function: Any = _build.credentials_function(cast("_build.Credentials | None", credentials))

    async def answer(registry: str, refresh: bool) -> Any:
        result = function(registry, refresh) if function is not None else None
        return await result if inspect.isawaitable(result) else result

    def ask(registry: str, refresh: bool) -> Any:
        # Called on a helper thread, while the loop is free.
        asked = asyncio.run_coroutine_threadsafe(answer(registry, refresh), loop)
        asking.add(asked)
        try:
            return asked.result()
        except BaseException as error:
            raised.append(error)
            stop.cancel()
            raise

    future = asyncio.ensure_future(
        start(
            request,
            on_event=deliver if on_event is not None else None,
            credentials=ask if function is not None else None,
            cancel=stop,
        )
    )
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
            stop.cancel()
    for asked in asking:
        # Otherwise the helper thread would wait for an answer that nobody needs.
        asked.cancel()
    failed = future.exception()
    if cancelled is not None:
        raise cancelled
    if raised:
        raise raised[0]
    if failed is not None:
        raise failed
    return future.result()
