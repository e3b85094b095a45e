"""Builds of the native engine inside of containers: where CI runners and pods build."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "python"
UNCONFINED = ("--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined")
USER = (*UNCONFINED, "--user=1000:1000")
# What `examples/kubernetes-pod.yaml` asks for.
POD = (*USER, "--cap-drop=ALL", "--security-opt=no-new-privileges", "--read-only", "--tmpfs=/tmp")
CONTEXT = "/src/zenml_cooper/flavors"
DOCKERFILE = (
    'FROM {base}\nRUN id -u > /made && mkdir /made-too && ! touch /proc/sys/kernel/hostname\nCMD ["cat", "/made"]\n'
)


def cooper(image: str, flags: tuple[str, ...], *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the command in a container that has these sources, and a volume for the store."""
    environment = ("--env=PYTHONPATH=/src", "--env=PYTHONDONTWRITEBYTECODE=1", "--env=COOPER_CACHE_DIR=/cache/cooper")
    mounts = (f"--volume={SOURCES}:/src:ro", "--tmpfs=/cache:mode=1777,exec")
    command = ["docker", "run", "--rm", "--interactive", "--network=host", *environment, *mounts, *flags]
    return subprocess.run(
        [*command, image, "python3", "-m", "zenml_cooper.cli", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("flags", "works"),
    [
        ((), ["chroot"]),
        (("--user=1000:1000",), []),
        (POD, ["single"]),
        (UNCONFINED, ["subordinate", "single", "chroot"]),
        ((*UNCONFINED, "--cap-add=SYS_ADMIN"), ["root", "subordinate", "single", "chroot"]),
    ],
    ids=["default", "default-user", "pod", "unconfined", "sys-admin"],
)
def test_the_doctor_says_what_a_container_allows(python_image: str, flags: tuple[str, ...], works: list[str]) -> None:
    said = cooper(python_image, flags, "doctor", "--engine=native", "--json")
    report: dict[str, Any] = json.loads(said.stdout)
    texts = [finding["text"] for finding in report["findings"] if finding["check"] == "sandbox"]
    assert [text.split("`")[1] for text in texts if "` works" in text] == works, texts
    (run,) = (finding for finding in report["findings"] if finding["check"] == "run")
    usable = [level for level in works if level != "chroot"]
    assert run["status"] == ("ok" if usable else "warn")
    if usable:
        assert f"(`{usable[0]}`)" in run["text"]
    else:
        assert any("seccompProfile" in (finding["advice"] or "") for finding in report["findings"])


def test_a_pod_without_privileges_builds(python_image: str, busybox: str, registry: str) -> None:
    name = f"{registry}/containers/pod:1"
    dockerfile = DOCKERFILE.format(base=busybox)
    built = cooper(
        python_image, POD, "build", "--engine=native", "-f-", f"-t{name}", "--push", CONTEXT, stdin=dockerfile
    )
    assert built.returncode == 0, built.stderr
    image = built.stdout.strip()
    assert image.startswith(f"{registry}/containers/pod@sha256:")
    ran = subprocess.run(["docker", "run", "--rm", image], capture_output=True, text=True, check=True)
    assert ran.stdout == "0\n"


def test_a_container_that_allows_nothing_says_what_to_do(python_image: str, busybox: str, registry: str) -> None:
    dockerfile = DOCKERFILE.format(base=busybox)
    flags = ("--user=1000:1000",)
    built = cooper(
        python_image, flags, "build", "--engine=native", "-f-", f"-t{registry}/x:1", CONTEXT, stdin=dockerfile
    )
    assert built.returncode == 1
    assert "this container's filter of system calls forbids them" in built.stderr
    assert "cannot be run here" in built.stderr
    assert "RUN id -u" in built.stderr
