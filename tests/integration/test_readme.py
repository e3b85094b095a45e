"""The README's commands and code do what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
SECTION = "## Use it without ZenML"
EXAMPLE_REGISTRY = "localhost:5000"


def block(language: str) -> str:
    """The first code block of a language in the section."""
    text = README.read_text().partition(f"\n{SECTION}\n")[2]
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found, f"{SECTION} has no block of {language}"
    return found.group(1)


@pytest.fixture
def project(tmp_path: Path, busybox: str) -> Path:
    """A folder with something to build."""
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox}\nCOPY data.txt /data.txt\n")
    (tmp_path / "data.txt").write_text("content\n")
    return tmp_path


def assert_pushed(reference: str, registry: str) -> None:
    """The registry has the manifest that a pushed reference names."""
    match = re.fullmatch(rf"{re.escape(registry)}/app@(sha256:[0-9a-f]{{64}})", reference)
    assert match, reference
    request = urllib.request.Request(
        f"http://{registry}/v2/app/manifests/{match.group(1)}",
        method="HEAD",
        headers={
            "Accept": "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
        },
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.headers["Docker-Content-Digest"] == match.group(1)


def test_the_commands(project: Path, registry: str) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    outputs: dict[str, str] = {}
    for line in block("bash").splitlines():
        command = line.partition("#")[0].strip().replace(EXAMPLE_REGISTRY, registry)
        ended = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=project,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert ended.returncode == 0, f"{command}:\n{ended.stdout}{ended.stderr}"
        name = " ".join(command.split()[:2])
        outputs[name] = outputs.get(name, "") + ended.stdout
    assert list(outputs) == ["cooper build", "cooper context", "cooper doctor"]
    pushed, written, by_buildkit = outputs["cooper build"].splitlines()
    assert_pushed(pushed, registry)
    assert_pushed(by_buildkit, registry)
    assert (project / written / "index.json").is_file()
    assert "data.txt" in outputs["cooper context"]
    assert "`Dockerfile` is in the build context" in outputs["cooper context"]
    assert "Docker" in outputs["cooper doctor"]


def test_the_code(
    project: Path, registry: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    exec(block("python").replace(EXAMPLE_REGISTRY, registry), {})
    assert_pushed(capsys.readouterr().out.strip(), registry)
