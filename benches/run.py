"""Times RUN: what it costs beside the command itself, how long a base takes to be unpacked, and ZenML's own image.

Three questions, each answered in one run with its peers, as medians and ratios:

- `overhead`: ten `RUN true`, none of them cached, on a base that is unpacked already; seconds for each command. Peers:
  BuildKit (`buildctl`, where BUILDKIT_HOST names one, whose cache is emptied), and the Docker daemon.
- `unpack`: a base that is in no store and in no cache, until a command has run on it. Peers: `docker pull` of the same
  base, and BuildKit with an empty cache.
- `zenml`: the image that ZenML builds by default, `pip install` of zenml included, with nothing cached but the base.

    eval "$(scripts/testbed env .testbed)" && .venv/bin/python benches/run.py --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

COOPER = str(Path(sys.executable).with_name("cooper"))
COMMANDS = 10
ZENML = "zenml[local]==0.98.0"


class Peer:
    """Something that builds and pushes from a folder with a Dockerfile."""

    def __init__(self, name: str, command: list[str], forget: Callable[[], object]) -> None:
        self.name = name
        self.command = command
        self.forget = forget

    def build(self, folder: Path) -> float:
        """Wall seconds of one build."""
        start = time.perf_counter()
        ended = subprocess.run(
            [part.replace("{}", str(folder)) for part in self.command], capture_output=True, text=True
        )
        if ended.returncode != 0:
            raise SystemExit(f"{self.name} failed:\n{ended.stderr[-3000:]}")
        return time.perf_counter() - start


def new_store(folder: Path) -> None:
    """Has builds use a store that is empty. Old ones stay until the end: ext4 is slow where much was just removed."""
    os.environ["COOPER_CACHE_DIR"] = tempfile.mkdtemp(dir=folder)


def peers(stores: Path, image: str) -> list[Peer]:
    """Whoever is here. Each pushes what it builds."""
    new_store(stores)
    found = [
        Peer(
            "cooper",
            [COOPER, "build", "--engine", "native", "--progress", "quiet", "--push", "-t", f"{image}:cooper", "{}"],
            lambda: new_store(stores),
        )
    ]
    if shutil.which("buildctl") and os.environ.get("BUILDKIT_HOST"):
        folders = ["--local", "context={}", "--local", "dockerfile={}"]
        output = ["--output", f"type=image,name={image}:buildctl,push=true,registry.insecure=true"]
        command = ["buildctl", "build", "--frontend", "dockerfile.v0", *folders, *output]
        found.append(Peer("buildctl", command, lambda: run("buildctl", "prune", "--all")))
    found.append(
        Peer(
            "docker",
            [COOPER, "build", "--engine", "docker", "--progress", "quiet", "--push", "-t", f"{image}:docker", "{}"],
            lambda: None,
        )
    )
    return found


def run(*command: str) -> None:
    """Runs a program whose output nobody needs."""
    subprocess.run(command, check=True, capture_output=True)


def project(text: str) -> Path:
    """A folder with a Dockerfile."""
    folder = Path(tempfile.mkdtemp(prefix="cooper-bench-"))
    (folder / "Dockerfile").write_text(text)
    return folder


def overhead(base: str, peer: Peer) -> float:
    """Seconds that a command takes which does nothing."""
    folder = project(f"FROM {base}\n")

    def build(commands: int) -> float:
        marker = uuid.uuid4().hex
        lines = "".join(f"RUN true {marker} {number}\n" for number in range(commands))
        (folder / "Dockerfile").write_text(f"FROM {base}\n{lines}")
        return peer.build(folder)

    build(1)
    one = build(1)
    return max(build(1 + COMMANDS) - one, 0.0) / COMMANDS


def fresh_base(base: str) -> str:
    """The same files as one layer that nobody has ever seen, in the registry of the test bed."""
    image = f"{os.environ['COOPER_TEST_REGISTRY']}/cooper-bench/base:{uuid.uuid4().hex[:12]}"
    folder = project(
        f"FROM {base} AS marked\nRUN echo {uuid.uuid4().hex} > /marker\nFROM scratch\nCOPY --from=marked / /\n"
    )
    run(COOPER, "build", "--engine", "native", "--progress", "quiet", "--push", "-t", image, str(folder))
    return image


def unpack(image: str, peer: Peer) -> float:
    """Seconds from an empty store to the end of a first command."""
    peer.forget()
    return peer.build(project(f"FROM {image}\nENV PATH=/usr/bin:/bin\nRUN true\n"))


def pull(image: str) -> float:
    """Seconds of a `docker pull` of layers that the daemon does not have."""
    start = time.perf_counter()
    run("docker", "pull", "--quiet", image)
    seconds = time.perf_counter() - start
    run("docker", "rmi", "--force", image)
    return seconds


def zenml_image(base: str, peer: Peer) -> float:
    """Seconds of ZenML's default image on a base that is there already."""
    peer.build(project(f"FROM {base}\nRUN true\n"))
    requirement = f"{ZENML}\n# {uuid.uuid4().hex}\n"
    folder = project(
        f"FROM {base}\nWORKDIR /app\nCOPY requirements.txt .\n"
        "RUN pip install --no-cache-dir --default-timeout=60 -r requirements.txt\n"
        "ENV ZENML_ENABLE_REPO_INIT_WARNINGS=False\nENV ZENML_CONFIG_PATH=/app/.zenconfig\nRUN chmod -R a+rw .\n"
    )
    (folder / "requirements.txt").write_text(requirement)
    return peer.build(folder)


def main() -> None:
    """Measures, prints a table, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("overhead", "unpack", "zenml"), action="append")
    parser.add_argument("--json", type=Path, default=Path(".bench/run.json"))
    arguments = parser.parse_args()
    base = os.environ["COOPER_TEST_PYTHON"]
    stores = Path(tempfile.mkdtemp(prefix="cooper-bench-store-"))
    found = peers(stores, f"{os.environ['COOPER_TEST_REGISTRY']}/cooper-bench/run")
    questions: dict[str, dict[str, Callable[[], float]]] = {
        "overhead": {peer.name: lambda peer=peer: overhead(base, peer) for peer in found},  # type: ignore[misc]
        "unpack": {
            **{peer.name: lambda peer=peer: unpack(fresh_base(base), peer) for peer in found if peer.name != "docker"},  # type: ignore[misc]
            "docker pull": lambda: pull(fresh_base(base)),
        },
        "zenml": {peer.name: lambda peer=peer: zenml_image(base, peer) for peer in found},  # type: ignore[misc]
    }
    results: dict[str, dict[str, list[float]]] = {}
    try:
        for question, ways in questions.items():
            if arguments.only and question not in arguments.only:
                continue
            # In turns, so that whatever else the machine does happens to all.
            times = [{name: way() for name, way in ways.items()} for _ in range(arguments.rounds)]
            results[question] = {name: [turn[name] for turn in times] for name in ways}
            ours = statistics.median(results[question]["cooper"])
            for name, seconds in results[question].items():
                median = statistics.median(seconds)
                print(f"{question:<10} {name:<12} {median:9.3f} s  {median / ours:6.1f}x", flush=True)
    finally:
        shutil.rmtree(stores, ignore_errors=True)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
