"""Who is compared, and how each is run: one process for one measurement, the time and the memory of the work alone."""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import trees

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Cost:
    """What one run took."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of user and system time, of all threads."""
    size: int
    """Bytes that were written or sent."""
    peak: float | None = None
    """Bytes of memory above what the process had before; not known of programs that we do not run ourselves."""


class Failed(Exception):
    """A peer did not do its work."""


def run(command: list[str], **options: object) -> tuple[float, float, str]:
    """Runs a command to its end: wall seconds, processor seconds of it and its children, output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode != 0:
        raise Failed(f"{shlex.join(command)}\n{ended.stdout}{ended.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, ended.stdout


def worker(*arguments: str | Path) -> str:
    """What the worker prints."""
    return run([sys.executable, str(HERE / "worker.py"), *map(str, arguments)])[2]


def pack(peer: str, archive_type: str, root: Path, output: Path, floor: Path) -> Cost:
    """Lets a peer write an archive. The floor writes the same contents without any format."""
    output.unlink(missing_ok=True)
    if peer in ("cooper", "zenml", "core"):
        return Cost(**json.loads(worker(peer, archive_type, root, output)))
    wall, cpu, _ = run(["bash", "-o", "pipefail", "-c", shell(peer, root, output, floor)], cwd=root)
    return Cost(wall, cpu, output.stat().st_size)


def shell(peer: str, root: Path, output: Path, floor: Path) -> str:
    """The command line of a peer that is a program; it runs in the root."""
    ignored = [*trees.IGNORED, ".dockerignore"] if (root / ".dockerignore").exists() else []
    patterns = [shlex.quote(f"./{pattern}".replace("**/", "*")) for pattern in ignored]
    quoted, program = shlex.quote(str(output)), shlex.quote(str(floor))
    if peer == "floor":
        pruned = "".join(f" -path {pattern} -prune -o" for pattern in patterns)
        return f"find .{pruned} -type f -print0 | {program} buffer {quoted}"
    excluded = "".join(f" --exclude={pattern}" for pattern in patterns)
    tar = f"tar --format=gnu --anchored{excluded} -c"
    return {"tar": f"{tar} -f {quoted} .", "tar | pigz": f"{tar} . | pigz > {quoted}"}[peer]


@dataclass
class StandIn:
    """A daemon that takes contexts."""

    socket: Path
    lines: IO[str]

    def send(self, peer: str, root: Path, dockerfile: Path) -> Cost:
        """Lets a client send a context: from its start until the daemon has the last byte."""
        program = [str(Path(sys.executable).with_name("cooper"))] if peer == "cooper" else ["docker"]
        environment = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_BUILDKIT": "0"}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begun = time.monotonic()
        command = [*program, "build", "-f", str(dockerfile), str(root)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if "builds nothing" not in ended.stdout + ended.stderr:
            raise Failed(f"{shlex.join(command)}\n{ended.stdout}{ended.stderr}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        arrived: Mapping[str, float] = json.loads(self.lines.readline())
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Cost(arrived["ended"] - begun, cpu, int(arrived["size"]))


@contextmanager
def stand_in(folder: Path) -> Iterator[StandIn]:
    """Runs the stand-in."""
    socket = folder / "docker.sock"
    command = [sys.executable, str(HERE / "standin.py"), str(socket)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            process.stdout.readline()
            yield StandIn(socket, process.stdout)
        finally:
            process.terminate()
