"""Images that we build are those that `docker build` builds: the same configuration, the same files."""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

import zenml_cooper

from .conftest import config, docker, tree


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("unpacked/inner.txt")
        entry.size, entry.mode = 5, 0o640
        archive.addfile(entry, io.BytesIO(b"inner"))
    return buffer.getvalue()


CASES: dict[str, dict[str, Any]] = {
    "copy": {
        "Dockerfile": "FROM {base}\nCOPY . /app/\nCOPY a.txt b/ /flat/\nCOPY b /renamed\nADD a.txt /added/other.txt\n",
        "a.txt": "a",
        "b/c.txt": ("c", 0o600),
        "b/run.sh": ("#!/bin/sh\n", 0o755),
        "b/d/e.bin": bytes(range(256)),
        "with space/ümläut.txt": "u",
    },
    "ignore": {
        "Dockerfile": "FROM {base}\nCOPY . /app/\n",
        ".dockerignore": "# comment\n*.log\n**/cache\n!keep.log\nb/**/x?.txt\n/top.txt\n",
        "keep.log": "",
        "drop.log": "",
        "top.txt": "",
        "b/top.txt": "",
        "b/deep/x1.txt": "",
        "b/deep/y1.txt": "",
        "b/cache/z": "",
        "cache/z": "",
    },
    "settings": {
        "Dockerfile": (
            "FROM {base}\nARG FROM_ARG=default\n"
            "ENV A=1 B=$FROM_ARG C='x y'\nLABEL one=1 two=\"t w o\"\n"
            "WORKDIR /work\nWORKDIR below\nUSER nobody\nEXPOSE 80 53/udp\nVOLUME /data\nSTOPSIGNAL SIGINT\n"
            'HEALTHCHECK --interval=7s --retries=2 CMD true\nSHELL ["/bin/sh", "-ec"]\nONBUILD RUN echo built\n'
            'ENTRYPOINT ["/bin/echo", "entry"]\nCMD ["cmd"]\n'
        ),
    },
    "stages": {
        "Dockerfile": (
            "ARG BASE={base}\nFROM $BASE AS first\nRUN echo one > /one && mkdir -p /tree/sub && echo s > /tree/sub/s\n"
            "FROM first AS unused\nRUN exit 1\n"
            "FROM {base} AS last\nCOPY --from=first /one /tree /from/\nCOPY --from=0 /tree /tree\n"
        ),
        "options": {"target": "last"},
    },
    "run": {
        "Dockerfile": (
            "FROM {base}\nCOPY run.sh /run.sh\nRUN /run.sh && rm /run.sh\n"
            "RUN chown 1000:1001 /made && chmod 4755 /made\n"
            "RUN ln -s made /link && ln /made /hard && mkdir -m 1777 /sticky\nRUN rm -rf /var/tmp\n"
        ),
        "run.sh": ("#!/bin/sh\necho made > /made\n", 0o755),
    },
    "owners": {
        "Dockerfile": "FROM {base}\nCOPY --chown=1000:1001 a.txt b /owned/\nADD --chown=nobody a.txt /nobody/\n",
        "a.txt": ("a", 0o640),
        "b/c.txt": ("c", 0o400),
    },
    "archive": {
        "Dockerfile": "FROM {base}\nADD archive.tar.gz /unpack/\nCOPY archive.tar.gz /kept/\n",
        "archive.tar.gz": _archive(),
    },
    "arguments": {
        "Dockerfile": "FROM {base}\nARG NAME\nARG OTHER=unset\nRUN echo $NAME $OTHER > /values\nENV NAME=$NAME\n",
        "options": {"build_args": {"NAME": "given value"}, "labels": {"from": "options", "empty": ""}},
    },
    "outside": {
        "docker/Dockerfile.other": "FROM {base}\nCOPY kept.txt dropp[e]d.txt* /app/\n",
        "docker/Dockerfile.other.dockerignore": "",
        "kept.txt": "",
        "options": {"dockerfile": "docker/Dockerfile.other"},
    },
}


def _references() -> dict[str, dict[str, str]]:
    """The builders of the docker program that are here: the classic one, and BuildKit where buildx is installed."""
    found = {"classic": {"DOCKER_BUILDKIT": "0"}}
    buildx = shutil.which("docker") and subprocess.run(
        ["docker", "buildx", "version"], capture_output=True, check=False
    )
    if buildx and buildx.returncode == 0:
        found["buildx"] = {"DOCKER_BUILDKIT": "1", "BUILDX_BUILDER": "default"}
    return found


REFERENCES = _references()


def _write(project: Callable[..., Path], case: dict[str, Any], base: str) -> Path:
    files = {path: content for path, content in case.items() if path != "options"}
    for path in files:
        if "Dockerfile" in path and isinstance(files[path], str):
            files[path] = files[path].replace("{base}", base)
    root = project(files)
    if "b/c.txt" in files:
        (root / "empty").mkdir()
        os.symlink("a.txt", root / "link")
        os.symlink("/nowhere", root / "dangling")
        os.link(root / "a.txt", root / "hard")
    return root


def _reference(root: Path, image: str, options: dict[str, Any], env: dict[str, str]) -> None:
    flags = []
    for key, value in options.get("build_args", {}).items():
        flags += ["--build-arg", f"{key}={value}"]
    for key, value in options.get("labels", {}).items():
        flags += ["--label", f"{key}={value}"]
    if target := options.get("target"):
        flags += ["--target", target]
    if dockerfile := options.get("dockerfile"):
        flags += ["--file", str(root / dockerfile)]
    docker("build", "--no-cache", *flags, "--tag", image, str(root), env=env)


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("builder", ["classic", "buildkit"])
@pytest.mark.parametrize("case", CASES)
def test_the_image_is_the_same(
    case: str,
    builder: Literal["classic", "buildkit"],
    reference: str,
    busybox: str,
    project: Callable[..., Path],
    name: Callable[..., str],
) -> None:
    files = CASES[case]
    if (case, reference) == ("stages", "classic"):
        # Docker's classic builder builds stages that nothing needs; this one fails.
        files = {**files, "Dockerfile": files["Dockerfile"].replace("RUN exit 1\n", "RUN true\n")}
    options = dict(files.get("options", {}))
    root = _write(project, files, busybox)
    ours, theirs = name(), name()
    _reference(root, theirs, options, REFERENCES[reference])
    if dockerfile := options.get("dockerfile"):
        options["dockerfile"] = root / dockerfile

    outcome = zenml_cooper.build(root, tags=[ours], builder=builder, no_cache=True, **options)

    assert outcome.builder == builder
    assert config(ours) == config(theirs)
    assert tree(ours) == tree(theirs)
