"""The ZenML image builders. Nothing here imports the native module before a build starts.

Those that are subclasses of ZenML's own are in modules of their own: what ZenML's import need not be installed.
"""

from zenml_cooper.image_builders.base import CooperImageBuilder
from zenml_cooper.image_builders.buildkit import BuildKitImageBuilder
from zenml_cooper.image_builders.docker import DockerImageBuilder
from zenml_cooper.image_builders.native import NativeImageBuilder

__all__ = ["BuildKitImageBuilder", "CooperImageBuilder", "DockerImageBuilder", "NativeImageBuilder"]
