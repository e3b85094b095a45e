"""Words for people, and commands that say what they did when they fail."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO


class Failure(Exception):
    """Something is missing or did not work; the text says what, and what to do."""


def step(text: str) -> None:
    """One line of progress, on stderr: stdout carries results only."""
    print(f"testbed: {text}", file=sys.stderr, flush=True)


def run(
    command: Sequence[str],
    *,
    stdin: IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 900,
    hint: str = "",
) -> str:
    """Runs a command to its end and returns what it printed. Fails with its last lines."""
    try:
        done = subprocess.run(
            command,
            stdin=stdin or subprocess.DEVNULL,
            capture_output=True,
            env=env,
            cwd=cwd,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise Failure(f"`{command[0]}` is not installed{'; ' + hint if hint else ''}") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"`{shlex.join(command)}` did not end within {timeout:.0f} s") from None
    if done.returncode != 0:
        output = (done.stdout + b"\n" + done.stderr).decode(errors="replace").strip().splitlines()
        tail = "\n  ".join(output[-15:])
        hint = f"\n{hint}" if hint else ""
        raise Failure(f"`{shlex.join(command)}` failed with exit code {done.returncode}:\n  {tail}{hint}")
    return done.stdout.decode(errors="replace")
