"""Flavor and component, by the real `zenml` program."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Zenml

SOURCE = "zenml_cooper.flavors.DockerImageBuilderFlavor"

# What a machine without a fitting wheel is like: every import of the native module fails.
BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "zenml_cooper._core":
            raise ImportError("no native module on this machine")

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def flavor(zenml: "Zenml") -> Iterator[str]:
    zenml("image-builder", "flavor", "register", SOURCE)
    yield "cooper_docker"
    zenml("image-builder", "flavor", "delete", "cooper_docker")


@pytest.fixture
def without_native_module(tmp_path: Path) -> dict[str, str]:
    """Environment variables with which Python cannot import the native module."""
    (tmp_path / "usercustomize.py").write_text(BLOCKER)
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}


def test_the_commands_of_the_documentation_work(zenml: "Zenml") -> None:
    zenml.program("image-builder", "flavor", "register", SOURCE)
    assert "cooper_docker" in zenml.program("image-builder", "flavor", "list")
    zenml.program("image-builder", "register", "b0", "--flavor=cooper_docker", "--host=unix:///run/a.sock")
    zenml.program("image-builder", "delete", "b0")
    zenml.program("image-builder", "flavor", "delete", "cooper_docker")


def test_the_life_of_a_flavor_and_a_component(zenml: "Zenml", flavor: str) -> None:
    assert flavor in zenml("image-builder", "flavor", "list")
    described = zenml("image-builder", "flavor", "describe", flavor)
    assert "host" in described
    assert "build_secrets" in described

    zenml("image-builder", "register", "b1", f"--flavor={flavor}", "--host=unix:///run/a.sock", "--ssh=default")
    shown = zenml("image-builder", "describe", "b1")
    assert "unix:///run/a.sock" in shown
    assert "default" in shown

    zenml("image-builder", "update", "b1", "--host=tcp://b.example:2375")
    assert "tcp://b.example:2375" in zenml("image-builder", "describe", "b1")
    zenml("image-builder", "remove-attribute", "b1", "host")
    assert "b.example" not in zenml("image-builder", "describe", "b1")

    zenml("image-builder", "delete", "b1")
    assert "b1" not in zenml("image-builder", "list").split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host=localhost:2375"], "did you mean `tcp://localhost:2375`?"),
        (["--builder=buildx"], "'auto', 'buildkit' or 'classic'"),
        (["--hots=unix:///a"], "hots"),
        (['--build_secrets={"pip": "hunter2-marker"}'], "Secrets themselves do not belong into a configuration"),
    ],
)
def test_a_mistake_is_explained(zenml: "Zenml", flavor: str, arguments: list[str], message: str) -> None:
    said = zenml.fails("image-builder", "register", "b2", f"--flavor={flavor}", *arguments)
    # The program draws a frame and breaks lines anywhere.
    assert "".join(message.split()) in "".join(said.replace("│", "").split())
    assert "hunter2-marker" not in said
    assert "b2" not in zenml("image-builder", "list").split()


def test_a_secret_reference_is_stored_as_one(zenml: "Zenml", flavor: str) -> None:
    zenml("secret", "create", "cooper_daemon", "--host=unix:///run/secret-marker.sock")
    try:
        zenml("image-builder", "register", "b3", f"--flavor={flavor}", "--host={{cooper_daemon.host}}")
        shown = zenml("image-builder", "describe", "b3")
        assert "secret-marker" not in shown
        zenml("image-builder", "delete", "b3")
    finally:
        zenml("secret", "delete", "cooper_daemon", "--yes")


def test_all_of_it_works_without_the_native_module(zenml: "Zenml", without_native_module: dict[str, str]) -> None:
    said = zenml.python(
        f"""
import sys
from click.testing import CliRunner
from zenml.cli.cli import cli

def zenml(*arguments):
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, (arguments, result.output, result.exception)
    return result.output

try:
    import zenml_cooper._core
except ImportError as error:
    assert "no native module on this machine" in str(error), error
else:
    sys.exit("the native module is not blocked")

zenml("image-builder", "flavor", "register", "{SOURCE}")
try:
    assert "cooper_docker" in zenml("image-builder", "flavor", "list")
    zenml("image-builder", "flavor", "describe", "cooper_docker")
    zenml("image-builder", "register", "b4", "--flavor=cooper_docker", "--host=unix:///run/a.sock")
    zenml("image-builder", "describe", "b4")
    zenml("image-builder", "delete", "b4")
finally:
    zenml("image-builder", "flavor", "delete", "cooper_docker")
print("DONE")
""",
        env=without_native_module,
    )
    assert said.rstrip().endswith("DONE")


def test_registering_all_flavors_is_repeatable(zenml: "Zenml") -> None:
    said = zenml.python(
        """
from zenml.client import Client
from zenml.enums import StackComponentType
from zenml.models import FlavorUpdate
from zenml_cooper._register import FlavorNameTaken, register_flavors

def change(**fields):
    flavor = client.get_flavor_by_name_and_type("cooper_docker", StackComponentType.IMAGE_BUILDER)
    client.zen_store.update_flavor(flavor.id, FlavorUpdate(**fields))

client = Client()
seen = []
def register():
    seen.extend((flavor.name, flavor.change) for flavor in register_flavors())

register()
register()
change(config_schema={"properties": {}})  # as an older version would have left it
register()
register()
change(source="another.package.Flavor")
try:
    register()
except FlavorNameTaken as taken:
    assert "another.package.Flavor" in str(taken), taken
else:
    raise AssertionError("a flavor of somebody else was taken over")
for name in {name for name, change in seen}:
    client.delete_flavor(name)
print("RESULT", [change for name, change in seen if name == "cooper_docker"])
"""
    )
    assert "RESULT ['registered', 'unchanged', 'updated', 'unchanged']" in said
