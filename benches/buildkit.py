"""Times the BuildKit engine, and counts what it sends, beside `buildctl` and the Docker command line.

A context of many small files is built and pushed: the first time, again with nothing changed, and again with one file
changed. Each round uses new content, so that "first" is never served from a cache. Who takes part:

- `cooper`: `cooper build --engine buildkit` with the BuildKit that BUILDKIT_HOST names,
- `buildctl` with the same one, where it is installed,
- `cooper, dockerd`: the BuildKit inside the Docker daemon,
- `docker`: `docker build` with BuildKit and `docker push`, where the command line has a BuildKit client (buildx).

Printed and written as JSON: medians of seconds from the client's start to its end, ratios to `cooper`, and bytes of
files that were sent, as each client tells them. Without BUILDKIT_HOST, the Docker daemon's is compared alone.

    eval "$(scripts/testbed env .testbed)" && .venv/bin/python benches/buildkit.py --files 50000 --rounds 3
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import comparison
from build import CASES, make_tree

COOPER = str(Path(sys.executable).with_name("cooper"))
# What buildctl and Docker print of the context's transfer: `#4 transferring context: 41.26MB 0.3s done`.
_SENT = re.compile(r"transferring context: ([0-9.]+)\s*([kMG]?B)")
_UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}


class Built(NamedTuple):
    """One build."""

    seconds: float
    sent: float


def run(command: list[str], **environment: str) -> tuple[float, str]:
    """Seconds that a command takes, and what it prints."""
    start = time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    seconds = time.perf_counter() - start
    if ended.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{ended.stderr[-3000:]}")
    return seconds, ended.stdout + ended.stderr


def sent(text: str) -> float:
    """The bytes that a client says it transferred."""
    told = [float(number) * _UNITS[unit] for number, unit in _SENT.findall(text)]
    return max(told, default=0.0)


def with_cooper(endpoint: str) -> Callable[[Path, str], Built]:
    """`cooper build` with one worker."""

    def build(folder: Path, image: str) -> Built:
        with tempfile.NamedTemporaryFile(prefix="cooper-bench-", suffix=".json") as file:
            where = ["--engine", "buildkit", "--endpoint", endpoint, "--metadata-file", file.name]
            seconds, _ = run([COOPER, "build", *where, "--progress", "quiet", "-t", image, "--push", str(folder)])
            told = json.loads(Path(file.name).read_text())
        return Built(seconds, told["totals"]["sent_bytes"])

    return build


def with_buildctl(folder: Path, image: str) -> Built:
    """`buildctl build`."""
    folders = ["--local", f"context={folder}", "--local", f"dockerfile={folder}"]
    output = ["--output", f"type=image,name={image},push=true"]
    command = ["buildctl", "build", "--progress", "plain", "--frontend", "dockerfile.v0", *folders, *output]
    seconds, text = run(command)
    return Built(seconds, sent(text))


def with_docker(folder: Path, image: str) -> Built:
    """`docker build` and `docker push`."""
    seconds, text = run(["docker", "build", "--progress", "plain", "-t", image, str(folder)], DOCKER_BUILDKIT="1")
    pushed, _ = run(["docker", "push", "--quiet", image])
    return Built(seconds + pushed, sent(text))


def builders() -> dict[str, Callable[[Path, str], Built]]:
    """Whoever is here, the one that others are compared with first."""
    found: dict[str, Callable[[Path, str], Built]] = {}
    if host := os.environ.get("BUILDKIT_HOST"):
        found["cooper"] = with_cooper(host)
        if shutil.which("buildctl"):
            found["buildctl"] = with_buildctl
    found["cooper, dockerd"] = with_cooper("docker://")
    if shutil.which("docker") and subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode == 0:
        found["docker"] = with_docker
    return found


def one_round(build: Callable[[Path, str], Built], image: str, base: str, files: int) -> list[Built]:
    """The three cases, in their order."""
    marker = uuid.uuid4().hex
    root = Path(tempfile.mkdtemp(prefix="cooper-bench-"))
    try:
        make_tree(root, files, marker)
        (root / "Dockerfile").write_text(f"FROM {base}\nWORKDIR /app\nENV ROUND='{marker}'\nCOPY . .\n")
        results = [build(root, image), build(root, image)]
        (root / "package_000" / "module_00.py").write_text(f"changed = {marker!r}\n")
        results.append(build(root, image))
        return results
    finally:
        shutil.rmtree(root, ignore_errors=True)


def main() -> None:
    """Runs the comparison."""
    given = comparison.arguments(__doc__, files=5000)
    address, base = os.environ["COOPER_TEST_REGISTRY"], os.environ["COOPER_TEST_BUSYBOX"]
    seconds: dict[str, list[dict[str, float]]] = {}
    volumes: dict[str, list[list[float]]] = {}
    for number in range(given.rounds):
        for name, build in builders().items():
            tag = re.sub(r"[^a-z]+", "-", name).strip("-")
            built = one_round(build, f"{address}/cooper-bench-buildkit:{tag}-{number}", base, given.files)
            seconds.setdefault(name, []).append(dict(zip(CASES, (one.seconds for one in built), strict=True)))
            volumes.setdefault(name, []).append([one.sent for one in built])
    comparison.report(f"{given.files} files", seconds, given)
    print("\nbytes of files sent")
    for name, rounds in volumes.items():
        medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
        print(f"{name:28}" + "".join(f"{median:16,.0f}" for median in medians))


if __name__ == "__main__":
    main()
