"""The ZenML flavors.

Their modules import neither the native module nor the implementations, so that a flavor can be registered and loaded
where those cannot: on a ZenML server, in the step of a pipeline, on another platform. The flavors that are subclasses
of ZenML's own are here only where the packages are that ZenML's classes import; `missing` says which are not, and why.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from zenml_cooper.flavors.aws import AWSImageBuilderFlavor as AWSImageBuilderFlavor
    from zenml_cooper.flavors.buildkit import BuildKitImageBuilderFlavor as BuildKitImageBuilderFlavor
    from zenml_cooper.flavors.docker import DockerImageBuilderFlavor as DockerImageBuilderFlavor
    from zenml_cooper.flavors.gcp import GCPImageBuilderFlavor as GCPImageBuilderFlavor
    from zenml_cooper.flavors.kaniko import KanikoImageBuilderFlavor as KanikoImageBuilderFlavor
    from zenml_cooper.flavors.native import NativeImageBuilderFlavor as NativeImageBuilderFlavor


class _Flavor(NamedTuple):
    """Where a flavor is, and what ZenML's class that it stands on imports."""

    module: str
    imports: str | None = None
    # ZenML's integration that brings it.
    integration: str | None = None


_FLAVORS = {
    # The first is the one to start with.
    "NativeImageBuilderFlavor": _Flavor("native"),
    "DockerImageBuilderFlavor": _Flavor("docker"),
    "BuildKitImageBuilderFlavor": _Flavor("buildkit"),
    "KanikoImageBuilderFlavor": _Flavor("kaniko"),
    "AWSImageBuilderFlavor": _Flavor("aws", "boto3", "aws"),
    "GCPImageBuilderFlavor": _Flavor("gcp", "google.cloud.devtools.cloudbuild_v1", "gcp"),
}


def missing() -> dict[str, str]:
    """The flavors that cannot be used here, by class name, and what to install for them."""
    return {
        name: f"`{flavor.imports}` is not installed; install it with `zenml integration install {flavor.integration}`"
        for name, flavor in _FLAVORS.items()
        if flavor.imports and not _is_installed(flavor.imports)
    }


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:
        # A package that the module would be in is not there.
        return False


__all__ = [name for name in _FLAVORS if name not in missing()]


def __getattr__(name: str) -> Any:
    if name not in _FLAVORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in missing():
        raise ImportError(f"`{name}` cannot be used here: {missing()[name]}")
    flavor = getattr(import_module(f"{__name__}.{_FLAVORS[name].module}"), name)
    globals()[name] = flavor
    return flavor


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
