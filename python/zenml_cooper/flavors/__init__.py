"""The ZenML flavors.

Their modules import neither the native module nor the implementations, so that a flavor can be registered and loaded
where those cannot: on a ZenML server, in the step of a pipeline, on another platform.
"""

from zenml_cooper.flavors.docker import DockerImageBuilderFlavor

__all__ = ["DockerImageBuilderFlavor"]
