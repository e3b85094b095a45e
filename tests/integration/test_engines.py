"""Podman's socket, several builds at once, and what the daemon's builders can do."""

import json
import subprocess
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import zenml_cooper
from zenml_cooper.exceptions import CooperCancelled, CooperError

from .conftest import config, docker, tree

MANIFESTS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"


def test_podman(
    podman_socket: str, registry: str, busybox: str, project: Callable[..., Path], name: Callable[..., str]
) -> None:
    root = project(
        {
            "Dockerfile": f"FROM {busybox}\nARG A\nCOPY . /all/\nRUN echo $A > /a; sh /all/run.sh\nENV B=c\n",
            "run.sh": "echo from-run > /made\n",
            ".dockerignore": "*.log\n",
            "left.log": "",
        }
    )
    image = name(f"{registry}/cooper-test/podman")
    events = []
    outcome = zenml_cooper.build(
        root,
        tags=[image],
        push=True,
        endpoint=f"unix://{podman_socket}",
        build_args={"A": "argument"},
        on_event=events.append,
    )
    assert outcome.builder == "classic"
    engine = next(event for event in events if event["type"] == "engine")
    assert "podman" in json.dumps(engine).lower()
    repository = image.partition("/")[2].rpartition(":")[0]
    request = urllib.request.Request(
        f"http://{registry}/v2/{repository}/manifests/{outcome.digest}", headers={"Accept": MANIFESTS}
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.headers["Docker-Content-Digest"] == outcome.digest
    assert outcome.image == f"{registry}/{repository}@{outcome.digest}"
    docker("pull", "--quiet", outcome.image)
    try:
        found = tree(outcome.image)
        assert {"all/run.sh", "made", "a"} <= found.keys()
        assert "all/left.log" not in found
        assert "B=c" in config(outcome.image)["Env"]
    finally:
        docker("rmi", "--force", outcome.image)


def test_podman_has_no_buildkit_and_says_so(podman_socket: str, project: Callable[..., Path], busybox: str) -> None:
    root = project({"Dockerfile": f"FROM {busybox}\n"})
    with pytest.raises(CooperError) as caught:
        zenml_cooper.build(root, tags=["cooper-test/never:1"], endpoint=f"unix://{podman_socket}", builder="buildkit")
    assert caught.value.code == "unsupported"
    assert "BuildKit" in str(caught.value)


@pytest.mark.parametrize("builder", ["classic", "buildkit"])
def test_several_builds_at_once(
    builder: str, project: Callable[..., Path], busybox: str, registry: str, name: Callable[..., str]
) -> None:
    count = 5
    images = [name(f"{registry}/cooper-test/parallel") for _ in range(count)]
    roots = [
        project({"Dockerfile": f"FROM {busybox}\nCOPY own /own\nRUN cat /own > /seen\n", "own": f"build {number}"})
        for number in range(count)
    ]

    def build(number: int) -> zenml_cooper.Outcome:
        return zenml_cooper.build(roots[number], tags=[images[number]], push=True, builder=builder)  # type: ignore[arg-type]

    with ThreadPoolExecutor(count) as threads:
        outcomes = list(threads.map(build, range(count)))
    assert len({outcome.digest for outcome in outcomes}) == count
    for number in range(count):
        assert docker("run", "--rm", images[number], "cat", "/seen") == f"build {number}"


def test_one_of_several_builds_is_cancelled(
    project: Callable[..., Path], busybox: str, name: Callable[..., str]
) -> None:
    slow = project({"Dockerfile": f"FROM {busybox}\nRUN sleep 300\n"})
    quick = project({"Dockerfile": f"FROM {busybox}\nRUN sleep 2; echo done > /done\n"})
    handle = zenml_cooper.CancelHandle()
    with ThreadPoolExecutor(2) as threads:
        cancelled = threads.submit(zenml_cooper.build, slow, tags=[name()], cancel=handle, no_cache=True)
        kept = threads.submit(zenml_cooper.build, quick, tags=[image := name()], no_cache=True)
        threading.Timer(1.0, handle.cancel).start()
        with pytest.raises(CooperCancelled):
            cancelled.result(timeout=60)
        assert kept.result(timeout=60).tags == (image,)


@pytest.mark.parametrize("builder", ["classic", "buildkit"])
def test_a_second_build_is_cached(
    builder: str, project: Callable[..., Path], busybox: str, name: Callable[..., str]
) -> None:
    root = project({"Dockerfile": f"FROM {busybox}\nCOPY a /a\nRUN date +%N > /time\n", "a": name()})
    first = zenml_cooper.build(root, tags=[name()], builder=builder)  # type: ignore[arg-type]
    second = zenml_cooper.build(root, tags=[name()], builder=builder)  # type: ignore[arg-type]
    assert first.config_digest == second.config_digest
    assert second.totals.cached_steps >= 2
    assert first.totals.cached_steps < second.totals.cached_steps


def test_buildkit_mounts(project: Callable[..., Path], busybox: str, name: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file")
    root = project(
        {
            "Dockerfile": f"FROM {busybox}\n"
            "RUN --mount=type=cache,target=/cache echo x >> /cache/x && wc -l < /cache/x > /count\n"
            "RUN --mount=type=secret,id=token cat /run/secrets/token > /seen\n"
            "RUN --mount=type=bind,target=/context cat /context/note > /note\n",
            "note": "bound",
        }
    )
    image = name()
    outcome = zenml_cooper.build(root, tags=[image], secrets=[f"id=token,src={tmp_path / 'token'}"], no_cache=True)
    assert outcome.builder == "buildkit"
    assert docker("run", "--rm", image, "cat", "/seen", "/note") == "from-filebound"


def test_the_daemon_needs_no_docker_program(
    project: Callable[..., Path], busybox: str, name: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = name()
    root = project({"Dockerfile": f"FROM {busybox}\n"})
    with monkeypatch.context() as patched:
        patched.setenv("PATH", "/nonexistent")
        with pytest.raises(FileNotFoundError):
            subprocess.run(["docker"], check=False)
        outcome = zenml_cooper.build(root, tags=[image])
    assert outcome.image == image
