"""Does one thing to one context in a process of its own, and prints what it cost as JSON.

    python benches/worker.py cooper|zenml tar|tar.gz|zip ROOT OUTPUT
    python benches/worker.py core tar|tar.gz|tar.zst|zip ROOT OUTPUT
    python benches/worker.py twice digest|report ROOT

What is imported beforehand is not measured: whoever packs a context with ZenML has imported ZenML. `core` calls the
native module alone.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zenml_cooper import _core

KIB = 1 << 10


def _memory(field: str) -> int:
    """A field of this process's memory, in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found, field
    return int(found[1]) * KIB


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measured(action: Callable[[], Any]) -> dict[str, float]:
    """What the action cost: wall and processor seconds, and the highest memory above what was there before."""
    # Sets the high-water mark back to what is used now.
    Path("/proc/self/clear_refs").write_text("5")
    memory, cpu, begun = _memory("VmRSS"), _cpu(), time.perf_counter()
    action()
    wall = time.perf_counter() - begun
    return {"wall": wall, "cpu": _cpu() - cpu, "peak": _memory("VmHWM") - memory}


def packed(kind: str, archive_type: str, root: str, output: str) -> dict[str, float]:
    """Packs with ZenML's own context, with ours, or with the native module alone."""
    if kind == "core":
        cost = measured(lambda: _core.context_pack({"root": root}, output, archive_type, digest=False))
    else:
        from zenml.image_builders import BuildContext
        from zenml.utils.archivable import ArchiveType

        from zenml_cooper.context import CooperBuildContext

        context = (CooperBuildContext if kind == "cooper" else BuildContext)(root=root)
        with open(output, "w+b") as file:
            cost = measured(lambda: context.write_archive(file, ArchiveType(archive_type)))
    return {**cost, "size": os.path.getsize(output)}


def twice(what: str, root: str) -> list[dict[str, float]]:
    """A digest or a report, and the same again: what the first one keeps is the second one's gain."""

    def action() -> object:
        return _core.context_digest({"root": root}) if what == "digest" else _core.context_report({"root": root})

    return [measured(action) for _ in range(2)]


def main() -> None:
    kind, what, *rest = sys.argv[1:]
    print(json.dumps(twice(what, *rest) if kind == "twice" else packed(kind, what, *rest)))


if __name__ == "__main__":
    main()
