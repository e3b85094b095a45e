"""The flavor `cooper_buildkit`: what can be configured, and what it asks the native module for."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from zenml.client import Client
from zenml.stack.stack_component import StackComponentConfig
from zenml.utils.secret_utils import is_secret_field

from zenml_cooper import _core
from zenml_cooper.config import BuildKitImageBuilderConfig
from zenml_cooper.context import CooperBuildContext
from zenml_cooper.flavors import BuildKitImageBuilderFlavor
from zenml_cooper.image_builders.buildkit import BuildKitImageBuilder

if TYPE_CHECKING:
    from conftest import StandInRegistry, Zenml

SOURCE = "zenml_cooper.flavors.BuildKitImageBuilderFlavor"
IMAGE = "registry.example:5000/team/app:train-orchestrator"
TCP = "tcp://bk:1234"


def pem(kind: str) -> str:
    return f"-----BEGIN {kind}-----\nbTRya2VyLXMzY3JldA==\n-----END {kind}-----\n"


CA, CERT, KEY = pem("CERTIFICATE"), pem("CERTIFICATE"), pem("PRIVATE KEY")

Builder = Callable[..., BuildKitImageBuilder]


@pytest.fixture
def builder(component: Callable[..., Any]) -> Builder:
    return lambda **config: component(BuildKitImageBuilderFlavor(), **config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"endpoints": "bk:1234"}, "did you mean `tcp://bk:1234`?"),
        ({"endpoints": "/run/buildkitd.sock"}, "did you mean `unix:///run/buildkitd.sock`?"),
        ({"endpoints": "http://bk"}, "`http://` is not supported; write `tcp://HOST:PORT`"),
        ({"endpoints": "tcp://a,npipe:////./pipe/buildkitd"}, "`npipe://` is not supported"),
        ({"endpoints": "docker+npipe://x"}, "`docker+npipe://` is not supported"),
        ({"endpoints": "docker://unix:///x"}, "`docker+unix:///run/docker.sock`"),
        ({"endpoints": "tcp://"}, "has no address"),
        ({"endpoints": "unix://run/buildkitd.sock"}, "`unix:///run/buildkitd.sock`"),
        ({"endpoints": "tcp://a,tcp://a"}, "given twice"),
        ({"endpoints": ["tcp://a", "{{bk.b}}"]}, "let one secret have them all"),
        ({"endpoints": "[tcp://a]"}, "is no JSON"),
        ({"endpoints": "unix:///a", "tls_ca_cert": "ca.pem"}, "there is none, and the others use no TLS"),
        ({"endpoints": "kube-pod://a", "tls_server_name": "a"}, "there is none, and the others use no TLS"),
        ({"endpoints": TCP, "tls_client_cert": "cert.pem"}, "go together"),
        ({"endpoints": "{{bk.hosts}}", "tls_client_key": "{{bk.key}}"}, "go together"),
        ({"endpoints": TCP, "tls_ca_cert": "ca.pem", "tls_skip_verify": True}, "trusts everybody"),
        ({"tls_ca_cert": "nobody's\ncertificate"}, "neither the name of a file nor PEM"),
        ({"tls_ca_cert": CA.replace("\n", " ")}, "its lines have been joined"),
        ({"tls_ca_cert": CA.partition("-----END")[0]}, "its end is missing"),
        ({"tls_ca_cert": KEY}, "this is the PEM of a private key; a certificate belongs here"),
        ({"tls_client_key": KEY, "tls_client_cert": CERT}, "write a reference such as `{{buildkit.client_key}}`"),
        ({"endpoints": "https://bk", "token": "t0ken"}, "write a reference such as `{{buildkit.token}}`"),
        ({"endpoints": TCP, "token": "{{buildkit.token}}"}, "without TLS"),
        ({"endpoints": "docker://", "token": "{{buildkit.token}}"}, "there is none"),
        ({"pool_busy": 0}, "write 1 or more"),
        ({"pool_busy": "many"}, "pool_busy"),
        ({"pool_policy": "random"}, "'affinity', 'least_loaded' or 'ordered'"),
        ({"platforms": "linux/amd64,arm64"}, "`arm64` is no platform"),
        ({"platform": "linux/amd64", "platforms": "linux/arm64"}, "give one of them"),
        ({"cache_repository": "type=registry,ref=a/b"}, "`cache_from` and `cache_to` take `type=...`"),
        ({"cache_repository": "https://registry.example/cache"}, "is no repository"),
        ({"cache_repository": "registry.example/Team/cache"}, "is no repository"),
        ({"cache_repository": "cache"}, "names no registry"),
        ({"compression": "lz4"}, "neither `gzip` nor `zstd`"),
        ({"compression": "zstd", "oci_mediatypes": False}, "`compression` exists with OCI's media types only"),
        ({"sbom": True, "oci_mediatypes": "false"}, "`sbom` exists with OCI's media types only"),
        ({"provenance": "max"}, "parameters such as `mode=max`"),
        ({"output": "store"}, "write `type=docker`"),
        ({"cache_to": "registry/cache"}, "type=registry,ref=registry/cache"),
    ],
)
def test_a_mistake_is_explained(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BuildKitImageBuilderConfig(**values)
    assert message in str(caught.value)
    for text in ("bTRya2Vy", "t0ken"):
        assert text not in f"{caught.value} {caught.value!r}", "what may be a secret is not repeated"


@pytest.mark.parametrize("endpoint", ["tcp://me:hunter2@bk:1234", "ssh://me:hunter2@bk", "me:hunter2@bk"])
def test_a_password_in_an_address_is_refused_and_not_repeated(endpoint: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BuildKitImageBuilderConfig(endpoints=f"{endpoint},{endpoint}")
    assert "hunter2" not in f"{caught.value} {caught.value!r}"


def test_every_form_of_an_address_is_one_of_the_native_module() -> None:
    forms = [
        "tcp://bk", "tcp://[::1]:1234", "https://bk:443", "unix:///run/buildkit/buildkitd.sock", "ssh://me@box",
        "docker-container://bk?context=far", "podman-container://bk", "nerdctl-container://bk",
        "kube-pod://bk-0?namespace=ci&container=buildkitd", "docker://", "docker+unix:///run/docker.sock",
        "docker+tcp://127.0.0.1:1", "docker+ssh://me@box",
    ]  # fmt: skip
    assert BuildKitImageBuilderConfig(endpoints=forms).endpoints == forms
    for form in forms:
        # No worker answers at most of them; that the form is wrong is another error.
        codes = {finding["text"] for finding in examined(form) if "a BuildKit's address starts with" in finding["text"]}
        assert not codes, form
    assert any("a BuildKit's address starts with" in finding["text"] for finding in examined("http://bk"))


def examined(endpoint: str) -> list[dict[str, str]]:
    if endpoint.startswith(("ssh", "docker+ssh", "kube", "tcp://bk", "https")):
        # Nothing is called or looked up here; a second address that is wrong is found before that.
        report = _core.doctor({"kind": "buildkit", "endpoints": [endpoint, "wrong://"]})
        first = _core.doctor({"kind": "buildkit", "endpoints": ["wrong://"]})
        assert report["findings"] == first["findings"]
        return []
    found: list[dict[str, str]] = _core.doctor({"kind": "buildkit", "endpoints": [endpoint]})["findings"]
    return found


def test_what_the_command_line_gives_is_taken() -> None:
    config = BuildKitImageBuilderConfig(
        endpoints=" tcp://a:1234, tcp://b:1234 ",
        platforms="linux/amd64,linux/arm64",
        pool_busy="2",
        tls_skip_verify="true",
        oci_mediatypes="true",
        provenance="mode=max,inline-only=true",
        sbom="false",
    )
    assert config.endpoints == ["tcp://a:1234", "tcp://b:1234"]
    assert config.platforms == ["linux/amd64", "linux/arm64"]
    assert (config.pool_busy, config.tls_skip_verify, config.oci_mediatypes) == (2, True, True)
    assert BuildKitImageBuilderConfig(endpoints='["tcp://a", "tcp://b"]').endpoints == ["tcp://a", "tcp://b"]
    assert BuildKitImageBuilderConfig(endpoints=["tcp://a"], platforms='["linux/arm64/v8"]').endpoints == ["tcp://a"]


def test_references_are_listed_and_not_resolved() -> None:
    # Resolving would ask a server for secrets that do not exist, and fail.
    fields = ["endpoints", "token", "cache_repository", "tls_ca_cert", "tls_client_cert", "tls_client_key",
              "tls_server_name", "compression", "output", "provenance"]  # fmt: skip
    config = BuildKitImageBuilderConfig(**{field: f"{{{{buildkit.{field}}}}}" for field in fields})
    assert {secret.key for secret in config.required_secrets} == set(fields)


def test_what_is_configured_can_be_stored_and_loaded_again() -> None:
    config = BuildKitImageBuilderConfig(endpoints="tcp://a,tcp://b", tls_ca_cert=CA, provenance="true")
    assert BuildKitImageBuilderConfig(**config.model_dump(mode="json")) == config
    assert BuildKitImageBuilderConfig(a_field_of_a_later_version=1).endpoints == []


def test_every_field_is_described_and_what_is_secret_is_marked() -> None:
    own = set(BuildKitImageBuilderConfig.model_fields) - set(StackComponentConfig.model_fields)
    assert len(own) > 20
    for name in own:
        assert (BuildKitImageBuilderConfig.model_fields[name].description or "").endswith("."), name
    secret = {name for name, field in BuildKitImageBuilderConfig.model_fields.items() if is_secret_field(field)}
    assert secret == {"tls_client_key", "token"}


def test_the_flavor_tells_what_it_is() -> None:
    model = BuildKitImageBuilderFlavor().to_model(integration="custom", is_custom=True)
    assert (model.name, str(model.type)) == ("cooper_buildkit", "image_builder")
    assert model.source == "zenml_cooper.flavors.buildkit.BuildKitImageBuilderFlavor"
    assert set(model.config_schema["properties"]) == set(BuildKitImageBuilderConfig.model_fields)


def test_a_request_says_everything(
    builder: Builder, requests: list[dict[str, Any]], stand_in_registry: "StandInRegistry"
) -> None:
    config = {
        "endpoints": "tcp://a:1234,tcp://b:1234",
        "tls_ca_cert": CA,
        "tls_client_cert": "/certs/client.pem",
        "tls_client_key": "/certs/client.key",
        "tls_server_name": "buildkitd",
        "pool_policy": "least_loaded",
        "pool_busy": 2,
        "platforms": "linux/amd64,linux/arm64",
        "cache_from": "registry.example:5000/team/old-cache",
        "cache_repository": "registry.example:5000/team/cache",
        "compression": "zstd:5",
        "oci_mediatypes": True,
        "provenance": "mode=max",
        "sbom": True,
        "output": "type=docker",
    }
    builder(**config).build(IMAGE, CooperBuildContext(), {"compression": "gzip"}, stand_in_registry)
    (request,) = requests
    assert stand_in_registry.prepared == [IMAGE]
    assert request["push"] is True
    assert request["outputs"] == [], "with a registry, the image goes there and nowhere else"
    assert request["engine"] == {
        "kind": "buildkit",
        "endpoints": ["tcp://a:1234", "tcp://b:1234"],
        "tls": {
            "ca_cert": CA,
            "client_cert": "/certs/client.pem",
            "client_key": "/certs/client.key",
            "server_name": "buildkitd",
        },
        "token": None,
        "pool": {"policy": "least_loaded", "busy": 2},
    }
    assert request["options"] == {"compression": "gzip"}
    defaults = request["default_options"]
    assert defaults["platform"] == ["linux/amd64", "linux/arm64"]
    cache = "type=registry,ref=registry.example:5000/team/cache:train-orchestrator"
    assert defaults["cache-from"] == ["registry.example:5000/team/old-cache", cache]
    assert defaults["cache-to"] == [f"{cache},mode=max,ignore-error=true"]
    names = ("compression", "oci-mediatypes", "provenance", "sbom")
    assert [defaults[name] for name in names] == ["zstd:5", True, "mode=max", True]


def test_little_is_asked_for_where_little_is_configured(
    builder: Builder, requests: list[dict[str, Any]], stand_in_registry: "StandInRegistry"
) -> None:
    builder().build(IMAGE, CooperBuildContext(), None, stand_in_registry)
    (request,) = requests
    engine = {"kind": "buildkit", "endpoints": [], "tls": None, "token": None, "pool": {"policy": "affinity"}}
    assert request["engine"] == engine
    defaults = request["default_options"]
    assert (defaults["provenance"], defaults["sbom"]) == (False, False), "no attestations unless they are asked for"
    assert (defaults["cache-from"], defaults["cache-to"], defaults["platform"]) == ([], [], None)


def test_a_cache_with_a_tag_is_one_for_all_images(
    builder: Builder, requests: list[dict[str, Any]], stand_in_registry: "StandInRegistry"
) -> None:
    builder(cache_repository="localhost:5000/cache:all").build(IMAGE, CooperBuildContext(), None, stand_in_registry)
    assert requests[0]["default_options"]["cache-from"] == ["type=registry,ref=localhost:5000/cache:all"]


@pytest.fixture
def secret(zenml: "Zenml", tmp_path: Path) -> Any:
    """A secret with everything for TLS, some of it out of files, as the documentation has it."""
    arguments = []
    for name, text in {"ca": CA, "client_cert": CERT, "client_key": KEY}.items():
        (tmp_path / name).write_text(text)
        arguments.append(f"--{name}=@{tmp_path / name}")
    zenml("secret", "create", "buildkit", "--endpoints=tcp://a:1234,tcp://b:1234", "--token=t0ken", *arguments)
    yield "buildkit"
    zenml("secret", "delete", "buildkit", "--yes")


def test_tls_by_secret_references_reaches_the_native_module(
    builder: Builder,
    requests: list[dict[str, Any]],
    stand_in_registry: "StandInRegistry",
    secret: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    get = Client.get_secret_by_name_and_private_status

    def count(self: Client, name: str, **others: Any) -> Any:
        asked.append(name)
        return get(self, name, **others)

    monkeypatch.setattr(Client, "get_secret_by_name_and_private_status", count)
    references = {
        "endpoints": "{{buildkit.endpoints}}",
        "tls_ca_cert": "{{buildkit.ca}}",
        "tls_client_cert": "{{ buildkit.client_cert }}",
        "tls_client_key": "{{buildkit.client_key}}",
        "token": "{{buildkit.token}}",
    }
    builder(**references).build(IMAGE, CooperBuildContext(), None, stand_in_registry)
    assert requests[0]["engine"] == {
        "kind": "buildkit",
        "endpoints": ["tcp://a:1234", "tcp://b:1234"],
        "tls": {"ca_cert": CA, "client_cert": CERT, "client_key": KEY},
        "token": "t0ken",
        "pool": {"policy": "affinity"},
    }
    assert asked == [secret] * len(references), "each reference is resolved once"


def test_it_asks_for_no_container_engine(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    assert builder().is_building_locally is False


@pytest.mark.parametrize("endpoints", [TCP, "", "docker://,docker+tcp://127.0.0.1:2375"])
def test_without_a_registry_it_is_told_what_is_missing(
    builder: Builder, requests: list[dict[str, Any]], endpoints: str
) -> None:
    with pytest.raises(RuntimeError, match="needs a container registry to push to.*`output`"):
        builder(endpoints=endpoints).build("zenml:app", CooperBuildContext())
    with pytest.raises(RuntimeError, match="a Dockerfile of yours"):
        builder(endpoints=endpoints, output="type=docker").build("zenml:app-intermediate-build", CooperBuildContext())
    assert not requests, "nothing was built"


@pytest.mark.parametrize("output", ["type=docker", "type=docker,dest=/x.tar", "type=oci,dest=/x"])
def test_the_configuration_may_say_where_it_goes(builder: Builder, requests: list[dict[str, Any]], output: str) -> None:
    builder(endpoints=TCP, output=output).build("zenml:app", CooperBuildContext())
    assert (requests[0]["outputs"], requests[0]["push"]) == ([output], False)


@pytest.mark.parametrize("image", ["zenml:app", "zenml:app-intermediate-build"])
def test_a_docker_daemon_keeps_the_image(builder: Builder, requests: list[dict[str, Any]], image: str) -> None:
    assert builder(endpoints="docker+unix:///run/docker.sock").build(image, CooperBuildContext()) == image
    assert (requests[0]["outputs"], requests[0]["push"]) == ([], False)


def test_the_commands_of_the_documentation_work(empty_zenml: "Zenml", tmp_path: Path) -> None:
    empty_zenml.program("image-builder", "flavor", "register", SOURCE)
    assert "cooper_buildkit" in empty_zenml.program("image-builder", "flavor", "list")
    (tmp_path / "key.pem").write_text(KEY)
    keys = (f"--client_cert={CERT}", f"--client_key=@{tmp_path / 'key.pem'}")
    empty_zenml("secret", "create", "buildkit", f"--ca={CA}", *keys)
    empty_zenml(
        "image-builder", "register", "b0", "--flavor=cooper_buildkit",
        "--endpoints=tcp://buildkitd-0.buildkitd.ci.svc:1234,tcp://buildkitd-1.buildkitd.ci.svc:1234",
        "--tls_ca_cert={{buildkit.ca}}", "--tls_client_cert={{buildkit.client_cert}}",
        "--tls_client_key={{buildkit.client_key}}", "--cache_repository=registry.example/team/cache",
    )  # fmt: skip
    shown = empty_zenml("image-builder", "describe", "b0")
    assert "buildkitd-1.buildkitd.ci.svc" in shown
    assert "bTRya2Vy" not in shown
    stored = Client().get_stack_component("image_builder", "b0").configuration
    assert stored["tls_client_key"] == "{{buildkit.client_key}}"
    assert len(stored["endpoints"]) == 2
    empty_zenml("image-builder", "update", "b0", "--endpoints={{buildkit.hosts}}")
    assert Client().get_stack_component("image_builder", "b0").configuration["endpoints"] == "{{buildkit.hosts}}"
    said = empty_zenml.fails("image-builder", "register", "b1", "--flavor=cooper_buildkit", "--endpoints=bk:1234")
    assert "tcp://bk:1234" in said
    assert "hots" in empty_zenml.fails("image-builder", "register", "b2", "--flavor=cooper_buildkit", "--hots=x")
