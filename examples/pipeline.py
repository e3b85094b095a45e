"""A pipeline of two steps that run in one image.

The image builder of the active stack makes that image: the parent image (environment variable PARENT_IMAGE; ZenML's own
where it is not set), what the stack requires, and this folder's code.
"""

from __future__ import annotations

import os
import platform

from zenml import pipeline, step
from zenml.config import DockerSettings

docker_settings = DockerSettings(
    parent_image=os.environ.get("PARENT_IMAGE"),
    # Put the code into the image, so that the image is all that a step needs.
    allow_download_from_artifact_store=False,
    allow_download_from_code_repository=False,
)


@step
def squares(limit: int) -> list[int]:
    """Makes the numbers."""
    return [number * number for number in range(1, limit + 1)]


@step
def summarize(numbers: list[int]) -> str:
    """Adds them up, and says where."""
    return f"the sum of {numbers} is {sum(numbers)}; computed in {platform.node()}, Python {platform.python_version()}"


@pipeline(settings={"docker": docker_settings}, enable_cache=False)
def cooper_demo(limit: int = 5) -> None:
    """Two steps, so that an artifact travels between two containers."""
    summarize(squares(limit))


if __name__ == "__main__":
    cooper_demo()
