"""Mounts that a server left behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .say import Failure


def unmount_below(home: Path) -> None:
    """Unmounts all below a folder, so that it can be removed. Fails where something stays mounted."""
    for mount in reversed(_below(home)):
        subprocess.run(["umount", mount], check=False, capture_output=True)
    if left := _below(home):
        raise Failure(f"cannot unmount {', '.join(left)}")


def _below(home: Path) -> list[str]:
    fields = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [mount for mount in fields if mount.startswith(f"{home}/")]
