"""The image builder `cooper_docker`."""

from typing import Any, cast

from zenml_cooper.config import DockerImageBuilderConfig
from zenml_cooper.image_builders.base import CooperImageBuilder

_TLS = {
    "ca_cert": "tls_ca_cert",
    "client_cert": "tls_client_cert",
    "client_key": "tls_client_key",
    "skip_verify": "tls_skip_verify",
}


class DockerImageBuilder(CooperImageBuilder):
    """Builds images with a Docker or Podman daemon."""

    @property
    def config(self) -> DockerImageBuilderConfig:
        """The configuration."""
        return cast(DockerImageBuilderConfig, self._config)

    @property
    def is_building_locally(self) -> bool:
        """Whether ZenML may leave images to this daemon, and ask its own container engine about parent images.

        Two things hang on the answer. With *yes*, the image of a user's Dockerfile is not pushed before ZenML builds
        upon it: right for every daemon, a remote one too, since the same daemon does both builds. And with *yes*,
        ZenML asks its own engine (the `docker` or `podman` program and what it talks to) whether a custom parent image
        is local; where there is no such engine, that question fails the build. So the answer is *yes* where ZenML has
        an engine to ask. Where it has none, *no*: intermediate images are pushed and parent images always pulled.
        """
        return _zenml_has_a_container_engine()

    def _engine(self) -> dict[str, Any]:
        config = self.config
        # Each field once: a secret reference is resolved with a call to the server at every access.
        tls = {name: value for name, field in _TLS.items() if (value := getattr(config, field))}
        return {
            "kind": "docker",
            "endpoints": [config.host] if config.host else [],
            "docker_context": config.docker_context,
            "tls": tls or None,
            "builder": config.builder,
        }


def _zenml_has_a_container_engine() -> bool:
    try:
        from zenml.container_engines import get_container_engine
    except ImportError:
        # The older versions that are supported know only Docker.
        from zenml.utils import docker_utils  # type: ignore[attr-defined]

        return bool(docker_utils.check_docker())
    try:
        get_container_engine()
    except RuntimeError:
        return False
    return True
