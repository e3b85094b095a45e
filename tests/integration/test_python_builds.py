"""Builds from Python against a real daemon: functions, threads, asyncio, forks, and what is shown."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import zenml_cooper
from zenml_cooper import CancelHandle, Outcome, aio
from zenml_cooper.exceptions import BuildError, CooperCancelled, StepFailed, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What the project promises, and room for a busy machine where the daemon has to do something as well.
ANSWER_SECONDS = 0.2


@pytest.fixture
def name() -> Iterator[Callable[[], str]]:
    """Names for images, which are removed after the test."""
    names: list[str] = []

    def new() -> str:
        names.append(f"cooper-test-python-builds:{uuid.uuid4().hex[:12]}")
        return names[-1]

    yield new
    for tag in names:
        subprocess.run(["docker", "image", "rm", "--force", tag], capture_output=True, check=False)


def dockerfile(busybox: str, *lines: str) -> str:
    return "\n".join([f"FROM {busybox}", *lines, ""])


def slow(busybox: str) -> str:
    """A build that takes long and says when it is at it; never out of the cache."""
    return dockerfile(busybox, f"RUN echo started {uuid.uuid4()}; sleep 30")


def running(mark: str) -> bool:
    """Whether a process with this in its arguments is left."""
    for process in os.listdir("/proc"):
        try:
            if process.isdigit() and mark in Path(f"/proc/{process}/cmdline").read_text(errors="replace"):
                return True
        except OSError:
            continue
    return False


def ends(mark: str) -> bool:
    """Whether processes with this in their arguments end: on a busy machine the daemon takes a while."""
    deadline = time.monotonic() + 15
    while running(mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_build_returns_what_it_built(busybox: str, name: Callable[[], str]) -> None:
    tag = name()
    events: list[dict[str, Any]] = []
    mark = uuid.uuid4().hex
    outcome = zenml_cooper.build(
        None,
        dockerfile_text=dockerfile(busybox, "ARG GIVEN", "COPY a /a", f"RUN echo {mark} $GIVEN"),
        extra_files={"a": b"\x00\xff"},
        build_args={"GIVEN": "an argument"},
        tags=[tag],
        on_event=events.append,
    )
    assert isinstance(outcome, Outcome)
    assert outcome.image == tag
    assert outcome.totals.total_steps >= 3
    assert outcome.totals.context_files == 1
    image = json.loads(subprocess.check_output(["docker", "image", "inspect", tag]))[0]
    # The containerd image store, which tells of a descriptor, knows images by their manifests.
    if "Descriptor" not in image:
        assert image["Id"] == outcome.config_digest
    kinds = {event["type"] for event in events}
    assert {"engine", "context", "step_started", "step_log", "step_done"} <= kinds
    output = "".join(event["text"] for event in events if event["type"] == "step_log")
    assert f"{mark} an argument" in output


def test_a_stage_is_built_without_the_cache(busybox: str) -> None:
    mark = uuid.uuid4().hex
    text = "\n".join([
        f"FROM {busybox} AS one",
        f"RUN echo {mark} > /one",
        f"FROM {busybox}",
        f"RUN echo {mark} > /two",
        "COPY --from=one /one /one",
    ])  # fmt: skip

    def ran(**options: Any) -> set[str]:
        built = zenml_cooper.build(None, dockerfile_text=text, **options)
        return {step.name.split("> ")[-1] for step in built.steps if "RUN" in step.name and not step.cached}

    assert ran() == {"/one", "/two"}
    assert ran() == set()
    assert ran(no_cache_filter=["one"]) == {"/one"}


@pytest.mark.parametrize(
    "option",
    [{"compression": "zstd"}, {"fold": True}, {"outputs": ["type=oci,dest=x"]}, {"outputs": "type=local,dest=x"}],
    ids=str,
)
def test_what_a_daemon_cannot_do_is_refused(busybox: str, option: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(dockerfile(busybox))
    with pytest.raises(UnsupportedError, match="`--engine native` can"):
        zenml_cooper.build(tmp_path, engine="docker", **option)
    assert os.listdir(tmp_path) == ["Dockerfile"]


def test_an_exception_in_a_function_stops_the_daemon(busybox: str) -> None:
    text = slow(busybox)

    def stop(event: dict[str, Any]) -> None:
        if event["type"] == "step_log":
            raise LookupError("enough")

    start = time.monotonic()
    with pytest.raises(LookupError, match="enough"):
        zenml_cooper.build(None, dockerfile_text=text, on_event=stop)
    assert time.monotonic() - start < 15
    mark = text.split("started ")[1].split(";")[0]
    assert ends(f"started {mark}")


def test_a_handle_stops_a_build_in_another_thread(busybox: str) -> None:
    handle = CancelHandle()
    started = threading.Event()
    ends: list[tuple[type[BaseException], float]] = []

    def note(event: dict[str, Any]) -> None:
        if event["type"] == "step_log":
            started.set()

    def work() -> None:
        try:
            zenml_cooper.build(None, dockerfile_text=slow(busybox), on_event=note, cancel=handle)
        except CooperCancelled as error:
            ends.append((type(error), time.monotonic()))

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(30)
    start = time.monotonic()
    handle.cancel()
    thread.join(10)
    assert len(ends) == 1
    assert ends[0][1] - start < ANSWER_SECONDS


def test_awaited_builds_run_beside_each_other(busybox: str, name: Callable[[], str]) -> None:
    tags = [name() for _ in range(3)]
    logs: list[str] = []

    def note(event: dict[str, Any]) -> None:
        if event["type"] == "step_log":
            logs.append(event["text"])

    async def main() -> list[Outcome]:
        texts = [dockerfile(busybox, f"RUN echo {tag}; sleep 2") for tag in tags]
        return await asyncio.gather(
            *(
                aio.build(None, dockerfile_text=text, tags=[tag], on_event=note)
                for text, tag in zip(texts, tags, strict=True)
            )
        )

    start = time.monotonic()
    outcomes = asyncio.run(main())
    elapsed = time.monotonic() - start
    assert [outcome.image for outcome in outcomes] == tags
    assert all(tag in "".join(logs) for tag in tags)
    # One after the other they would sleep six seconds.
    assert elapsed < 6


def test_a_cancelled_task_has_stopped_its_build(busybox: str) -> None:
    text = slow(busybox)
    mark = text.split("started ")[1].split(";")[0]

    async def main() -> float:
        started = asyncio.Event()

        def note(event: dict[str, Any]) -> None:
            if event["type"] == "step_log":
                started.set()

        task = asyncio.create_task(aio.build(None, dockerfile_text=text, on_event=note))
        await asyncio.wait_for(started.wait(), 30)
        start = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - start

    assert asyncio.run(main()) < ANSWER_SECONDS
    assert ends(f"started {mark}")


def build_in_child(base: str) -> int:
    return zenml_cooper.build(None, dockerfile_text=dockerfile(base, "LABEL a=b")).totals.total_steps


def test_forked_children_build(busybox: str) -> None:
    build_in_child(busybox)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        steps = pool.map_async(build_in_child, [busybox] * 4).get(60)
    assert len(steps) == 4
    assert len(set(steps)) == 1


@pytest.mark.parametrize("progress", ["plain", "tty", "json", "quiet"])
def test_a_failing_run_is_shown_as_asked_for(progress: Any, busybox: str, capfd: pytest.CaptureFixture[str]) -> None:
    text = dockerfile(busybox, "RUN echo before; printf '\\033]0;pwned\\007'; exit 7")
    with pytest.raises(StepFailed) as raised:
        zenml_cooper.build(None, dockerfile_text=text, no_cache=True, progress=progress)
    error = raised.value
    assert isinstance(error, BuildError)
    assert error.fields["exit_code"] == 7
    assert "before" in error.tail
    assert ":2:" in (error.frame or "")
    out, err = capfd.readouterr()
    assert out == ""
    assert ("before" in err) == (progress != "quiet")
    assert "\x1b]0;pwned" not in err + str(error)


def test_lines_go_to_a_logger(busybox: str, caplog: pytest.LogCaptureFixture) -> None:
    from zenml_cooper import _build

    caplog.set_level(logging.INFO)
    request = {
        "context": {},
        "dockerfile": {"text": dockerfile(busybox, "RUN echo a line of output")},
        "options": {"no-cache": True},
    }
    _build.run(request, progress="plain", logger=logging.getLogger("somebody"))
    assert any("a line of output" in message for message in caplog.messages)
    assert caplog.messages[-1].startswith("Built ")


def test_the_command(busybox: str, tmp_path: Path, name: Callable[[], str]) -> None:
    (tmp_path / "Dockerfile").write_text(dockerfile(busybox, "COPY . /src"))
    (tmp_path / "file").write_text("content")
    tag = name()
    metadata = tmp_path / "out.json"
    command = [sys.executable, "-m", "zenml_cooper.cli"]
    typed = [*command, "build", "-t", tag, "--metadata-file", str(metadata), "--progress", "plain", str(tmp_path)]
    done = subprocess.run(typed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tag}\n"
    data = json.loads(metadata.read_text())
    assert data["image"] == tag
    assert [step["name"] for step in data["steps"]]
    assert data["cache"]["total_steps"] == 2
    failing = subprocess.run(
        [*command, "build", "-f", "-", str(tmp_path)],
        input=dockerfile(busybox, "RUNN x"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert failing.returncode == 1
    assert failing.stdout == ""
    assert "RUNN" in failing.stderr
    report = json.loads(subprocess.check_output([*command, "doctor", "--json"]))
    assert report["status"] in ("ok", "warn")
    assert report["engine"]["engine"] == "docker"


def test_the_doctor_without_a_daemon(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zenml_cooper.cli", "doctor", "--endpoint", f"unix://{tmp_path}/none.sock"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "daemon" in done.stdout
    assert "do:" in done.stdout
