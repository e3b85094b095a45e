"""The flavor `cooper`."""

from typing import TYPE_CHECKING

from zenml_cooper.config import NativeImageBuilderConfig
from zenml_cooper.flavors.base import CooperFlavor

if TYPE_CHECKING:
    from zenml_cooper.image_builders.native import NativeImageBuilder


class NativeImageBuilderFlavor(CooperFlavor):
    """Builds images without Docker: no daemon, no root, nothing to install."""

    @property
    def name(self) -> str:
        """The flavor's name."""
        return "cooper"

    @property
    def display_name(self) -> str:
        """The name that people see."""
        return "Cooper"

    @property
    def logo_url(self) -> str | None:
        """A picture for the dashboard; ZenML shows its own where there is none."""
        return None

    @property
    def config_class(self) -> type[NativeImageBuilderConfig]:
        """The configuration."""
        return NativeImageBuilderConfig

    @property
    def implementation_class(self) -> "type[NativeImageBuilder]":
        """The implementation, imported when it is needed."""
        from zenml_cooper.image_builders.native import NativeImageBuilder

        return NativeImageBuilder
