"""Ctrl-C in every phase: the build stops at once, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from .conftest import docker, is_there

# From the signal to the end of the process: the 200 ms that a build has to stop, and as much again for Python to end.
# Twice that for a machine that runs other things at the same time.
LIMIT = 0.8
# How long the daemon may take to end a container.
DAEMON = 15.0
MIB = 1024 * 1024


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """The temporary directory of a build, which must be empty when the build has ended."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield folder
    assert not list(folder.iterdir()), "temporary files are left"


def _interrupt(
    root: Path, image: str, builder: str, scratch: Path, when: Callable[[dict[str, Any]], bool], *, push: bool = False
) -> list[dict[str, Any]]:
    """Builds, sends SIGINT at the first event that `when` wants, and checks how the build ends."""
    script = (
        "import sys, zenml_cooper\n"
        "from zenml_cooper.exceptions import CooperError\n"
        "root, image, builder, push = sys.argv[1:]\n"
        "zenml_cooper.build(root, tags=[image], builder=builder, push=bool(push), progress='json', no_cache=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(root), image, builder, "push" if push else ""],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    events: list[dict[str, Any]] = []
    sent = ended = 0.0
    rest = []
    assert process.stderr
    try:
        for line in process.stderr:
            if not line.startswith("{"):
                rest.append(line)
                continue
            events.append(json.loads(line))
            if not sent and when(events[-1]):
                time.sleep(0.05)
                sent = time.monotonic()
                process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        ended = time.monotonic()
    finally:
        process.kill()
        process.stderr.close()
    assert sent, f"the phase was not reached: {events[-5:]} {''.join(rest)}"
    assert process.returncode in (130, -signal.SIGINT), f"{process.returncode}: {''.join(rest)}"
    assert "KeyboardInterrupt" in "".join(rest)
    assert ended - sent < LIMIT, f"it took {ended - sent:.3f} s"
    print(f"ended {ended - sent:.3f} s after the signal")
    return events


def _processes_with(marker: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if marker in command:
                found.append(command)
    return found


@pytest.fixture(params=["classic", "buildkit"])
def builder(request: pytest.FixtureRequest) -> Literal["classic", "buildkit"]:
    return request.param  # type: ignore[no-any-return]


def test_while_the_context_is_sent(
    project: Callable[..., Path], busybox: str, name: Callable[..., str], builder: str, scratch: Path
) -> None:
    root = project({"Dockerfile": f"FROM {busybox}\nCOPY . /all/\n"})
    with (root / "large").open("wb") as large:
        for _ in range(600):
            large.write(os.urandom(MIB))
    image = name()
    _interrupt(root, image, builder, scratch, lambda event: event["type"] == "context")
    time.sleep(1)
    assert not is_there(image)


def test_while_a_command_runs(
    project: Callable[..., Path], busybox: str, name: Callable[..., str], builder: str, scratch: Path
) -> None:
    marker = f"sleep 987; echo {uuid.uuid4().hex}"
    root = project({"Dockerfile": f"FROM {busybox}\nRUN echo started; {marker}\n"})
    image = name()
    _interrupt(
        root, image, builder, scratch, lambda event: event["type"] == "step_log" and "started" in event.get("text", "")
    )
    deadline = time.monotonic() + DAEMON
    while (left := _processes_with(marker)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, "the command still runs"
    # A container is listed for a while after its command has ended.
    while marker in docker("ps", "--no-trunc", "--format", "{{.Command}}"):
        assert time.monotonic() < deadline, "the container is still there"
        time.sleep(0.2)
    assert not is_there(image)


def test_while_an_image_is_pushed(
    project: Callable[..., Path], busybox: str, registry: str, name: Callable[..., str], builder: str, scratch: Path
) -> None:
    root = project({"Dockerfile": f"FROM {busybox}\nRUN head -c 300000000 /dev/urandom > /large\n"})
    image = name(f"{registry}/cooper-test/interrupted")
    events = _interrupt(
        root,
        image,
        builder,
        scratch,
        lambda event: event["type"] == "push" and event["status"] == "Pushing" and event["current"] > 0,
        push=True,
    )
    assert not [event for event in events if event["type"] == "pushed"]


def test_before_a_daemon_answers(project: Callable[..., Path], scratch: Path, tmp_path: Path) -> None:
    """A daemon that takes the connection and says nothing."""
    import socket

    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        script = (
            "import sys, zenml_cooper\n"
            "print('ready', flush=True)\n"
            "zenml_cooper.build(sys.argv[1], tags=['cooper-test/never:1'], endpoint='unix://' + sys.argv[2])\n"
        )
        root = project({"Dockerfile": "FROM scratch\n"})
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(root), str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        try:
            connection, _ = listener.accept()
            with connection:
                time.sleep(0.2)
                sent = time.monotonic()
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=30)
                took = time.monotonic() - sent
        finally:
            process.kill()
    assert b"KeyboardInterrupt" in said
    assert took < LIMIT, f"it took {took:.3f} s"
