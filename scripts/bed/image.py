"""Base images, made without pulling anything: from busybox-static and from Debian's Python."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from . import debian
from .say import Failure, run, step

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SYSTEM_CAS = "/etc/ssl/certs/ca-certificates.crt"
PYTHON_PACKAGES = ("python3", "python3-pip", "python3-venv", "ca-certificates")


@dataclass
class Recipe:
    """What an image is made of. Its hash names the image."""

    name: str
    make: Callable[[Path], None]
    inputs: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ("sh",)

    def tag(self) -> str:
        """The image's name in the daemon: the same for the same recipe."""
        own_source = Path(__file__).read_text()
        text = json.dumps([self.name, self.inputs, self.environment, self.command, own_source], sort_keys=True)
        return f"cooper-test/{self.name}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def changes(self) -> list[str]:
        """The instructions of a Dockerfile that follow upon its files."""
        environment = [f"ENV {name}={json.dumps(value)}" for name, value in self.environment.items()]
        return [*environment, f"CMD {json.dumps(list(self.command))}"]


def ensure(recipe: Recipe) -> str:
    """Makes the image in the Docker daemon, unless it is there, and returns its name."""
    tag = recipe.tag()
    if run(["docker", "images", "--quiet", tag], hint="install docker.io (or docker-ce-cli)").strip():
        return tag
    step(f"making {tag} (once; it stays in the daemon)")
    with tempfile.TemporaryDirectory(prefix="cooper-image-") as scratch:
        archive = Path(scratch) / "root.tar"
        recipe.make(archive)
        with archive.open("rb") as stream:
            flags = [part for change in recipe.changes() for part in ("--change", change)]
            run(["docker", "import", *flags, "-", tag], stdin=stream)
    return tag


def push(tag: str, registry: str) -> str:
    """Gives an image a name in a registry, there and in the daemon, and returns that name."""
    name = f"{registry}/{tag}"
    run(["docker", "tag", tag, name])
    run(["docker", "push", "--quiet", name])
    return name


def publish(recipe: Recipe, registry: str) -> str:
    """Makes an image with the Docker daemon, and gives it a name in a registry: the one that is returned."""
    return push(ensure(recipe), registry)


def forget(registry: str) -> None:
    """Removes the daemon's names of images of a registry, and ended containers that were started by such a name.

    Nobody can use them once the registry has ended; ZenML's orchestrator leaves its steps' containers.
    """
    with contextlib.suppress(Failure):  # no daemon, no names
        for line in run(
            ["docker", "ps", "--all", "--filter", "status=exited", "--format", "{{.ID}} {{.Image}}"]
        ).splitlines():
            container, _, name = line.partition(" ")
            if name.startswith(f"{registry}/"):
                run(["docker", "rm", container])
        listing = run(["docker", "images", "--digests", "--format", "{{.Repository}} {{.Tag}} {{.Digest}}"])
        for repository, tag, digest in (line.split(" ") for line in listing.splitlines()):
            if repository.startswith(f"{registry}/"):
                name = f"{repository}@{digest}" if tag == "<none>" else f"{repository}:{tag}"
                with contextlib.suppress(Failure):  # in use, or gone with another name
                    run(["docker", "rmi", name])


def busybox(tools: Path) -> Recipe:
    """A root with one static program under all its names, and the few files that builds expect."""
    binary = Path(debian.program("busybox", "busybox-static", tools))
    if subprocess.run(["ldd", str(binary)], capture_output=True, check=False).returncode == 0:
        raise Failure(f"{binary} is linked dynamically; install the package busybox-static")
    digest = hashlib.sha256(binary.read_bytes()).hexdigest()
    return Recipe("busybox", lambda archive: _busybox_root(binary, archive), {"busybox": digest}, {"PATH": PATH})


_BUSYBOX_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    "etc/group": "root:x:0:\nnobody:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def _busybox_root(binary: Path, archive: Path) -> None:
    applets = run([str(binary), "--list"]).split()
    with tarfile.open(archive, "w") as tar:

        def add(name: str, kind: bytes, mode: int, data: bytes = b"", link: str = "") -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(data), link
            tar.addfile(entry, BytesIO(data))

        for folder in ("bin", "etc", "home", "lib", "root", "usr", "usr/bin", "var"):
            add(folder, tarfile.DIRTYPE, 0o755)
        for folder in ("tmp", "var/tmp"):
            add(folder, tarfile.DIRTYPE, 0o1777)
        add("bin/busybox", tarfile.REGTYPE, 0o755, binary.read_bytes())
        for applet in applets:
            if applet != "busybox":
                add(f"bin/{applet}", tarfile.SYMTYPE, 0o777, link="busybox")
        add("usr/bin/env", tarfile.SYMTYPE, 0o777, link="../../bin/busybox")
        for name, text in _BUSYBOX_FILES.items():
            add(name, tarfile.REGTYPE, 0o644, text.encode())


def python() -> Recipe:
    """Debian's Python with pip and uv, which reaches PyPI from RUN as this machine does."""
    suite, mirror = _debian()
    cas, environment = host_settings()
    environment = {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "UV_SYSTEM_PYTHON": "1",
        "UV_BREAK_SYSTEM_PACKAGES": "1",
        **environment,
    }
    inputs = {"suite": suite, "mirror": mirror, "machine": platform.machine(), "cas": cas}
    return Recipe(
        "python",
        lambda archive: _python_root(archive, suite, mirror, cas, environment),
        inputs,
        environment,
        ("python3",),
    )


def _python_root(archive: Path, suite: str, mirror: str, cas: str, environment: dict[str, str]) -> None:
    if shutil.which("mmdebstrap") is None:
        raise Failure("`mmdebstrap` is not installed; `make setup` installs it")
    hooks = [
        # Later installs by pip and uv go to /usr/local, which the distribution leaves to us.
        'rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
        'ln -sf python3 "$1/usr/bin/python"',
    ]
    if cas:
        hooks.append(f'cat "{archive}.cas" > "$1{SYSTEM_CAS}"')
        Path(f"{archive}.cas").write_text(cas)
    # The image's own environment, so that the first use of pip is also the test that it reaches the index.
    exports = " ".join(f"{name}='{value}'" for name, value in environment.items())
    hooks += [
        f'env -i {exports} HOME=/root chroot "$1" python3 -m pip install --no-cache-dir --quiet uv',
        'rm -rf "$1"/var/cache/apt/*.bin "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/* "$1"/var/log/*',
        'find "$1/usr" -name __pycache__ -prune -exec rm -rf {} +',
    ]
    flags = [f"--customize-hook={hook}" for hook in hooks]
    excluded = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
    run([
        "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PYTHON_PACKAGES)}",
        '--aptopt=APT::Install-Recommends "false"', *(f"--dpkgopt=path-exclude={path}" for path in excluded),
        *flags, suite, str(archive), mirror,
    ], timeout=1500)  # fmt: skip


def _debian() -> tuple[str, str]:
    """The suite and the mirror that this machine uses."""
    try:
        facts = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    except OSError:
        facts = {}
    if facts.get("ID", "").strip('"') != "debian":
        return "bookworm", "http://deb.debian.org/debian"
    suite = facts.get("VERSION_CODENAME", "bookworm").strip('"')
    lists = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for path in lists:
        text = path.read_text(errors="replace") if path.is_file() else ""
        match = re.search(rf"^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+{suite}\s", text, re.MULTILINE)
        match = match or re.search(rf"^URIs:\s*(\S+)\s*\n(?=Suites:.*\b{suite}\b)", text, re.MULTILINE)
        if match:
            return suite, match.group(1)
    return suite, "http://deb.debian.org/debian"


_PASSED_ON = (
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT", "PIP_PROXY",
    "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INSECURE_HOST", "UV_HTTP_TIMEOUT",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
)  # fmt: skip


def host_settings() -> tuple[str, dict[str, str]]:
    """How this machine reaches a package index: extra certificates (else empty), and environment variables."""
    found = {name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)}
    for name, value in _pip_config().items():
        variable = f"PIP_{name.replace('-', '_').upper()}"
        if variable in _PASSED_ON:
            found.setdefault(variable, value)
    if "PIP_INDEX_URL" in found and not {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & found.keys():
        found["UV_DEFAULT_INDEX"] = found["PIP_INDEX_URL"]
    named = [os.environ.get(name) for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")]
    bundle = next((Path(path) for path in named if path and Path(path).is_file()), None)
    if bundle is None and any(Path("/usr/local/share/ca-certificates").glob("**/*.crt")):
        bundle = Path(SYSTEM_CAS)
    if bundle is None:
        return "", found
    # uv and pip's vendored requests trust their own lists unless told otherwise.
    found |= dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"), SYSTEM_CAS)
    return bundle.read_text(), found


def _pip_config() -> dict[str, str]:
    """The settings of pip in files, by option name; empty where this Python has no pip."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    pairs = re.findall(r"^(?:global|install|site)\.([a-z-]+)='(.*)'$", listing, re.MULTILINE)
    return dict(pairs)
