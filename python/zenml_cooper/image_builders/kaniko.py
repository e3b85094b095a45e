"""The image builder `cooper_kaniko`."""

import secrets
from typing import TYPE_CHECKING, Any, cast

from zenml.integrations.kaniko.image_builders import KanikoImageBuilder as ZenMLKanikoImageBuilder
from zenml.logger import get_logger
from zenml.utils.archivable import ArchiveType

from zenml_cooper.context import CooperBuildContext
from zenml_cooper.flavors.kaniko import KanikoImageBuilderConfig
from zenml_cooper.image_builders.pod import Pod
from zenml_cooper.image_builders.remote import RemoteImageBuilder

if TYPE_CHECKING:
    from zenml.container_registries import BaseContainerRegistry

logger = get_logger(__name__)


class KanikoImageBuilder(RemoteImageBuilder, ZenMLKanikoImageBuilder):
    """Builds images with Kaniko in a pod, which is deleted whatever happens."""

    _program = "kaniko"

    @property
    def config(self) -> KanikoImageBuilderConfig:
        """The configuration."""
        return cast(KanikoImageBuilderConfig, self._config)

    def _build(
        self,
        image_name: str,
        context: CooperBuildContext,
        arguments: list[str],
        container_registry: "BaseContainerRegistry",  # noqa: ARG002
    ) -> list[str]:
        self._check_prerequisites()
        config = self.config
        streamed = not config.store_context_in_artifact_store
        source = "tar://stdin" if streamed else self._upload_build_context(context, "kaniko-build-contexts")
        kubectl = ["kubectl", "--context", config.kubernetes_context, "--namespace", config.kubernetes_namespace]
        pod = Pod(kubectl, self._generate_pod_name())
        logger.info("Building `%s` with Kaniko in the pod `%s`.", image_name, pod.name)
        with pod.created(self._manifest(pod.name, image_name, source, arguments)):
            pod.wait_until_started(config.pod_running_timeout)
            if streamed:
                pod.feed(lambda output: context.pack(output, ArchiveType.TAR_GZ))
            return pod.follow().split()

    def _manifest(self, pod_name: str, image_name: str, source: str, arguments: list[str]) -> dict[str, Any]:
        config = self.config
        spec = self._generate_spec_overrides(pod_name=pod_name, image_name=image_name, context=source)["spec"]
        (container,) = spec["containers"]
        # Kubernetes reads `$(NAME)` in arguments, and `$$` as `$`.
        container["args"] += [argument.replace("$", "$$") for argument in arguments]
        container["stdin"] = container["stdinOnce"] = source == "tar://stdin"
        spec["restartPolicy"] = "Never"
        if config.build_timeout:
            spec["activeDeadlineSeconds"] = config.build_timeout
        labels = {"app.kubernetes.io/managed-by": "zenml-cooper"}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod_name, "labels": labels},
            "spec": spec,
        }

    @staticmethod
    def _generate_pod_name() -> str:
        return f"kaniko-build-{secrets.token_hex(8)}"
