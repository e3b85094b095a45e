"""The image builder `cooper_gcp`."""

import time
from typing import TYPE_CHECKING, cast

from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import GoogleAPIError
from google.cloud.devtools import cloudbuild_v1
from zenml.integrations.gcp.image_builders import GCPImageBuilder as ZenMLGCPImageBuilder
from zenml.logger import get_logger

from zenml_cooper.context import CooperBuildContext
from zenml_cooper.exceptions import BuildError
from zenml_cooper.flavors.gcp import GCPImageBuilderConfig
from zenml_cooper.image_builders.remote import RemoteImageBuilder

if TYPE_CHECKING:
    from zenml.container_registries import BaseContainerRegistry

logger = get_logger(__name__)

# Seconds between two looks at a build.
POLL = 5.0
_Status = cloudbuild_v1.Build.Status
_GOING_ON = (_Status.STATUS_UNKNOWN, _Status.PENDING, _Status.QUEUED, _Status.WORKING)


class GCPImageBuilder(RemoteImageBuilder, ZenMLGCPImageBuilder):
    """Builds images with Google Cloud Build; a build whose caller goes away is cancelled."""

    _program = "cloudbuild"
    _client: cloudbuild_v1.CloudBuildClient | None = None

    @property
    def config(self) -> GCPImageBuilderConfig:
        """The configuration."""
        return cast(GCPImageBuilderConfig, self._config)

    def _build(
        self,
        image_name: str,
        context: CooperBuildContext,
        arguments: list[str],
        container_registry: "BaseContainerRegistry",  # noqa: ARG002
    ) -> list[str]:
        location = self._upload_build_context(context, "cloud-build-contexts")
        build = self._configure_cloud_build(image_name, location)
        step = build.steps[0]
        *given, directory = step.args
        # Cloud Build replaces `$NAME` in arguments, and `$$` by `$`.
        step.args = [*given, *(argument.replace("$", "$$") for argument in arguments), directory]
        # Attestations are not asked for, and some services refuse images that have them.
        step.env = ["BUILDX_NO_DEFAULT_ATTESTATIONS=1"]
        # What stands in `images` is pushed anyway; a step of its own would push it twice.
        del build.steps[1:]

        build = self._finished(build)
        return [f"{pushed.name}@{pushed.digest}" for pushed in build.results.images]

    def _finished(self, build: cloudbuild_v1.Build) -> cloudbuild_v1.Build:
        """Runs a build.

        Raises:
            BuildError: If it fails.
        """
        project = self.gcp_project_id
        region = self.config.location
        request = cloudbuild_v1.CreateBuildRequest(project_id=project, build=build)
        if region:
            request.parent = f"projects/{project}/locations/{region}"
        started = self._cloud_build().create_build(request=request).metadata.build
        logger.info("Building with Google Cloud Build; the log of the build: %s", started.log_url)
        # `name` says the region too, without which a build of one is not found.
        name = {"name": started.name, "project_id": project, "id": started.id}
        try:
            while (build := self._cloud_build().get_build(request=name)).status in _GOING_ON:
                time.sleep(POLL)
        except BaseException:
            self._cancel(name)
            raise
        if build.status != _Status.SUCCESS:
            raise _failure(build)
        return build

    def _cloud_build(self) -> cloudbuild_v1.CloudBuildClient:
        """A client with credentials that are valid: those of a connector expire."""
        if self._client is None or self.connector_has_expired():
            credentials, _ = self._get_authentication()
            region = self.config.location
            options = ClientOptions(api_endpoint=f"{region}-cloudbuild.googleapis.com") if region else None
            self._client = cloudbuild_v1.CloudBuildClient(credentials=credentials, client_options=options)
        return self._client

    def _cancel(self, name: dict[str, str]) -> None:
        try:
            self._cloud_build().cancel_build(request=name)
            logger.info("Cancelled the build `%s`.", name["id"])
        except GoogleAPIError as error:
            logger.warning("The build `%s` goes on; it could not be cancelled: %s", name["id"], error)


def _failure(build: cloudbuild_v1.Build) -> BuildError:
    reason = build.failure_info.detail or build.status_detail or "Cloud Build gives no reason"
    return BuildError(
        f"the Cloud Build build `{build.id}` ended as {build.status.name}: {reason}",
        code="build-failed",
        hint=f"its log: {build.log_url}",
        fields={"message": reason},
    )
