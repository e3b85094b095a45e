"""The image builder `cooper_aws`."""

import json
import re
import shlex
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlparse

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from zenml.integrations.aws import AWS_CONTAINER_REGISTRY_FLAVOR
from zenml.integrations.aws.image_builders import AWSImageBuilder as ZenMLAWSImageBuilder
from zenml.logger import get_logger
from zenml.utils.archivable import ArchiveType

from zenml_cooper._text import sanitize
from zenml_cooper.context import CooperBuildContext
from zenml_cooper.exceptions import BuildError
from zenml_cooper.flavors.aws import AWSImageBuilderConfig
from zenml_cooper.image_builders.credentials import host
from zenml_cooper.image_builders.remote import RemoteImageBuilder

if TYPE_CHECKING:
    from zenml.container_registries import BaseContainerRegistry

logger = get_logger(__name__)

# Seconds between two looks at a build.
POLL = 5.0
# How many of the last lines an error shows.
_TAIL = 20
# The variable in which a build says what it pushed.
_PUSHED = "COOPER_PUSHED"
_ECR_HOST = re.compile(r"[0-9]+\.dkr\.ecr\.([a-z0-9-]+)\.")


class AWSImageBuilder(RemoteImageBuilder, ZenMLAWSImageBuilder):
    """Builds images with AWS CodeBuild; a build whose caller goes away is stopped."""

    _program = "codebuild"

    @property
    def config(self) -> AWSImageBuilderConfig:
        """The configuration."""
        return cast(AWSImageBuilderConfig, self._config)

    def _build(
        self,
        image_name: str,
        context: CooperBuildContext,
        arguments: list[str],
        container_registry: "BaseContainerRegistry",
    ) -> list[str]:
        location = urlparse(self._upload_build_context(context, f"code-build-contexts/{self.id}", ArchiveType.ZIP))
        config = self.config
        login, variables = self._login(container_registry)
        for name, value in (config.custom_env_vars or {}).items():
            variables.append({"name": name, "value": value, "type": "PLAINTEXT"})
        started = self.code_build_client.start_build(
            projectName=config.code_build_project,
            environmentTypeOverride="LINUX_CONTAINER",
            imageOverride=config.build_image,
            computeTypeOverride=config.compute_type,
            privilegedModeOverride=config.privileged,
            sourceTypeOverride="S3",
            sourceLocationOverride=f"{location.netloc}{location.path}",
            buildspecOverride=json.dumps(_buildspec(image_name, arguments, login)),
            environmentVariablesOverride=variables,
            artifactsOverride={"type": "NO_ARTIFACTS"},
        )["build"]
        logger.info("Building `%s` with AWS CodeBuild, build `%s`.", image_name, started["id"])
        try:
            build = self._wait(started["id"])
        except BaseException:
            self._stop(started["id"])
            raise
        if build["buildStatus"] != "SUCCEEDED":
            raise self._failure(build)
        exported = {variable["name"]: variable["value"] for variable in build.get("exportedEnvironmentVariables", [])}
        return str(exported.get(_PUSHED, "")).split(",")

    def _login(self, container_registry: "BaseContainerRegistry") -> tuple[list[str], list[dict[str, str]]]:
        """The commands that log in to the registry, and the variables that they read."""
        config = self.config
        docker = f"docker login --password-stdin {shlex.quote(host(container_registry.config.uri))}"
        command = f'printf %s "$COOPER_PASSWORD" | {docker} --username "$COOPER_USERNAME"'
        secret = config.registry_secret
        if secret:
            return [command], [
                {"name": "COOPER_USERNAME", "value": f"{secret}:username", "type": "SECRETS_MANAGER"},
                {"name": "COOPER_PASSWORD", "value": f"{secret}:password", "type": "SECRETS_MANAGER"},
            ]
        if config.implicit_container_registry_auth:
            if container_registry.flavor != AWS_CONTAINER_REGISTRY_FLAVOR:
                return [], []
            # The registry's own region, which need not be that of the build.
            found = _ECR_HOST.search(container_registry.config.uri)
            region = found.group(1) if found else self.code_build_client.meta.region_name
            password = f"aws ecr get-login-password --region {shlex.quote(region)}"
            return [f"{password} | {docker} --username AWS"], []
        credentials = container_registry.credentials
        if not credentials:
            return [], []
        logger.warning(
            "The registry's credentials go to CodeBuild as plain environment variables, which everybody can read who "
            "may look at the build. Keep them in AWS Secrets Manager and set `registry_secret` of the image builder."
        )
        return [command], [
            {"name": "COOPER_USERNAME", "value": credentials[0], "type": "PLAINTEXT"},
            {"name": "COOPER_PASSWORD", "value": credentials[1], "type": "PLAINTEXT"},
        ]

    def _wait(self, build_id: str) -> dict[str, Any]:
        """Waits until a build has ended, whichever way."""
        told = None
        while True:
            # The client is a new one where a connector's credentials have expired.
            builds = self.code_build_client.batch_get_builds(ids=[build_id])["builds"]
            # None yet, for a moment after the start.
            for build in builds:
                link = build.get("logs", {}).get("deepLink")
                if link != told:
                    logger.info("The log of the build: %s", link)
                    told = link
                if build["buildStatus"] != "IN_PROGRESS":
                    return dict(build)
            time.sleep(POLL)

    def _stop(self, build_id: str) -> None:
        try:
            self.code_build_client.stop_build(id=build_id)
            logger.info("Stopped the build `%s`.", build_id)
        except (BotoCoreError, ClientError) as error:
            logger.warning("The build `%s` goes on; it could not be stopped: %s", build_id, error)

    def _failure(self, build: Mapping[str, Any]) -> BuildError:
        messages = [
            context["message"]
            for phase in build.get("phases", [])
            if phase.get("phaseStatus") not in (None, "SUCCEEDED")
            for context in phase.get("contexts", [])
            if context.get("message")
        ]
        reason = sanitize("; ".join(messages)) or "CodeBuild gives no reason"
        link = build.get("logs", {}).get("deepLink")
        return BuildError(
            f"the CodeBuild build `{build['id']}` ended as {build['buildStatus']}: {reason}",
            code="build-failed",
            hint=f"its log: {link}" if link else None,
            fields={"message": reason, "tail": self._log_tail(build.get("logs", {}))},
        )

    def _log_tail(self, logs: Mapping[str, Any]) -> list[str]:
        """The last lines of a build's log, where it is in CloudWatch and may be read."""
        if not (logs.get("groupName") and logs.get("streamName")):
            return []
        connector = self.get_connector()
        session = connector.connect() if connector else boto3.Session()
        try:
            events = session.client("logs").get_log_events(
                logGroupName=logs["groupName"], logStreamName=logs["streamName"], limit=_TAIL, startFromHead=False
            )["events"]
        except (BotoCoreError, ClientError) as error:
            logger.debug("The log of the build cannot be read: %s", error)
            return []
        return [sanitize(event["message"]) for event in events]


def _buildspec(image_name: str, arguments: list[str], login: list[str]) -> dict[str, Any]:
    """What CodeBuild runs. It reads YAML, of which JSON is a part, without doubt about what is quoted how."""
    digests = shlex.join(["docker", "image", "inspect", "--format", '{{join .RepoDigests ","}}', image_name])
    return {
        "version": "0.2",
        "env": {
            # Attestations are not asked for, and some services refuse images that have them.
            "variables": {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"},
            "exported-variables": [_PUSHED],
        },
        "phases": {
            # All in one phase, which ends with the first command that fails; a later one would run after that too.
            "build": {
                "commands": [
                    *login,
                    shlex.join(["docker", "build", "--tag", image_name, *arguments, "."]),
                    shlex.join(["docker", "push", image_name]),
                    f'{_PUSHED}="$({digests})" && export {_PUSHED}',
                ]
            },
        },
    }
