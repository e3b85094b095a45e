"""What a build leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StepOutcome:
    """One step of a build."""

    name: str
    """The step as the builder names it."""
    seconds: float
    """Wall time."""
    cached: bool
    """Whether the result came out of the cache."""


@dataclass(frozen=True)
class Totals:
    """Sums over a build. Times are wall seconds of phases that may overlap."""

    seconds: float
    context_seconds: float
    build_seconds: float
    push_seconds: float
    """0 where a BuildKit worker pushes: that is part of its build."""
    context_files: int
    context_bytes: int
    sent_bytes: int
    """Bytes of the context that went to the builder; with a warm BuildKit only what changed."""
    pushed_bytes: int
    """Bytes of the layers that went to the registry; 0 where a BuildKit worker pushes, which does not tell."""
    cached_steps: int
    total_steps: int


@dataclass(frozen=True)
class Outcome:
    """The result of a successful build."""

    image: str
    """`repository@sha256:...` of the pushed manifest, or the first tag where nothing was pushed, or the image id."""
    tags: tuple[str, ...]
    """All tags that the image has now."""
    digest: str | None
    """Digest of the manifest in the registry; `None` where nothing was pushed."""
    config_digest: str | None
    """Digest of the image config (the image id of the Docker CLI), where the builder tells it."""
    engine: str
    builder: str
    steps: tuple[StepOutcome, ...]
    """The steps, in the order in which they ended."""
    totals: Totals

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Outcome":
        """The outcome that the native module returned."""
        return cls(
            **{
                **data,
                "tags": tuple(data["tags"]),
                "steps": tuple(StepOutcome(**step) for step in data["steps"]),
                "totals": Totals(**data["totals"]),
            }
        )
