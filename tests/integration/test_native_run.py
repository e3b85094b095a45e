"""Commands in builds of the native engine: stopped, killed, side by side, with secrets, and where none can run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import zenml_cooper
from zenml_cooper.exceptions import StepFailed

from .conftest import docker, tree
from .test_interrupt import LIMIT, _processes_with
from .test_native import BUILDERS, _layout, manifest

COOPER = str(Path(sys.executable).with_name("cooper"))
LEVELS = ("root", "subordinate", "single")


def left_over(store: Path) -> list[Path]:
    """What builds leave of themselves until the next one: nothing, if they end as they should."""
    return [path for path in (store / "store" / "scratch").glob("*") if path.is_dir()]


@pytest.mark.parametrize("level", LEVELS)
def test_ctrl_c_ends_a_command(
    level: str, project: Callable[..., Path], busybox: str, store: Path, name: Callable[..., str]
) -> None:
    marker = f"987{uuid.uuid4().int % 10**8}"
    text = f"FROM {busybox}\nRUN echo started; trap '' INT TERM; (sleep {marker} &); sleep {marker}\n"
    root = project({"Dockerfile": text})
    command = [COOPER, "build", "--engine", "native", "--sandbox", level, "--progress", "json", str(root)]
    sent = 0.0
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            event: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
            if not sent and event.get("type") == "step_log" and "started" in event["text"]:
                assert _processes_with(marker)
                process.send_signal(signal.SIGINT)
                sent = time.monotonic()
    assert sent, "the command did not start"
    assert (process.returncode, time.monotonic() - sent < LIMIT) == (130, True)
    assert not _processes_with(marker), "nothing of the command is left"
    assert not left_over(store)


@pytest.mark.parametrize("level", LEVELS)
def test_a_killed_build_takes_its_commands_with_it(
    level: str, project: Callable[..., Path], busybox: str, store: Path
) -> None:
    marker = f"986{uuid.uuid4().int % 10**8}"
    root = project({"Dockerfile": f"FROM {busybox}\nRUN (sleep {marker} &); touch /made; sleep {marker}\n"})
    flags = ["build", "--engine", "native", "--sandbox", level, "--progress", "quiet"]
    with subprocess.Popen([COOPER, *flags, str(root)]) as process:
        deadline = time.monotonic() + 20
        while len(_processes_with(marker)) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    deadline = time.monotonic() + 2
    while (alive := _processes_with(marker)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive, "what a killed build has started ends with it"
    assert left_over(store)
    other = project({"Dockerfile": f"FROM {busybox}\nRUN true\n"})
    subprocess.run([COOPER, *flags, str(other)], check=True)
    assert not left_over(store), "the next build cleans up"


def test_many_builds_run_commands_on_one_store(project: Callable[..., Path], busybox: str, tmp_path: Path) -> None:
    text = f"FROM {busybox}\nRUN --mount=type=cache,target=/c date >> /c/all; seq 2000 > /numbers\nRUN wc -l /numbers\n"
    root, store = project({"Dockerfile": text}), tmp_path / "store"

    def run(number: int) -> dict[str, set[str]]:
        output = tmp_path / f"output-{number}"
        command = [COOPER, "build", "--engine", "native", "--progress", "quiet", "--source-date-epoch", "1700000000"]
        command += ["--output", f"type=oci,dest={output}", str(root)]
        subprocess.run(
            command, env={**os.environ, "COOPER_CACHE_DIR": str(store)}, check=True, stdout=subprocess.DEVNULL
        )
        return _layout(output)

    with ThreadPoolExecutor(BUILDERS) as pool:
        results = list(pool.map(run, range(BUILDERS)))
    layers = [next(iter(result.values())) for result in results]
    assert all(len(found) == len(layers[0]) for found in layers)
    assert not left_over(store)


def test_a_machine_that_runs_nothing_takes_results_from_a_colleague(
    project: Callable[..., Path], busybox: str, registry: str, store: Path, name: Callable[..., str]
) -> None:
    text = f"FROM {busybox}\nCOPY a /a\nRUN wc -c /a > /count; adduser -D -u 1000 app || true\nRUN cat /count\n"
    root = project({"Dockerfile": text, "a": "1"})
    cache = f"{registry}/cooper-test/cache:{uuid.uuid4().hex[:12]}"
    one, other = name(f"{registry}/cooper-test/ran"), name(f"{registry}/cooper-test/taken")
    spec = f"type=registry,ref={cache},mode=max"
    first = zenml_cooper.build(root, tags=[one], push=True, engine="native", cache_to=[spec])
    assert first.totals.cached_steps == 1
    shutil.rmtree(store)
    # A level that this machine has not: nothing can be run.
    command = [COOPER, "build", "--engine", "native", "--runtime", "/no/such/runtime", "--push", "-t", other]
    command += ["--cache-from", spec.removesuffix(",mode=max"), "--progress", "json", str(root)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert manifest(one)["layers"] == manifest(other)["layers"]
    layers = {layer["digest"].split(":")[1] for layer in manifest(other)["layers"]}
    kept = {path.name for path in store.rglob("*") if path.is_file()}
    assert not layers & kept, "no layer is fetched"
    assert not list((store / "store").glob("trees/*/*/*")), "nothing is unpacked"
    assert ended.stdout.strip() == f"{other.rpartition(':')[0]}@{first.digest}"


@pytest.mark.parametrize("level", LEVELS)
def test_a_secret_leaves_no_trace(
    level: str, project: Callable[..., Path], busybox: str, tmp_path: Path, store: Path
) -> None:
    marker = f"marker-{uuid.uuid4().hex}"
    text = (
        f"FROM {busybox}\nRUN --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN"
        ' test -n "$TOKEN" && cat /run/secrets/token && cat /run/secrets/token | wc -c > /length && false\n'
    )
    root, output = project({"Dockerfile": text}), tmp_path / "image"
    said: list[str] = []
    build: dict[str, Any] = {
        "engine": "native",
        "sandbox": level,
        "secrets": [{"id": "token", "value": marker}],
        "on_event": lambda event: said.append(json.dumps(event)),
        "outputs": [f"type=oci,dest={output}"],
    }
    with pytest.raises(StepFailed) as failed:
        zenml_cooper.build(root, **build)
    assert marker not in str(failed.value)
    assert "***" in "".join(said)
    (root / "Dockerfile").write_text(text.replace(" && false", ""))
    zenml_cooper.build(root, **build)
    assert marker not in "".join(said)
    for folder in (store, output):
        found = subprocess.run(["grep", "-r", "-l", "--", marker, str(folder)], capture_output=True, text=True)
        assert found.stdout == ""


@pytest.mark.parametrize("level", LEVELS)
def test_owners_are_the_same_at_each_level(
    level: str, project: Callable[..., Path], busybox: str, registry: str, store: Path, name: Callable[..., str]
) -> None:
    text = (
        f"FROM {busybox}\nRUN mkdir -p /d/e && echo 1 > /d/f && ln -s f /d/l && chown -R 1000:1001 /d/e /d/f"
        " && chown -h 12:13 /d/l && chmod 4755 /d/f && cp -a /d /copy\n"
        "RUN mkdir /further && cp -a /d/e /d/f /further/ && mv /d/f /d/g"
        " && stat -c %u:%g /d/g > /seen\n"
        "USER 1000\nRUN id -u > /tmp/id\n"
    )
    root, image = project({"Dockerfile": text}), name(f"{registry}/cooper-test/owners")
    zenml_cooper.build(root, tags=[image], push=True, engine="native", sandbox=level)  # type: ignore[arg-type]
    docker("pull", image)
    owners = {path: found[2:4] for path, found in tree(image).items() if path.startswith(("d", "copy", "further"))}
    assert owners == {
        **dict.fromkeys(("d", "copy", "further"), (0, 0)),
        **dict.fromkeys(("d/e", "d/g", "copy/e", "copy/f", "further/e", "further/f"), (1000, 1001)),
        **dict.fromkeys(("d/l", "copy/l"), (12, 13)),
    }
    assert docker("run", "--rm", image, "cat", "/seen", "/tmp/id").split() == ["1000:1001", "1000"]
