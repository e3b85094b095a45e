"""A second Docker daemon with state, network and containerd of its own, so that the machine's is not disturbed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from . import mounts, process
from .podman import MAX_SOCKET_PATH, answers
from .say import Failure, run, step

NETWORK = "10.213.{}.1/24"
"""Addresses of the bridge, by its number: a range that hardly anybody has."""

KILL_TIMEOUT = 10.0
"""Seconds until what a killed daemon's builds started has ended."""


class Dockerd(process.Record):
    """A running daemon, and the containerd behind it."""

    home: str
    socket: str
    bridge: str
    cgroup: str
    containerd: process.Record


def start() -> Dockerd:
    """Starts the daemon. It speaks to registries on loopback without TLS, as every Docker daemon does."""
    for program in ("dockerd", "containerd", "runc", "ip"):
        if shutil.which(program) is None:
            raise Failure(f"`{program}` is not installed; the second Docker daemon needs it")
    if os.geteuid() != 0:
        raise Failure("the second Docker daemon needs root; without it, leave the part `dockerd` out")
    home = Path(tempfile.mkdtemp(prefix="cooper-dockerd-"))
    if len(str(home / "containerd.sock.ttrpc")) > MAX_SOCKET_PATH:
        home.rmdir()
        raise Failure(f"{home} is too long for a socket; set TMPDIR to a shorter folder")
    found: Dockerd = {
        "pid": 0,
        "started": "",
        "home": str(home),
        "socket": str(home / "docker.sock"),
        "bridge": "",
        "cgroup": home.name,
        "containerd": {"pid": 0, "started": ""},
    }
    try:
        found["containerd"] = _containerd(home)
        found["bridge"] = _bridge()
        server = process.start(
            ["dockerd", "--config-file", str(_configure(found))], home / "log", lambda: answers(Path(found["socket"]))
        )
    except BaseException:
        stop(found)
        raise
    step(f"dockerd answers at unix://{found['socket']}")
    return {**found, **server}


def _containerd(home: Path) -> process.Record:
    """One of its own: a daemon that finds the system's containerd would share it with the machine's daemon."""
    address = home / "containerd.sock"
    config = home / "containerd.toml"
    config.write_text(
        f'version = 2\nroot = "{home}/containerd"\nstate = "{home}/containerd-run"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "{address}"\n'
    )
    return process.start(["containerd", "--config", str(config)], home / "containerd.log", address.exists)


def _bridge() -> str:
    """A network for RUN: a daemon with `--bridge=none` would remove the machine's docker0."""
    for number in range(1, 255):
        name = f"cooper{number}"
        if Path("/sys/class/net", name).exists():
            continue
        try:
            run(["ip", "link", "add", name, "type", "bridge"])
        except Failure:
            if Path("/sys/class/net", name).exists():
                continue  # another test bed was faster
            raise
        run(["ip", "address", "add", NETWORK.format(number), "dev", name])
        run(["ip", "link", "set", name, "up"])
        return name
    raise Failure("there are bridges cooper1 to cooper254 already; remove those that nobody needs (`ip link delete`)")


def _configure(dockerd: Dockerd) -> Path:
    home = Path(dockerd["home"])
    config = {
        "hosts": [f"unix://{dockerd['socket']}"],
        "data-root": str(home / "data"),
        "exec-root": str(home / "exec"),
        "pidfile": str(home / "pid"),
        "containerd": str(home / "containerd.sock"),
        "bridge": dockerd["bridge"],
        # The rules of the machine's firewall are the other daemon's.
        "iptables": False,
        "ip-masq": False,
        # By this, what a killed daemon leaves running is found.
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "cgroup-parent": f"/{dockerd['cgroup']}",
        "features": {"buildkit": True},
    }
    path = home / "daemon.json"
    path.write_text(json.dumps(config, indent=1))
    return path


def stop(dockerd: Dockerd) -> None:
    """Ends the daemon and all that it started, also where it was killed, and removes its state and its network."""
    if dockerd["pid"]:
        process.stop(dockerd)
    if dockerd["containerd"]["pid"]:
        process.stop(dockerd["containerd"])
    _end_group(dockerd["cgroup"])
    if dockerd["bridge"] and Path("/sys/class/net", dockerd["bridge"]).exists():
        run(["ip", "link", "delete", dockerd["bridge"]])
    home = Path(dockerd["home"])
    if home.is_dir():
        mounts.unmount_below(home)
        shutil.rmtree(home)


def _end_group(name: str) -> None:
    """Kills the commands of builds: they outlive a daemon that was killed."""
    top = Path("/sys/fs/cgroup")
    groups = [group for group in (top / name, *top.glob(f"*/{name}")) if group.is_dir()]
    folders = [folder for group in groups for folder in (group, *(each for each in group.rglob("*") if each.is_dir()))]
    deadline = time.monotonic() + KILL_TIMEOUT
    while members := {pid for folder in folders for pid in _members(folder)}:
        if time.monotonic() > deadline:
            raise Failure(f"these processes do not end: {', '.join(map(str, sorted(members)))}")
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _members(folder: Path) -> list[int]:
    try:
        return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []
