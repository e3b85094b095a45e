"""The flavor `cooper`: what it asks the native module for, and what it says where there is no registry."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from zenml_cooper.config import NativeImageBuilderConfig
from zenml_cooper.context import CooperBuildContext
from zenml_cooper.flavors import NativeImageBuilderFlavor
from zenml_cooper.image_builders import native

if TYPE_CHECKING:
    from conftest import StandInRegistry, Zenml

Builder = Callable[..., native.NativeImageBuilder]


@pytest.fixture
def builder(component: Callable[..., Any]) -> Builder:
    return lambda **config: component(NativeImageBuilderFlavor(), **config)


@pytest.fixture(params=[True, False], ids=["daemon", "no-daemon"])
def daemon(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(native, "_daemon_answers", lambda: request.param)
    return bool(request.param)


def test_a_request_says_everything(
    builder: Builder, requests: list[dict[str, Any]], stand_in_registry: "StandInRegistry", daemon: bool
) -> None:
    config = {
        "compression": "zstd:5",
        "fold": False,
        "cache_dir": "/var/cache/cooper",
        "cache_size": "50 GiB",
        "cache_from": "type=registry,ref=registry.example:5000/team/cache",
        "cache_to": ["type=registry,ref=registry.example:5000/team/cache,mode=max"],
        "output": "type=docker",
        "sandbox": "single",
        "runtime": "crun",
    }
    name = f"{stand_in_registry.config.uri}/app:1"
    builder(**config).build(name, CooperBuildContext(), {"compression": "gzip"}, stand_in_registry)
    (request,) = requests
    assert stand_in_registry.prepared == [name]
    assert request["push"] is True
    assert request["outputs"] == [], "with a registry, the image goes there and nowhere else"
    assert request["engine"] == {
        "kind": "native",
        "cache_dir": "/var/cache/cooper",
        "cache_size": "50 GiB",
        "sandbox": "single",
        "runtime": "crun",
    }
    assert request["options"] == {"compression": "gzip"}
    defaults = request["default_options"]
    assert (defaults["compression"], defaults["fold"]) == ("zstd:5", False)
    assert defaults["cache-from"] == ["type=registry,ref=registry.example:5000/team/cache"]
    assert defaults["cache-to"] == ["type=registry,ref=registry.example:5000/team/cache,mode=max"]


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """What was warned of so far."""
    # ZenML's loggers do not hand on.
    monkeypatch.setattr(native.logger, "propagate", True)
    caplog.set_level(logging.WARNING, native.logger.name)
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


def test_without_a_registry_it_goes_to_a_daemon_or_stays(
    builder: Builder, requests: list[dict[str, Any]], daemon: bool, warnings: Callable[[], str]
) -> None:
    assert builder().build("zenml:app", CooperBuildContext()) == "zenml:app"
    assert requests[0]["push"] is False
    assert requests[0]["outputs"] == (["type=docker"] if daemon else ["type=image"])
    said = warnings()
    if daemon:
        assert not said
    else:
        assert "no container registry, and no Docker or Podman daemon answers" in said
        assert "`zenml:app` stays in the store of zenml-cooper on this machine" in said


@pytest.mark.parametrize(
    ("output", "asked"),
    [("store", ["type=image"]), ("type=docker", ["type=docker"]), ("type=oci,dest=/x.tar", ["type=oci,dest=/x.tar"])],
)
def test_the_configuration_may_decide(
    builder: Builder,
    requests: list[dict[str, Any]],
    daemon: bool,
    warnings: Callable[[], str],
    output: str,
    asked: list[str],
) -> None:
    builder(output=output).build("zenml:app", CooperBuildContext())
    assert requests[0]["outputs"] == asked
    assert ("stays in the store" in warnings()) is (output == "store")
    assert "daemon answers" not in warnings()


def test_an_image_to_build_upon_stays_in_the_store(
    builder: Builder, requests: list[dict[str, Any]], daemon: bool, warnings: Callable[[], str]
) -> None:
    builder().build("zenml:app-intermediate-build", CooperBuildContext())
    assert requests[0]["outputs"] == ["type=image"]
    assert not warnings()


def test_it_asks_for_no_container_engine(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    assert builder().is_building_locally is False
    assert native._daemon_answers() is False


def test_a_daemon_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    # The daemon that the tests of this folder need anyway.
    assert native._daemon_answers() is True


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"compression": "lz4"}, "neither `gzip` nor `zstd`"),
        ({"output": "docker"}, "write `type=docker`"),
        ({"output": "type=local,dest=x"}, "`type=oci,dest=PATH` or `store`"),
        ({"cache_size": "much"}, "write bytes, or a number"),
        ({"fold": "perhaps"}, "fold"),
        ({"cache_to": "registry/cache"}, "type=registry,ref=registry/cache"),
        ({"sandbox": "none"}, "write one of 'root', 'subordinate', 'single', 'chroot'"),
        ({"platform": "amd64"}, "write os/architecture"),
    ],
)
def test_a_mistake_is_explained(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        NativeImageBuilderConfig(**values)
    assert message in str(caught.value)


def test_every_field_is_described() -> None:
    for name in ("compression", "fold", "output", "cache_dir", "cache_size", "sandbox", "runtime"):
        assert (NativeImageBuilderConfig.model_fields[name].description or "").endswith("."), name
    assert "host" not in NativeImageBuilderConfig.model_fields


def test_references_are_taken() -> None:
    config = NativeImageBuilderConfig(compression="{{a.b}}", output="{{a.c}}", cache_dir="{{a.d}}")
    assert {secret.key for secret in config.required_secrets} == {"b", "c", "d"}


def test_the_flavor_tells_what_it_is() -> None:
    model = NativeImageBuilderFlavor().to_model(integration="custom", is_custom=True)
    assert (model.name, str(model.type)) == ("cooper", "image_builder")
    assert model.source == "zenml_cooper.flavors.native.NativeImageBuilderFlavor"
    assert set(model.config_schema["properties"]) == set(NativeImageBuilderConfig.model_fields)


def test_the_commands_of_the_documentation_work(empty_zenml: "Zenml") -> None:
    empty_zenml.program("image-builder", "flavor", "register", "zenml_cooper.flavors.NativeImageBuilderFlavor")
    assert "cooper" in empty_zenml.program("image-builder", "flavor", "list").split()
    empty_zenml("image-builder", "register", "b0", "--flavor=cooper", "--compression=zstd:5", "--fold=false")
    assert "zstd:5" in empty_zenml("image-builder", "describe", "b0")
    said = empty_zenml.fails("image-builder", "register", "b1", "--flavor=cooper", "--hots=unix:///a")
    assert "hots" in said
