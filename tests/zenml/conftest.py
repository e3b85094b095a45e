"""A ZenML of our own for the tests of this folder: no other configuration, store, repository or Docker config is used.

It must be in the environment before anything imports zenml, hence at import.
"""

import importlib
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

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
    for module in ("zenml.client", "zenml.image_builders", "zenml.cli.cli"):
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
