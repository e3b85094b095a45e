"""The flavor `cooper_docker`."""

from typing import TYPE_CHECKING

from zenml_cooper.config import DockerImageBuilderConfig
from zenml_cooper.flavors.base import CooperFlavor

if TYPE_CHECKING:
    from zenml_cooper.image_builders.docker import DockerImageBuilder


class DockerImageBuilderFlavor(CooperFlavor):
    """Builds images with a Docker or Podman daemon, with BuildKit where the daemon has it."""

    @property
    def name(self) -> str:
        """The flavor's name."""
        return "cooper_docker"

    @property
    def display_name(self) -> str:
        """The name that people see."""
        return "Cooper Docker"

    @property
    def logo_url(self) -> str | None:
        """A picture for the dashboard; ZenML shows its own where there is none."""
        return None

    @property
    def config_class(self) -> type[DockerImageBuilderConfig]:
        """The configuration."""
        return DockerImageBuilderConfig

    @property
    def implementation_class(self) -> "type[DockerImageBuilder]":
        """The implementation, imported when it is needed."""
        from zenml_cooper.image_builders.docker import DockerImageBuilder

        return DockerImageBuilder
