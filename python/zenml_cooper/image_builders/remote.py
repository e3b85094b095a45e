"""What the image builders share that build elsewhere, with a class of ZenML's own."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from zenml.image_builders import BaseImageBuilder, BuildContext
from zenml.integrations.utils import get_integration_for_module
from zenml.logger import get_logger
from zenml.utils.archivable import ArchiveType

from zenml_cooper.config import PackageConfig
from zenml_cooper.context import CooperBuildContext
from zenml_cooper.exceptions import BuildError, OptionError
from zenml_cooper.image_builders import step_package
from zenml_cooper.image_builders.base import option_mapping, prepare_push
from zenml_cooper.image_builders.foreign import SpelledOutContext, context_spec
from zenml_cooper.image_builders.upload import upload

if TYPE_CHECKING:
    from zenml.config.docker_settings import DockerBuildOptions
    from zenml.container_registries import BaseContainerRegistry
    from zenml.integrations.integration import Integration

logger = get_logger(__name__)

# A builder applies the ignore files that it finds in the context; ours is applied already.
_IGNORE_FILES = ["/.dockerignore", "/Dockerfile.dockerignore"]


class RemoteImageBuilder(BaseImageBuilder):
    """Stands before one of ZenML's image builders: our contexts, all build options, the digest of what was pushed.

    Subclasses run the build.
    """

    # For whose arguments the native module makes the build options.
    _program: ClassVar[str]

    @property
    def build_context_class(self) -> type[BuildContext]:
        """The class of the contexts that `build` is given; it takes ZenML's own too."""
        return CooperBuildContext

    @property
    def requirements(self) -> set[str]:
        """The packages of ZenML's integration: steps of a pipeline load the image builder, and it ZenML's class.

        ZenML finds them by the module of a class, and ours is in none of its integrations.
        """
        return {requirement for integration in self._integrations() for requirement in integration.get_requirements()}

    @property
    def apt_packages(self) -> list[str]:
        """The Debian packages of ZenML's integration."""
        return [package for integration in self._integrations() for package in integration.APT_PACKAGES]

    @classmethod
    def _integrations(cls) -> "set[type[Integration]]":
        found = (get_integration_for_module(base.__module__) for base in cls.__mro__)
        return {integration for integration in found if integration}

    def build(
        self,
        image_name: str,
        build_context: BuildContext,
        docker_build_options: "DockerBuildOptions | Mapping[str, Any] | None" = None,
        container_registry: "BaseContainerRegistry | None" = None,
    ) -> str:
        """Builds an image and pushes it to the registry.

        Args:
            image_name: The name of the image.
            build_context: What goes into it.
            docker_build_options: The build options; a mapping by the same names is taken too.
            container_registry: Where to push.

        Returns:
            `repository@sha256:...` of the pushed manifest.

        Raises:
            RuntimeError: If there is no registry.
            ValueError: If the name is not one of the registry, or an option is wrong.
            CooperError: If the build fails; subclasses say why.
        """
        if container_registry is None:
            raise RuntimeError(
                f"The image builder `{self.name}` builds on another machine, so the stack needs a container registry "
                "to push to."
            )
        # What is wrong with the request shows before anything is sent.
        arguments = self._arguments(option_mapping(docker_build_options))
        prepare_push(image_name, container_registry)
        spec = context_spec(build_context)
        if cast(PackageConfig, self.config).include_package and step_package.is_generated(spec):
            step_package.add(spec)
        return _pushed(image_name, self._build(image_name, _sent_context(spec), arguments, container_registry))

    @abstractmethod
    def _build(
        self,
        image_name: str,
        context: CooperBuildContext,
        arguments: list[str],
        container_registry: "BaseContainerRegistry",
    ) -> Iterable[str]:
        """Builds and pushes; gives the names with digests under which the image was pushed."""

    def _arguments(self, options: dict[str, Any]) -> list[str]:
        from zenml_cooper import _core

        built = _core.build_arguments(options, cast(Any, self._program))
        for notice in built["notices"]:
            logger.warning("%s", notice)
        return built["arguments"]

    @staticmethod
    def _upload_build_context(
        build_context: BuildContext,
        parent_path_directory_name: str,
        archive_type: ArchiveType = ArchiveType.TAR_GZ,
    ) -> str:
        """Puts a context into the artifact store, unless it is there.

        Args:
            build_context: The context.
            parent_path_directory_name: The directory of the artifact store.
            archive_type: The kind of archive.

        Returns:
            The path of the archive.
        """
        if not isinstance(build_context, SpelledOutContext):
            build_context = _sent_context(context_spec(build_context))
        return upload(build_context, parent_path_directory_name, archive_type)


def _sent_context(spec: dict[str, Any]) -> SpelledOutContext:
    return SpelledOutContext({**spec, "extra_patterns": [*spec.get("extra_patterns", []), *_IGNORE_FILES]})


def _pushed(image_name: str, names: Iterable[str]) -> str:
    """The name with a digest that is one of the image's repository.

    Raises:
        BuildError: If there is none.
    """
    from zenml_cooper import _core

    wanted = _core.image_reference(image_name)
    names = list(names)
    for name in names:
        try:
            found = _core.image_reference(name)
        except OptionError:
            continue
        if found["name"] == wanted["name"] and found["digest"]:
            return f"{wanted['name']}@{found['digest']}"
    raise BuildError(
        f"the build ended well, but names no digest of `{wanted['name']}`",
        code="build-failed",
        fields={"message": f"it names: {', '.join(names) or 'nothing'}"},
    )
