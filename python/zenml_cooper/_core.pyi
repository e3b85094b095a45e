import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NoReturn, Protocol, TypeAlias, final

from zenml_cooper._contexts import Entry, Report, Suggestion, Why

__all__ = [
    "CancelHandle",
    "ContextList",
    "_events_for_test",
    "_exercise_async_for_test",
    "_exercise_for_test",
    "_raise_for_test",
    "_serve_sandbox",
    "build",
    "build_arguments",
    "build_async",
    "build_option_names",
    "build_outputs",
    "check_request",
    "context_digest",
    "context_list",
    "context_pack",
    "context_report",
    "context_suggest",
    "context_why",
    "context_write_list",
    "dockerfile_check",
    "doctor",
    "error_codes",
    "image_reference",
    "store_prune",
    "store_usage",
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
def build_arguments(
    options: Mapping[str, Any], program: Literal["kaniko", "codebuild", "cloudbuild"]
) -> dict[str, list[str]]: ...
def build_outputs(outputs: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]) -> dict[str, Any]: ...
def image_reference(text: str) -> dict[str, str | None]: ...
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

@final
class ContextList:
    def __getitem__(self, key: int, /) -> Entry: ...
    def __iter__(self) -> Iterator[Entry]: ...
    def __len__(self) -> int: ...

def context_list(
    context: Mapping[str, Any], *, dockerfile: Mapping[str, str] | None = None, cancel: CancelHandle | None = None
) -> ContextList: ...
def context_write_list(
    context: Mapping[str, Any],
    output: _Writable,
    style: str = "names",
    *,
    dockerfile: Mapping[str, str] | None = None,
    cancel: CancelHandle | None = None,
) -> None: ...
def context_pack(
    context: Mapping[str, Any],
    output: str | os.PathLike[str] | int | _Writable,
    format: Literal["tar", "tar.gz", "tar.zst", "zip"] | str = "tar",  # noqa: A002, PYI051
    *,
    dockerfile: Mapping[str, str] | None = None,
    level: int | None = None,
    source_date_epoch: int | None = None,
    digest: bool = True,
    cancel: CancelHandle | None = None,
) -> dict[str, Any]: ...
def context_digest(
    context: Mapping[str, Any],
    *,
    dockerfile: Mapping[str, str] | None = None,
    index: bool = True,
    cancel: CancelHandle | None = None,
) -> dict[str, Any]: ...
def context_report(
    context: Mapping[str, Any],
    *,
    dockerfile: Mapping[str, str] | None = None,
    excluded: bool = False,
    cancel: CancelHandle | None = None,
) -> Report: ...
def context_why(
    context: Mapping[str, Any],
    paths: Sequence[str | os.PathLike[str]],
    *,
    dockerfile: Mapping[str, str] | None = None,
    cancel: CancelHandle | None = None,
) -> list[Why]: ...
def context_suggest(
    context: Mapping[str, Any], *, dockerfile: Mapping[str, str] | None = None, cancel: CancelHandle | None = None
) -> Suggestion: ...
def store_usage(*, cancel: CancelHandle | None = None) -> dict[str, Any]: ...
def store_prune(
    *, keep_storage: str | None = None, older_than: str | None = None, cancel: CancelHandle | None = None
) -> dict[str, Any]: ...
def dockerfile_check(request: Mapping[str, Any]) -> dict[str, Any]: ...
def check_request(request: Mapping[str, Any]) -> None: ...
def _serve_sandbox() -> None: ...
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
