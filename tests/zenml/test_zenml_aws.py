"""The image builder `cooper_aws`, with boto3's own client.

Its calls are checked against AWS's description of the services, and answered here. No cloud is reached.
"""

import json
import logging
import shlex
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import botocore.client
import botocore.validate
import pytest
from botocore.exceptions import ClientError

from zenml_cooper.context import CooperBuildContext
from zenml_cooper.exceptions import BuildError, UnsupportedError
from zenml_cooper.flavors import AWSImageBuilderFlavor
from zenml_cooper.image_builders import aws

if TYPE_CHECKING:
    from conftest import StandInRegistry

IMAGE = "registry.example:5000/team/app:v1"
DIGEST = f"sha256:{'b' * 64}"
PUSHED = f"registry.example:5000/team/app@{DIGEST}"
ID = "project:1234"
LOGS = {"groupName": "/aws/codebuild/project", "streamName": "1234", "deepLink": "https://console.example/log"}


def state(status: str, **more: Any) -> dict[str, Any]:
    return {"builds": [{"id": ID, "buildStatus": status, "logs": LOGS, **more}]}


DONE = state(
    "SUCCEEDED",
    exportedEnvironmentVariables=[{"name": "COOPER_PUSHED", "value": f"elsewhere/app@{DIGEST},{PUSHED}"}],
)


class Aws:
    """Answers calls, and keeps them."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        # By operation: an answer, or several, one after the other.
        self.answers: dict[str, Any] = {"StartBuild": {"build": {"id": ID}}, "StopBuild": {}}

    def call(self, client: Any, operation: str, arguments: dict[str, Any]) -> Any:
        shape = client.meta.service_model.operation_model(operation).input_shape
        report = botocore.validate.ParamValidator().validate(arguments, shape)
        assert not report.has_errors(), report.generate_report()
        self.calls.append((operation, arguments))
        answer = self.answers[operation]
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @property
    def operations(self) -> list[str]:
        return [operation for operation, _ in self.calls]

    @property
    def started(self) -> dict[str, Any]:
        return next(arguments for operation, arguments in self.calls if operation == "StartBuild")

    @property
    def buildspec(self) -> dict[str, Any]:
        return json.loads(self.started["buildspecOverride"])

    @property
    def commands(self) -> list[str]:
        return self.buildspec["phases"]["build"]["commands"]

    @property
    def variables(self) -> dict[str, tuple[str, str]]:
        return {v["name"]: (v["type"], v["value"]) for v in self.started["environmentVariablesOverride"]}


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Aws:
    stand_in = Aws()
    call = lambda client, operation, arguments: stand_in.call(client, operation, arguments)  # noqa: E731
    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)
    monkeypatch.setattr(aws, "POLL", 0)
    for name, value in {
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
    }.items():
        monkeypatch.setenv(name, value)
    return stand_in


Build = Callable[..., str]


@pytest.fixture
def build(
    component: Callable[..., Any], stand_in_registry: "StandInRegistry", monkeypatch: pytest.MonkeyPatch
) -> Build:
    """Builds, with a configuration and options; the context is uploaded to nowhere."""

    def run(options: Any = None, **config: Any) -> str:
        builder = component(AWSImageBuilderFlavor(), **{"code_build_project": "project", **config})
        path = "s3://bucket/code-build-contexts/0f-1.zip"
        monkeypatch.setattr(builder, "_upload_build_context", lambda context, directory, kind: path)
        context = CooperBuildContext()
        context.add_file("FROM scratch", "Dockerfile")
        return builder.build(IMAGE, context, options, stand_in_registry)

    return run


def test_a_build(
    cloud: Aws, build: Build, stand_in_registry: "StandInRegistry", caplog: pytest.LogCaptureFixture
) -> None:
    cloud.answers["BatchGetBuilds"] = [{"builds": []}, state("IN_PROGRESS"), DONE]
    with caplog.at_level(logging.INFO):
        image = build(custom_env_vars={"A": "1"}, compute_type="BUILD_GENERAL1_LARGE", build_image="own/image:1")

    assert image == PUSHED, "the digest, not a tag of its own"
    assert stand_in_registry.prepared == [IMAGE]
    assert cloud.operations == ["StartBuild", *["BatchGetBuilds"] * 3]
    assert cloud.started["sourceLocationOverride"] == "bucket/code-build-contexts/0f-1.zip"
    assert cloud.started["computeTypeOverride"] == "BUILD_GENERAL1_LARGE"
    assert cloud.started["imageOverride"] == "own/image:1"
    assert cloud.started["privilegedModeOverride"] is False
    assert cloud.variables == {"A": ("PLAINTEXT", "1")}
    assert cloud.buildspec["env"]["exported-variables"] == ["COOPER_PUSHED"]
    assert cloud.commands[:2] == [f"docker build --tag {IMAGE} .", f"docker push {IMAGE}"]
    assert any("console.example" in message for message in caplog.messages)


def test_no_option_is_lost_and_no_shell_reads_one(cloud: Aws, build: Build) -> None:
    cloud.answers["BatchGetBuilds"] = DONE
    build(
        {
            "build_args": {"A": "$(touch /tmp/x); 'quoted' \"twice\"\nline: two"},
            "labels": {"l": "a b"},
            "cache_from": ["a/b:c"],
            "platform": "linux/arm64",
            "pull": True,
            "rm": False,
            "secret": ["id=pip,env=PIP_TOKEN"],
        }
    )
    arguments = shlex.split(cloud.commands[0])
    assert arguments == [
        "docker",
        "build",
        "--tag",
        IMAGE,
        "--build-arg=A=$(touch /tmp/x); 'quoted' \"twice\"\nline: two",
        "--label=l=a b",
        "--platform=linux/arm64",
        "--pull",
        "--cache-from=a/b:c",
        "--secret=id=pip,env=PIP_TOKEN",
        ".",
    ]


def test_the_commands_run_in_a_shell(cloud: Aws, build: Build, tmp_path: Any) -> None:
    """With a `docker` that notes its arguments and knows a digest."""
    cloud.answers["BatchGetBuilds"] = DONE
    build({"build_args": {"A": "it's $HOME"}})
    docker = tmp_path / "docker"
    docker.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >> {tmp_path}/calls\n[ "$1" = image ] && echo {PUSHED}\nexit 0\n'
    )
    docker.chmod(0o755)
    script = "\n".join([*cloud.commands, 'echo "$COOPER_PUSHED"'])
    ended = subprocess.run(
        ["sh", "-e", "-c", script],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.strip() == PUSHED
    calls = (tmp_path / "calls").read_text().splitlines()
    assert "--build-arg=A=it's $HOME" in calls
    assert '{{join .RepoDigests ","}}' in calls


def test_what_would_have_to_be_sent_is_refused(cloud: Aws, build: Build) -> None:
    with pytest.raises(UnsupportedError, match="AWS CodeBuild cannot serve the build option `secret`"):
        build({"secret": ["id=a,src=/etc/passwd"]})
    assert cloud.calls == []


def test_a_failing_build_says_why(cloud: Aws, build: Build) -> None:
    context = {"statusCode": "COMMAND_EXECUTION_ERROR", "message": "Error while executing command: docker build"}
    phases = [
        {
            "phaseType": "DOWNLOAD_SOURCE",
            "phaseStatus": "SUCCEEDED",
            "contexts": [{"statusCode": "", "message": "fine"}],
        },
        {"phaseType": "BUILD", "phaseStatus": "FAILED", "contexts": [context]},
        {"phaseType": "COMPLETED"},
    ]
    cloud.answers["BatchGetBuilds"] = state("FAILED", phases=phases)
    cloud.answers["GetLogEvents"] = {"events": [{"message": "no such package\n"}]}
    with pytest.raises(BuildError, match="ended as FAILED: Error while executing command: docker build") as caught:
        build()
    assert caught.value.code == "build-failed"
    assert caught.value.tail == ["no such package"]
    assert "https://console.example/log" in str(caught.value)
    _, asked = cloud.calls[-1]
    assert asked["logGroupName"] == LOGS["groupName"]
    assert "StopBuild" not in cloud.operations


def test_a_log_that_may_not_be_read_hides_no_error(cloud: Aws, build: Build) -> None:
    cloud.answers["BatchGetBuilds"] = state("TIMED_OUT")
    cloud.answers["GetLogEvents"] = ClientError({"Error": {"Code": "AccessDenied"}}, "GetLogEvents")
    with pytest.raises(BuildError, match="TIMED_OUT: CodeBuild gives no reason") as caught:
        build()
    assert caught.value.tail == []


@pytest.mark.parametrize("stop", [{}, ClientError({"Error": {"Code": "AccessDenied"}}, "StopBuild")])
def test_ctrl_c_stops_the_build(cloud: Aws, build: Build, stop: Any, caplog: pytest.LogCaptureFixture) -> None:
    cloud.answers["BatchGetBuilds"] = [state("IN_PROGRESS"), KeyboardInterrupt()]
    cloud.answers["StopBuild"] = stop
    with caplog.at_level(logging.INFO), pytest.raises(KeyboardInterrupt):
        build()
    assert cloud.calls[-1] == ("StopBuild", {"id": ID})
    assert ("goes on" in caplog.text) is bool(stop)


def test_a_build_that_names_no_digest_is_an_error(cloud: Aws, build: Build) -> None:
    cloud.answers["BatchGetBuilds"] = state("SUCCEEDED")
    with pytest.raises(BuildError, match="names no digest of `registry.example:5000/team/app`"):
        build()


def test_the_login_to_ecr_is_that_of_its_region(
    cloud: Aws, build: Build, stand_in_registry: "StandInRegistry", monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.answers["BatchGetBuilds"] = DONE
    monkeypatch.setattr(stand_in_registry, "flavor", "aws")
    for uri, region in {
        "123456789012.dkr.ecr.us-east-2.amazonaws.com": "us-east-2",
        "registry.example:5000": "eu-west-1",
    }.items():
        stand_in_registry.config.uri = uri
        monkeypatch.setattr(stand_in_registry, "is_valid_image_name_for_registry", lambda name: True)
        cloud.calls.clear()
        build()
        assert cloud.commands[0] == (
            f"aws ecr get-login-password --region {region} | docker login --password-stdin {uri} --username AWS"
        )
        assert cloud.variables == {}


def test_credentials_stay_in_the_secrets_manager(
    cloud: Aws, build: Build, stand_in_registry: "StandInRegistry", monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.answers["BatchGetBuilds"] = DONE
    monkeypatch.setattr(stand_in_registry, "credentials", ("me", "hunter2"))
    build(registry_secret="arn:aws:secretsmanager:eu-west-1:1:secret:registry-AbCdEf")
    assert "hunter2" not in json.dumps(cloud.started)
    assert cloud.variables["COOPER_PASSWORD"] == (
        "SECRETS_MANAGER",
        "arn:aws:secretsmanager:eu-west-1:1:secret:registry-AbCdEf:password",
    )
    assert "docker login --password-stdin registry.example:5000" in cloud.commands[0]


def test_credentials_in_the_open_are_warned_about(
    cloud: Aws,
    build: Build,
    stand_in_registry: "StandInRegistry",
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cloud.answers["BatchGetBuilds"] = DONE
    monkeypatch.setattr(stand_in_registry, "credentials", ("me", "hunter2"))
    build(implicit_container_registry_auth=False)
    assert cloud.variables["COOPER_PASSWORD"] == ("PLAINTEXT", "hunter2")
    assert "hunter2" not in cloud.started["buildspecOverride"]
    assert "hunter2" not in caplog.text
    assert "registry_secret" in caplog.text
