"""Pushes to real registries, and what is said when they fail."""

import base64
import json
import os
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import zenml_cooper
from zenml_cooper.exceptions import RegistryError

if TYPE_CHECKING:
    from tests.conftest import SecuredRegistry

MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in ("docker.distribution.manifest.v2", "oci.image.manifest.v1", "docker.distribution.manifest.list.v2")
)


def digest_of(image: str, ca: Path | None = None, login: str = "") -> str:
    """The digest that a registry has for a tag."""
    host, _, rest = image.partition("/")
    repository, _, tag = rest.rpartition(":")
    url = f"{'https' if ca else 'http'}://{host}/v2/{repository}/manifests/{tag}"
    request = urllib.request.Request(url, method="HEAD", headers={"Accept": MANIFESTS})
    if login:
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    context = ssl.create_default_context(cafile=ca) if ca else None
    with urllib.request.urlopen(request, context=context) as answer:
        return str(answer.headers["Docker-Content-Digest"])


@pytest.fixture(params=["classic", "buildkit"])
def builder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(project: Callable[..., Path], busybox: str) -> Path:
    return project(
        {"Dockerfile": f"FROM {busybox}\nCOPY data /data\nRUN head -c 100000 /dev/urandom > /random\n", "data": "x"}
    )


def test_a_plain_registry(registry: str, root: Path, name: Callable[..., str], builder: Any) -> None:
    events: list[dict[str, Any]] = []
    image = name(f"{registry}/cooper-test/push")
    outcome = zenml_cooper.build(root, tags=[image], push=True, builder=builder, on_event=events.append)
    assert outcome.digest == digest_of(image)
    assert outcome.image == f"{image.rpartition(':')[0]}@{outcome.digest}"
    assert outcome.totals.pushed_bytes > 100_000
    layers = {event["layer"] for event in events if event["type"] == "push"}
    assert len(layers) >= 2, "progress per layer"
    assert [event["digest"] for event in events if event["type"] == "pushed"] == [outcome.digest]


def test_several_tags(registry: str, root: Path, name: Callable[..., str], builder: Any) -> None:
    images = [name(f"{registry}/cooper-test/push"), name(f"{registry}/cooper-test/push-other")]
    outcome = zenml_cooper.build(root, tags=images, push=True, builder=builder)
    assert {digest_of(image) for image in images} == {outcome.digest}
    assert set(outcome.tags) == set(images)


def test_a_password(registry_tls: "SecuredRegistry", root: Path, name: Callable[..., str], builder: Any) -> None:
    asked = []

    def credentials(registry: str, refresh: bool) -> dict[str, str]:
        asked.append((registry, refresh))
        return {"username": registry_tls.user, "password": registry_tls.password}

    image = name(f"{registry_tls.address}/cooper-test/push")
    outcome = zenml_cooper.build(root, tags=[image], push=True, builder=builder, credentials=credentials)
    assert outcome.digest == digest_of(image, registry_tls.ca, f"{registry_tls.user}:{registry_tls.password}")
    assert (registry_tls.address, False) in asked


def test_a_base_image_behind_a_password(
    registry_tls: "SecuredRegistry", root: Path, project: Callable[..., Path], name: Callable[..., str]
) -> None:
    # The daemon's BuildKit speaks plain HTTP to every registry on the loopback, whatever we do: classic only.
    builder: Any = "classic"
    known = {registry_tls.address: {"username": registry_tls.user, "password": registry_tls.password}}
    base = name(f"{registry_tls.address}/cooper-test/base")
    digest = zenml_cooper.build(root, tags=[base], push=True, builder=builder, credentials=known).digest
    subprocess.run(["docker", "rmi", "--force", base], check=True, capture_output=True)
    child = project({"Dockerfile": f"FROM {base.rpartition(':')[0]}@{digest}\nRUN test -s /random\n"})
    outcome = zenml_cooper.build(child, tags=[name()], pull=True, builder=builder, credentials=known)
    assert outcome.builder == builder


@pytest.mark.parametrize("where", ["auths", "credHelpers", "credsStore"])
def test_the_docker_config(
    registry_tls: "SecuredRegistry", root: Path, name: Callable[..., str], tmp_path: Path, where: str
) -> None:
    image = name(f"{registry_tls.address}/cooper-test/push")
    login = f"{registry_tls.user}:{registry_tls.password}"
    folder = tmp_path / "docker"
    folder.mkdir()
    if where == "auths":
        settings: dict[str, Any] = {
            "auths": {registry_tls.address: {"auth": base64.b64encode(login.encode()).decode()}}
        }
    else:
        helper = tmp_path / "docker-credential-cooper"
        answer = json.dumps({"ServerURL": registry_tls.address, "Username": registry_tls.user, "Secret": "$PASSWORD"})
        helper.write_text(
            "#!/bin/sh\n"
            "read -r server\n"
            f'[ "$1 $server" = "get {registry_tls.address}" ] || {{ echo "credentials not found"; exit 1; }}\n'
            f"cat <<END\n{answer.replace('$PASSWORD', registry_tls.password)}\nEND\n"
        )
        helper.chmod(0o755)
        settings = {where: "cooper"} if where == "credsStore" else {where: {registry_tls.address: "cooper"}}
    (folder / "config.json").write_text(json.dumps(settings))
    ended = subprocess.run(
        [sys.executable, "-m", "zenml_cooper.cli", "build", "--push", "--tag", image, "--progress=plain", str(root)],
        env={**os.environ, "DOCKER_CONFIG": str(folder), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == f"{image.rpartition(':')[0]}@{digest_of(image, registry_tls.ca, login)}"
    assert registry_tls.password not in ended.stderr


def test_a_wrong_password(registry_tls: "SecuredRegistry", root: Path, name: Callable[..., str], builder: Any) -> None:
    image = name(f"{registry_tls.address}/cooper-test/push")
    wrong = {registry_tls.address: {"username": registry_tls.user, "password": "hunter2-marker"}}
    with pytest.raises(RegistryError) as caught:
        zenml_cooper.build(root, tags=[image], push=True, builder=builder, credentials=wrong)
    assert caught.value.code == "registry-denied"
    assert registry_tls.address in str(caught.value)
    assert "current" in (caught.value.hint or "")
    assert "hunter2-marker" not in f"{caught.value!r} {caught.value} {caught.value.fields}"


def test_no_password(
    registry_tls: "SecuredRegistry",
    root: Path,
    name: Callable[..., str],
    builder: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    image = name(f"{registry_tls.address}/cooper-test/push")
    with pytest.raises(RegistryError) as caught:
        zenml_cooper.build(root, tags=[image], push=True, builder=builder)
    assert caught.value.code == "registry-denied"
    assert "docker login" in (caught.value.hint or "")


def test_a_registry_that_is_down(root: Path, name: Callable[..., str], builder: Any) -> None:
    image = name("127.0.0.1:9/cooper-test/push")
    with pytest.raises(RegistryError) as caught:
        zenml_cooper.build(root, tags=[image], push=True, builder=builder)
    assert caught.value.code == "registry-unreachable"
    assert "127.0.0.1:9" in str(caught.value)
