"""`scripts/setup` on machines that lack something, played by a PATH of stand-ins."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[2] / "scripts" / "setup"
BASH = shutil.which("bash") or "/bin/bash"
COMMON = ("cat", "cut", "dirname", "head", "sed", "sort", "tail", "uname")


class Machine:
    """A machine with a few programs, each of which prints a text and exits with a code."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.calls = folder / "calls"
        self.bin.mkdir()
        self.calls.touch()
        for name in COMMON:
            (self.bin / name).symlink_to(str(shutil.which(name)))
        self.has("rustc", "rustc 1.95.0 (abc 2026-01-01)")
        self.has("python3", "3.11")
        self.has("docker", "20.10.24")
        self.has("id", "1000")
        others = ("cargo", "cc", "mmdebstrap", "openssl", "podman", "runc", "ssh-keygen", "apt-get", "apt-cache")
        for name in (*others, "newuidmap", "busybox", "dockerd", "containerd", "ip"):
            self.has(name)

    def has(self, name: str, prints: str = "", code: int = 0) -> None:
        """Gives it a program."""
        program = self.bin / name
        program.unlink(missing_ok=True)
        program.write_text(f"#!{BASH}\necho {name} \"$@\" >> '{self.calls}'\necho '{prints}'\nexit {code}\n")
        program.chmod(0o755)

    def lacks(self, *names: str) -> None:
        """Takes programs away."""
        for name in names:
            (self.bin / name).unlink()

    def setup(self, purpose: str = "test") -> subprocess.CompletedProcess[str]:
        """Runs the script."""
        return subprocess.run(
            [BASH, str(SETUP), purpose],
            env={"PATH": str(self.bin), "HOME": "/nonexistent"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def called(self, start: str) -> list[str]:
        """The calls of programs that begin so."""
        return [line for line in self.calls.read_text().splitlines() if line.startswith(start)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine that has everything."""
    return Machine(tmp_path)


@pytest.mark.parametrize("purpose", ["build", "demo", "demo-docker", "test"])
def test_nothing_is_done_where_nothing_is_missing(machine: Machine, purpose: str) -> None:
    ended = machine.setup(purpose)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert not machine.called("apt-get")


def test_an_old_rust_is_named(machine: Machine) -> None:
    machine.has("rustc", "rustc 1.63.0")
    ended = machine.setup("build")
    assert ended.returncode == 1
    assert "Rust 1.88 or newer is needed; rustc is 1.63.0" in ended.stderr


def test_no_rust_is_named_with_where_to_get_it(machine: Machine) -> None:
    machine.lacks("cargo", "rustc")
    ended = machine.setup("build")
    assert ended.returncode == 1
    assert "https://rustup.rs" in ended.stderr


@pytest.mark.parametrize("version", ["1.88.0", "1.100.0", "2.0.0"])
def test_versions_are_compared_as_numbers(machine: Machine, version: str) -> None:
    machine.has("rustc", f"rustc {version}")
    assert machine.setup("build").returncode == 0


def test_an_old_python_is_named_with_what_to_do(machine: Machine) -> None:
    machine.has("python3", "3.9")
    ended = machine.setup("build")
    assert ended.returncode == 1
    assert "Python 3.10 or newer is needed; python3 is 3.9" in ended.stderr
    assert "make PYTHON=" in ended.stderr


def test_a_user_is_told_the_command(machine: Machine) -> None:
    machine.lacks("mmdebstrap", "podman")
    ended = machine.setup()
    assert ended.returncode == 1
    assert "sudo apt-get install -y --no-install-recommends mmdebstrap podman`" in ended.stderr
    assert not machine.called("apt-get")


def test_root_installs_what_is_missing(machine: Machine) -> None:
    machine.has("id", "0")
    machine.lacks("mmdebstrap", "podman")
    ended = machine.setup()
    assert ended.returncode == 0, ended.stderr
    assert machine.called("apt-get") == [
        "apt-get update -qq",
        "apt-get install -y --no-install-recommends mmdebstrap podman",
    ]


def test_unit_tests_take_openssh_and_no_daemon(machine: Machine) -> None:
    machine.lacks("docker", "podman", "mmdebstrap", "ssh-keygen")
    ended = machine.setup("unit")
    assert ended.returncode == 1
    assert "install -y --no-install-recommends openssh-client`" in ended.stderr


def test_benches_take_pigz_besides(machine: Machine) -> None:
    ended = machine.setup("bench")
    assert ended.returncode == 1
    assert "install -y --no-install-recommends pigz`" in ended.stderr


def test_the_demo_takes_neither_docker_nor_podman(machine: Machine) -> None:
    machine.has("docker", "Cannot connect to the Docker daemon", code=1)
    assert machine.setup("demo").returncode == 0
    machine.lacks("docker", "podman", "runc", "newuidmap", "busybox")
    assert machine.setup("demo").returncode == 0


def test_the_demo_that_builds_with_docker_takes_docker(machine: Machine) -> None:
    machine.lacks("docker", "podman", "runc", "newuidmap", "busybox")
    ended = machine.setup("demo-docker")
    assert ended.returncode == 1
    assert "install -y --no-install-recommends docker.io`" in ended.stderr


def test_sandboxes_are_tested_with_a_static_busybox_and_subordinate_ids(machine: Machine) -> None:
    machine.has("ldd", "libc.so.6 => /lib/libc.so.6")
    machine.lacks("newuidmap")
    ended = machine.setup()
    assert ended.returncode == 1
    assert "install -y --no-install-recommends uidmap busybox-static`" in ended.stderr
    machine.has("ldd", "not a dynamic executable", code=1)
    assert "busybox-static" not in machine.setup().stderr


def test_a_build_takes_no_docker(machine: Machine) -> None:
    machine.lacks("docker", "mmdebstrap")
    assert machine.setup("build").returncode == 0


def test_a_daemon_that_does_not_answer_is_reported(machine: Machine) -> None:
    machine.has("docker", "Cannot connect to the Docker daemon", code=1)
    ended = machine.setup()
    assert ended.returncode == 1
    assert "The Docker daemon does not answer: Cannot connect to the Docker daemon" in ended.stderr


def test_everything_that_is_wrong_is_said_at_once(machine: Machine) -> None:
    machine.lacks("cargo", "podman")
    machine.has("python3", "3.8")
    errors = machine.setup().stderr.splitlines()
    assert len([line for line in errors if line.startswith("setup: error: ")]) == 3


def test_a_second_docker_daemon_is_for_tests_alone(machine: Machine) -> None:
    machine.lacks("dockerd", "containerd", "ip")
    ended = machine.setup("test")
    assert ended.returncode == 1
    for package in ("docker.io", "containerd", "iproute2"):
        assert package in ended.stderr
    assert machine.setup("demo").returncode == 0
