"""`cooper build --engine buildkit` and `cooper doctor --engine buildkit`: what a shell sees of them."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import docker
from .test_interrupt import LIMIT, _processes_with

MANIFESTS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
COOPER = [sys.executable, "-m", "zenml_cooper.cli"]


@pytest.fixture
def first() -> str:
    """The BuildKit inside the machine's Docker daemon."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    return f"docker+{host}"


@pytest.fixture
def second(second_docker_socket: str) -> str:
    """That inside the second daemon."""
    return f"docker+unix://{second_docker_socket}"


@pytest.fixture
def image(registry: str, second: str) -> Iterator[str]:
    """A name in the plain registry; images of this name are removed from both daemons."""
    made = f"{registry}/cooper-test/cli:{uuid.uuid4().hex[:12]}"
    yield made
    for host in ([], ["--host", second.removeprefix("docker+")]):
        docker(*host, "rmi", "--force", made)


def cooper(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COOPER, *arguments], capture_output=True, text=True, check=False, timeout=120, **options)


def pushed(image: str) -> str:
    """The digest of what the registry has under a name."""
    registry, _, rest = image.partition("/")
    repository, _, tag = rest.rpartition(":")
    url = f"http://{registry}/v2/{repository}/manifests/{tag}"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": MANIFESTS})) as answer:
        return str(answer.headers["Docker-Content-Digest"])


def test_results_go_to_stdout_and_to_a_file(
    project: Callable[..., Path], busybox: str, image: str, first: str, second: str, tmp_path: Path
) -> None:
    content = uuid.uuid4().hex
    root = project({"Dockerfile": f"FROM {busybox}\nCOPY a /a\nRUN cat /a\n", "a": content})
    result = tmp_path / "result.json"
    pool = ["--pool-policy", "ordered", "--endpoint", second, "--endpoint", first]
    ended = cooper(
        "build", "--engine", "buildkit", *pool, "-t", image, "--push", "--metadata-file", str(result), str(root)
    )
    assert ended.returncode == 0, ended.stderr
    digest = pushed(image)
    assert ended.stdout == f"{image.rpartition(':')[0]}@{digest}\n"
    assert content in ended.stderr
    outcome = json.loads(result.read_text())
    assert (outcome["engine"], outcome["digest"], outcome["tags"]) == ("buildkit", digest, [image])
    assert outcome["cache"]["total_steps"] == 3
    # It was built by the first of the pool.
    there = docker("--host", second.removeprefix("docker+"), "run", "--rm", "--network=none", image, "cat", "/a")
    assert there == content
    # And by the other, where that one does not answer.
    away = f"{second}.away"
    pool = ["--pool-policy", "ordered", "--endpoint", away, "--endpoint", first]
    ended = cooper("build", "--engine", "buildkit", *pool, "-t", image, "--progress", "json", str(root))
    assert (ended.returncode, ended.stdout) == (0, f"{image}\n"), ended.stderr
    events = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    (chosen,) = [event for event in events if event["type"] == "engine"]
    assert chosen["endpoint"] == first
    assert chosen["reason"] == f"{away} does not serve (worker-unreachable)"
    assert docker("run", "--rm", image, "cat", "/a") == content


def test_a_failing_run_shows_its_output_and_its_line(
    project: Callable[..., Path], busybox: str, second: str, tmp_path: Path
) -> None:
    root = project({"Dockerfile": f"FROM {busybox}\n\nRUN echo said-before && \\\n    exit 42\n"})
    result = tmp_path / "result.json"
    ended = cooper(
        "build", "--engine", "buildkit", "--endpoint", second, "-t", "x:1", "--metadata-file", str(result), str(root)
    )
    assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
    assert "failed with exit code 42" in ended.stderr
    assert "--> Dockerfile:3:1" in ended.stderr
    assert "said-before" in ended.stderr
    assert not result.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--endpoint", "box:1234"], "a BuildKit's address starts with"),
        (["--endpoint", "tcp://box", "--endpoint", "tcp://box:1234"], "is given twice"),
        (["--endpoint", "tcp://127.0.0.1:1"], "no BuildKit answers at tcp://127.0.0.1:1"),
        (["--endpoint", "docker+unix:///nowhere.sock"], "no BuildKit answers at docker+unix:///nowhere.sock"),
    ],
)
def test_a_worker_that_cannot_be_is_said(project: Callable[..., Path], arguments: list[str], told: str) -> None:
    root = project({"Dockerfile": "FROM scratch\n"})
    ended = cooper("build", "--engine", "buildkit", *arguments, "-t", "x:1", str(root))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert told in ended.stderr


@pytest.mark.parametrize(
    "arguments", [["--pool-busy", "0"], ["--pool-policy", "random"], ["--engine", "docker", "--pool-busy", "2"]]
)
def test_wrong_use_is_said_before_anything_is_done(project: Callable[..., Path], arguments: list[str]) -> None:
    root = project({"Dockerfile": "FROM scratch\n"})
    ended = cooper("build", "--engine", "buildkit", *arguments, "-t", "x:1", str(root))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert arguments[-2] in ended.stderr


def test_an_interrupt_ends_it_at_once_and_leaves_nothing(
    project: Callable[..., Path], busybox: str, second: str, image: str, tmp_path: Path
) -> None:
    marker = f"sleep 987; echo {uuid.uuid4().hex}"
    root = project({"Dockerfile": f"FROM {busybox}\nRUN echo started; {marker}\n"})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = ["build", "--engine", "buildkit", "--endpoint", second, "-t", image, "--push", "--progress", "json"]
    process = subprocess.Popen(
        [*COOPER, *command, str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    try:
        assert process.stderr
        seen = ""
        while "started" not in seen or "step_log" not in seen:
            seen = process.stderr.readline()
            assert seen, "the command did not start"
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        took = time.monotonic() - sent
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert took < LIMIT, f"it took {took:.3f} s"
    assert not list(scratch.iterdir())
    deadline = time.monotonic() + 15
    while _processes_with(marker):
        assert time.monotonic() < deadline, "the command goes on"
        time.sleep(0.1)
    host = second.removeprefix("docker+")
    assert not docker("--host", host, "images", "--quiet", image).strip()


def test_the_doctor_looks_at_every_worker(first: str, second: str, registry: str) -> None:
    away = f"{second}.away"
    endpoints = [word for endpoint in (first, second, away) for word in ("--endpoint", endpoint)]
    ended = cooper("doctor", "--engine", "buildkit", *endpoints, "--registry", registry, "--json")
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    errors = {attempt["endpoint"]: attempt["error"] for attempt in report["attempts"]}
    assert errors[first] is None
    assert errors[second] is None
    assert away in errors[away]
    statuses = [finding["status"] for finding in report["findings"] if finding["check"] == "worker"]
    assert statuses == ["ok", "ok", "warn"]
    ended = cooper("doctor", "--engine", "buildkit", "--endpoint", away)
    assert ended.returncode == 1
    assert away in ended.stdout
