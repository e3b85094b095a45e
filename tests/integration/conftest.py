"""Images of these tests: names that nobody else has, gone after the test; their configuration and file tree."""

import contextlib
import hashlib
import json
import os
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

# What a container has and its image need not have.
_OF_CONTAINERS = {".dockerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab", "dev", "proc", "sys", "etc"}
_CONFIG = (
    *("Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "OnBuild", "Shell", "StopSignal", "User"),
    *("Volumes", "WorkingDir"),
)


def docker(*arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Runs the docker program; gives what it printed."""
    ended = subprocess.run(
        ["docker", *arguments], env={**os.environ, **(env or {})}, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, f"docker {arguments}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def config(image: str) -> dict[str, Any]:
    """The parts of an image's configuration that a Dockerfile sets; nothing and empty are the same."""
    found = json.loads(docker("image", "inspect", image))[0]["Config"]
    picked = {name: found.get(name) or None for name in _CONFIG}
    picked["WorkingDir"] = picked["WorkingDir"] or "/"
    return picked


def tree(image: str) -> dict[str, tuple[Any, ...]]:
    """What is in an image: path to kind, mode, owner, link and digest of the content. Times are left out."""
    container = docker("create", image, "true").strip()
    found = {}
    try:
        with (
            subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export,
            tarfile.open(fileobj=export.stdout, mode="r|") as archive,
        ):
            for entry in archive:
                if entry.name not in _OF_CONTAINERS and not entry.name.startswith(("dev/", "proc/", "sys/")):
                    data = archive.extractfile(entry) if entry.isreg() else None
                    digest = hashlib.sha256(data.read()).hexdigest() if data else ""
                    found[entry.name] = (entry.type, oct(entry.mode), entry.uid, entry.gid, entry.linkname, digest)
    finally:
        docker("rm", container)
    assert found, f"{image} is empty"
    return found


def is_there(image: str) -> bool:
    """Whether the daemon has an image."""
    return bool(docker("images", "--quiet", image).strip())


@pytest.fixture
def name() -> Iterator[Callable[..., str]]:
    """Makes image names; what has one is removed in the end."""
    made = []

    def make(prefix: str = "cooper-test/integration") -> str:
        made.append(f"{prefix}:{uuid.uuid4().hex[:12]}")
        return made[-1]

    yield make
    for image in made:
        with contextlib.suppress(AssertionError):
            docker("rmi", "--force", "--no-prune", image)


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """Writes a directory of files: path to text, bytes, or a pair of either and a mode."""

    def write(files: Mapping[str, Any]) -> Path:
        root = tmp_path / uuid.uuid4().hex[:8]
        root.mkdir()
        for path, content in files.items():
            content, mode = content if isinstance(content, tuple) else (content, 0o644)
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.encode())
            target.chmod(mode)
        return root

    return write


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of a machine that has never built."""
    folder = tmp_path / "store"
    monkeypatch.setenv("COOPER_CACHE_DIR", str(folder))
    return folder
