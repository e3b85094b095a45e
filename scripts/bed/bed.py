"""The test bed as a whole: what is up is written down in DIR/state.json, after each part."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict, cast

from . import dockerd, image, podman, process, registry
from .say import step

PARTS = ("registry", "registry-tls", "busybox", "python", "podman", "dockerd")


class State(TypedDict, total=False):
    """What is up. Images are their names in the plain registry."""

    registry: registry.Registry
    registry_tls: registry.Registry
    busybox: str
    python: str
    podman: podman.Podman
    dockerd: dockerd.Dockerd


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[State]:
    """The state, while no other process of this program uses it. Written back whatever happens."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = directory / "state.json"
        state = cast(State, json.loads(path.read_text())) if path.exists() else State()
        try:
            yield state
        finally:
            _write(path, state)


def _write(path: Path, state: State) -> None:
    scratch = path.with_suffix(".new")
    scratch.touch(mode=0o600)  # it holds the password of a registry
    scratch.write_text(json.dumps(state, indent=1))
    scratch.replace(path)


def up(directory: Path, parts: list[str], publish: Callable[[image.Recipe, str], str] = image.publish) -> None:
    """Starts the parts that are not up. Fails at the first that cannot be had; those before it stay up.

    `publish` makes an image and gives it a name in a registry, which it returns.
    """
    with _locked(directory) as state:
        _forget_the_dead(directory, state)
        tools = directory / "tools"
        images = {"busybox", "python"} & set(parts)
        if "registry" not in state and ({"registry", "podman"} & set(parts) or images):
            state["registry"] = registry.start("plain registry", directory / "registry", tools, secured=False)
        if "registry-tls" in parts and "registry_tls" not in state:
            state["registry_tls"] = registry.start("TLS registry", directory / "registry-tls", tools, secured=True)
        if "busybox" in parts and "busybox" not in state:
            state["busybox"] = publish(image.busybox(tools), state["registry"]["address"])
        if "python" in parts and "python" not in state:
            state["python"] = publish(image.python(), state["registry"]["address"])
        if "podman" in parts and "podman" not in state:
            registries = [state[name]["address"] for name in ("registry", "registry_tls") if name in state]
            state["podman"] = podman.start(registries)
            if "busybox" in state:
                podman.pull(state["podman"], state["busybox"])
        if "dockerd" in parts and "dockerd" not in state:
            state["dockerd"] = dockerd.start()


def _forget_the_dead(directory: Path, state: State) -> None:
    """Takes out what no longer runs, e.g. after a restart of the machine, and all that depended on it."""
    if "registry" in state and not (process.alive(state["registry"]) and registry.answers(state["registry"])):
        step("the plain registry has gone; starting anew")
        _end(directory, state)
    if "registry_tls" in state and not process.alive(state["registry_tls"]):
        _end(directory, state)
    if "podman" in state and not process.alive(state["podman"]):
        podman.stop(state.pop("podman"))
    if "dockerd" in state and not process.alive(state["dockerd"]):
        dockerd.stop(state.pop("dockerd"))


def down(directory: Path) -> None:
    """Ends what `up` started. Nothing happens where nothing is up."""
    if not (directory / "state.json").exists():
        return
    with _locked(directory) as state:
        _end(directory, state)
    (directory / "state.json").unlink()


def _end(directory: Path, state: State) -> None:
    if "dockerd" in state:
        dockerd.stop(state.pop("dockerd"))
    if "podman" in state:
        podman.stop(state.pop("podman"))
    state.pop("busybox", None)
    state.pop("python", None)
    if "registry" in state:
        image.forget(state["registry"]["address"])
        process.stop(state.pop("registry"))
    if "registry_tls" in state:
        image.forget(state["registry_tls"]["address"])
        process.stop(state.pop("registry_tls"))
    for folder in ("registry", "registry-tls"):
        shutil.rmtree(directory / folder, ignore_errors=True)


def state(directory: Path) -> State:
    """What is up in a directory."""
    with _locked(directory) as found:
        return found


def exports(directory: Path) -> str:
    """Shell lines that name what is up; a part that is not up has no line."""
    with _locked(directory) as state:
        found: dict[str, str] = {}
        if "registry" in state:
            found["COOPER_TEST_REGISTRY"] = state["registry"]["address"]
            # For tests that need one with a configuration of their own.
            found["COOPER_TEST_REGISTRY_PROGRAM"] = registry.program(directory / "tools")
        if "registry_tls" in state:
            secured = state["registry_tls"]
            found["COOPER_TEST_REGISTRY_TLS"] = secured["address"]
            found["COOPER_TEST_REGISTRY_USER"] = registry.USER
            found["COOPER_TEST_REGISTRY_PASSWORD"] = secured["password"]
            found["COOPER_TEST_REGISTRY_CA"] = secured["ca"]
        if "busybox" in state:
            found["COOPER_TEST_BUSYBOX"] = state["busybox"]
        if "python" in state:
            found["COOPER_TEST_PYTHON"] = state["python"]
        if "podman" in state:
            found["COOPER_TEST_PODMAN"] = state["podman"]["socket"]
        if "dockerd" in state:
            found["COOPER_TEST_DOCKERD"] = state["dockerd"]["socket"]
            # For tests that kill one: it runs until its input ends, and says first where it is.
            command = Path(__file__).resolve().parents[1] / "testbed"
            found["COOPER_TEST_DOCKERD_START"] = shlex.join([str(command), "dockerd"])
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in found.items())
