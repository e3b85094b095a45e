"""Programs from Debian packages: those of the machine, else unpacked into a folder, so that no service is installed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from .say import Failure, run, step


def program(name: str, package: str, tools: Path) -> str:
    """The path of a program: on PATH, in `tools`, or unpacked into `tools` from its package.

    For programs that need no more than their own package (statically linked ones).
    """
    found = shutil.which(name) or _find(name, tools)
    if found is None:
        step(f"unpacking {package} into {tools}")
        _unpack(package, tools)
        found = _find(name, tools)
    if found is None:
        raise Failure(f"the package {package} has no program `{name}`")
    return found


def _find(name: str, tools: Path) -> str | None:
    return shutil.which(name, path=":".join(str(tools / part) for part in ("usr/bin", "bin", "usr/sbin", "sbin")))


def _unpack(package: str, tools: Path) -> None:
    tools.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cooper-deb-") as scratch:
        run(
            ["apt-get", "download", "-q", package],
            cwd=Path(scratch),
            hint=f"if no package was found: run `apt-get update`, or install {package}",
        )
        for deb in Path(scratch).glob("*.deb"):
            run(["dpkg-deb", "-x", str(deb), str(tools)])
