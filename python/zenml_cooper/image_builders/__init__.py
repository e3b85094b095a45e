"""The ZenML image builders. Nothing here imports the native module before a build starts."""

from zenml_cooper.image_builders.base import CooperImageBuilder
from zenml_cooper.image_builders.docker import DockerImageBuilder

__all__ = ["CooperImageBuilder", "DockerImageBuilder"]
