"""Images that the flavor `cooper_buildkit` builds for pipelines, with real workers.

One is the BuildKit inside the Docker daemon of these tests. Where BUILDKIT_HOST is set, its buildkitd is another; it
must reach the registry of the test bed.
"""

import hashlib
import json
import os
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from zenml.config import DockerSettings

from zenml_cooper import _build
from zenml_cooper.exceptions import StepFailed

if TYPE_CHECKING:
    from conftest import BuildImage, Pushed, Zenml

ENVIRONMENT = dict(os.environ)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "flavors" / "buildkit.md"
# As that page has it.
MOUNTS = "type=cache,target=/root/.cache/uv --mount=type=secret,id=index,target=/root/.netrc,required=true"
WORKERS = ["docker"] + (["buildkitd"] if ENVIRONMENT.get("BUILDKIT_HOST") else [])

PIPELINE = """
import pathlib
from zenml import pipeline, step
from zenml.config import DockerSettings

@step(enable_cache=False)
def produce() -> int:
    assert pathlib.Path("/.dockerenv").exists(), "this step does not run in a container"
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
cli(["pipeline", "build", "numbers_buildkit.numbers", "--stack", "buildkit"], standalone_mode=False)
from zenml.client import Client
newest = Client().list_builds(sort_by="desc:created").items[0]
print("IMAGE", {image.image for image in newest.images.values()}.pop())
"""
RUN = """
from numbers_buildkit import numbers
from zenml.client import Client
build = Client().list_builds(sort_by="desc:created").items[0]
run = Client().get_pipeline_run(numbers.with_options(build=build.id)().id)
print("STATUS", run.status, run.steps["double"].output.load(), {image.image for image in run.build.images.values()})
"""


def address(worker: str) -> str:
    """The worker's address, which needs nothing of the environment."""
    if worker == "buildkitd":
        return ENVIRONMENT["BUILDKIT_HOST"]
    shown = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    daemon = ENVIRONMENT.get("DOCKER_HOST") or subprocess.check_output(shown, env=ENVIRONMENT, text=True).strip()
    return f"docker+{daemon}"


@pytest.fixture(scope="module", params=WORKERS)
def worker(request: pytest.FixtureRequest) -> str:
    return address(request.param)


@pytest.fixture(scope="module")
def stack(empty_zenml: "Zenml", worker: str, registry: str) -> Iterator[str]:
    """The active stack: our builder, whose worker a secret names, `local_docker`, the plain registry."""
    zenml = empty_zenml
    # What ZenML keeps in the folder changes all the time.
    (zenml.directory / ".dockerignore").write_text("config\nstores\n**/__pycache__\n")
    zenml("image-builder", "flavor", "register", "zenml_cooper.flavors.BuildKitImageBuilderFlavor")
    zenml("secret", "create", "workers", f"--endpoints={worker}", "--index_credentials=nobody's")
    zenml("container-registry", "register", "plain", "--flavor=default", f"--uri={registry}/buildkit")
    zenml("orchestrator", "register", "containers", "--flavor=local_docker")
    zenml(
        "image-builder", "register", "cooper", "--flavor=cooper_buildkit", "--progress=plain",
        "--endpoints={{workers.endpoints}}", '--build_secrets={"index": "{{workers.index_credentials}}"}',
    )  # fmt: skip
    zenml("stack", "register", "buildkit", "-o", "containers", "-a", "default", "-c", "plain", "-i", "cooper", "--set")
    yield "buildkit"
    zenml("stack", "set", "default")
    zenml("stack", "delete", "buildkit", "--yes")
    zenml("image-builder", "delete", "cooper")
    zenml("orchestrator", "delete", "containers")
    zenml("container-registry", "delete", "plain")
    zenml("secret", "delete", "workers", "--yes")
    zenml("image-builder", "flavor", "delete", "cooper_buildkit")


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the native module says of each build that ends well."""
    seen: list[dict[str, Any]] = []
    run = _build.run

    def note(*arguments: Any, **others: Any) -> dict[str, Any]:
        outcome = run(*arguments, **others)
        seen.append(outcome)
        return outcome

    monkeypatch.setattr(_build, "run", note)
    return seen


def settings(dockerfile: str, folder: Path, **more: Any) -> DockerSettings:
    """A Dockerfile, to which ZenML adds nothing unless `more` says so."""
    (folder / "own.Dockerfile").write_text(dockerfile)
    given = {"python_package_installer": "pip", "install_stack_requirements": False, **more}
    return DockerSettings(dockerfile=str(folder / "own.Dockerfile"), build_context_root=str(folder), **given)


def test_a_pipeline_is_built_without_docker_and_docker_runs_it(
    stack: str,
    empty_zenml: "Zenml",
    registry: str,
    zenml_image: str,
    without_docker: dict[str, str],
    pushed: "Callable[[str], Pushed]",
) -> None:
    script = empty_zenml.directory / "numbers_buildkit.py"
    given = "requirements=['cowsay==6.1'], install_stack_requirements=False, allow_download_from_artifact_store=False"
    script.write_text(PIPELINE.format(settings=f"parent_image={zenml_image!r}, {given}"))
    said = empty_zenml.python(BUILD, env=without_docker)
    images = set(re.findall(r"IMAGE (\S+@sha256:[0-9a-f]{64})", said))
    assert len(images) == 1, said
    image = images.pop()
    assert image.startswith(f"{registry}/buildkit/")
    assert "RUN uv pip install" in said
    built = pushed(image)
    assert f"sha256:{hashlib.sha256(built.raw).hexdigest()}" == image.partition("@")[2]
    assert "docker" in built.manifest["mediaType"], "media types that every service takes"
    assert "app/zenml_cooper/flavors/buildkit.py" in {
        name for layer in range(len(built.layers)) for name in built.files(layer)
    }
    assert f"STATUS completed 40 {{{image!r}}}" in empty_zenml.python(RUN)


@pytest.mark.usefixtures("no_docker")
def test_a_dockerfile_and_what_zenml_adds(
    stack: str, busybox: str, build_image: "BuildImage", pushed: "Callable[[str], Pushed]", tmp_path: Path
) -> None:
    (tmp_path / "marker").write_bytes(b"\xff\x00marker")
    own = settings(f"FROM {busybox}\nCOPY marker /from-dockerfile/\n", tmp_path, environment={"ADDED": "too"})
    built = pushed(build_image(own, "own-and-more"))
    assert "ADDED=too" in built.config["Env"]
    # The first image was pushed, for the second to start from whichever worker builds that.
    intermediate = pushed(f"{built.image.partition('@')[0]}:own-and-more-intermediate-build")
    assert built.layers[: len(intermediate.layers)] == intermediate.layers


@pytest.mark.usefixtures("no_docker")
def test_mounts_of_the_package_installer(
    stack: str,
    empty_zenml: "Zenml",
    python_image: str,
    build_image: "BuildImage",
    pushed: "Callable[[str], Pushed]",
    outcomes: list[dict[str, Any]],
) -> None:
    """The installer's cache, and credentials for the index of whoever builds, in the Dockerfile that ZenML writes."""
    assert MOUNTS in PAGE.read_text()
    marker = {"ONE_BUILD": str(uuid.uuid4())}
    if "python_package_installer_cache_mount" in DockerSettings.model_fields:
        more: dict[str, Any] = {"python_package_installer_cache_mount": MOUNTS, "requirements": ["cowsay==6.1"]}
    else:
        # What one wrote before ZenML had a field for it.
        more = {"local_project_install_command": f"--mount={MOUNTS} uv pip install cowsay==6.1"}
    given = DockerSettings(parent_image=python_image, install_stack_requirements=False, environment=marker, **more)
    images = []
    for user in ("ada", "bob"):
        netrc = f"machine pypi.invalid login {user} password {user}-s3cret"
        empty_zenml("secret", "update", "workers", f"--index_credentials={netrc}")
        images.append(pushed(build_image(given, f"mounts-{user}", include_files="requirements" not in more)))
    installs = [
        [step["cached"] for step in outcome["steps"] if "RUN --mount=type=cache" in step["name"]]
        for outcome in outcomes
    ]
    assert installs == [[False], [True]]
    assert images[0].layers == images[1].layers
    files = {name for layer in range(len(images[0].layers)) for name in images[0].files(layer)}
    assert any(name.endswith("-packages/cowsay/__init__.py") for name in files)
    assert not [name for name in files if name.startswith("root/.cache/uv/")], "caches stay out of images"
    assert "s3cret" not in json.dumps([outcomes, *(image.whole_config for image in images)])


@pytest.mark.usefixtures("no_docker")
def test_a_command_that_fails_shows_its_line_and_its_output(
    stack: str, busybox: str, build_image: "BuildImage", tmp_path: Path
) -> None:
    failing = f"FROM {busybox}\nRUN echo {uuid.uuid4()}\nRUN echo the-last-words && exit 7\n"
    with pytest.raises(StepFailed) as caught:
        build_image(settings(failing, tmp_path), "fails")
    assert (caught.value.code, caught.value.fields["exit_code"]) == ("step-failed", 7)
    assert caught.value.tail[-1].endswith("the-last-words")
    said = str(caught.value)
    assert "Dockerfile:3" in said
    assert "RUN echo the-last-words" in said


@pytest.mark.usefixtures("no_docker")
def test_credentials_of_each_user_leave_the_cache_to_all(
    stack: str,
    empty_zenml: "Zenml",
    busybox: str,
    build_image: "BuildImage",
    pushed: "Callable[[str], Pushed]",
    outcomes: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    """Two users with credentials of their own for the package index: the second runs nothing again."""
    install = f"test -s /root/.netrc && echo {uuid.uuid4()} > /installed && wc -c < /root/.netrc > /dev/null"
    dockerfile = f"FROM {busybox}\nRUN --mount=type=secret,id=index,target=/root/.netrc {install}\n"
    images = []
    for user in ("ada", "bob"):
        empty_zenml("secret", "update", "workers", f"--index_credentials=machine pypi password {user}-s3cret")
        images.append(build_image(settings(dockerfile, tmp_path), f"index-{user}"))
    runs = [
        next(step for step in outcome["steps"] if "RUN --mount=type=secret" in step["name"]) for outcome in outcomes
    ]
    assert [run["cached"] for run in runs] == [False, True]
    first, second = map(pushed, images)
    assert first.layers == second.layers
    assert not {"root/.netrc"} & set(second.files(-1)), "the place of a mount stays empty"
    shown = json.dumps([outcomes, first.manifest, first.whole_config, second.whole_config])
    assert "s3cret" not in shown


@pytest.mark.usefixtures("no_docker")
def test_a_worker_that_is_away_is_passed_over(
    stack: str, empty_zenml: "Zenml", worker: str, busybox: str, build_image: "BuildImage", tmp_path: Path
) -> None:
    dockerfile = settings(f"FROM {busybox}\nENV A=b\n", tmp_path)
    empty_zenml("secret", "update", "workers", f"--endpoints=tcp://127.0.0.1:1,{worker}")
    empty_zenml("image-builder", "update", "cooper", "--pool_policy=ordered")
    try:
        assert "@sha256:" in build_image(dockerfile, "pool")
        empty_zenml("secret", "update", "workers", "--endpoints=tcp://127.0.0.1:1,unix:///nonexistent/buildkitd.sock")
        with pytest.raises(Exception, match="/nonexistent/buildkitd.sock") as caught:
            build_image(dockerfile, "pool-away")
        assert "127.0.0.1:1" in str(caught.value), "each worker is named with its reason"
    finally:
        empty_zenml("secret", "update", "workers", f"--endpoints={worker}")
        empty_zenml("image-builder", "remove-attribute", "cooper", "pool_policy")
