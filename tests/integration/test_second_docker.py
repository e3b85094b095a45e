"""The second Docker daemon of the test bed: nothing is left of it, also where it was killed while it built."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from .conftest import docker
from .test_interrupt import _processes_with


def _networks() -> set[str]:
    return {entry.name for entry in Path("/sys/class/net").iterdir() if not entry.name.startswith("veth")}


def test_a_daemon_that_was_killed_leaves_nothing(
    project: Callable[..., Path], busybox: str, second_docker_start: str
) -> None:
    marker = f"sleep 987; echo {uuid.uuid4().hex}"
    root = project({"Dockerfile": f"FROM {busybox}\nRUN echo started; {marker}\n"})
    starter = subprocess.Popen(
        shlex.split(second_docker_start), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert starter.stdout
        started = json.loads(starter.stdout.readline())
        home = Path(started["endpoint"].removeprefix("docker+unix://")).parent
        (bridge,) = [name for name in _networks() if f'"{name}"' in (home / "daemon.json").read_text()]
        arguments = ["build", "--engine", "buildkit", "--endpoint", started["endpoint"], "-t", "x:1", str(root)]
        build = subprocess.Popen(
            [sys.executable, "-m", "zenml_cooper.cli", *arguments],
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while not _processes_with(marker):
            assert time.monotonic() < deadline, "the command does not run"
            time.sleep(0.05)
        os.kill(started["pid"], signal.SIGKILL)
        _, err = build.communicate(timeout=60)
        assert build.returncode == 1
        assert f"the BuildKit at {started['endpoint']} went away" in err
        # Its command goes on without it.
        assert _processes_with(marker)
    finally:
        starter.communicate(timeout=60)
    assert starter.returncode == 0
    assert not _processes_with(marker)
    assert not home.exists()
    assert bridge not in _networks()
    assert str(home) not in Path("/proc/self/mountinfo").read_text()
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{home.name}"))
    # The machine's daemon has seen nothing of it.
    assert "docker0" in _networks() or "bridge" not in docker("network", "ls", "--format", "{{.Name}}").split()
