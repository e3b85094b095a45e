"""The flavor `cooper_buildkit`."""

from typing import TYPE_CHECKING

from zenml_cooper.config import BuildKitImageBuilderConfig
from zenml_cooper.flavors.base import CooperFlavor

if TYPE_CHECKING:
    from zenml_cooper.image_builders.buildkit import BuildKitImageBuilder


class BuildKitImageBuilderFlavor(CooperFlavor):
    """Builds images with one buildkitd or a pool of them, usually on other machines."""

    @property
    def name(self) -> str:
        """The flavor's name."""
        return "cooper_buildkit"

    @property
    def display_name(self) -> str:
        """The name that people see."""
        return "Cooper BuildKit"

    @property
    def logo_url(self) -> str | None:
        """A picture for the dashboard; ZenML shows its own where there is none."""
        return None

    @property
    def config_class(self) -> type[BuildKitImageBuilderConfig]:
        """The configuration."""
        return BuildKitImageBuilderConfig

    @property
    def implementation_class(self) -> "type[BuildKitImageBuilder]":
        """The implementation, imported when it is needed."""
        from zenml_cooper.image_builders.buildkit import BuildKitImageBuilder

        return BuildKitImageBuilder
