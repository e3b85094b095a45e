"""Measures what it costs to pack, send and digest contexts: ours, ZenML's, GNU tar's, pigz's, the docker command's.

Trees are 50,000 small files, one file of 2 GiB, and a typical repository with an ignore file. All is warm: trees are in
the page cache, archives go to memory (`--folder`), since a disk would be what is measured. Peers take turns, each run
has a process of its own, and what each peer packs is compared with what GNU tar does. The floor reads and writes the
same bytes, on one thread and without any format.

Prints medians and ratios; writes them as JSON and draws them as SVG. Five rounds take half an hour, most of it for
gzip as ZenML has it.

    make bench-context
    .venv-bench/bin/python benches/context.py --scale 0.05 --rounds 3 --curve
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

import chart
import check
import peers
import results
import trees
from peers import Cost
from results import OURS, Case, Results

from zenml_cooper import _core

PACKERS = {
    "tar": (OURS, "zenml", "tar", "floor"),
    "tar.gz": (OURS, "zenml", "tar | pigz"),
    "zip": (OURS, "zenml"),
}
DOCKERFILE = "FROM scratch\nCOPY . .\n"
CURVE = (1_000, 10_000, 100_000, 1_000_000)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108 - memory is the point
    kept = Path(tempfile.gettempdir(), "cooper-bench-trees")
    parser.add_argument("--scale", type=float, default=1, help="size of the trees, 1 for those of the docs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--curve", action="store_true", help="measure growth up to a million files too")
    parser.add_argument("--only", metavar="TREE", choices=("small", "large", "repository"), help="this tree alone")
    parser.add_argument("--trees", type=Path, default=kept, help="where trees are kept")
    parser.add_argument("--folder", type=Path, default=memory, help="where archives go")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--svg", type=Path, help="draw them here")
    return parser.parse_args()


def machine() -> dict[str, str | int]:
    """What the numbers depend on."""
    # A wheel is installed into an environment; a development build lies next to the sources.
    if "site-packages" not in Path(_core.__file__).parts:
        raise SystemExit("this extension is a development build; `make bench-context` measures a release")
    programs = {"tar": "tar --version", "pigz": "pigz --version 2>&1", "docker": "docker --version"}
    first = {
        name: subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout.splitlines()[0]
        for name, command in programs.items()
    }
    own = {"profile": "release", "python": platform.python_version(), "zenml": version("zenml")}
    return {"processors": os.cpu_count() or 1, "kernel": platform.release(), **own, **first}


class Bench:
    """One run on one machine."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given = given
        self.folder = folder
        self.results = Results(machine(), given.rounds)
        self.floor = folder / "floor"
        source = Path(__file__).with_name("floor.rs")
        peers.run(["rustc", "--edition=2024", "-O", str(source), "-o", str(self.floor)])

    def trees(self) -> Iterator[tuple[str, Path]]:
        """The trees, by what they are called in the results."""
        scale, kept = self.given.scale, self.given.trees
        makers: dict[str, tuple[Callable[[Path, int], None], int, str]] = {
            "small": (trees.make_small, int(50_000 * scale), "{:,} small files"),
            "large": (trees.make_large, int(2048 * scale) * trees.MIB, "one file of {:,} bytes"),
            "repository": (trees.make_repository, max(200, int(1500 * scale)), "a repository of {:,} files"),
        }
        for name, (make, size, title) in makers.items():
            if self.given.only in (None, name):
                yield title.format(size), trees.tree(kept, name, make, size)

    def case(
        self,
        tree: str,
        work: str,
        runs: Mapping[str, Callable[[], Cost]],
        verify: Callable[[str, Cost], None] = lambda _peer, _cost: None,
    ) -> None:
        """Lets the peers take turns; what each has done in the first round is looked at."""
        costs: dict[str, list[Cost]] = {peer: [] for peer in runs}
        for number in range(self.given.rounds):
            for peer, run in runs.items():
                costs[peer].append(run())
                if number == 0:
                    verify(peer, costs[peer][0])
        self.results.cases.append(Case(tree, work, {peer: results.median(found) for peer, found in costs.items()}))
        print(f"{tree}, {work}: done", flush=True)

    def pack(self, tree: str, root: Path) -> None:
        """Archives of each kind."""
        output = self.folder / "archive"
        peers.pack("tar", "tar", root, output, self.floor)
        expected = check.contents(output)

        def verify(peer: str, cost: Cost) -> None:
            if peer != "floor":
                check.same(peer, check.contents(output), expected)
            elif cost.size != check.volume(root, expected):
                raise SystemExit("the floor reads something else")

        for archive_type, names in PACKERS.items():
            runs = {peer: partial(peers.pack, peer, archive_type, root, output, self.floor) for peer in names}
            self.case(tree, archive_type, runs, verify)
        output.unlink()

    def send(self, tree: str, root: Path) -> None:
        """Contexts on their way to a classic builder."""
        dockerfile = self.folder / "Dockerfile"
        dockerfile.write_text(DOCKERFILE)
        with peers.stand_in(self.folder) as daemon:
            runs = {peer: partial(daemon.send, peer, root, dockerfile) for peer in (OURS, "docker")}
            self.case(tree, "sent to a daemon", runs)

    def again(self, tree: str, root: Path) -> None:
        """The first digest and report of a tree, and the second."""
        for what in ("digest", "report"):
            costs: dict[str, list[Cost]] = {"first": [], OURS: []}
            for number in range(self.given.rounds):
                # What a digest may keep for the next one, it keeps here.
                os.environ["COOPER_CACHE_DIR"] = str(self.folder / f"cache-{what}-{number}")
                for name, cost in zip(costs, json.loads(peers.worker("twice", what, root)), strict=True):
                    costs[name].append(Cost(**cost, size=0))
            found = {name: results.median(runs) for name, runs in reversed(costs.items())}
            self.results.cases.append(Case(tree, f"{what}, again", found))

    def curve(self) -> None:
        """Growth, with files of a few bytes."""
        output = self.folder / "archive"
        for files in CURVE:
            root = trees.tree(self.given.trees, "flat", trees.make_flat, files)
            costs = [peers.pack("core", "tar", root, output, self.floor) for _ in range(self.given.rounds)]
            cost = results.median(costs)
            self.results.curve.append({"files": files, "wall": cost.wall, "cpu": cost.cpu, "peak": cost.peak or 0})
            output.unlink()


def main() -> None:
    """Measures, and tells."""
    given = arguments()
    os.environ.setdefault("ZENML_LOGGING_VERBOSITY", "ERROR")
    folder = Path(tempfile.mkdtemp(prefix="cooper-bench-", dir=given.folder))
    try:
        bench = Bench(given, folder)
        for tree, root in bench.trees():
            bench.pack(tree, root)
            bench.send(tree, root)
            bench.again(tree, root)
        if given.curve:
            bench.curve()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{bench.results.machine}\n{results.text(bench.results)}")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        bench.results.write(given.json)
    if given.svg:
        given.svg.parent.mkdir(parents=True, exist_ok=True)
        given.svg.write_text(chart.svg(bench.results))


if __name__ == "__main__":
    main()
