"""What the image builder asks the native module for, and what it does with the answer."""

import datetime
import logging
import uuid
from pathlib import Path
from typing import Any

import pytest
from zenml.enums import StackComponentType
from zenml.image_builders import BuildContext

from zenml_cooper import _build
from zenml_cooper.config import DockerImageBuilderConfig
from zenml_cooper.context import CooperBuildContext
from zenml_cooper.image_builders import DockerImageBuilder, credentials, step_package

try:
    from zenml.config.docker_settings import DockerBuildOptions
except ImportError:  # older versions of ZenML give a dict
    DockerBuildOptions = dict

GENERATED = "FROM python\nWORKDIR /app\nENV ZENML_CONFIG_PATH=/app/.zenconfig\nCOPY . .\nRUN chmod -R a+rw ."
DIGEST = f"localhost:5000/a/b@sha256:{'0' * 64}"


def builder(**config: Any) -> DockerImageBuilder:
    now = datetime.datetime.now()
    return DockerImageBuilder(
        name="builder",
        id=uuid.uuid4(),
        config=DockerImageBuilderConfig(**config),
        flavor="cooper_docker",
        type=StackComponentType.IMAGE_BUILDER,
        user=uuid.uuid4(),
        created=now,
        updated=now,
    )


class Registry:
    """As much of a ZenML container registry as a builder uses."""

    class config:
        uri = "localhost:5000/a"

    def __init__(self) -> None:
        self.prepared: list[str] = []
        self.asked = 0
        self._credentials: tuple[str, str] | None = None
        self._connector_instance: object | None = None

    def is_valid_image_name_for_registry(self, image_name: str) -> bool:
        return image_name.startswith(self.config.uri)

    def prepare_image_push(self, image_name: str) -> None:
        self.prepared.append(image_name)

    @property
    def credentials(self) -> tuple[str, str]:
        if self._credentials is None:
            self.asked += 1
            self._credentials = ("me", f"password-{self.asked}")
        return self._credentials


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Takes the place of the native module; collects what it is asked for."""
    seen: list[dict[str, Any]] = []

    def build(request: dict[str, Any], **others: Any) -> dict[str, Any]:
        seen.append({**request, **others})
        return {"image": DIGEST if request["push"] else request["tags"][0], "totals": {"context_bytes": 0}}

    monkeypatch.setattr(_build, "run", build)
    return seen


def test_a_request_says_everything(requests: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("print()")
    context = CooperBuildContext(root=str(tmp_path))
    context.add_file("FROM scratch", "Dockerfile")
    registry = Registry()
    config = {"host": "tcp://a:2376", "tls_ca_cert": "/ca.pem", "builder": "buildkit", "network": "host"}
    options = DockerBuildOptions(pull=True, build_args={"A": "1"}, target="last", nocache=True)

    image = builder(**config).build("localhost:5000/a/b:c", context, options, registry)

    assert image == DIGEST
    assert registry.prepared == ["localhost:5000/a/b:c"]
    assert registry.asked == 0, "credentials are read when they are needed"
    (request,) = requests
    assert request["tags"] == ["localhost:5000/a/b:c"]
    assert request["push"] is True
    assert request["engine"] == {
        "kind": "docker",
        "endpoints": ["tcp://a:2376"],
        "docker_context": None,
        "tls": {"ca_cert": "/ca.pem"},
        "builder": "buildkit",
    }
    given = request["options"]
    assert given["pull"] is True
    assert given["build_args"] == {"A": "1"}
    assert given["target"] == "last"
    assert request["default_options"]["network"] == "host"
    assert request["context"]["root"] == str(tmp_path)
    assert request["context"]["extra_patterns"] == ["!/.zen"]
    assert request["context"]["omit_ignore_file"] is True
    assert request["context"]["extra_files"] == [{"path": "Dockerfile", "content": b"FROM scratch", "mode": 0o644}]


def test_without_a_registry_nothing_is_pushed(requests: list[dict[str, Any]]) -> None:
    assert builder().build("b:c", CooperBuildContext()) == "b:c"
    assert requests[0]["push"] is False
    assert requests[0]["credentials"] is None
    assert requests[0]["options"] == {}


def test_a_name_of_another_registry_is_refused(requests: list[dict[str, Any]]) -> None:
    registry = Registry()
    with pytest.raises(ValueError, match="ghcr.io/x:y.*localhost:5000/a"):
        builder().build("ghcr.io/x:y", CooperBuildContext(), None, registry)
    assert not requests
    assert not registry.prepared


def test_a_stock_context_is_taken(requests: list[dict[str, Any]], tmp_path: Path) -> None:
    ignore = tmp_path / "ignore"
    ignore.write_text("*.log")
    context = BuildContext(root=str(tmp_path), dockerignore_file=str(ignore))
    context.add_file("FROM scratch\n# é", "Dockerfile")
    builder().build("b:c", context)
    spec = requests[0]["context"]
    assert (spec["root"], spec["ignore_file"]) == (str(tmp_path), str(ignore))
    assert spec["extra_files"] == [{"path": "Dockerfile", "content": "FROM scratch\n# é".encode(), "mode": 0o644}]


def test_a_context_with_rules_of_its_own_is_taken(requests: list[dict[str, Any]], tmp_path: Path) -> None:
    source = tmp_path / "tool"
    source.write_bytes(b"\xff\x00")
    source.chmod(0o755)

    class Own(BuildContext):
        def get_files(self) -> dict[str, str]:
            return {"bin/tool": str(source), "Dockerfile": "/nowhere", "bin": str(tmp_path)}

    context = Own(root=str(tmp_path))
    context.add_file("FROM scratch", "Dockerfile")
    builder().build("b:c", context)
    spec = requests[0]["context"]
    assert spec["root"] is None
    assert spec["extra_files"] == [
        {"path": "bin/tool", "content": b"\xff\x00", "mode": 0o755},
        {"path": "Dockerfile", "content": b"FROM scratch", "mode": 0o644},
    ]


def test_options_as_older_zenml_gives_them(requests: list[dict[str, Any]]) -> None:
    builder().build("b:c", CooperBuildContext(), {"buildargs": {"A": "1"}, "pull": True})
    assert requests[0]["options"] == {"buildargs": {"A": "1"}, "pull": True}


@pytest.mark.parametrize(
    ("registry", "expected"),
    [
        ("localhost:5000", "localhost:5000"),
        ("https://GHCR.io/v2/", "ghcr.io"),
        ("localhost/a", "localhost"),
        ("index.docker.io/me", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("me/repository", "docker.io"),
        ("123.dkr.ecr.eu-west-1.amazonaws.com/a", "123.dkr.ecr.eu-west-1.amazonaws.com"),
    ],
)
def test_the_host_of_a_registry(registry: str, expected: str) -> None:
    assert credentials.host(registry) == expected


def test_credentials_are_those_of_the_registry_and_of_now() -> None:
    registry = Registry()
    get = credentials.of(registry)
    assert get is not None
    assert get("ghcr.io", False) is None
    assert registry.asked == 0
    assert get("localhost:5000", False) == {"username": "me", "password": "password-1"}
    assert get("localhost:5000", False) == {"username": "me", "password": "password-1"}
    assert get("localhost:5000", True) == {"username": "me", "password": "password-2"}


def test_the_package_goes_into_images_of_pipelines(requests: list[dict[str, Any]]) -> None:
    context = CooperBuildContext()
    context.add_file(GENERATED, "Dockerfile")
    context.add_file("zenml==0.98.0", ".zenml_user_requirements")
    builder().build("b:c", context)
    paths = {file["path"] for file in requests[0]["context"]["extra_files"]}
    assert {
        "zenml_cooper/__init__.py",
        "zenml_cooper/flavors/docker.py",
        "zenml_cooper/image_builders/base.py",
    } <= paths
    assert not [path for path in paths if path.startswith("zenml_cooper/") and not path.endswith(".py")]
    assert set(context.get_extra_files()) == {"Dockerfile", ".zenml_user_requirements"}, (
        "the caller's context is its own"
    )


@pytest.mark.parametrize(
    ("dockerfile", "requirements", "config"),
    [
        ("FROM scratch\nCOPY . .", "zenml", {}),
        (GENERATED, "zenml-cooper==0.1.0", {}),
        (GENERATED, "zenml", {"include_package": False}),
    ],
)
def test_the_package_goes_nowhere_else(
    requests: list[dict[str, Any]], dockerfile: str, requirements: str, config: dict[str, Any]
) -> None:
    context = CooperBuildContext()
    context.add_file(dockerfile, "Dockerfile")
    context.add_file(requirements, ".zenml_user_requirements")
    builder(**config).build("b:c", context)
    assert len(requests[0]["context"]["extra_files"]) == 2


@pytest.mark.parametrize(
    ("dockerfile", "given", "sent"),
    [(GENERATED, False, {}), (GENERATED, True, {"rm": True}), ("FROM scratch", False, {"rm": False})],
)
def test_what_zenml_sets_by_itself_does_not_choose_the_builder(
    requests: list[dict[str, Any]], dockerfile: str, given: bool, sent: dict[str, Any]
) -> None:
    context = CooperBuildContext()
    context.add_file(dockerfile, "Dockerfile")
    builder().build("b:c", context, DockerBuildOptions(rm=given))
    assert requests[0]["options"] == sent


def test_the_package_in_an_image_needs_no_native_module(zenml: Any, tmp_path: Path) -> None:
    context = {"extra_files": [{"path": "Dockerfile", "content": GENERATED.encode(), "mode": 0o644}]}
    step_package.add(context)
    for file in context["extra_files"]:
        target = tmp_path / file["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file["content"])
    said = zenml.python(
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from zenml_cooper.flavors import DockerImageBuilderFlavor as Flavor\n"
        "import zenml_cooper\n"
        f"assert zenml_cooper.__file__.startswith({str(tmp_path)!r}), zenml_cooper.__file__\n"
        "Flavor().implementation_class\n"
        "Flavor().config_class()\n"
        "assert 'zenml_cooper._core' not in sys.modules\n"
        "print('DONE')"
    )
    assert said.rstrip().endswith("DONE")


def test_secrets_are_read_when_a_build_starts(zenml: Any, requests: list[dict[str, Any]]) -> None:
    config = {
        "host": "{{cooper_builder.host}}",
        "build_secrets": {"pip": "{{cooper_builder.token}}", "netrc": "src=/home/me/.netrc", "hub": "env=HUB_TOKEN"},
    }
    with pytest.raises(KeyError, match="cooper_builder"):
        builder(**config).build("b:c", CooperBuildContext())
    zenml("secret", "create", "cooper_builder", "--host=unix:///a.sock", "--token=hunter2-marker")
    try:
        builder(**config).build("b:c", CooperBuildContext())
        with pytest.raises(KeyError, match=r"`pip`.*`cooper_builder\.other`"):
            builder(build_secrets={"pip": "{{cooper_builder.other}}"}).build("b:c", CooperBuildContext())
    finally:
        zenml("secret", "delete", "cooper_builder", "--yes")
    (request,) = requests
    assert request["engine"]["endpoints"] == ["unix:///a.sock"]
    assert request["default_options"]["secret"] == [
        {"id": "pip", "value": "hunter2-marker"},
        {"id": "netrc", "src": "/home/me/.netrc"},
        {"id": "hub", "env": "HUB_TOKEN"},
    ]


def test_nothing_secret_is_logged(
    zenml: Any, requests: list[dict[str, Any]], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    zenml("secret", "create", "cooper_builder", "--token=hunter2-marker")
    try:
        builder(build_secrets={"pip": "{{cooper_builder.token}}"}).build("b:c", CooperBuildContext())
    finally:
        zenml("secret", "delete", "cooper_builder", "--yes")
    assert "hunter2-marker" in str(requests[0]["default_options"])
    out, err = capfd.readouterr()
    assert "hunter2-marker" not in caplog.text + out + err


def test_it_builds_locally_where_zenml_has_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    remote = builder(host="tcp://build.example:2376")
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    assert remote.is_building_locally is False


def test_it_builds_locally_on_a_machine_with_docker() -> None:
    # The daemon that the tests of this folder need anyway.
    assert builder().is_building_locally is True
    assert builder(host="tcp://build.example:2376").is_building_locally is True
