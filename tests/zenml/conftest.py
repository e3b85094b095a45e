"""A ZenML of our own for the tests of this folder: no other configuration, store, repository or Docker config is used.

It must be in the environment before anything imports zenml, hence at import.
"""

import datetime
import gzip
import importlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from zenml_cooper import _core

NATIVE = "zenml_cooper.flavors.NativeImageBuilderFlavor"
MANIFESTS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"

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

    def python(self, script: str, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()) -> str:
        """Runs a script in the repository, in a process of its own that `prefix` starts; gives what it printed."""
        ended = subprocess.run(
            [*prefix, sys.executable, "-c", script],
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


@pytest.fixture(scope="module")
def native_stack(empty_zenml: "Zenml", registry: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The active stack: the flavor `cooper`, `local_docker`, the plain registry."""
    # What ZenML keeps in the folder changes all the time.
    (empty_zenml.directory / ".dockerignore").write_text("config\nstores\n**/__pycache__\n")
    cache = tmp_path_factory.mktemp("cache")
    empty_zenml("image-builder", "flavor", "register", NATIVE)
    empty_zenml("container-registry", "register", "plain", "--flavor=default", f"--uri={registry}/native")
    empty_zenml("orchestrator", "register", "containers", "--flavor=local_docker")
    empty_zenml("image-builder", "register", "cooper", "--flavor=cooper", "--progress=plain", f"--cache_dir={cache}")
    empty_zenml(
        "stack", "register", "native", "-o", "containers", "-a", "default", "-c", "plain", "-i", "cooper", "--set"
    )
    return "native"


def fetch(image: str, kind: str, digest: str) -> bytes:
    """A manifest or a blob of an image, out of its registry."""
    name = image.partition("@")[0]
    registry, _, repository = name.partition("/")
    address = f"http://{registry}/v2/{repository}/{kind}/{digest}"
    with urllib.request.urlopen(urllib.request.Request(address, headers={"Accept": MANIFESTS})) as answer:
        return bytes(answer.read())


class Pushed:
    """An image in a registry: `REPOSITORY@DIGEST`, or `REPOSITORY:TAG`."""

    def __init__(self, image: str) -> None:
        digest = image.partition("@")[2] or image.rpartition(":")[2]
        self.image = image if "@" in image else image.rpartition(":")[0]
        self.raw = fetch(self.image, "manifests", digest)
        self.manifest: dict[str, Any] = json.loads(self.raw)
        self.whole_config: dict[str, Any] = json.loads(fetch(self.image, "blobs", self.manifest["config"]["digest"]))
        self.config: dict[str, Any] = self.whole_config["config"]
        self.layers: list[str] = [layer["digest"] for layer in self.manifest["layers"]]

    def files(self, layer: int) -> dict[str, tarfile.TarInfo]:
        """What is in a layer."""
        data = gzip.decompress(fetch(self.image, "blobs", self.layers[layer]))
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return {member.name.rstrip("/"): member for member in archive}


@pytest.fixture(scope="session")
def pushed() -> Callable[[str], Pushed]:
    """Looks an image up in the plain registry."""
    return Pushed


@pytest.fixture(scope="session")
def without_docker(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment without Docker and Podman. There is one program: ZenML 0.92 asks `pip` what is installed."""
    programs = tmp_path_factory.mktemp("programs")
    (programs / "pip").symlink_to(Path(sys.executable).with_name("pip"))
    return {"PATH": str(programs), "DOCKER_HOST": "unix:///nonexistent/docker.sock"}


@pytest.fixture
def no_docker(without_docker: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """This process finds neither Docker nor Podman."""
    for name, value in without_docker.items():
        monkeypatch.setenv(name, value)


BuildImage = Callable[..., str]


@pytest.fixture
def build_image() -> BuildImage:
    """Does what ZenML does for every image of a pipeline."""

    def build(settings: Any, tag: str, **others: Any) -> str:
        from zenml.client import Client
        from zenml.utils.pipeline_docker_image_builder import PipelineDockerImageBuilder

        arguments = {"include_files": False, **others}
        return PipelineDockerImageBuilder().build_docker_image(
            docker_settings=settings, tag=tag, stack=Client().active_stack, **arguments
        )[0]

    return build


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


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Takes the place of the native module's builds; what they are asked for is checked by it, and collected."""
    seen: list[dict[str, Any]] = []

    def build(request: dict[str, Any], **_: Any) -> dict[str, Any]:
        _core.check_request(request)
        seen.append(request)
        return {**_core._exercise_for_test({}), "image": request["tags"][0]}

    monkeypatch.setattr(_core, "build", build)
    return seen
