"""The flavor `cooper_gcp`."""

from typing import TYPE_CHECKING

from zenml.integrations.gcp import flavors as zenml_flavors

from zenml_cooper.config import PackageConfig
from zenml_cooper.flavors.base import CooperFlavor

if TYPE_CHECKING:
    from zenml_cooper.image_builders.gcp import GCPImageBuilder


class GCPImageBuilderConfig(PackageConfig, zenml_flavors.GCPImageBuilderConfig):
    """Configuration of the image builder `cooper_gcp`: that of ZenML's own, and `include_package`."""


class GCPImageBuilderFlavor(CooperFlavor, zenml_flavors.GCPImageBuilderFlavor):
    """Builds images with Google Cloud Build."""

    @property
    def name(self) -> str:
        """The flavor's name."""
        return "cooper_gcp"

    @property
    def display_name(self) -> str:
        """The name that people see."""
        return "Cooper GCP"

    @property
    def config_class(self) -> type[GCPImageBuilderConfig]:
        """The configuration."""
        return GCPImageBuilderConfig

    @property
    def implementation_class(self) -> "type[GCPImageBuilder]":
        """The implementation, imported when it is needed."""
        from zenml_cooper.image_builders.gcp import GCPImageBuilder

        return GCPImageBuilder
