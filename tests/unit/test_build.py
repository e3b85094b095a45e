"""Keyword arguments to a request."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest

import zenml_cooper
import zenml_cooper.aio
from zenml_cooper import _build, _core
from zenml_cooper.exceptions import CooperError, OptionError
from zenml_cooper.outcome import Outcome, StepOutcome, Totals


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    taken: list[dict[str, Any]] = []

    def run(request: dict[str, Any], **_: object) -> dict[str, Any]:
        _core.check_request(request)
        taken.append(request)
        return {**_core._exercise_for_test({}), "steps": [{"name": "a", "seconds": 1.0, "cached": True}]}

    monkeypatch.setattr(_build, "run", run)
    return taken


def test_every_argument_arrives(requests: list[dict[str, Any]], tmp_path: Path) -> None:
    outcome = zenml_cooper.build(
        tmp_path,
        dockerfile=tmp_path / "Other",
        tags=("a:1",),
        push=True,
        outputs=["type=docker", {"type": "oci", "dest": tmp_path / "out", "tar": True}],
        build_args={"A": "1", "B": None},
        labels={"k": "v"},
        target="t",
        platform="linux/amd64",
        no_cache=True,
        no_cache_filter=["s"],
        pull=True,
        cache_from=["r"],
        cache_to=["type=registry,ref=r"],
        compression="zstd:5",
        fold=False,
        secrets=["id=a,env=A", {"id": "b", "value": b"\xff"}],
        options={"shm-size": "1m", "ulimit": {"core": 1}},
        ignore_file="ig",
        extra_files={"a/b": "text", "c": (bytearray(b"\x00"), 0o755)},  # type: ignore[dict-item]
        engine="docker",
        endpoint="unix:///x",
        tls={"ca_cert": tmp_path / "ca.pem"},
        builder="classic",
    )
    (request,) = requests
    assert request["options"] == {
        "build-arg": {"A": "1", "B": None},
        "label": {"k": "v"},
        "target": "t",
        "platform": "linux/amd64",
        "no-cache": True,
        "no-cache-filter": ["s"],
        "pull": True,
        "cache-from": ["r"],
        "cache-to": ["type=registry,ref=r"],
        "compression": "zstd:5",
        "fold": False,
        "secret": ["id=a,env=A", {"id": "b", "value": b"\xff"}],
        "shm-size": "1m",
        "ulimit": {"core": 1},
    }
    assert request["context"]["extra_files"] == [
        {"path": "a/b", "content": "text", "mode": 0o644},
        {"path": "c", "content": b"\x00", "mode": 0o755},
    ]
    assert request["outputs"] == ["type=docker", {"type": "oci", "dest": str(tmp_path / "out"), "tar": True}]
    assert request["dockerfile"] == {"path": str(tmp_path / "Other")}
    assert request["engine"]["tls"] == {"ca_cert": str(tmp_path / "ca.pem")}
    assert isinstance(outcome, Outcome)
    assert outcome.steps == (StepOutcome("a", 1.0, True),)


def test_what_is_for_buildkits_arrives(requests: list[dict[str, Any]], tmp_path: Path) -> None:
    zenml_cooper.build(
        tmp_path,
        tags=["localhost:5000/a:1"],
        platform=["linux/amd64", "linux/arm64"],
        options={"annotation": {"k": "v"}, "attest": ["type=sbom"], "provenance": True, "oci-mediatypes": True},
        engine="buildkit",
        endpoint=("tcp://a:1234", "tcp://b:1234"),
        tls={"ca_cert": "-----BEGIN CERTIFICATE-----", "client_key": tmp_path / "key.pem", "server_name": "bk"},
        token="t0ken",
        pool={"policy": "ordered", "busy": 1},
    )
    (request,) = requests
    assert request["engine"] == {
        "kind": "buildkit",
        "endpoints": ["tcp://a:1234", "tcp://b:1234"],
        "docker_context": None,
        "tls": {
            "ca_cert": "-----BEGIN CERTIFICATE-----",
            "client_key": str(tmp_path / "key.pem"),
            "server_name": "bk",
        },
        "token": "t0ken",
        "pool": {"policy": "ordered", "busy": 1},
        "builder": "auto",
        "sandbox": None,
        "runtime": None,
    }
    assert request["options"]["platform"] == ["linux/amd64", "linux/arm64"]
    assert request["options"]["provenance"] is True


def test_one_address_is_a_list_of_one(requests: list[dict[str, Any]]) -> None:
    zenml_cooper.build(endpoint="unix:///x")
    zenml_cooper.build()
    assert [request["engine"]["endpoints"] for request in requests] == [["unix:///x"], []]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pool": {"policy": "random"}}, "random"),
        ({"pool": {"bsy": 1}}, "bsy"),
        ({"tls": {"cacert": "x"}}, "cacert"),
        ({"options": {"allow": "root"}}, "network.host"),
    ],
)
def test_what_a_buildkit_cannot_be_told_is_an_error(given: dict[str, Any], said: str) -> None:
    with pytest.raises((CooperError, ValueError)) as caught:
        zenml_cooper.build(engine="buildkit", endpoint="unix:///nonexistent", **given)
    assert said in str(caught.value)


def test_builds_for_asyncio_take_the_same_arguments() -> None:
    here, there = (inspect.signature(build).parameters for build in (zenml_cooper.build, zenml_cooper.aio.build))
    assert list(here) == list(there)
    differs = {name for name in here if (here[name].default, here[name].annotation)
               != (there[name].default, there[name].annotation)}  # fmt: skip
    assert differs == {"credentials"}


def test_builds_for_asyncio_ask_for_the_same(monkeypatch: pytest.MonkeyPatch, requests: list[dict[str, Any]]) -> None:
    given: dict[str, Any] = {
        "tags": ["a:1"],
        "outputs": ["type=oci,dest=x"],
        "no_cache_filter": ["s"],
        "cache_to": ["r"],
        "compression": "gzip:9",
        "fold": True,
        "engine": "buildkit",
        "endpoint": ["tcp://a", "tcp://b"],
        "token": "t",
        "pool": {"busy": 2},
        "options": {"network": "none"},
    }
    zenml_cooper.build(**given)

    async def run(_start: object, request: dict[str, Any], **_: object) -> dict[str, Any]:
        requests.append(request)
        return {**_core._exercise_for_test({}), "steps": []}

    monkeypatch.setattr(zenml_cooper.aio, "run", run)
    asyncio.run(zenml_cooper.aio.build(**given))
    assert requests[0] == requests[1]


def test_outputs_are_read() -> None:
    read = _core.build_outputs(["type=oci,dest=x", "type=image,push=true", "type=docker", "y"])
    assert read == {
        "push": True,
        "outputs": [
            {"type": "oci", "dest": "x", "tar": None},
            {"type": "docker", "dest": None},
            {"type": "local", "dest": "y"},
        ],
    }


def test_outcomes_have_the_fields_of_the_native_module() -> None:
    data = _core._exercise_for_test({})
    assert {field.name for field in dataclasses.fields(Outcome)} == set(data)
    assert {field.name for field in dataclasses.fields(Totals)} == set(data["totals"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        Outcome.from_dict(data).image = "other"  # type: ignore[misc]


def test_a_dockerfile_is_a_file_or_a_text(requests: list[dict[str, Any]]) -> None:
    zenml_cooper.build(None, dockerfile_text="FROM scratch")
    assert requests[0]["dockerfile"] == {"text": "FROM scratch"}
    assert requests[0]["context"]["root"] is None
    with pytest.raises(TypeError, match="dockerfile_text"):
        zenml_cooper.build(dockerfile="a", dockerfile_text="b")


def test_one_tag_may_be_a_text(requests: list[dict[str, Any]]) -> None:
    zenml_cooper.build(tags="app:1")
    assert requests[0]["tags"] == ["app:1"]


def test_credentials_may_be_a_mapping() -> None:
    function = _build.credentials_function({"example.com": {"username": "u", "password": "p"}})
    assert function is not None
    assert function("example.com", False) == {"username": "u", "password": "p"}
    # It was refused: saying it again helps nobody.
    assert function("example.com", True) is None
    assert function("other.com", False) is None
    assert _build.credentials_function(None) is None


def check(**changes: Any) -> None:
    request = {"context": {"root": "/"}, "tags": ["app:1"], **changes}
    _core.check_request(request)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"tags": ["UPPER"]}, "invalid-reference", "UPPER"),
        ({"tags": "app"}, "invalid-option", "request"),
        ({"push": True, "tags": []}, "invalid-option", "no tag"),
        ({"push": "false"}, "invalid-option", "boolean"),
        ({"contxt": {}}, "invalid-option", "contxt"),
        ({"context": {"roto": "/"}}, "invalid-option", "roto"),
        ({"engine": {"kind": "buildx"}}, "invalid-option", "buildx"),
        ({"outputs": ["type=oci"]}, "invalid-option", "dest=PATH"),
        ({"outputs": ["type=registry"], "tags": []}, "invalid-option", "no tag"),
        ({"outputs": 5}, "invalid-option", "an integer"),
        ({"options": {"buldarg": {}}}, "unknown-option", "buldarg"),
        ({"options": {"platform": "x"}}, "invalid-platform", "x"),
        ({"options": {"secret": ["id=a,env=A", "id=a,env=B"]}}, "invalid-option", "twice"),
        ({"options": []}, "invalid-option", "mapping"),
        ({"default_options": {"nope": 1}}, "unknown-option", "nope"),
        ({"context": {"root": object()}}, "invalid-option", "object"),
        ({"context": {"extra_files": [{"path": "a", "content": 5}]}}, "invalid-option", "integer"),
    ],
)
def test_wrong_requests(changes: dict[str, Any], code: str, said: str) -> None:
    with pytest.raises(OptionError) as raised:
        check(**changes)
    assert raised.value.code == code
    assert said in str(raised.value)


def test_right_requests() -> None:
    check()
    check(options=None, default_options=None)
    check(options={"build_args": {"A": None}}, default_options={"build-arg": {"A": "1"}, "platform": None})
    check(context={"extra_files": [{"path": "a", "content": content} for content in ("text", b"\xff\x00")]})


def test_an_unknown_option_has_a_suggestion() -> None:
    with pytest.raises(CooperError) as raised:
        check(options={"buidl_args": {}})
    assert raised.value.hint == "did you mean `build_args`?"


def test_option_names() -> None:
    names = _core.build_option_names()
    assert "buildargs" in names["build-arg"]
    assert len(names) > 20
