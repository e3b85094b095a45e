"""Registry credentials out of ZenML's container registries."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zenml.container_registries import BaseContainerRegistry

Credentials = Callable[[str, bool], dict[str, str] | None]

_DOCKER_HUB = {"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"}


def of(container_registry: "BaseContainerRegistry | None") -> Credentials | None:
    """What the native module asks for credentials: `(registry host, refresh)` to a credential, or `None`.

    `None` lets it look into the user's Docker config. The ZenML registry is asked when a credential is needed, not
    before, and again when one was refused: those of a service connector expire.
    """
    if container_registry is None:
        return None

    def get(registry: str, refresh: bool) -> dict[str, str] | None:
        if host(registry) != host(container_registry.config.uri):
            return None
        if refresh:
            # ZenML keeps both until the connector says that it expired, which one without an expiry never does.
            container_registry._credentials = None
            container_registry._connector_instance = None
        credential = container_registry.credentials
        if credential is None:
            return None
        username, password = credential
        return {"username": username, "password": password}

    return get


def host(registry: str) -> str:
    """The host (and port) of a registry's address; one name for Docker Hub."""
    address = registry.partition("://")[2] if "://" in registry else registry
    first = address.partition("/")[0].lower()
    # As in image names: what has neither a dot nor a port, and is not `localhost`, is no host.
    is_host = "." in first or ":" in first or first == "localhost"
    return first if is_host and first not in _DOCKER_HUB else "docker.io"
