"""A ZenML of our own for the tests of this folder: no other configuration, store, repository or Docker config is used.

It must be in the environment before anything imports zenml, hence at import.
"""

import datetime
import importlib
import os
import subprocess
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

_HOME = tempfile.TemporaryDirectory(prefix="cooper-zenml-")
ISOLATED = {
    "ZENML_CONFIG_PATH": f"{_HOME.name}/config",
    "ZENML_LOCAL_STORES_PATH": f"{_HOME.name}/stores",
    "ZENML_ANALYTICS_OPT_IN": "false",
    "ZENML_LOGGING_COLORS_DISABLED": "true",
    "ZENML_DISABLE_CLIENT_SERVER_MISMATCH_WARNING": "true",
    "DOCKER_CONFIG": f"{_HOME.name}/docker",
    "HOME": f"{_HOME.name}/home",
    "COLUMNS": "200",
    "NO_COLOR": "1",
}
for folder in ("config", "stores", "docker", "home", "work"):
    Path(_HOME.name, folder).mkdir()
for variable in [name for name in os.environ if name.startswith("ZENML_")]:
    del os.environ[variable]
os.environ.update(ISOLATED)
with warnings.catch_warnings():
    # Once imported, it does not warn again: older versions and their dependencies do so in every Python of today.
    warnings.simplefilter("ignore")
    for module in (
        "zenml.client",
        "zenml.image_builders",
        "zenml.cli.cli",
        "boto3",
        "google.cloud.devtools.cloudbuild_v1",
    ):
        importlib.import_module(module)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Warnings are no errors here: most are of ZenML's dependencies, and each version has others."""
    item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """The folder that everything isolated is in."""
    yield Path(_HOME.name)
    _HOME.cleanup()


class Zenml:
    """ZenML's command line, with an isolated configuration.

    The program takes seconds to start, so most calls are made in this process; `program` starts the real one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, *arguments: str) -> str:
        """Runs a command; gives everything that it printed, with runs of white space made one space."""
        code, said = self._run(arguments)
        assert code == 0, f"zenml {arguments} exited with {code}:\n{said}"
        return said

    def fails(self, *arguments: str) -> str:
        """Runs a command, expecting it to fail; gives what it printed."""
        code, said = self._run(arguments)
        assert code != 0, f"zenml {arguments} should have failed:\n{said}"
        return said

    def program(self, *arguments: str) -> str:
        """Runs the real program."""
        ended = subprocess.run(
            [Path(sys.executable).with_name("zenml"), *arguments],
            cwd=self.directory,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
        )
        assert ended.returncode == 0, f"zenml {arguments} exited with {ended.returncode}:\n{ended.stdout}"
        return " ".join(ended.stdout.split())

    def python(self, script: str, env: Mapping[str, str] | None = None) -> str:
        """Runs a script in the repository, in a process of its own; gives what it printed."""
        ended = subprocess.run(
            [sys.executable, "-c", script],
            cwd=self.directory,
            env={**os.environ, **(env or {})},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=600,
            check=False,
        )
        assert ended.returncode == 0, f"exited with {ended.returncode}:\n{ended.stdout}"
        return ended.stdout

    def _run(self, arguments: tuple[str, ...]) -> tuple[int, str]:
        from zenml.cli.cli import cli

        before = os.getcwd()
        os.chdir(self.directory)
        try:
            result = CliRunner().invoke(cli, arguments)
        finally:
            os.chdir(before)
        said = result.output + ("" if result.exception is None else f" {result.exception}")
        return result.exit_code, " ".join(said.split())


@pytest.fixture(scope="session")
def zenml(home: Path) -> Zenml:
    """ZenML's command line, in a folder that is a ZenML repository."""
    from zenml.client import Client

    found = Zenml(home / "work")
    found.program("init")
    # A test may have made ZenML's client before there was a repository; it would go on without one.
    Client().activate_root(found.directory)
    return found


@pytest.fixture(scope="module")
def empty_zenml(zenml: Zenml, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zenml]:
    """The same with a configuration of its own, in which nothing is registered; while it is used, `zenml` is not."""
    from zenml.client import Client
    from zenml.config.global_config import GlobalConfiguration

    folder = tmp_path_factory.mktemp("zenml")
    before = GlobalConfiguration.get_instance(), Client.get_instance()
    with pytest.MonkeyPatch.context() as environment:
        for variable, name in (("ZENML_CONFIG_PATH", "config"), ("ZENML_LOCAL_STORES_PATH", "stores")):
            (folder / name).mkdir()
            environment.setenv(variable, str(folder / name))
        GlobalConfiguration._reset_instance()
        Client._reset_instance()
        found = Zenml(folder)
        found.program("init")
        Client().activate_root(found.directory)
        yield found
    GlobalConfiguration._reset_instance(before[0])
    Client._reset_instance(before[1])


@pytest.fixture(scope="session")
def zenml_image(python_image: str, registry: str) -> str:
    """A base image that has the ZenML of this environment, in the daemon and in the plain registry."""
    import zenml as installed

    version = installed.__version__
    name = f"{registry}/cooper-test/zenml:{version}-{python_image.rpartition(':')[2]}"
    dockerfile = f"FROM {python_image}\nRUN uv pip install 'zenml[local]=={version}'\n"
    subprocess.run(["docker", "build", "--tag", name, "-"], input=dockerfile, text=True, check=True)
    subprocess.run(["docker", "push", "--quiet", name], check=True)
    return name


class StandInRegistry:
    """As much of a ZenML container registry as the image builders that build elsewhere use."""

    flavor = "default"
    credentials: "tuple[str, str] | None" = None

    def __init__(self, uri: str) -> None:
        self.config = SimpleNamespace(uri=uri)
        self.prepared: list[str] = []

    def is_valid_image_name_for_registry(self, image_name: str) -> bool:
        return image_name.startswith(self.config.uri)

    def prepare_image_push(self, image_name: str) -> None:
        self.prepared.append(image_name)


@pytest.fixture
def stand_in_registry() -> StandInRegistry:
    """A registry with a port in its name."""
    return StandInRegistry("registry.example:5000/team")


@pytest.fixture
def component() -> Callable[..., Any]:
    """Makes an image builder of a flavor, with a configuration, as ZenML does when it loads a stack."""

    def make(flavor: Any, **config: Any) -> Any:
        now = datetime.datetime.now()
        return flavor.implementation_class(
            name="builder",
            id=uuid.uuid4(),
            config=flavor.config_class(**config),
            flavor=flavor.name,
            type=flavor.type,
            user=uuid.uuid4(),
            created=now,
            updated=now,
        )

    return make
