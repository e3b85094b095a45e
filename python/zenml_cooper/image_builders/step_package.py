"""The Python part of this package, for the images of pipelines.

Every step of a pipeline loads the whole stack, the image builder included, and fails where the module of a component's
flavor cannot be imported. Flavor, configuration and implementation import without the native module, so their sources
are all that an image needs. They go where ZenML's Dockerfile copies the context to, which is where its entrypoints run.
"""

from collections.abc import Iterator
from importlib import resources
from importlib.abc import Traversable
from typing import Any

_PACKAGE = "zenml_cooper"
# What every Dockerfile that ZenML generates has, and hardly another one.
_GENERATED = (b"\nENV ZENML_CONFIG_PATH=/app/.zenconfig", b"\nCOPY . .")
# In the image, the rest of an installed package stays reachable: the native module, where the parent image has it.
_REACH_INSTALLED = b"\n__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"
_REQUIREMENTS = (b"zenml-cooper", b"zenml_cooper")


def is_generated(context: dict[str, Any]) -> bool:
    """Whether the context's Dockerfile is one that ZenML generated, for an image of a pipeline."""
    dockerfile = next((file["content"] for file in context["extra_files"] if file["path"] == "Dockerfile"), b"")
    return all(mark in dockerfile for mark in _GENERATED)


def add(context: dict[str, Any]) -> None:
    """Adds the package to the context of an image of a pipeline.

    Not where a requirements file names the package, which then gets installed as a whole.
    """
    files = {file["path"]: file["content"] for file in context["extra_files"]}
    if any(name in files[path] for path in files if path.startswith(".zenml_") for name in _REQUIREMENTS):
        return
    context["extra_files"] = context["extra_files"] + [
        {"path": path, "content": content, "mode": 0o644} for path, content in _sources() if path not in files
    ]


def _sources() -> Iterator[tuple[str, bytes]]:
    for path, content in _below(resources.files(_PACKAGE), _PACKAGE):
        yield path, content + _REACH_INSTALLED if path == f"{_PACKAGE}/__init__.py" else content


def _below(directory: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name):
        below = f"{path}/{entry.name}"
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _below(entry, below)
        elif entry.name.endswith(".py"):
            yield below, entry.read_bytes()
