"""The native module. `zenml_cooper.build` and `zenml_cooper.aio.build` are its face."""

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NoReturn, Protocol, final

version: str

class _Writable(Protocol):
    def write(self, data: bytes, /) -> object: ...

_OnEvent = Callable[[dict[str, Any]], object]
_Credentials = Callable[[str, bool], Mapping[str, str] | None]

@final
class CancelHandle:
    """Stops the calls that it was given to, from any thread. Cannot be set back."""

    def __new__(cls) -> CancelHandle: ...
    def cancel(self) -> None:
        """Stops these calls; they raise `CooperCancelled`."""
    def child(self) -> CancelHandle:
        """A handle that is stopped with this one, and that can be stopped alone."""
    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""

def error_codes() -> list[str]:
    """The code of every error."""

def build_option_names() -> dict[str, list[str]]:
    """Every build option: the Docker CLI's name -> the other names that are taken for it."""

def check_build_options(options: Mapping[str, Any]) -> None:
    """Checks options as users write them; raises `OptionError`."""

def _raise_for_test(code: str) -> NoReturn: ...
def _events_for_test() -> list[dict[str, Any]]: ...
def _wait_for_threads() -> None: ...
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
