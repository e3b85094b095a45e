"""The image builder `cooper`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from zenml.logger import get_logger

from zenml_cooper.config import NativeImageBuilderConfig
from zenml_cooper.image_builders.base import INTERMEDIATE, CooperImageBuilder

if TYPE_CHECKING:
    from zenml.container_registries import BaseContainerRegistry

logger = get_logger(__name__)

# The store and no other place.
_STORE = "type=image"


class NativeImageBuilder(CooperImageBuilder):
    """Builds images in this process, without a daemon."""

    @property
    def config(self) -> NativeImageBuilderConfig:
        """The configuration."""
        return cast(NativeImageBuilderConfig, self._config)

    @property
    def is_building_locally(self) -> bool:
        """Whether ZenML may ask its own container engine about images: no.

        With *yes*, ZenML asks the engine (the `docker` or `podman` program and what it talks to) whether a custom
        parent image is local, and fails where there is none. With *no*, it pushes the image of a user's Dockerfile
        before it builds upon it, and asks for parent images to be looked for in their registry.
        """
        return False

    def _engine(self) -> dict[str, Any]:
        config = self.config
        return {
            "kind": "native",
            "cache_dir": config.cache_dir,
            "cache_size": config.cache_size,
            "sandbox": config.sandbox,
            "runtime": config.runtime,
        }

    def _default_options(self, image_name: str) -> dict[str, Any]:
        config = self.config
        return {**super()._default_options(image_name), "compression": config.compression, "fold": config.fold}

    def _outputs(
        self,
        image_name: str,
        container_registry: "BaseContainerRegistry | None",
        engine: Mapping[str, Any],  # noqa: ARG002
    ) -> list[str]:
        if container_registry is not None:
            return []
        if image_name.endswith(INTERMEDIATE):
            return [_STORE]
        output = self.config.output
        if output is None:
            output = "type=docker" if _daemon_answers() else "store"
        if output != "store":
            return [output]
        logger.warning(
            "The stack has no container registry%s. The image `%s` stays in the store of zenml-cooper on this machine: "
            "later builds here can start from it, but nothing runs it. Add a container registry to the stack, or set "
            "`output` of the image builder.",
            "" if self.config.output else ", and no Docker or Podman daemon answers",
            image_name,
        )
        return [_STORE]


def _daemon_answers() -> bool:
    from zenml_cooper import _core

    return _core.doctor({"kind": "docker"})["engine"] is not None
