import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NoReturn, Protocol, TypeAlias, final

__all__ = [
    "CancelHandle",
    "_events_for_test",
    "_exercise_async_for_test",
    "_exercise_for_test",
    "_raise_for_test",
    "build",
    "build_async",
    "build_option_names",
    "check_request",
    "context_digest",
    "context_list",
    "context_pack",
    "context_report",
    "doctor",
    "error_codes",
    "version",
]

version: str

class _Writable(Protocol):
    def write(self, data: bytes, /) -> object: ...

_OnEvent: TypeAlias = Callable[[dict[str, Any]], object]
_Credentials: TypeAlias = Callable[[str, bool], Mapping[str, str] | None]

@final
class CancelHandle:
    def __new__(cls) -> CancelHandle: ...
    def cancel(self) -> None: ...
    def child(self) -> CancelHandle: ...
    @property
    def cancelled(self) -> bool: ...

def error_codes() -> list[str]: ...
def build_option_names() -> dict[str, list[str]]: ...
def build(
    request: Mapping[str, Any],
    *,
    on_event: _OnEvent | None = None,
    credentials: _Credentials | None = None,
    cancel: CancelHandle | None = None,
) -> dict[str, Any]: ...
def build_async(
    request: Mapping[str, Any],
    *,
    on_event: _OnEvent | None = None,
    credentials: _Credentials | None = None,
    cancel: CancelHandle | None = None,
) -> Awaitable[dict[str, Any]]: ...
def doctor(
    engine: Mapping[str, Any] | None = None,
    *,
    registry: str | None = None,
    credentials: _Credentials | None = None,
    cancel: CancelHandle | None = None,
) -> dict[str, Any]: ...
def context_list(
    context: Mapping[str, Any], *, dockerfile: Mapping[str, str] | None = None, cancel: CancelHandle | None = None
) -> list[dict[str, Any]]: ...
def context_pack(
    context: Mapping[str, Any],
    output: str | os.PathLike[str] | int | _Writable,
    format: Literal["tar", "tar.gz", "tar.zst", "zip"] | str = "tar",  # noqa: A002, PYI051
    *,
    dockerfile: Mapping[str, str] | None = None,
    level: int | None = None,
    source_date_epoch: int | None = None,
    cancel: CancelHandle | None = None,
) -> dict[str, Any]: ...
def context_digest(
    context: Mapping[str, Any], *, dockerfile: Mapping[str, str] | None = None, cancel: CancelHandle | None = None
) -> str: ...
def context_report(
    context: Mapping[str, Any], *, dockerfile: Mapping[str, str] | None = None, cancel: CancelHandle | None = None
) -> dict[str, Any]: ...
def check_request(request: Mapping[str, Any]) -> None: ...
def _raise_for_test(code: str) -> NoReturn: ...
def _events_for_test() -> list[dict[str, Any]]: ...
def _exercise_for_test(
    plan: Mapping[str, Any],
    *,
    on_event: _OnEvent | None = None,
    credentials: _Credentials | None = None,
    output: _Writable | None = None,
    cancel: CancelHandle | None = None,
) -> dict[str, Any]: ...
def _exercise_async_for_test(
    plan: Mapping[str, Any],
    *,
    on_event: _OnEvent | None = None,
    credentials: _Credentials | None = None,
    cancel: CancelHandle | None = None,
) -> Awaitable[dict[str, Any]]: ...
