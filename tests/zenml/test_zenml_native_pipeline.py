"""Images that the flavor `cooper` builds for pipelines: where no Docker is, and where one runs them."""

import json
import logging
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from zenml.config import DockerSettings

from zenml_cooper.exceptions import CooperError, StepFailed
from zenml_cooper.image_builders import native

if TYPE_CHECKING:
    from conftest import BuildImage, Pushed, Zenml
    from tests.conftest import SecuredRegistry

NOBODY = 65534
ENVIRONMENT = dict(os.environ)

# The code goes into the image, and nothing is installed: no RUN but those that are folded.
CODE_ONLY = (
    "python_package_installer='pip', install_stack_requirements=False, allow_download_from_artifact_store=False, "
    "prevent_build_reuse=True"
)
PIPELINE = """
import pathlib
from zenml import pipeline, step
from zenml.config import DockerSettings

@step(enable_cache=False)
def produce() -> int:
    assert pathlib.Path("/.dockerenv").exists(), "this step does not run in a container"
    assert pathlib.Path("/app/numbers_native.py").stat().st_mode & 0o666 == 0o666
    import cowsay
    return 20

@step(enable_cache=False)
def double(x: int) -> int:
    return 2 * x

@pipeline(enable_cache=False, settings={{"docker": DockerSettings({settings})}})
def numbers():
    double(produce())
"""
BUILD = """
from zenml.cli.cli import cli
cli(["pipeline", "build", "numbers_native.numbers", "--stack", "native"], standalone_mode=False)
from zenml.client import Client
newest = Client().list_builds(sort_by="desc:created").items[0]
print("IMAGE", {image.image for image in newest.images.values()}.pop())
"""
SET_UP = """
from zenml.cli.cli import cli
for command in (
    "init",
    "image-builder flavor register zenml_cooper.flavors.NativeImageBuilderFlavor",
    "image-builder register cooper --flavor=cooper --progress=plain",
    "container-registry register plain --flavor=default --uri={registry}/unprivileged",
    "orchestrator register containers --flavor=local_docker",
    "stack register native -o containers -a default -c plain -i cooper --set",
):
    cli(command.split(), standalone_mode=False)
"""
RUN = """
from numbers_native import numbers
from zenml.client import Client
build = Client().list_builds(sort_by="desc:created").items[0]
run = Client().get_pipeline_run(numbers.with_options(build=build.id)().id)
print("STATUS", run.status, run.steps["double"].output.load(), {image.image for image in run.build.images.values()})
"""


@pytest.fixture(scope="module")
def stack(native_stack: str) -> str:
    """The active stack."""
    return native_stack


@pytest.fixture
def alone(stack: str, empty_zenml: "Zenml") -> Iterator[str]:
    """The same without a container registry."""
    empty_zenml("stack", "register", "alone", "-o", "containers", "-a", "default", "-i", "cooper", "--set")
    yield "alone"
    empty_zenml("stack", "set", stack)
    empty_zenml("stack", "delete", "alone", "--yes")


@pytest.fixture
def pipeline(empty_zenml: "Zenml") -> Callable[[str], Path]:
    """Writes the pipeline with Docker settings."""

    def write(settings: str) -> Path:
        script = empty_zenml.directory / "numbers_native.py"
        script.write_text(PIPELINE.format(settings=settings))
        return script

    return write


def build_pipeline(zenml: "Zenml", env: dict[str, str]) -> str:
    return built_image(zenml.python(BUILD, env=env))


def built_image(said: str) -> str:
    # Some versions of ZenML print the arguments of `print` twice.
    images = set(re.findall(r"IMAGE (\S+@sha256:[0-9a-f]{64})", said))
    assert len(images) == 1, said
    return images.pop()


def has(files: dict[str, tarfile.TarInfo], package: str) -> bool:
    """Whether a layer has a Python package."""
    return any(name.endswith(f"-packages/{package}/__init__.py") for name in files)


def test_zenml_pipeline_build_where_no_docker_is(
    stack: str,
    empty_zenml: "Zenml",
    pipeline: Callable[[str], Path],
    registry: str,
    zenml_image: str,
    without_docker: dict[str, str],
    pushed: "Callable[[str], Pushed]",
) -> None:
    script = pipeline(f"parent_image={zenml_image!r}, {CODE_ONLY}")
    image = build_pipeline(empty_zenml, without_docker)
    assert image.startswith(f"{registry}/native/")
    built, base = pushed(image), pushed(zenml_image)
    assert built.config["WorkingDir"] == "/app"
    assert "ZENML_CONFIG_PATH=/app/.zenconfig" in built.config["Env"]
    assert built.layers[: len(base.layers)] == base.layers
    code = built.files(-1)
    for name in ("app/numbers_native.py", "app/zenml_cooper/flavors/native.py"):
        assert code[name].mode & 0o666 == 0o666, "the RUN chmod became a part of the COPY"

    assert build_pipeline(empty_zenml, without_docker) == image, "the same again has the same digest"
    script.write_text(script.read_text() + "# changed\n")
    changed = pushed(build_pipeline(empty_zenml, without_docker))
    assert changed.layers[:-1] == built.layers[:-1]
    assert changed.layers[-1] != built.layers[-1]


@pytest.fixture
def unprivileged(empty_zenml: "Zenml") -> Iterator[tuple["Zenml", dict[str, str], list[str]]]:
    """A folder of a user without any rights, the environment that is theirs, and what starts a program as them.

    Where the tests run as an ordinary user, that is the one.
    """
    with tempfile.TemporaryDirectory(prefix="cooper-user-") as name:
        folder = Path(name)
        variables = ("HOME", "DOCKER_CONFIG", "ZENML_CONFIG_PATH", "ZENML_LOCAL_STORES_PATH", "COOPER_CACHE_DIR")
        env = {variable: str(folder / variable.lower()) for variable in (*variables, "TMPDIR")}
        for path in [folder / "work", *map(Path, env.values())]:
            path.mkdir()
        prefix: list[str] = []
        if os.geteuid() == 0:
            for path in (folder, *folder.iterdir()):
                os.chown(path, NOBODY, NOBODY)
            user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            # These sources, and Python, may be in folders that only root may enter.
            reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
            prefix = [str(shutil.which("setpriv")), *user, *reading]
        yield type(empty_zenml)(folder / "work"), env, prefix


def test_an_unprivileged_user_builds_and_docker_runs_it(
    unprivileged: tuple["Zenml", dict[str, str], list[str]],
    pipeline: Callable[[str], Path],
    registry: str,
    zenml_image: str,
    without_docker: dict[str, str],
    pushed: "Callable[[str], Pushed]",
) -> None:
    zenml, env, prefix = unprivileged
    script = pipeline(
        f"parent_image={zenml_image!r}, requirements=['cowsay==6.1'], install_stack_requirements=False, "
        "allow_download_from_artifact_store=False"
    )
    shutil.copy(script, zenml.directory)
    said = zenml.python(SET_UP.format(registry=registry) + BUILD, env={**env, **without_docker}, prefix=prefix)
    image = built_image(said)
    assert "RUN uv pip install" in said
    built, base = pushed(image), pushed(zenml_image)
    assert built.layers[: len(base.layers)] == base.layers
    # Root in the image, although no process was root on this machine.
    (cowsay,) = (
        files for files in map(built.files, range(len(base.layers), len(built.layers))) if has(files, "cowsay")
    )
    assert {(file.uid, file.gid) for file in cowsay.values()} == {(0, 0)}

    said = zenml.python(RUN, env=env)
    assert f"STATUS completed 40 {{{image!r}}}" in said


@pytest.fixture
def builder(stack: str, empty_zenml: "Zenml") -> Iterator[Callable[..., None]]:
    """Makes the stack use another image builder."""
    names: list[str] = []

    def use(name: str, *options: str) -> None:
        empty_zenml("image-builder", "register", name, "--flavor=cooper", "--progress=plain", *options)
        names.append(name)
        empty_zenml("stack", "update", stack, "-i", name)

    yield use
    empty_zenml("stack", "update", stack, "-i", "cooper")
    for name in names:
        empty_zenml("image-builder", "delete", name)


@pytest.fixture
def project(empty_zenml: "Zenml") -> Iterator[str]:
    """A package in the folder of the code; its folder's name."""
    from zenml.utils import source_utils

    source_utils.set_custom_source_root(str(empty_zenml.directory))
    folder = empty_zenml.directory / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text('[project]\nname = "herd"\nversion = "1.0"\n')
    (folder / "herd.py").write_text("SIZE = 12\n")
    yield folder.name
    shutil.rmtree(folder)
    source_utils.set_custom_source_root(None)


def everything(installer: str, parent_image: str, project: str) -> DockerSettings:
    """Settings that make ZenML write every kind of RUN that it knows."""
    install = {"uv": "uv pip install", "pip": "pip install"}[installer] + f" --no-build-isolation ./{project}"
    mount = f"type=cache,target=/root/.cache/{installer}"
    more: dict[str, Any] = {"python_package_installer_cache_mount": mount}
    if not more.keys() <= DockerSettings.model_fields.keys():
        # What one wrote before ZenML had a field for it.
        more, install = {}, f"--mount={mount} {install}"
    return DockerSettings(
        parent_image=parent_image,
        apt_packages=["at"],
        requirements=["cowsay==6.1"],
        python_package_installer=installer,
        local_project_install_command=install,
        user="nobody",
        install_stack_requirements=False,
        **more,
    )


@pytest.mark.usefixtures("no_docker")
@pytest.mark.parametrize(("sandbox", "installer"), [("subordinate", "uv"), ("single", "pip")])
def test_all_that_zenml_generates(
    builder: Callable[..., None],
    project: str,
    python_image: str,
    registry: str,
    build_image: "BuildImage",
    pushed: "Callable[[str], Pushed]",
    tmp_path: Path,
    sandbox: str,
    installer: str,
) -> None:
    settings, cache = everything(installer, python_image, project), f"type=registry,ref={registry}/native/{sandbox}"
    builder("first", f"--sandbox={sandbox}", f"--cache_dir={tmp_path / 'first'}", f"--cache_to={cache},mode=max")
    image = build_image(settings, sandbox, include_files=True)
    built = pushed(image)
    assert built.config["User"] == "nobody"
    files = {name: file for layer in range(len(built.layers)) for name, file in built.files(layer).items()}
    at, herd = files["usr/bin/at"], files[f"app/{project}/herd.py"]
    assert (at.uid, at.gid, at.mode) == (1, 1, 0o6755), "a package may set owners and the setuid bit"
    assert (herd.uid, herd.mode & 0o666) == (NOBODY, 0o666)
    assert not [name for name in files if name.startswith("root/.cache/")], "caches stay out of images"
    assert list((tmp_path / "first" / "store" / "caches").iterdir())
    shown = subprocess.run(
        ["docker", "run", "--rm", image, "sh", "-c", "id -un; python3 -c 'import cowsay, herd; print(herd.SIZE)'"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split() == ["nobody", "12"]

    # Another machine, on which no command could be run.
    builder("second", "--runtime=/nonexistent/runc", f"--cache_dir={tmp_path / 'second'}", f"--cache_from={cache}")
    assert build_image(settings, sandbox, include_files=True) == image
    assert not (tmp_path / "second" / "store" / "trees").exists(), "no layer was unpacked"


@pytest.fixture
def own_dockerfile(tmp_path: Path, busybox: str) -> DockerSettings:
    """A Dockerfile of a user's, to which ZenML adds an environment."""
    (tmp_path / "marker").write_bytes(b"\xff\x00marker")
    (tmp_path / "own.Dockerfile").write_text(
        f"FROM {busybox}\nCOPY marker /from-dockerfile/\nENV FROM_DOCKERFILE=yes\n"
    )
    return DockerSettings(
        dockerfile=str(tmp_path / "own.Dockerfile"),
        build_context_root=str(tmp_path),
        environment={"ADDED": "too"},
        python_package_installer="pip",
        install_stack_requirements=False,
    )


@pytest.mark.usefixtures("no_docker")
def test_a_dockerfile_and_what_zenml_adds(
    stack: str, own_dockerfile: DockerSettings, build_image: "BuildImage", pushed: "Callable[[str], Pushed]"
) -> None:
    built = pushed(build_image(own_dockerfile, "own-and-more"))
    assert {"FROM_DOCKERFILE=yes", "ADDED=too"} <= set(built.config["Env"])
    names = [name for layer in range(len(built.layers)) for name in built.files(layer)]
    assert "from-dockerfile/marker" in names
    intermediate = pushed(f"{built.image.partition('@')[0]}:own-and-more-intermediate-build")
    assert built.layers[: len(intermediate.layers)] == intermediate.layers


@pytest.mark.usefixtures("no_docker")
def test_without_a_registry_and_without_docker_it_stays_in_the_store(
    alone: str,
    own_dockerfile: DockerSettings,
    build_image: "BuildImage",
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(native.logger, "propagate", True)
    caplog.set_level(logging.WARNING, native.logger.name)
    assert build_image(own_dockerfile, "kept") == "zenml:kept"
    assert "`zenml:kept` stays in the store" in caplog.text
    # It can be built upon.
    settings = DockerSettings(
        parent_image="zenml:kept",
        environment={"MORE": "1"},
        python_package_installer="pip",
        install_stack_requirements=False,
    )
    assert build_image(settings, "kept-more") == "zenml:kept-more"


def test_without_a_registry_a_daemon_has_it(
    alone: str, own_dockerfile: DockerSettings, build_image: "BuildImage"
) -> None:
    assert build_image(own_dockerfile, "loaded") == "zenml:loaded"
    shown = subprocess.run(
        [
            "docker",
            "run",
            "--rm",
            "zenml:loaded",
            "sh",
            "-c",
            "echo $FROM_DOCKERFILE; stat -c %s /from-dockerfile/marker",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split() == ["yes", "8"]


@pytest.mark.usefixtures("no_docker")
def test_without_a_registry_it_goes_where_the_configuration_says(
    alone: str, empty_zenml: "Zenml", own_dockerfile: DockerSettings, build_image: "BuildImage", tmp_path: Path
) -> None:
    layout = tmp_path / "image.tar"
    empty_zenml("image-builder", "update", "cooper", f"--output=type=oci,dest={layout}")
    try:
        build_image(own_dockerfile, "written")
    finally:
        empty_zenml("image-builder", "remove-attribute", "cooper", "output")
    with tarfile.open(layout) as archive:
        index = json.load(archive.extractfile("index.json"))  # type: ignore[arg-type]
        (manifest,) = index["manifests"]
        assert f"blobs/{manifest['digest'].replace(':', '/')}" in archive.getnames()


@pytest.mark.usefixtures("no_docker")
def test_a_command_that_fails_shows_its_line_and_its_output(
    stack: str, busybox: str, build_image: "BuildImage"
) -> None:
    settings = DockerSettings(
        parent_image=busybox,  # which has no pip
        requirements=["cowsay==6.1"],
        python_package_installer="pip",
        install_stack_requirements=False,
    )
    with pytest.raises(StepFailed) as caught:
        build_image(settings, "fails")
    assert caught.value.code == "step-failed"
    assert caught.value.fields["exit_code"] == 127
    assert "pip: not found" in caught.value.tail[-1]
    said = str(caught.value)
    assert "RUN pip install" in said
    assert re.search(r"Dockerfile:\d+", said)
    assert "pip: not found" in said


@pytest.mark.usefixtures("no_docker")
def test_a_registry_with_a_password(
    stack: str,
    empty_zenml: "Zenml",
    registry_tls: "SecuredRegistry",
    own_dockerfile: DockerSettings,
    build_image: "BuildImage",
) -> None:
    """The credentials are those of the ZenML registry; the Docker config of these tests is empty."""
    zenml = empty_zenml
    zenml("secret", "create", "tls", f"--username={registry_tls.user}", f"--password={registry_tls.password}")
    uri = f"{registry_tls.address}/native"
    zenml("container-registry", "register", "secured", "-f", "default", f"--uri={uri}", "--authentication_secret=tls")
    zenml("stack", "update", stack, "-c", "secured")
    try:
        assert build_image(own_dockerfile, "secured").startswith(f"{uri}/zenml@sha256:")
        zenml("secret", "update", "tls", "--password=hunter2-marker")
        with pytest.raises(CooperError) as caught:
            build_image(own_dockerfile, "secured-again")
        assert caught.value.code == "registry-denied"
        assert "hunter2-marker" not in str(caught.value)
    finally:
        zenml("stack", "update", stack, "-c", "plain")
        zenml("container-registry", "delete", "secured")
        zenml("secret", "delete", "tls", "--yes")
