"""Times builds with a push: ZenML's `local` image builder against `cooper` and `cooper_docker`, in one run.

A context of many small files is built and pushed to a registry on the loopback: the first time, again with nothing
changed, and again with one file changed. Each round uses new content, so that "first" is never served from a cache.
Printed and written as JSON: medians in seconds, and their ratios.

Where `buildctl` is installed and `BUILDKIT_HOST` names a BuildKit, that takes part too, each build from its client's
start to its end.

    eval "$(scripts/testbed env .testbed)" && .venv/bin/python benches/build.py --files 5000 --rounds 3
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import comparison

DOCKERFILE = """\
FROM {base}
WORKDIR /app
ENV ROUND='{marker}'
COPY . .
RUN chmod -R a+rw .
"""
CASES = ("first", "unchanged", "one file changed")


def make_tree(root: Path, files: int, marker: str) -> None:
    """Fills `root` with `files` text files of about 8 KiB in directories of 100, all new for this marker."""
    source = random.Random(marker)
    for number in range(files):
        path = root / f"package_{number // 100:03}" / f"module_{number % 100:02}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (f"value_{source.getrandbits(48):x} = {source.getrandbits(64)}\n" for _ in range(190))
        path.write_text(f"# {marker}\n" + "".join(lines))


def component(cls: type[Any], config: Any, kind: Any) -> Any:
    """A stack component outside of any stack, as ZenML constructs it."""
    now = datetime.now(tz=timezone.utc)
    return cls(
        name="bench",
        id=uuid.uuid4(),
        config=config,
        flavor="bench",
        type=kind,
        user=None,
        created=now,
        updated=now,
    )


class BuildctlContext:
    """A context as the builders' interface has it, for a client that reads folders alone."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.files: dict[str, str] = {}

    def add_file(self, source: str, destination: str) -> None:
        """Keeps a text to be written outside of the root."""
        self.files[destination] = source


class Buildctl:
    """BuildKit by its own client, in the place of an image builder."""

    build_context_class = BuildctlContext

    def build(self, image: str, context: BuildctlContext, _options: None, _registry: Any) -> str:
        """Builds and pushes."""
        with tempfile.TemporaryDirectory(prefix="cooper-bench-") as folder:
            for name, text in context.files.items():
                Path(folder, name).write_text(text)
            folders = ["--local", f"context={context.root}", "--local", f"dockerfile={folder}"]
            output = ["--output", f"type=image,name={image},push=true"]
            command = ["buildctl", "build", "--frontend", "dockerfile.v0", *folders, *output]
            subprocess.run(command, check=True, capture_output=True)
        return image


def builders() -> dict[str, Any]:
    """The image builders that are compared, by name."""
    from zenml.enums import StackComponentType
    from zenml.image_builders.local_image_builder import LocalImageBuilder, LocalImageBuilderConfig

    from zenml_cooper.flavors import DockerImageBuilderFlavor, NativeImageBuilderFlavor

    native, ours = NativeImageBuilderFlavor(), DockerImageBuilderFlavor()
    kind = StackComponentType.IMAGE_BUILDER
    buildkit = {"buildctl": Buildctl()} if shutil.which("buildctl") and os.environ.get("BUILDKIT_HOST") else {}
    return {
        "local": component(LocalImageBuilder, LocalImageBuilderConfig(), kind),
        "cooper": component(native.implementation_class, native.config_class(), kind),
        "cooper_docker": component(ours.implementation_class, ours.config_class(), kind),
        **buildkit,
    }


def registry(address: str) -> Any:
    """The ZenML container registry at `address`."""
    from zenml.container_registries.default_container_registry import DefaultContainerRegistryFlavor
    from zenml.enums import StackComponentType

    flavor = DefaultContainerRegistryFlavor()
    return component(
        flavor.implementation_class, flavor.config_class(uri=address), StackComponentType.CONTAINER_REGISTRY
    )


def timed(action: Callable[[], Any]) -> float:
    """Wall seconds that `action` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def one_round(builder: Any, target: Any, address: str, base: str, files: int, tag: str) -> list[float]:
    """Seconds of the three cases, in their order."""
    marker = uuid.uuid4().hex
    image = f"{address}/cooper-bench:{tag}"
    root = Path(tempfile.mkdtemp(prefix="cooper-bench-"))
    try:
        make_tree(root, files, marker)
        dockerfile = DOCKERFILE.format(base=base, marker=marker)

        def build() -> str:
            context = builder.build_context_class(root=str(root))
            context.add_file(dockerfile, "Dockerfile")
            return str(builder.build(image, context, None, target))

        seconds = [timed(build), timed(build)]
        (root / "package_000" / "module_00.py").write_text("changed = True\n")
        seconds.append(timed(build))
        return seconds
    finally:
        shutil.rmtree(root, ignore_errors=True)


def main() -> None:
    """Runs the comparison."""
    given = comparison.arguments(__doc__, files=5000)
    address, base = os.environ["COOPER_TEST_REGISTRY"], os.environ["COOPER_TEST_BUSYBOX"]
    target = registry(address)
    rounds: dict[str, list[dict[str, float]]] = {}
    for number in range(given.rounds):
        for name, builder in builders().items():
            tag = f"{name.replace('_', '-')}-{number}"
            seconds = one_round(builder, target, address, base, given.files, tag)
            rounds.setdefault(name, []).append(dict(zip(CASES, seconds, strict=True)))
    comparison.report(f"{given.files} files", rounds, given)


if __name__ == "__main__":
    main()
