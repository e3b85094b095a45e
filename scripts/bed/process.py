"""Servers that outlive this command, known by process id and start time so that only they are ever ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from .say import Failure

START_TIMEOUT = 30.0
"""Seconds that a server may take to answer: a registry takes one, a loaded machine many."""

STOP_TIMEOUT = 10.0
"""Seconds that a server has to end before it is killed."""


class Record(TypedDict):
    """A server that was started. `started` tells it from a later process with the same id."""

    pid: int
    started: str


def _started(pid: int) -> str | None:
    """When a process started (clock ticks since boot), or None where there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def alive(record: Record) -> bool:
    """Whether that very process runs."""
    return _started(record["pid"]) == record["started"]


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(
    command: Sequence[str], log: Path, ready: Callable[[], bool], *, env: Mapping[str, str] | None = None
) -> Record:
    """Starts a server that goes on when this command ends, and waits until `ready`.

    Fails with the end of its log if it stops or does not answer in time; it is then no longer running.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, start_new_session=True
        )
    deadline = time.monotonic() + START_TIMEOUT
    reason = f"did not answer within {START_TIMEOUT:.0f} s"
    while time.monotonic() < deadline:
        if server.poll() is not None:
            reason = f"ended with exit code {server.returncode}"
            break
        started = _started(server.pid)
        if ready() and started:
            server.returncode = 0  # it goes on without us: Popen shall not warn about that
            return {"pid": server.pid, "started": started}
        time.sleep(0.05)
    if server.poll() is None:
        server.kill()
        server.wait()
    tail = "\n  ".join(log.read_text(errors="replace").strip().splitlines()[-10:])
    raise Failure(f"`{command[0]}` {reason}:\n  {tail}")


def stop(record: Record) -> None:
    """Ends a server that `start` returned, if it still runs, and waits for its end."""
    for number, patience in ((signal.SIGTERM, STOP_TIMEOUT), (signal.SIGKILL, STOP_TIMEOUT)):
        if not alive(record):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(record["pid"], number)
        deadline = time.monotonic() + patience
        while alive(record) and time.monotonic() < deadline:
            time.sleep(0.05)
    if alive(record):
        raise Failure(f"process {record['pid']} does not end")
