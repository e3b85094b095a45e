"""The flavors that stand on ZenML's own: where they can be had, and what they keep of them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from zenml.image_builders import BuildContext

from zenml_cooper import flavors
from zenml_cooper.context import CooperBuildContext
from zenml_cooper.image_builders import step_package
from zenml_cooper.image_builders.remote import RemoteImageBuilder

if TYPE_CHECKING:
    from conftest import StandInRegistry, Zenml

CLASSES = ["KanikoImageBuilderFlavor", "AWSImageBuilderFlavor", "GCPImageBuilderFlavor"]
NAMES = {"cooper_kaniko": "kaniko", "cooper_aws": "aws", "cooper_gcp": "gcp"}
GENERATED = "FROM python\nWORKDIR /app\nENV ZENML_CONFIG_PATH=/app/.zenconfig\nCOPY . .\nRUN chmod -R a+rw ."

# A machine without the packages of ZenML's integrations.
BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in ("boto3", "google.cloud.devtools"):
            raise ModuleNotFoundError(f"no {name} on this machine", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def without_packages(tmp_path: Path) -> dict[str, str]:
    """Environment variables with which Python cannot import what the clouds' integrations need."""
    for name in ("usercustomize.py", "sitecustomize.py"):
        (tmp_path / name).write_text(BLOCKER)
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}


def test_the_commands_of_the_documentation_work(empty_zenml: "Zenml") -> None:
    settings = {
        "cooper_kaniko": "--kubernetes_context=c",
        "cooper_aws": "--code_build_project=p",
        "cooper_gcp": "--project=p",
    }
    for class_name, name in zip(CLASSES, NAMES, strict=True):
        empty_zenml("image-builder", "flavor", "register", f"zenml_cooper.flavors.{class_name}")
        assert name in empty_zenml("image-builder", "flavor", "list")
        options = (f"--flavor={name}", settings[name], "--include_package=false")
        empty_zenml("image-builder", "register", f"of_{name}", *options)
        assert "INCLUDE_PACKAGE" in empty_zenml("image-builder", "describe", f"of_{name}").upper()
        empty_zenml("image-builder", "delete", f"of_{name}")
        empty_zenml("image-builder", "flavor", "delete", name)


def test_without_their_packages_two_cannot_be_had_and_say_what_to_install(
    empty_zenml: "Zenml", without_packages: dict[str, str]
) -> None:
    said = empty_zenml.python(
        """
from click.testing import CliRunner
from zenml.cli.cli import cli
from zenml_cooper import flavors
from zenml_cooper._register import register_flavors

own = [f"{kind}ImageBuilderFlavor" for kind in ("Native", "Docker", "BuildKit", "Kaniko")]
assert flavors.__all__ == own, flavors.__all__
for integration, name in {"aws": "AWSImageBuilderFlavor", "gcp": "GCPImageBuilderFlavor"}.items():
    try:
        exec(f"from zenml_cooper.flavors import {name}")
    except ImportError as error:
        assert f"zenml integration install {integration}" in str(error), error
    else:
        raise AssertionError(name)
    result = CliRunner().invoke(cli, ["image-builder", "flavor", "register", f"zenml_cooper.flavors.{name}"])
    assert result.exit_code != 0, result.output

register_flavors()
listed = CliRunner().invoke(cli, ["image-builder", "flavor", "list"]).output
for name in ("cooper", "cooper_docker", "cooper_buildkit", "cooper_kaniko"):
    assert name in listed, listed
    assert CliRunner().invoke(cli, ["image-builder", "flavor", "delete", name]).exit_code == 0
assert "cooper_aws" not in listed
assert "cooper_gcp" not in listed
print("DONE")
""",
        env=without_packages,
    )
    assert "AWSImageBuilderFlavor is left out: `boto3` is not installed" in said
    assert "GCPImageBuilderFlavor is left out" in said
    assert said.rstrip().endswith("DONE")


def test_with_their_packages_all_are_registered_and_listed(empty_zenml: "Zenml") -> None:
    said = empty_zenml.python("from zenml_cooper._register import register_flavors; register_flavors()")
    assert "left out" not in said
    listed = empty_zenml("image-builder", "flavor", "list")
    for name in ["cooper", "cooper_docker", "cooper_buildkit", *NAMES]:
        assert f"{name} registered" in said
        assert name in listed
        empty_zenml("image-builder", "flavor", "delete", name)


def test_where_there_is_no_kubectl_it_is_told(empty_zenml: "Zenml", tmp_path: Path) -> None:
    said = empty_zenml.python(
        """
from zenml.client import Client
from zenml_cooper._register import register_flavors
for flavor in register_flavors():
    Client().delete_flavor(flavor.name)
""",
        env={"PATH": str(tmp_path)},
    )
    assert "`kubectl`" in said


@pytest.mark.parametrize("class_name", CLASSES)
def test_no_field_of_zenml_s_own_is_lost_and_every_new_one_is_described(class_name: str) -> None:
    config = getattr(flavors, class_name)().config_class
    theirs = next(base for base in config.__mro__ if base.__module__.startswith("zenml.integrations."))
    assert set(theirs.model_fields) < set(config.model_fields)
    for name in set(config.model_fields) - set(theirs.model_fields):
        assert (config.model_fields[name].description or "").endswith("."), name
    for name in theirs.model_fields:
        assert config.model_fields[name].default == theirs.model_fields[name].default, name


@pytest.mark.parametrize("class_name", CLASSES)
def test_the_implementation_is_one_of_zenml_s_own(class_name: str, component: Callable[..., Any]) -> None:
    flavor = getattr(flavors, class_name)()
    required = {"kubernetes_context": "c", "code_build_project": "p", "a_field_of_a_later_version": 1}
    builder = component(flavor, **required)
    integration = NAMES[flavor.name]
    theirs = next(base for base in type(builder).__mro__ if base.__module__.startswith("zenml.integrations."))
    assert theirs.__name__ == type(builder).__name__
    assert builder.build_context_class is CooperBuildContext
    assert builder.is_building_locally is False
    assert builder.validator is not None
    # A step of a pipeline loads the builder, hence ZenML's class, hence what that imports.
    from zenml.integrations.utils import get_integration_for_module

    needed = set(get_integration_for_module(theirs.__module__).get_requirements())
    assert builder.requirements == needed
    assert bool(needed) is (integration != "kaniko")
    assert builder.apt_packages == []


class Elsewhere(RemoteImageBuilder):
    """Builds nothing, and keeps what it was given."""

    _program = "kaniko"
    is_building_locally = False

    def _build(self, image_name: str, context: Any, arguments: list[str], container_registry: Any) -> list[str]:
        self.context, self.arguments = context, arguments
        return [f"{image_name.rpartition(':')[0]}@sha256:{'0' * 64}"]


@pytest.fixture
def elsewhere(component: Callable[..., Any]) -> Callable[..., Elsewhere]:
    class Flavor(flavors.KanikoImageBuilderFlavor):
        implementation_class = Elsewhere

    return lambda **config: component(Flavor(), kubernetes_context="c", **config)


@pytest.mark.parametrize("class_", [CooperBuildContext, BuildContext])
def test_images_of_pipelines_get_the_package(
    elsewhere: Callable[..., Elsewhere], stand_in_registry: "StandInRegistry", class_: type[BuildContext]
) -> None:
    for dockerfile, config, expected in [
        (GENERATED, {}, True),
        (GENERATED, {"include_package": False}, False),
        ("FROM scratch\nCOPY . .", {}, False),
    ]:
        context = class_()
        context.add_file(dockerfile, "Dockerfile")
        builder = elsewhere(**config)
        builder.build("registry.example:5000/team/app:1", context, None, stand_in_registry)
        there = {file["path"] for file in builder.context.spec()["extra_files"]}
        assert ("zenml_cooper/flavors/kaniko.py" in there) is expected, dockerfile
        if expected:
            assert {path for path, _ in step_package._sources()} < there


def test_a_registry_is_needed_and_the_name_must_be_one_of_it(
    elsewhere: Callable[..., Elsewhere], stand_in_registry: "StandInRegistry"
) -> None:
    context = CooperBuildContext()
    with pytest.raises(RuntimeError, match="needs a container registry"):
        elsewhere().build("registry.example:5000/team/app:1", context)
    with pytest.raises(ValueError, match="does not belong to the container registry"):
        elsewhere().build("other.example/app:1", context, None, stand_in_registry)


def test_an_unknown_option_is_an_error_with_a_hint(
    elsewhere: Callable[..., Elsewhere], stand_in_registry: "StandInRegistry"
) -> None:
    with pytest.raises(ValueError, match="did you mean `label`"):
        elsewhere().build("registry.example:5000/team/app:1", CooperBuildContext(), {"labesl": {}}, stand_in_registry)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("registry.example:5000/team/app:v1", "registry.example:5000/team/app"),
        ("registry.example:5000/team/app", "registry.example:5000/team/app"),
        (f"registry.example:5000/team/app:v1@sha256:{'1' * 64}", "registry.example:5000/team/app"),
    ],
)
def test_references_are_split_where_they_should(image: str, name: str) -> None:
    from zenml_cooper.image_builders import remote

    digest = f"sha256:{'0' * 64}"
    assert (
        remote._pushed(image, ["", "no reference @", f"{name}-other@{digest}", f"{name}@{digest}"])
        == f"{name}@{digest}"
    )
