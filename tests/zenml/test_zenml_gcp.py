"""The image builder `cooper_gcp`: Google's own types, and a client that keeps them. No cloud is reached."""

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import PermissionDenied
from google.auth.credentials import AnonymousCredentials
from google.cloud.devtools import cloudbuild_v1

from zenml_cooper.context import CooperBuildContext
from zenml_cooper.exceptions import BuildError, UnsupportedError
from zenml_cooper.flavors import GCPImageBuilderFlavor
from zenml_cooper.image_builders import gcp

if TYPE_CHECKING:
    from conftest import StandInRegistry

IMAGE = "registry.example:5000/team/app:v1"
DIGEST = f"sha256:{'c' * 64}"
PUSHED = f"registry.example:5000/team/app@{DIGEST}"
Status = cloudbuild_v1.Build.Status


def state(status: Status, **more: Any) -> cloudbuild_v1.Build:
    return cloudbuild_v1.Build(id="1234", status=status, log_url="https://console.example/log", **more)


DONE = state(Status.SUCCESS, results={"images": [{"name": IMAGE, "digest": DIGEST}]})


class Cloud:
    """In place of `CloudBuildClient`: requests must be what Google's types take."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.states: list[Any] = [DONE]
        self.cancelled: BaseException | None = None
        self.endpoints: list[str | None] = []

    def __call__(self, credentials: Any, client_options: Any) -> "Cloud":
        self.endpoints.append(client_options and client_options.api_endpoint)
        return self

    def create_build(self, request: Any) -> Any:
        self.calls.append(cloudbuild_v1.CreateBuildRequest(request))
        name = f"{request.parent or 'projects/project/locations/global'}/builds/1234"
        build = cloudbuild_v1.Build(id="1234", name=name, log_url="https://console.example/log")
        return SimpleNamespace(metadata=SimpleNamespace(build=build))

    def get_build(self, request: Any) -> Any:
        self.calls.append(cloudbuild_v1.GetBuildRequest(request))
        found = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(found, BaseException):
            raise found
        return found

    def cancel_build(self, request: Any) -> None:
        self.calls.append(cloudbuild_v1.CancelBuildRequest(request))
        if self.cancelled:
            raise self.cancelled

    @property
    def build(self) -> cloudbuild_v1.Build:
        return self.calls[0].build


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    stand_in = Cloud()
    monkeypatch.setattr(cloudbuild_v1, "CloudBuildClient", stand_in)
    monkeypatch.setattr(gcp, "POLL", 0)
    return stand_in


Build = Callable[..., str]


@pytest.fixture
def build(
    component: Callable[..., Any], stand_in_registry: "StandInRegistry", monkeypatch: pytest.MonkeyPatch
) -> Build:
    """Builds, with a configuration and options; the context is uploaded to nowhere."""

    def run(options: Any = None, **config: Any) -> str:
        builder = component(GCPImageBuilderFlavor(), **config)
        path = "gs://bucket/cloud-build-contexts/0f-1.tar.gz"
        monkeypatch.setattr(builder, "_upload_build_context", lambda context, directory: path)
        monkeypatch.setattr(builder, "_get_authentication", lambda: (AnonymousCredentials(), "project"))
        context = CooperBuildContext()
        context.add_file("FROM scratch", "Dockerfile")
        return builder.build(IMAGE, context, options, stand_in_registry)

    return run


def test_a_build(
    cloud: Cloud, build: Build, stand_in_registry: "StandInRegistry", caplog: pytest.LogCaptureFixture
) -> None:
    cloud.states = [state(Status.QUEUED), state(Status.WORKING), DONE]
    with caplog.at_level(logging.INFO):
        assert build(build_timeout=120) == PUSHED, "the port of the registry is no tag"

    assert stand_in_registry.prepared == [IMAGE]
    assert cloud.endpoints == [None], "one client for a build"
    assert cloud.calls[0].project_id == "project"
    assert cloud.calls[0].parent == ""
    source = cloud.build.source.storage_source
    assert (source.bucket, source.object_) == ("bucket", "cloud-build-contexts/0f-1.tar.gz")
    (step,) = cloud.build.steps
    assert list(step.args) == ["build", "--network=cloudbuild", "-t", IMAGE, "."]
    assert list(cloud.build.images) == [IMAGE], "what pushes, once"
    assert cloud.build.timeout.total_seconds() == 120
    assert len(cloud.calls) == 4
    assert "https://console.example/log" in caplog.text


def test_no_option_is_lost_and_none_is_taken_for_a_substitution(cloud: Cloud, build: Build) -> None:
    build({"build_args": {"A": "$HOME $$"}, "labels": {"l": "a b"}, "network": "host", "nocache": True, "rm": False})
    (step,) = cloud.build.steps
    assert list(step.args) == [
        "build",
        "--network=cloudbuild",
        "-t",
        IMAGE,
        "--build-arg=A=$$HOME $$$$",
        "--label=l=a b",
        "--no-cache",
        "--network=host",
        ".",
    ]


def test_a_build_of_a_region(cloud: Cloud, build: Build) -> None:
    cloud.states = [state(Status.WORKING), KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        build(location="europe-west1")
    assert cloud.endpoints == ["europe-west1-cloudbuild.googleapis.com"]
    assert cloud.calls[0].parent == "projects/project/locations/europe-west1"
    for call in cloud.calls[1:]:
        assert call.name == "projects/project/locations/europe-west1/builds/1234"


def test_what_would_have_to_be_sent_is_refused(cloud: Cloud, build: Build) -> None:
    with pytest.raises(UnsupportedError, match="Google Cloud Build cannot serve the build option `secret`"):
        build({"secret": ["id=a,env=HOME"]})
    assert cloud.calls == []


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        (state(Status.FAILURE, failure_info={"detail": "step 0 failed"}), "ended as FAILURE: step 0 failed"),
        (state(Status.TIMEOUT, status_detail="too slow"), "ended as TIMEOUT: too slow"),
        (state(Status.EXPIRED), "ended as EXPIRED: Cloud Build gives no reason"),
    ],
)
def test_a_failing_build_says_why(cloud: Cloud, build: Build, ended: Any, reason: str) -> None:
    cloud.states = [state(Status.WORKING), ended]
    with pytest.raises(BuildError, match=reason) as caught:
        build()
    assert caught.value.code == "build-failed"
    assert "https://console.example/log" in str(caught.value)
    assert not isinstance(cloud.calls[-1], cloudbuild_v1.CancelBuildRequest)


@pytest.mark.parametrize("refused", [None, PermissionDenied("no")])
def test_ctrl_c_cancels_the_build(cloud: Cloud, build: Build, refused: Any, caplog: pytest.LogCaptureFixture) -> None:
    cloud.states = [state(Status.WORKING), KeyboardInterrupt()]
    cloud.cancelled = refused
    with pytest.raises(KeyboardInterrupt):
        build()
    assert cloud.calls[-1].id == "1234"
    assert isinstance(cloud.calls[-1], cloudbuild_v1.CancelBuildRequest)
    assert ("goes on" in caplog.text) is bool(refused)


def test_credentials_that_expire_are_renewed(cloud: Cloud, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.states = [state(Status.WORKING), DONE]
    answers = [True, False, True]
    monkeypatch.setattr(gcp.GCPImageBuilder, "connector_has_expired", lambda self: bool(answers) and answers.pop())
    assert build() == PUSHED
    assert len(cloud.endpoints) > 1


def test_a_build_that_names_no_digest_is_an_error(cloud: Cloud, build: Build) -> None:
    cloud.states = [state(Status.SUCCESS)]
    with pytest.raises(BuildError, match="names no digest of `registry.example:5000/team/app`"):
        build()
