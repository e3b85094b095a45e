"""Podman's API on a Unix socket, with storage and configuration of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from pathlib import Path

from . import mounts, process
from .say import Failure, run, step

MAX_SOCKET_PATH = 100
"""Unix socket paths end at 108 bytes; Podman adds to them."""


class Podman(process.Record):
    """A running `podman system service`."""

    home: str
    socket: str


def start(insecure: list[str]) -> Podman:
    """Starts the service. `insecure` registries (host:port) are spoken to without TLS checks.

    Its storage is a new folder in the temporary directory: socket paths must be short, and a project's may be long.
    """
    if shutil.which("podman") is None:
        raise Failure("`podman` is not installed; `make setup` installs it")
    home = Path(tempfile.mkdtemp(prefix="cooper-podman-"))
    path = home / "podman.sock"
    if len(str(path)) > MAX_SOCKET_PATH:
        home.rmdir()
        raise Failure(f"{path} is too long for a socket; set TMPDIR to a shorter folder")
    try:
        environment = _configure(home, insecure)
        server = process.start(
            [*_command(home), "system", "service", "--time=0", f"unix://{path}"],
            home / "log",
            lambda: answers(path),
            env=environment,
        )
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    step(f"podman answers at unix://{path}")
    return {**server, "home": str(home), "socket": str(path)}


def _command(home: Path) -> list[str]:
    return ["podman", "--root", str(home / "root"), "--runroot", str(home / "run")]


def _environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "CONTAINERS_CONF": str(home / "containers.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(home / "registries.conf"),
        "CONTAINERS_STORAGE_CONF": str(home / "storage.conf"),
        "REGISTRY_AUTH_FILE": str(home / "auth.json"),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "XDG_CONFIG_HOME": str(home / "config"),
    }


def _configure(home: Path, insecure: list[str]) -> dict[str, str]:
    # crun refuses some mixed cgroup v1 layouts; runc runs on all.
    runtime = "runc" if shutil.which("runc") else "crun"
    engine = f'cgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "{runtime}"\ntmp_dir = "{home}/tmp"\n'
    network = f'network_config_dir = "{home}/networks"\n'
    (home / "containers.conf").write_text(f"[engine]\n{engine}[network]\n{network}[containers]\n")
    (home / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{home}/root"\nrunroot = "{home}/run"\n'
    )
    blocks = [f'[[registry]]\nlocation = "{name}"\ninsecure = true\n' for name in insecure]
    (home / "registries.conf").write_text("unqualified-search-registries = []\n" + "".join(blocks))
    (home / "auth.json").write_text("{}")
    (home / "run").mkdir()
    return _environment(home)


def answers(path: Path) -> bool:
    """Whether a Docker API answers on a socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(path))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
        except OSError:
            return False


def pull(podman: Podman, name: str) -> None:
    """Brings an image into Podman's storage."""
    home = Path(podman["home"])
    run([*_command(home), "pull", "--quiet", name], env=_environment(home))


def stop(podman: Podman) -> None:
    """Ends the service, its containers and its mounts, and removes its storage."""
    home = Path(podman["home"])
    process.stop(podman)
    if not home.is_dir():
        return
    if (home / "containers.conf").is_file():
        for action in (["rm", "--all", "--force", "--time=0"], ["umount", "--all"]):
            with contextlib.suppress(Failure):
                run([*_command(home), *action], env=_environment(home), timeout=60)
    mounts.unmount_below(home)
    shutil.rmtree(home)
