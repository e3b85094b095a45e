"""The native engine with real registries: its images are Docker's, a colleague's cache is its own."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import zenml_cooper
from zenml_cooper.exceptions import CooperError

from .conftest import config, docker, tree
from .test_interrupt import LIMIT
from .test_push import MANIFESTS
from .test_same_as_docker import CASES, _reference, _write

if TYPE_CHECKING:
    from tests.conftest import SecuredRegistry

KILLS = 100
# Docker's classic builder builds stages that nothing needs.
BUILDKIT_ONLY = ("stages",)
BUILDERS = 8


def manifest(image: str) -> dict[str, Any]:
    """The manifest that a plain registry has for an image."""
    host, _, rest = image.partition("/")
    repository, _, tag = rest.rpartition(":")
    url = f"http://{host}/v2/{repository}/manifests/{tag}"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": MANIFESTS})) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("case", CASES)
def test_the_image_is_that_of_docker(
    case: str, project: Callable[..., Path], busybox: str, registry: str, name: Callable[..., str]
) -> None:
    root = _write(project, CASES[case], busybox)
    options = CASES[case].get("options", {})
    given = {key: root / value if key == "dockerfile" else value for key, value in options.items()}
    ours, theirs = name(f"{registry}/cooper-test/native"), name()
    zenml_cooper.build(root, tags=[ours], push=True, engine="native", **given)
    docker("pull", ours)
    if case in BUILDKIT_ONLY:
        zenml_cooper.build(root, tags=[theirs], engine="docker", builder="buildkit", **given)
    else:
        _reference(root, theirs, options, {"DOCKER_BUILDKIT": "0"})
    assert config(ours) == config(theirs)
    expected = tree(theirs)
    if docker("info", "--format", "{{.Driver}}").strip() == "fuse-overlayfs":
        # It loses the setuid bit of a file of a lower layer that gets another name.
        lost = [path for path, found in tree(ours).items() if found[1].startswith("0o104") and case == "run"]
        assert sorted(lost) == (["hard", "made"] if case == "run" else [])
        expected |= {path: (expected[path][0], "0o104755", *expected[path][2:]) for path in lost}
    assert tree(ours) == expected


@pytest.mark.usefixtures("store")
def test_what_is_folded_is_what_the_commands_do(
    project: Callable[..., Path], busybox: str, registry: str, name: Callable[..., str]
) -> None:
    files = {"a": ("1", 0o600), "b/c": ("2", 0o755), "b/d/e": ("3", 0o444), "s/t": ("4", 0o711)}
    text = f"FROM {busybox}\nWORKDIR /app\nENV A=1\nCOPY . .\nRUN chmod -R a+rw .\nENV B=2\nCMD x\n"
    root = project({"Dockerfile": text, **files})
    os.symlink("a", root / "link")
    ours, theirs = name(f"{registry}/cooper-test/fold"), name()
    built = zenml_cooper.build(root, tags=[ours], push=True, engine="native")
    assert len(manifest(ours)["layers"]) == len(manifest(busybox)["layers"]) + 2, "WORKDIR, and COPY with chmod"
    assert built.totals.total_steps == 4
    docker("pull", ours)
    _reference(root, theirs, {}, {"DOCKER_BUILDKIT": "0"})
    assert config(ours) == config(theirs)
    assert tree(ours) == tree(theirs)


@pytest.mark.usefixtures("store")
def test_a_base_that_only_the_daemon_has(
    project: Callable[..., Path], busybox: str, registry: str, name: Callable[..., str]
) -> None:
    base, ours = name(), name(f"{registry}/cooper-test/local")
    docker("build", "--tag", base, str(project({"Dockerfile": f"FROM {busybox}\nRUN echo made > /made\n"})))
    root = project({"Dockerfile": f"FROM {base}\nCOPY a /a\n", "a": "1"})
    zenml_cooper.build(root, tags=[ours], push=True, engine="native")
    docker("pull", ours)
    assert docker("run", "--rm", ours, "cat", "/made", "/a") == "made\n1"


@pytest.mark.usefixtures("store")
def test_a_registry_with_a_password(
    registry_tls: "SecuredRegistry", project: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "1"})
    image = f"{registry_tls.address}/cooper-test/native:{uuid.uuid4().hex[:12]}"

    def credentials(host: str, refresh: bool) -> dict[str, str] | None:
        return {"username": registry_tls.user, "password": registry_tls.password}

    pushed = zenml_cooper.build(root, tags=[image], push=True, engine="native", credentials=credentials)
    assert pushed.image == f"{image.rpartition(':')[0]}@{pushed.digest}"
    with pytest.raises(CooperError) as refused:
        zenml_cooper.build(root, tags=[image], push=True, engine="native", credentials=lambda host, refresh: None)
    assert refused.value.code == "registry-denied"
    assert registry_tls.password not in str(refused.value)


def test_a_machine_that_never_built_takes_all_from_a_colleague(
    project: Callable[..., Path], busybox: str, registry: str, store: Path, name: Callable[..., str]
) -> None:
    root = project({"Dockerfile": f"FROM {busybox}\nWORKDIR /app\nCOPY . .\n", "a": "1", "b/c": "2"})
    cache = f"{registry}/cooper-test/cache:{uuid.uuid4().hex[:12]}"
    one, other = name(f"{registry}/cooper-test/one"), name(f"{registry}/cooper-test/other")
    first = zenml_cooper.build(root, tags=[one], push=True, engine="native", cache_to=[f"type=registry,ref={cache}"])
    assert first.totals.cached_steps == 1
    shutil.rmtree(store)
    second = zenml_cooper.build(
        root, tags=[other], push=True, engine="native", cache_from=[f"type=registry,ref={cache}"]
    )
    assert second.totals.cached_steps == second.totals.total_steps == 3
    assert manifest(one)["layers"] == manifest(other)["layers"]
    assert second.totals.pushed_bytes < 10_000, "layers are mounted from the cache's repository"
    layers = {layer["digest"].split(":")[1] for layer in manifest(other)["layers"]}
    kept = {path.name for path in store.rglob("*") if path.is_file()}
    assert not layers & kept, "no layer is fetched"


def test_nothing_is_sent_twice(
    project: Callable[..., Path], busybox: str, registry: str, store: Path, name: Callable[..., str]
) -> None:
    files = {f"d/{number}.bin": random.Random(number).randbytes(2000) for number in range(300)}
    root = project({"Dockerfile": f"FROM {busybox}\nCOPY . /app/\n", **files})
    image = name(f"{registry}/cooper-test/twice")
    first = zenml_cooper.build(root, tags=[image], push=True, engine="native")
    again = zenml_cooper.build(root, tags=[image], push=True, engine="native")
    assert (again.digest, again.totals.pushed_bytes) == (first.digest, 0)
    (root / "d/7.bin").write_bytes(b"changed")
    changed = zenml_cooper.build(root, tags=[image], push=True, engine="native")
    assert changed.digest != first.digest
    assert changed.totals.pushed_bytes > 100_000


def test_a_layer_that_a_power_cut_damaged_is_made_anew(
    project: Callable[..., Path], registry: str, store: Path, name: Callable[..., str]
) -> None:
    root = project({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": random.Random(1).randbytes(50_000)})
    zenml_cooper.build(root, engine="native", outputs=[f"type=oci,dest={store.parent / 'image'}"])
    (blob,) = [
        path for path in (store / "store" / "blobs").rglob("*") if path.is_file() and path.stat().st_size > 50_000
    ]
    content = bytearray(blob.read_bytes())
    content[25_000] ^= 1
    blob.chmod(0o600)
    blob.write_bytes(content)
    image = name(f"{registry}/cooper-test/damaged")
    with pytest.raises(CooperError) as damaged:
        zenml_cooper.build(root, tags=[image], push=True, engine="native")
    assert damaged.value.code == "store-damaged"
    again = zenml_cooper.build(root, tags=[image], push=True, engine="native")
    assert again.totals.pushed_bytes > 50_000


@pytest.mark.parametrize("output", ["type=oci,dest={}/x.tar", "type=oci,dest={}/x", "type=local,dest={}/x"])
def test_a_full_disk_is_told_and_gets_nothing(
    project: Callable[..., Path], store: Path, tmp_path: Path, output: str
) -> None:
    root = project({"Dockerfile": "FROM scratch\nCOPY a /\n", "a": random.Random(1).randbytes(3_000_000)})
    small = tmp_path / "small"
    small.mkdir()
    script = (
        'mount -t tmpfs -o size=1m none "$1" && "$2" build --engine native --progress quiet -o "$3" "$4"; ls -A "$1"'
    )
    cooper = Path(sys.executable).with_name("cooper")
    shell = ["unshare", "--mount", "--map-root-user", "sh", "-c", script]
    ended = subprocess.run(
        [*shell, "sh", small, cooper, output.format(small), root],
        env={**os.environ, "COOPER_CACHE_DIR": str(store)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no space left" in ended.stderr, ended.stderr
    assert ended.stdout == ""


@pytest.mark.usefixtures("store")
def test_an_image_without_a_name_has_the_daemons(project: Callable[..., Path], busybox: str) -> None:
    root = project({"Dockerfile": f"FROM {busybox}\nCOPY a /a\n", "a": uuid.uuid4().hex})
    outcome = zenml_cooper.build(root, engine="native", outputs=["type=docker"])
    try:
        assert docker("run", "--rm", outcome.image, "cat", "/a") == (root / "a").read_text()
    finally:
        docker("rmi", "--force", outcome.image)


def _build(root: Path, store: Path, output: Path, *flags: str) -> "subprocess.Popen[bytes]":
    cooper = str(Path(sys.executable).with_name("cooper"))
    command = [cooper, "build", "--engine", "native", "--progress", "quiet", *flags]
    return subprocess.Popen(
        [*command, "--output", f"type=oci,dest={output}", str(root)],
        env={**os.environ, "COOPER_CACHE_DIR": str(store)},
        stdout=subprocess.DEVNULL,
    )


def _layout(folder: Path) -> dict[str, set[str]]:
    """The images of a layout, and their layers; each blob is what its name says."""
    images = {}
    for image in json.loads((folder / "index.json").read_text())["manifests"]:
        found = json.loads((folder / "blobs/sha256" / image["digest"].split(":")[1]).read_text())
        for blob in (found["config"], *found["layers"]):
            content = (folder / "blobs/sha256" / blob["digest"].split(":")[1]).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (blob["size"], blob["digest"].split(":")[1])
        images[image["digest"]] = {layer["digest"] for layer in found["layers"]}
    assert images
    return images


def test_a_store_survives_builds_that_are_killed(project: Callable[..., Path], tmp_path: Path) -> None:
    """Builds are killed at random instants; the next one is right, and says the same as one with an empty store."""
    files = {f"d{number % 20}/{number}": random.Random(number).randbytes(3000) for number in range(2000)}
    text = "FROM scratch\nWORKDIR /app\nCOPY d1 d2 d3 ./\nCOPY . .\n"
    root = project({"Dockerfile": text, **files})
    store, output = tmp_path / "store", tmp_path / "output"
    started = time.monotonic()
    assert _build(root, store, output).wait() == 0
    whole = time.monotonic() - started
    dice = random.Random(4)
    for number in range(KILLS):
        # Each has something to do: a file is another one.
        (root / "d1/1").write_bytes(dice.randbytes(3000))
        if number % 10 == 0:
            shutil.rmtree(store, ignore_errors=True)
        process = _build(root, store, output)
        time.sleep(dice.random() * whole)
        process.send_signal(signal.SIGKILL)
        process.wait()
    epoch = ["--source-date-epoch", "1700000000"]
    assert _build(root, store, tmp_path / "after", *epoch).wait() == 0
    assert _build(root, tmp_path / "fresh", tmp_path / "expected", *epoch).wait() == 0
    assert _layout(tmp_path / "after") == _layout(tmp_path / "expected")
    _layout(output)
    left = [path.relative_to(store) for path in store.rglob("*") if path.is_file()]
    assert not [path for path in left if "tmp" in path.parts], "leftovers of the killed"


@pytest.mark.parametrize("phase", ["step_progress", "push"])
def test_ctrl_c_ends_it_at_once(
    phase: str, project: Callable[..., Path], registry: str, store: Path, name: Callable[..., str]
) -> None:
    root = project({"Dockerfile": "FROM scratch\nCOPY big /big\n", "big": random.Random(1).randbytes(64 << 20)})
    cooper, image = str(Path(sys.executable).with_name("cooper")), name(f"{registry}/cooper-test/interrupted")
    command = [cooper, "build", "--engine", "native", "--progress", "json", "--push", "--tag", image, str(root)]
    sent = 0.0
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            if not sent and line.startswith("{") and json.loads(line)["type"] == phase:
                process.send_signal(signal.SIGINT)
                sent = time.monotonic()
    assert sent, f"there was no {phase}"
    assert (process.returncode, time.monotonic() - sent < LIMIT) == (130, True)
    assert not [path for path in store.rglob("tmp/*") if path.is_file()]


def test_many_builds_share_a_store(project: Callable[..., Path], tmp_path: Path) -> None:
    files = {f"d{number % 20}/{number}": random.Random(number).randbytes(3000) for number in range(1000)}
    root = project({"Dockerfile": "FROM scratch\nWORKDIR /app\nCOPY . .\n", **files})
    store = tmp_path / "store"

    def run(number: int) -> dict[str, set[str]]:
        process = _build(root, store, tmp_path / f"output-{number}", "--source-date-epoch", "1700000000")
        assert process.wait() == 0
        return _layout(tmp_path / f"output-{number}")

    with ThreadPoolExecutor(BUILDERS) as pool:
        results = list(pool.map(run, range(BUILDERS)))
    assert all(result == results[0] for result in results)
