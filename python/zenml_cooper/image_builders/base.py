"""What all image builders of this package share: the one `build`."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from zenml.image_builders import BaseImageBuilder, BuildContext
from zenml.logger import get_logger
from zenml.utils import secret_utils

from zenml_cooper import _build
from zenml_cooper.config import CooperImageBuilderConfig
from zenml_cooper.context import CooperBuildContext
from zenml_cooper.image_builders import credentials, step_package
from zenml_cooper.image_builders.foreign import context_spec

if TYPE_CHECKING:
    from zenml.config.docker_settings import DockerBuildOptions
    from zenml.container_registries import BaseContainerRegistry

logger = get_logger(__name__)

# How ZenML ends the name of the image of a user's Dockerfile that it builds upon.
INTERMEDIATE = "-intermediate-build"

# Never log `self` or `self.config` in this module: their texts show what is in the configuration, secrets included.


class CooperImageBuilder(BaseImageBuilder):
    """Builds images with the native module; what differs between engines is in the subclasses."""

    @property
    def config(self) -> CooperImageBuilderConfig:
        """The configuration."""
        return cast(CooperImageBuilderConfig, self._config)

    @property
    def build_context_class(self) -> type[BuildContext]:
        """The class of the contexts that `build` is given; it takes ZenML's own too."""
        return CooperBuildContext

    @abstractmethod
    def _engine(self) -> dict[str, Any]:
        """Where to build, as the native module takes it."""

    def build(
        self,
        image_name: str,
        build_context: BuildContext,
        docker_build_options: "DockerBuildOptions | Mapping[str, Any] | None" = None,
        container_registry: "BaseContainerRegistry | None" = None,
    ) -> str:
        """Builds an image and pushes it to the registry, if one is given.

        Args:
            image_name: The name of the image.
            build_context: What goes into it.
            docker_build_options: The build options; a mapping by the same names is taken too.
            container_registry: Where to push, and whose credentials to use for it.

        Returns:
            `repository@sha256:...` of the pushed manifest, or the name where nothing was pushed.

        Raises:
            ValueError: If the name is not one of the registry.
            CooperError: If the build fails; subclasses say why.
        """
        if container_registry:
            prepare_push(image_name, container_registry)

        context = context_spec(build_context)
        config = self.config
        options = option_mapping(docker_build_options)
        if step_package.is_generated(context):
            if config.include_package:
                step_package.add(context)
            if options.get("rm") is False:
                # ZenML's own value where the user gave none. BuildKit has no containers to keep, so it would force the
                # classic builder, which would leave one for each step.
                del options["rm"]
        engine = self._engine()
        request = {
            "context": context,
            "tags": [image_name],
            "options": options,
            "default_options": self._default_options(image_name),
            "push": container_registry is not None,
            "outputs": self._outputs(image_name, container_registry, engine),
            "engine": engine,
        }
        outcome = _build.run(
            request,
            credentials=credentials.of(container_registry),
            progress=config.progress,
            logger=logger,
        )
        return str(outcome["image"])

    def _outputs(
        self,
        image_name: str,  # noqa: ARG002 - for subclasses
        container_registry: "BaseContainerRegistry | None",  # noqa: ARG002
        engine: Mapping[str, Any],  # noqa: ARG002
    ) -> list[str]:
        """Where the image goes besides the registry; with none, to the engine's own place."""
        return []

    def _default_options(
        self,
        image_name: str,  # noqa: ARG002 - for subclasses
    ) -> dict[str, Any]:
        """What the configuration says for options that the user does not give."""
        # Each field once: a secret reference is resolved with a call to the server at every access.
        config = self.config
        return {
            "platform": config.platform,
            "network": config.network,
            "add-host": config.add_hosts,
            "build-arg": config.build_args,
            "label": config.labels,
            "ssh": config.ssh,
            "cache-from": config.cache_from,
            "cache-to": config.cache_to,
            "secret": [secret(id_, source) for id_, source in config.build_secrets.items()],
        }


def prepare_push(image_name: str, container_registry: "BaseContainerRegistry") -> None:
    """Lets the registry do what it does before a push.

    Raises:
        ValueError: If the name is not one of the registry.
    """
    if not container_registry.is_valid_image_name_for_registry(image_name):
        raise ValueError(
            f"The image name `{image_name}` does not belong to the container registry "
            f"`{container_registry.config.uri}`."
        )
    container_registry.prepare_image_push(image_name)


def option_mapping(options: "DockerBuildOptions | Mapping[str, Any] | None") -> dict[str, Any]:
    """The options as their user wrote them; the native module knows all names and checks them."""
    if options is None:
        return {}
    if isinstance(options, Mapping):
        return dict(options)
    return options.model_dump(exclude_none=True)


def secret(id_: str, source: str) -> dict[str, Any]:
    """A build secret as the native module takes it; a reference is resolved here.

    Raises:
        KeyError: If there is no such secret, or it has no such key.
    """
    if not secret_utils.is_secret_reference(source):
        kind, _, place = source.partition("=")
        return {"id": id_, kind: place}
    from zenml.client import Client

    reference = secret_utils.parse_secret_reference(source)
    missing = KeyError(f"The build secret `{id_}` refers to `{reference.name}.{reference.key}`, which does not exist.")
    try:
        values = Client().get_secret(reference.name).secret_values
    except KeyError as error:
        raise missing from error
    if reference.key not in values:
        raise missing
    return {"id": id_, "value": values[reference.key]}
