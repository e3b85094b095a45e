"""The flavor `cooper_aws`."""

from typing import TYPE_CHECKING

from pydantic import Field
from zenml.integrations.aws import flavors as zenml_flavors

from zenml_cooper.config import PackageConfig
from zenml_cooper.flavors.base import CooperFlavor

if TYPE_CHECKING:
    from zenml_cooper.image_builders.aws import AWSImageBuilder


class AWSImageBuilderConfig(PackageConfig, zenml_flavors.AWSImageBuilderConfig):
    """Configuration of the image builder `cooper_aws`: that of ZenML's own, and more."""

    registry_secret: str | None = Field(
        default=None,
        description="Name or ARN of a secret in AWS Secrets Manager with the keys `username` and `password`, with "
        "which CodeBuild logs in to the container registry. The project's role must be allowed to read it. It takes "
        "the place of `implicit_container_registry_auth`, and keeps credentials out of the build's settings.",
    )
    privileged: bool = Field(
        default=False,
        description="Run the build privileged, which AWS asks for where the build image starts a Docker daemon of "
        "its own.",
    )


class AWSImageBuilderFlavor(CooperFlavor, zenml_flavors.AWSImageBuilderFlavor):
    """Builds images with AWS CodeBuild."""

    @property
    def name(self) -> str:
        """The flavor's name."""
        return "cooper_aws"

    @property
    def display_name(self) -> str:
        """The name that people see."""
        return "Cooper AWS"

    @property
    def config_class(self) -> type[AWSImageBuilderConfig]:
        """The configuration."""
        return AWSImageBuilderConfig

    @property
    def implementation_class(self) -> "type[AWSImageBuilder]":
        """The implementation, imported when it is needed."""
        from zenml_cooper.image_builders.aws import AWSImageBuilder

        return AWSImageBuilder
