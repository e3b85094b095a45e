"""Build contexts of other classes, made into what the native module takes."""

import os
import stat
from typing import Any

from zenml.constants import REPOSITORY_DIRECTORY_NAME
from zenml.image_builders import BuildContext

from zenml_cooper.context import CooperBuildContext


def context_spec(context: BuildContext) -> dict[str, Any]:
    """A context as the native module takes it, whichever class it has."""
    if isinstance(context, CooperBuildContext):
        return context.spec()
    extra_files = [_extra_file(path, content) for path, content in context.get_extra_files().items()]
    if type(context).get_files is BuildContext.get_files:
        return {
            "root": os.path.abspath(context._root) if context._root else None,
            "ignore_file": os.path.abspath(context.dockerignore_file) if context.dockerignore_file else None,
            "extra_patterns": [f"!/{REPOSITORY_DIRECTORY_NAME}"],
            "extra_files": extra_files,
            "omit_ignore_file": True,
        }
    # A class with rules of its own: what it lists is what goes in.
    taken = {file["path"] for file in extra_files}
    walked = [_read(path, source) for path, source in context.get_files().items() if path not in taken]
    return {"root": None, "extra_files": [file for file in walked if file is not None] + extra_files}


class SpelledOutContext(CooperBuildContext):
    """A context whose files are already what the native module takes."""

    def __init__(self, spec: dict[str, Any]) -> None:
        """Makes a context.

        Args:
            spec: What `spec` gives.
        """
        super().__init__(root=spec["root"], dockerignore_file=spec.get("ignore_file"))
        self._spec = spec

    def spec(self) -> dict[str, Any]:
        """This context as the native module takes it."""
        return dict(self._spec)


def _extra_file(path: str, content: str | bytes) -> dict[str, Any]:
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogateescape")
    return {"path": path, "content": content, "mode": 0o644}


def _read(path: str, source: str) -> dict[str, Any] | None:
    status = os.stat(source)
    if not stat.S_ISREG(status.st_mode):
        return None
    with open(source, "rb") as file:
        return {"path": path, "content": file.read(), "mode": stat.S_IMODE(status.st_mode)}
