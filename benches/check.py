"""Whether archives hold what they should: no number may come from a wrong result."""

from __future__ import annotations

import gzip
import hashlib
import os
import posixpath
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

BLOCK = 1 << 20


def contents(archive: Path) -> dict[str, str]:
    """The files of an archive: path to hash."""
    return {posixpath.normpath(path): _hash(file) for path, file in _files(archive)}


def _files(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for item in opened.infolist():
                if not item.is_dir():
                    with opened.open(item) as file:
                        yield item.filename, file
        return
    with archive.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    # Not mode "r|gz": it ends with the first of several members.
    opener = gzip.open if packed else open
    with opener(archive, "rb") as plain, tarfile.open(fileobj=plain, mode="r|") as stream:
        for member in stream:
            content = stream.extractfile(member) if member.isreg() else None
            if content:
                yield member.name, content


def _hash(file: IO[bytes]) -> str:
    hashed = hashlib.sha256()
    while block := file.read(BLOCK):
        hashed.update(block)
    return hashed.hexdigest()


def same(peer: str, found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Ends the run if two archives do not hold the same files."""
    if found == expected:
        return
    different = sorted(path for path in {*found, *expected} if found.get(path) != expected.get(path))
    raise SystemExit(f"{peer} packs something else: {len(different)} files differ, such as {different[0]}")


def volume(root: Path, paths: Mapping[str, str]) -> int:
    """The sum of the sizes of these files."""
    return sum(os.path.getsize(root / path) for path in paths)
