"""Times ZenML's own image builds of a pipeline: the stock `local` image builder against ours, in one run.

The stack has the `local_docker` orchestrator and a registry on the loopback. Two kinds of images are built, each new
for its round: requirements only (ZenML's default), and with the code in the image. Each is built the first time, again
with nothing changed, and again with a requirement or a source file changed.

    make testbed && eval "$(scripts/testbed env .testbed)" && .venv/bin/python benches/pipeline.py --rounds 3
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import comparison

BUILDERS = {"local": "local", "cooper": "cooper", "cooper_docker": "cooper_docker"}

PROJECT = """
import json, os, pathlib, sys, time
from zenml import pipeline, step
from zenml.client import Client
from zenml.config import DockerSettings

@step
def one() -> int:
    return 1

@pipeline
def numbers() -> None:
    one()

def seconds(settings: dict) -> float:
    docker = DockerSettings(prevent_build_reuse=True, parent_image=os.environ["BENCH_PARENT"], **settings)
    begun = time.perf_counter()
    assert numbers.with_options(settings={"docker": docker}).build() is not None
    return time.perf_counter() - begun

if __name__ == "__main__":
    marker, builder = sys.argv[1:]
    Client().activate_stack(builder)
    times = {}
    plain = {"requirements": ["six"], "environment": {"ROUND": marker}}
    times["requirements, first"] = seconds(plain)
    times["requirements, unchanged"] = seconds(plain)
    times["requirements, one more"] = seconds({**plain, "requirements": ["six", "idna"]})
    code = {**plain, "allow_download_from_artifact_store": False, "allow_download_from_code_repository": False}
    times["code, first"] = seconds(code)
    times["code, unchanged"] = seconds(code)
    pathlib.Path("package_000/module_00.py").write_text(f"changed = '{marker}'\\n")
    times["code, one file changed"] = seconds(code)
    print("TIMES", json.dumps(times))
"""


def make_project(root: Path, files: int) -> None:
    """A ZenML project with a pipeline and `files` other files."""
    (root / "run.py").write_text(PROJECT)
    for number in range(files):
        path = root / f"package_{number // 100:03}" / f"module_{number % 100:02}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"value_{line} = {number * 1000 + line}\n" for line in range(100)))


def command(root: Path, *arguments: str) -> str:
    """Runs a program of this environment in the project; its output."""
    program = Path(sys.executable).with_name(arguments[0])
    ended = subprocess.run([program, *arguments[1:]], cwd=root, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise SystemExit(f"{arguments[0]} failed:\n{ended.stdout}\n{ended.stderr}")
    return ended.stdout


def make_stacks(root: Path, registry: str) -> None:
    """One stack for each builder, equal but for it."""
    zenml = ["zenml"]
    command(root, *zenml, "init")
    command(root, *zenml, "orchestrator", "register", "containers", "--flavor=local_docker")
    command(root, *zenml, "container-registry", "register", "plain", "--flavor=default", f"--uri={registry}")
    for kind in ("Native", "Docker"):
        source = f"zenml_cooper.flavors.{kind}ImageBuilderFlavor"
        command(root, *zenml, "image-builder", "flavor", "register", source)
    for name, flavor in BUILDERS.items():
        command(root, *zenml, "image-builder", "register", name, f"--flavor={flavor}")
        parts = ["-o", "containers", "-a", "default", "-c", "plain", "-i", name]
        command(root, *zenml, "stack", "register", name, *parts)


def main() -> None:
    """Runs the comparison."""
    given = comparison.arguments(__doc__, files=500)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in BUILDERS}
    with tempfile.TemporaryDirectory(prefix="cooper-bench-") as folder:
        root = Path(folder, "project")
        root.mkdir()
        os.environ.update(
            BENCH_PARENT=os.environ["COOPER_TEST_PYTHON"],
            ZENML_CONFIG_PATH=f"{folder}/config",
            ZENML_LOCAL_STORES_PATH=f"{folder}/stores",
            ZENML_ANALYTICS_OPT_IN="false",
        )
        make_project(root, given.files)
        make_stacks(root, os.environ["COOPER_TEST_REGISTRY"])
        for _ in range(given.rounds):
            for name in BUILDERS:
                output = command(root, "python", "run.py", uuid.uuid4().hex, name)
                line = next(line for line in output.splitlines() if line.startswith("TIMES "))
                rounds[name].append(json.loads(line.removeprefix("TIMES ")))

    comparison.report("image builds of a pipeline", rounds, given)


if __name__ == "__main__":
    main()
