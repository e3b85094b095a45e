"""The flavor `cooper_kaniko`."""

from typing import TYPE_CHECKING

from pydantic import Field, PositiveInt, model_validator
from zenml.integrations.kaniko import flavors as zenml_flavors

from zenml_cooper.config import PackageConfig
from zenml_cooper.flavors.base import CooperFlavor

if TYPE_CHECKING:
    from zenml_cooper.image_builders.kaniko import KanikoImageBuilder

# Arguments of the executor without which there would be no build, or no way to know what it pushed.
_OWN_ARGUMENTS = ("--context", "-c", "--bucket", "-b", "--no-push", "--image-name-with-digest-file")


class KanikoImageBuilderConfig(PackageConfig, zenml_flavors.KanikoImageBuilderConfig):
    """Configuration of the image builder `cooper_kaniko`: that of ZenML's own, and more."""

    build_timeout: PositiveInt | None = Field(
        default=None,
        description="Seconds after which Kubernetes ends the build, waiting for a node included; it does so even where "
        "the machine that started the build is gone. Without it, a build may take as long as it takes.",
    )

    @model_validator(mode="after")
    def _check(self) -> "KanikoImageBuilderConfig":
        own = [argument for argument in self.__dict__["executor_args"] if argument.partition("=")[0] in _OWN_ARGUMENTS]
        if own:
            raise ValueError(f"`executor_args`: `{own[0].partition('=')[0]}` is set by the image builder")
        return self


class KanikoImageBuilderFlavor(CooperFlavor, zenml_flavors.KanikoImageBuilderFlavor):
    """Builds images with Kaniko in a Kubernetes cluster."""

    @property
    def name(self) -> str:
        """The flavor's name."""
        return "cooper_kaniko"

    @property
    def display_name(self) -> str:
        """The name that people see."""
        return "Cooper Kaniko"

    @property
    def config_class(self) -> type[KanikoImageBuilderConfig]:
        """The configuration."""
        return KanikoImageBuilderConfig

    @property
    def implementation_class(self) -> "type[KanikoImageBuilder]":
        """The implementation, imported when it is needed."""
        from zenml_cooper.image_builders.kaniko import KanikoImageBuilder

        return KanikoImageBuilder
