"""The trees that contexts are measured on: made once from a seed, kept in a folder, the same for the same interpreter.

Text and machine code are cut from the libraries of the interpreter, since what is invented compresses as neither does.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import struct
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

# Raised whenever a tree changes: trees of another version are made anew.
VERSION = 1
MIB = 1 << 20

# The median of the small files' sizes, and how far they spread: 50,000 have 110 MB.
SMALL_MEDIAN = 1200
SMALL_SIGMA = 1.1

IGNORED = [".git", ".venv", "**/__pycache__", "**/*.log", "data/raw"]


class Material:
    """What files are made of."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        paths = sysconfig.get_paths()
        self._text = _joined(Path(paths["stdlib"]), "*.py")
        self._code = _joined(Path(paths["platlib"]), "*.so") + _joined(Path(paths["stdlib"]), "*.so")

    def text(self, size: int) -> bytes:
        """Source code."""
        return self._cut(self._text, size)

    def code(self, size: int) -> bytes:
        """Machine code: the extension modules that are installed here."""
        return self._cut(self._code, size)

    def _cut(self, source: bytes, size: int) -> bytes:
        parts, left = [], size
        while left > 0:
            start = self.random.randrange(max(1, len(source) - left))
            parts.append(source[start : start + left])
            left -= len(parts[-1])
        return b"".join(parts)

    def noise(self, size: int) -> bytes:
        """What cannot be compressed: images, wheels, encrypted things."""
        return self.random.randbytes(size)

    def weights(self, size: int) -> bytes:
        """Floating point numbers as a model has them: their exponents compress, the rest does not."""
        numbers = (self.random.gauss(0, 0.02) for _ in range(min(size, MIB) // 4 + 1))
        block = b"".join(struct.pack("<f", number) for number in numbers)
        # Gauss is slow: one block is made, and its order changed, so that no window sees it twice.
        parts, left = [], size
        while left > 0:
            start = self.random.randrange(len(block) // 8) * 4
            parts.append((block[start:] + block[:start])[:left])
            left -= len(parts[-1])
        return b"".join(parts)

    def table(self, size: int) -> bytes:
        """Rows of numbers as text."""
        rows, length = [b"id,time,value,label\n"], 0
        for number in range(size // 24 + 1):
            row = f"{number},{1_600_000_000 + number * 60},{self.random.random():.4f},{self.random.choice('abcd')}\n"
            rows.append(row.encode())
            length += len(row)
            if length >= size:
                break
        return b"".join(rows)[:size]

    def zeros(self, size: int) -> bytes:
        """What a database or a disk image has not used yet."""
        return bytes(size)


def _joined(folder: Path, pattern: str) -> bytes:
    """The files of a library, without what others installed below it, up to 32 MiB."""
    parts, left = [], 32 * MIB
    for path in sorted(folder.rglob(pattern)):
        if left > 0 and not {"site-packages", "dist-packages"} & set(path.relative_to(folder).parts):
            parts.append(path.read_bytes()[:left])
            left -= len(parts[-1])
    return b"".join(parts)


def make_small(root: Path, files: int) -> None:
    """Many small files of source code; every twentieth is of the kind that cannot be compressed."""
    material = Material("small")
    for number in range(files):
        path = root / f"package_{number // 2000:03}" / f"module_{number // 50 % 40:02}" / f"file_{number % 50:02}.py"
        if number % 50 == 0:
            path.parent.mkdir(parents=True)
        size = min(int(SMALL_MEDIAN * math.exp(material.random.gauss(0, SMALL_SIGMA))), MIB)
        path.write_bytes(material.noise(size) if number % 20 == 19 else material.text(size))


def make_large(root: Path, size: int) -> None:
    """One file of mixed content, in stretches of 1 to 8 MiB."""
    material = Material("large")
    kinds = [
        material.text,
        material.text,
        material.code,
        material.code,
        material.weights,
        material.table,
        material.noise,
        material.zeros,
    ]
    # Tables are slow to make, and one is as good as the next.
    table = material.table(min(8 * MIB, size))
    with (root / "artifact.bin").open("wb") as file:
        left = size
        while left > 0:
            length = min(material.random.randrange(1, 9) * MIB, left)
            kind = material.random.choice(kinds)
            file.write(table[:length] if kind == material.table else kind(length))
            left = size - file.tell()


def make_repository(root: Path, files: int) -> None:
    """A ZenML repository: code, tests, notebooks, data, a model, `.git`, `.zen` and a virtual environment."""
    material = Material("repository")
    for path, content in _repository(material, files):
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _repository(material: Material, files: int) -> Iterator[tuple[str, bytes]]:
    share = files // 10
    size = material.random.randrange
    yield ".dockerignore", "".join(f"{pattern}\n" for pattern in IGNORED).encode()
    yield ".zen/config.yaml", b"active_stack_id: null\n"
    yield "README.md", material.text(6000)
    for number in range(4 * share):
        package, module = divmod(number, 20)
        yield f"src/steps_{package:02}/step_{module:02}.py", material.text(size(500, 12_000))
        if module % 4 == 0:
            yield f"src/steps_{package:02}/__pycache__/step_{module:02}.cpython-311.pyc", material.text(size(500, 9000))
    for number in range(share):
        yield f"tests/test_{number:03}.py", material.text(size(500, 6000))
        yield f"docs/images/figure_{number:03}.png", material.noise(size(2000, 90_000))
        yield f".venv/lib/python3.11/site-packages/package/module_{number:03}.py", material.text(size(500, 20_000))
    for number in range(2 * share):
        yield (
            f".git/objects/{number % 256:02x}/{material.random.getrandbits(152):038x}",
            material.noise(size(100, 6000)),
        )
    for number in range(share // 10 + 1):
        yield f"notebooks/explore_{number:02}.ipynb", material.text(size(20_000, 300_000))
        yield f"logs/run_{number:02}.log", material.text(size(20_000, 300_000))
    yield ".git/objects/pack/pack-0.pack", material.noise(share * 160_000)
    yield "data/raw/events.csv", material.table(share * 80_000)
    yield "data/train.csv", material.table(share * 80_000)
    yield "data/features.parquet", material.noise(share * 80_000)
    yield "models/model.safetensors", material.weights(share * 160_000)


def make_flat(root: Path, files: int) -> None:
    """Files of a few bytes, for the growth curve: the cost of an entry is all that is left."""
    for number in range(files):
        if number % 100 == 0:
            folder = root / f"{number // 10_000:03}" / f"{number // 100 % 100:02}"
            folder.mkdir(parents=True)
        (folder / f"{number % 100:02}.txt").write_bytes(b"%d\n" % number)


def tree(folder: Path, name: str, make: Callable[[Path, int], None], size: int) -> Path:
    """The tree of this name and size, made if it is not there yet, and read once so that it is in the page cache."""
    root = folder / f"{name}-{size}-v{VERSION}"
    if not root.is_dir():
        partial = root.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        print(f"making {root}", flush=True)
        make(partial, size)
        partial.rename(root)
    read_all(root)
    return root


def read_all(root: Path) -> None:
    """Reads every file of a tree."""
    buffer = bytearray(MIB)
    for directory, _, names in os.walk(root):
        for name in names:
            with open(os.path.join(directory, name), "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
