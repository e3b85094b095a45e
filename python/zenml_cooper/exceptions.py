"""What a build can fail with.

The native module raises these; which error becomes which class is decided there. `code` names the kind of an error for
good, `docs/errors.md` lists all codes.
"""

from collections.abc import Mapping
from typing import Any

from zenml_cooper._text import sanitize


class CooperError(Exception):
    """Any error of this package.

    Attributes:
        code: The stable name of this kind of error, e.g. `registry-denied`.
        message: What went wrong, in one line.
        hint: What to do next, where there is something to do.
        frame: The place in a Dockerfile or ignore file, drawn for people, where there is one.
        fields: The facts behind the message, by name.

    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "internal",
        hint: str | None = None,
        frame: str | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint
        self.frame = frame
        self.fields = dict(fields or {})

    def __str__(self) -> str:
        parts = [sanitize_lines(self.message)]
        if self.frame:
            parts.append(sanitize_lines(self.frame.rstrip("\n")))
        parts.extend(self._details())
        if self.hint:
            parts.append(f"hint: {self.hint}")
        return "\n".join(parts)

    def _details(self) -> list[str]:
        """More lines, between the place and the hint."""
        return []

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword arguments do not survive the default way of pickling, and errors do cross processes.
        state = {"code": self.code, "hint": self.hint, "frame": self.frame, "fields": self.fields}
        return _restore, (type(self), self.message, state)


def _restore(cls: type[CooperError], message: str, state: dict[str, Any]) -> CooperError:
    return cls(message, **state)


def sanitize_lines(text: str) -> str:
    """Several lines without control characters."""
    return "\n".join(map(sanitize, text.split("\n")))


class OptionError(CooperError, ValueError):
    """Something that was asked for is wrong: a name, a platform, an option, a secret that is not there."""


class UnsupportedError(CooperError):
    """The engine or the daemon cannot do what was asked for."""


class ContextError(CooperError):
    """The build context or an ignore file cannot be read."""


class DockerfileError(CooperError):
    """There is no Dockerfile, or it has a mistake."""


class BuildError(CooperError):
    """The build failed."""

    @property
    def tail(self) -> list[str]:
        """The last lines that the failing step printed, or the builder where no step is known."""
        return list(self.fields.get("tail", []))

    def _details(self) -> list[str]:
        if not self.tail:
            return []
        return ["the end of its output:", *(f"  {sanitize(line)}" for line in self.tail)]


class StepFailed(BuildError):
    """A step of the build failed.

    `fields` has `instruction`, `exit_code`, `message`, `tail` (the last lines of the output), and, where known,
    `file`, `line` and `column`.
    """


class DaemonError(CooperError):
    """The Docker or Podman daemon cannot be reached, or refused."""


class RegistryError(CooperError):
    """A registry cannot be reached or refused, or its credentials cannot be had."""


class StoreError(CooperError):
    """The store of layers and records, on this machine."""


class TimedOut(CooperError):
    """Something took longer than it ever should."""


class CooperCancelled(CooperError):
    """The build was cancelled with a `CancelHandle`."""


class InternalError(CooperError):
    """A defect of this package."""
