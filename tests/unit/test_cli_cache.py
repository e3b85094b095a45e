"""The commands below `cooper cache`, on a store that was put together by hand."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from zenml_cooper import _core, cli

HOUR = 3600


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store of the user's."""
    monkeypatch.setenv("COOPER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("COOPER_CACHE_SIZE", raising=False)
    _core.store_usage()
    return tmp_path / "cache" / "store"


def put(store: Path, content: bytes, hours: float) -> Path:
    """A blob that was used so many hours ago."""
    digest = hashlib.sha256(content).hexdigest()
    path = store / "blobs" / digest[:2] / f"{digest}.{len(content)}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    used = time.time() - hours * HOUR
    os.utime(path, (used, used))
    return path


def run(capsys: pytest.CaptureFixture[str], *typed: str) -> str:
    assert cli.main(["cache", *typed]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_what_is_there(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = json.loads(run(capsys, "du", "--json"))
    assert empty == {"path": str(store), "limit": 20 << 30, "kinds": {}, "total": {"count": 0, "bytes": 0}}
    put(store, b"x" * 2_000_000, 1)
    put(store, b"y" * 500_000, 1)
    usage = json.loads(run(capsys, "du", "--json"))
    assert usage["kinds"] == {"blobs": {"count": 2, "bytes": 2_500_000}}
    assert usage["total"] == usage["kinds"]["blobs"]
    lines = run(capsys, "du").splitlines()
    assert lines == ["  2.5 MB  blobs  2", "  2.5 MB  total  2", f"in {store}; a build keeps it to 21.5 GB"]


def test_the_limit_comes_from_the_environment(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COOPER_CACHE_SIZE", "5g")
    assert json.loads(run(capsys, "du", "--json"))["limit"] == 5 << 30
    monkeypatch.setenv("COOPER_CACHE_SIZE", "much")
    assert cli.main(["cache", "du"]) == 2
    assert "COOPER_CACHE_SIZE" in capsys.readouterr().err
    assert store.is_dir()


def test_what_was_not_used_goes_first(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = put(store, b"x" * 3000, 9), put(store, b"y" * 2000, 1)
    assert run(capsys, "prune", "--keep-storage", "5k") == "removed 0 files (0 B); kept 5.0 kB\n"
    assert run(capsys, "prune", "--keep-storage", "4k") == "removed 1 file (3.0 kB); kept 2.0 kB\n"
    assert (old.exists(), new.exists()) == (False, True)


def test_what_is_too_old_goes(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = put(store, b"x" * 3000, 9), put(store, b"y" * 2000, 1)
    pruned = json.loads(run(capsys, "prune", "--older-than", "1h30m", "--json"))
    assert pruned["removed"] == {"count": 1, "bytes": 3000}
    assert (pruned["kept"], pruned["path"]) == ({"count": 1, "bytes": 2000}, str(store))
    assert (old.exists(), new.exists()) == (False, True)


def test_without_options_all_goes(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(store, b"x", 0)
    assert run(capsys, "prune") == "removed 1 file (1 B); kept 0 B\n"
    assert _core.store_usage()["total"] == {"count": 0, "bytes": 0}


def test_a_store_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COOPER_CACHE_DIR", str(tmp_path / "file"))
    assert cli.main(["cache", "du"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert str(tmp_path / "file") in err
    assert "COOPER_CACHE_DIR" in err
