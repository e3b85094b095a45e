"""Pipelines that run in images that this package built: ZenML's `local_docker` orchestrator, a real registry."""

import hashlib
import json
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zenml as installed
from zenml.client import Client
from zenml.config import DockerSettings
from zenml.utils.pipeline_docker_image_builder import PipelineDockerImageBuilder

from zenml_cooper.exceptions import RegistryError, StepFailed

if TYPE_CHECKING:
    from conftest import Zenml
    from tests.conftest import SecuredRegistry

MANIFESTS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"

PIPELINE = """
import os, pathlib
from zenml import pipeline, step
from zenml.client import Client
from zenml.config import DockerSettings

@step(enable_cache=False)
def produce() -> int:
    assert pathlib.Path("/.dockerenv").exists(), "this step does not run in a container"
    {in_step}
    return 20

@step(enable_cache=False)
def double(x: int) -> int:
    return 2 * x

@pipeline(enable_cache=False, settings={{"docker": DockerSettings({settings})}})
def numbers():
    double(produce())

if __name__ == "__main__":
    run = numbers()
    run = Client().get_pipeline_run(run.id)
    print("STATUS", run.status, run.steps["double"].output.load())
    for image in run.build.images.values():
        print("IMAGE", image.image)
"""


def docker(*arguments: str, stdin: str | None = None) -> str:
    ended = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def manifest(image: str) -> dict[str, Any]:
    """The manifest that a registry has under `registry/repository@digest`."""
    name, _, digest = image.partition("@")
    registry, _, repository = name.partition("/")
    request = urllib.request.Request(
        f"http://{registry}/v2/{repository}/manifests/{digest}", headers={"Accept": MANIFESTS}
    )
    with urllib.request.urlopen(request) as answer:
        return dict(json.load(answer))


@pytest.fixture(scope="session")
def stack(zenml: "Zenml", registry: str) -> Iterator[str]:
    """The active stack: our builder, `local_docker`, the plain registry."""
    said = zenml.python("from zenml_cooper.cli import main; raise SystemExit(main(['zenml', 'register']))")
    assert {"cooper registered", "cooper_docker registered"} <= set(said.splitlines())
    assert "zenml image-builder register cooper --flavor=cooper" in map(str.strip, said.splitlines())
    zenml("container-registry", "register", "plain", "--flavor=default", f"--uri={registry}/pipelines")
    zenml("orchestrator", "register", "containers", "--flavor=local_docker")
    zenml("image-builder", "register", "cooper", "--flavor=cooper_docker", "--progress=plain")
    zenml("stack", "register", "cooper", "-o", "containers", "-a", "default", "-c", "plain", "-i", "cooper", "--set")
    return "cooper"


RunPipeline = Callable[..., tuple[str, str]]


@pytest.fixture
def run(zenml: "Zenml", stack: str) -> RunPipeline:
    """Runs the pipeline with Docker settings; gives what was printed, and the image that the steps ran in."""

    def run(settings: str, in_step: str = "pass") -> tuple[str, str]:
        script = zenml.directory / "numbers_pipeline.py"
        script.write_text(PIPELINE.format(settings=settings, in_step=in_step))
        said = zenml.python(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')")
        assert "STATUS completed 40" in said, said
        # Some versions of ZenML print the arguments of `print` twice.
        images = set(re.findall(r"IMAGE (\S+@sha256:[0-9a-f]{64})", said))
        assert len(images) == 1, said
        return said, images.pop()

    return run


def test_a_pipeline_runs_in_an_image_that_we_built_and_pushed(
    run: RunPipeline, registry: str, python_image: str
) -> None:
    said, image = run(
        f"parent_image={python_image!r}, requirements=['zenml[local]=={installed.__version__}', 'cowsay==6.1'], "
        "install_stack_requirements=False",
        "import cowsay",
    )
    assert image.startswith(f"{registry}/pipelines/")
    assert "@sha256:" in image
    assert manifest(image)["config"]["digest"].startswith("sha256:")
    assert "cowsay" in said, "what RUN prints is shown"
    assert "buildkit builder" in said, "nothing that ZenML sets by itself forces the classic builder"
    config = json.loads(docker("image", "inspect", image))[0]["Config"]
    assert "ENTRYPOINT" not in config
    assert config["WorkingDir"] == "/app"


def test_code_in_the_image(run: RunPipeline, zenml: "Zenml", zenml_image: str) -> None:
    tool = zenml.directory / "tool.sh"
    tool.write_text("#!/bin/sh\necho tool-ran\n")
    tool.chmod(0o755)
    (zenml.directory / "binary.dat").write_bytes(bytes(range(256)))
    (zenml.directory / "secrets.txt").write_text("not for the image")
    ignore = zenml.directory / ".dockerignore"
    ignore.write_text("secrets.txt\n")
    try:
        run(
            f"parent_image={zenml_image!r}, install_stack_requirements=False, allow_download_from_artifact_store=False",
            "import subprocess; assert subprocess.check_output('/app/tool.sh') == b'tool-ran\\n'; "
            "assert pathlib.Path('/app/binary.dat').read_bytes() == bytes(range(256)); "
            "assert not pathlib.Path('/app/secrets.txt').exists()",
        )
    finally:
        for file in (tool, ignore, zenml.directory / "binary.dat", zenml.directory / "secrets.txt"):
            file.unlink()


def test_a_dockerfile_and_what_zenml_adds(run: RunPipeline, tmp_path: Path, zenml_image: str) -> None:
    (tmp_path / "marker.bin").write_bytes(b"\xff\x00marker")
    (tmp_path / "left-out").write_text("x")
    (tmp_path / "own.Dockerfile").write_text(f"FROM {zenml_image}\nCOPY . /from-dockerfile/\nENV FROM_DOCKERFILE=yes\n")
    # BuildKit's rule: the ignore file of a Dockerfile stands next to it.
    (tmp_path / "own.Dockerfile.dockerignore").write_text("left-out\n")
    said, image = run(
        f"dockerfile={str(tmp_path / 'own.Dockerfile')!r}, build_context_root={str(tmp_path)!r}, "
        "requirements=['cowsay==6.1'], install_stack_requirements=False",
        "import cowsay; assert pathlib.Path('/from-dockerfile/marker.bin').read_bytes() == b'\\xff\\x00marker'; "
        "assert not pathlib.Path('/from-dockerfile/left-out').exists(); assert os.environ['FROM_DOCKERFILE'] == 'yes'",
    )
    assert said.count("Building Docker image `") == 2
    assert "@sha256:" in image


def build_image(settings: DockerSettings, tag: str, **others: Any) -> str:
    """What ZenML does for every image of a pipeline."""
    arguments = {"include_files": False, "entrypoint": None, **others}
    client = Client()
    return PipelineDockerImageBuilder().build_docker_image(
        docker_settings=settings, tag=tag, stack=client.active_stack, **arguments
    )[0]


def test_a_binary_extra_file(stack: str, tmp_path: Path, busybox: str) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(bytes(range(256)) * 10)
    source.chmod(0o755)
    # ZenML's own Dockerfile wants Python; a stage of ours looks at the files.
    (tmp_path / "Dockerfile").write_text(
        f"FROM {busybox}\nRUN printf '#!/bin/sh\\nexit 0\\n' > /bin/pip && chmod +x /bin/pip\n"
    )
    image = build_image(
        DockerSettings(dockerfile=str(tmp_path / "Dockerfile"), install_stack_requirements=False),
        "binary-extra-file",
        extra_files={"model.bin": str(source), "note.txt": "a text\n"},
    )
    shown = docker("run", "--rm", image, "sh", "-c", "sha256sum < model.bin; stat -c %A model.bin; cat note.txt")

    digest, mode, note = shown.splitlines()
    assert digest.split()[0] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert mode[3] == mode[9] == "x"
    assert note == "a text"


def test_a_requirement_that_cannot_be_installed_is_explained(stack: str, python_image: str) -> None:
    with pytest.raises(StepFailed) as caught:
        build_image(
            DockerSettings(
                parent_image=python_image,
                requirements=["cooper-no-such-package==9.9"],
                install_stack_requirements=False,
            ),
            "bad-requirement",
        )
    said = str(caught.value)
    assert "cooper-no-such-package" in "\n".join(caught.value.tail)
    assert "cooper-no-such-package" in said
    assert "RUN uv pip install" in said
    assert "Dockerfile:" in said


def test_a_registry_with_a_password(
    stack: str, zenml: "Zenml", registry_tls: "SecuredRegistry", busybox: str, tmp_path: Path
) -> None:
    """The credentials are those of the ZenML registry; the Docker config of these tests is empty."""
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox}\nRUN echo {registry_tls.address} > /made\n")
    settings = DockerSettings(dockerfile=str(tmp_path / "Dockerfile"), install_stack_requirements=False)
    zenml("secret", "create", "tls", f"--username={registry_tls.user}", f"--password={registry_tls.password}")
    uri = f"{registry_tls.address}/pipelines"
    zenml("container-registry", "register", "secured", "-f", "default", f"--uri={uri}", "--authentication_secret=tls")
    zenml("stack", "update", stack, "-c", "secured")
    try:
        image = build_image(settings, "secured")
        assert image.startswith(f"{uri}/zenml@sha256:")
        zenml("secret", "update", "tls", "--password=hunter2-marker")
        with pytest.raises(RegistryError) as caught:
            build_image(settings, "secured-again")
        assert caught.value.code == "registry-denied"
        assert "hunter2-marker" not in str(caught.value)
    finally:
        zenml("stack", "update", stack, "-c", "plain")
        zenml("container-registry", "delete", "secured")
        zenml("secret", "delete", "tls", "--yes")


def test_a_secret_reference_in_the_configuration(stack: str, zenml: "Zenml", zenml_image: str) -> None:
    address = docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").strip()
    zenml("secret", "create", "cooper_e2e", f"--host={address}")
    zenml("image-builder", "register", "by_secret", "--flavor=cooper_docker", "--host={{cooper_e2e.host}}")
    zenml("stack", "update", stack, "-i", "by_secret")
    try:
        image = build_image(
            DockerSettings(parent_image=zenml_image, environment={"A": "b"}, install_stack_requirements=False),
            "by-secret",
        )
        assert "@sha256:" in image
        zenml("secret", "update", "cooper_e2e", "--host=unix:///nonexistent/docker.sock")
        with pytest.raises(Exception, match="/nonexistent/docker.sock"):
            build_image(
                DockerSettings(parent_image=zenml_image, environment={"A": "c"}, install_stack_requirements=False),
                "by-secret",
            )
    finally:
        zenml("stack", "update", stack, "-i", "cooper")
        zenml("image-builder", "delete", "by_secret")
        zenml("secret", "delete", "cooper_e2e", "--yes")
