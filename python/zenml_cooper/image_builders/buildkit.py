"""The image builder `cooper_buildkit`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from zenml_cooper import _buildkit
from zenml_cooper.config import BuildKitImageBuilderConfig
from zenml_cooper.image_builders.base import INTERMEDIATE, CooperImageBuilder

if TYPE_CHECKING:
    from zenml.container_registries import BaseContainerRegistry

_TLS = {
    "ca_cert": "tls_ca_cert",
    "client_cert": "tls_client_cert",
    "client_key": "tls_client_key",
    "server_name": "tls_server_name",
    "skip_verify": "tls_skip_verify",
}


class BuildKitImageBuilder(CooperImageBuilder):
    """Builds images with one BuildKit or a pool of them."""

    @property
    def config(self) -> BuildKitImageBuilderConfig:
        """The configuration."""
        return cast(BuildKitImageBuilderConfig, self._config)

    @property
    def is_building_locally(self) -> bool:
        """Whether ZenML may leave images where they are built, and ask its own container engine about them: no.

        A worker keeps the results of steps, not images: what the next build is to start from must be pushed, also
        because the next build may meet another worker. With *yes*, ZenML would not push the image of a user's
        Dockerfile, and would ask the engine of this machine (the `docker` or `podman` program and what it talks to)
        whether a custom parent image is there, which says nothing about the worker and fails where there is no engine.
        """
        return False

    def _engine(self) -> dict[str, Any]:
        config = self.config
        # Each field once: a secret reference is resolved with a call to the server at every access.
        endpoints = config.endpoints
        tls = {name: value for name, field in _TLS.items() if (value := getattr(config, field))}
        pool = {"policy": config.pool_policy, "busy": config.pool_busy}
        return {
            "kind": "buildkit",
            "endpoints": _buildkit.split(endpoints) if isinstance(endpoints, str) else endpoints,
            "tls": tls or None,
            "token": config.token,
            "pool": {name: value for name, value in pool.items() if value is not None},
        }

    def _default_options(self, image_name: str) -> dict[str, Any]:
        config = self.config
        options = super()._default_options(image_name)
        options["platform"] = config.platforms or options["platform"]
        if repository := config.cache_repository:
            cache = f"type=registry,ref={_cache_reference(repository, image_name)}"
            options["cache-from"] = [*options["cache-from"], cache]
            options["cache-to"] = [*options["cache-to"], f"{cache},mode=max,ignore-error=true"]
        return {
            **options,
            "compression": config.compression,
            "oci-mediatypes": config.oci_mediatypes,
            "provenance": config.provenance,
            "sbom": config.sbom,
        }

    def _outputs(
        self, image_name: str, container_registry: "BaseContainerRegistry | None", engine: Mapping[str, Any]
    ) -> list[str]:
        if container_registry is not None:
            return []
        endpoints = engine["endpoints"]
        # Of several daemons, the next build may meet another one.
        stays_in_daemon = len(endpoints) == 1 and _buildkit.is_docker(endpoints[0])
        if image_name.endswith(INTERMEDIATE):
            if stays_in_daemon:
                return []
            raise RuntimeError(
                f"The image builder `{self.name}` builds with workers that keep no images, so it cannot build upon the "
                "image of a Dockerfile of yours unless the stack has a container registry to push that to."
            )
        output = self.config.output
        if output is None and not stays_in_daemon:
            raise RuntimeError(
                f"The image builder `{self.name}` builds with workers that keep no images, so the stack needs a "
                "container registry to push to. Without one, set `output` of the image builder, e.g. to `type=docker`: "
                "then the image is loaded into the Docker or Podman daemon of this machine."
            )
        return [output] if output else []


def _cache_reference(repository: str, image_name: str) -> str:
    """Where the cache of an image is: one tag for each image, so that pipelines do not overwrite each other's."""
    from zenml_cooper import _core

    if _core.image_reference(repository)["tag"]:
        return repository
    return f"{repository}:{_core.image_reference(image_name)['tag'] or 'latest'}"
