"""What can be configured, and what is said about mistakes."""

from typing import Any

import pytest
from pydantic import ValidationError
from zenml.stack.stack_component import StackComponentConfig

from zenml_cooper.config import DockerImageBuilderConfig
from zenml_cooper.flavors import DockerImageBuilderFlavor


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"host": "localhost:2375"}, "did you mean `tcp://localhost:2375`?"),
        ({"host": "/run/docker.sock"}, "did you mean `unix:///run/docker.sock`?"),
        ({"host": "npipe:////./pipe/docker"}, "`npipe://` is not supported"),
        ({"host": "unix://run/docker.sock"}, "`unix:///run/docker.sock`"),
        ({"host": "tcp://"}, "has no address"),
        ({"host": "tcp://a:1", "docker_context": "b"}, "give one of them"),
        ({"host": "{{daemon.host}}", "docker_context": "b"}, "give one of them"),
        ({"tls_ca_cert": "ca.pem"}, "belongs to a `host`"),
        ({"tls_ca_cert": "ca.pem", "docker_context": "b"}, "belongs to a `host`"),
        ({"host": "unix:///a", "tls_skip_verify": True}, "uses no TLS"),
        ({"host": "tcp://a:1", "tls_client_key": "key.pem"}, "go together"),
        ({"platform": "amd64"}, "write os/architecture"),
        ({"builder": "buildx"}, "'auto', 'buildkit' or 'classic'"),
        ({"progress": "loud"}, "'quiet'"),
        ({"build_secrets": "pip=env=TOKEN"}, "write a JSON object"),
        ({"build_secrets": '{"": "env=TOKEN"}'}, "an id is empty"),
        ({"build_secrets": '{"pip": "env="}'}, "says no source"),
        ({"ssh": "=/run/agent"}, "has no id"),
        ({"cache_to": "registry/cache"}, "type=registry,ref=registry/cache"),
        ({"build_args": {"TOKEN": "{{pypi.token}}"}}, "cannot stand here"),
    ],
)
def test_a_mistake_is_explained(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DockerImageBuilderConfig(**values)
    assert message in str(caught.value)


def test_a_secret_in_the_wrong_place_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValidationError) as caught:
        DockerImageBuilderConfig(build_secrets={"pip": "hunter2-marker"})
    assert "{{secret.key}}" in str(caught.value)
    assert "hunter2-marker" not in str(caught.value)
    assert "hunter2-marker" not in repr(caught.value)


def test_what_the_command_line_gives_is_taken() -> None:
    config = DockerImageBuilderConfig(
        ssh="default",
        cache_from='["a/b:c", "d/e"]',
        build_secrets='{"pip": "{{pypi.token}}", "netrc": "src=/home/me/.netrc"}',
        tls_skip_verify="true",
        host="tcp://a:2376",
    )
    assert config.ssh == ["default"]
    assert config.cache_from == ["a/b:c", "d/e"]
    assert config.build_secrets == {"pip": "{{pypi.token}}", "netrc": "src=/home/me/.netrc"}
    assert config.tls_skip_verify is True


def test_references_are_listed_and_not_resolved() -> None:
    # Resolving would ask a server for secrets that do not exist, and fail.
    config = DockerImageBuilderConfig(host="{{daemon.host}}", build_secrets={"pip": "{{ pypi.token }}"})
    assert {(secret.name, secret.key) for secret in config.required_secrets} == {("daemon", "host"), ("pypi", "token")}


def test_unknown_keys_do_not_stop_a_stored_component_from_loading() -> None:
    assert DockerImageBuilderConfig(a_field_of_a_later_version=1).host is None


def test_every_field_is_described() -> None:
    own = set(DockerImageBuilderConfig.model_fields) - set(StackComponentConfig.model_fields)
    assert len(own) > 10
    for name in own:
        description = DockerImageBuilderConfig.model_fields[name].description
        assert (description or "").endswith("."), name


def test_every_field_that_is_a_text_takes_a_reference() -> None:
    texts = [name for name, field in DockerImageBuilderConfig.model_fields.items() if field.annotation == (str | None)]
    assert len(texts) >= 5
    for name in texts:
        others = {"host": "{{a.host}}"} if name.startswith("tls_") else {}
        if name.startswith("tls_client"):
            others |= {"tls_client_cert": "{{a.cert}}", "tls_client_key": "{{a.key}}"}
        DockerImageBuilderConfig(**{**others, name: "{{a.b}}"})


def test_the_flavor_tells_what_it_is() -> None:
    flavor = DockerImageBuilderFlavor()
    model = flavor.to_model(integration="custom", is_custom=True)
    assert model.name == "cooper_docker"
    assert str(model.type) == "image_builder"
    assert flavor.display_name == "Cooper Docker"
    assert model.source == "zenml_cooper.flavors.docker.DockerImageBuilderFlavor"
    assert set(model.config_schema["properties"]) == set(DockerImageBuilderConfig.model_fields)
