"""Importing the package is cheap and touches neither ZenML nor the native module."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import zenml_cooper
from zenml_cooper import _core

IMPORT_SECONDS = 0.05

SCRIPT = """
import json, sys, time
before = set(sys.modules)
start = time.perf_counter()
import {module}
elapsed = time.perf_counter() - start
new = set(sys.modules) - before
heavy = [name for name in ("zenml", "zenml_cooper._core", "rich", "pydantic", "asyncio") if name in new]
print(json.dumps([elapsed, heavy]))
"""


def measure(module: str) -> tuple[float, list[str]]:
    script = SCRIPT.format(module=module)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    elapsed, heavy = json.loads(done.stdout)
    return elapsed, heavy


def test_import_is_fast_and_light() -> None:
    # The best of several: other work may share the machine.
    runs = [measure("zenml_cooper") for _ in range(5)]
    assert min(elapsed for elapsed, _ in runs) < IMPORT_SECONDS
    assert all(heavy == [] for _, heavy in runs)


def test_the_command_starts_light() -> None:
    _, heavy = measure("zenml_cooper.cli")
    assert heavy == []


def test_every_name_is_there() -> None:
    without_zenml = set(zenml_cooper.__all__) - {"CooperBuildContext"}
    for name in without_zenml:
        assert getattr(zenml_cooper, name) is not None
    assert set(zenml_cooper.__all__) <= set(dir(zenml_cooper))


def test_there_is_one_version() -> None:
    root = Path(__file__).resolve().parents[2]
    versions = {
        re.search(r'^version = "(.*)"', (root / name).read_text(), re.MULTILINE).group(1)  # type: ignore[union-attr]
        for name in ("Cargo.toml", "pyproject.toml")
    }
    assert versions == {zenml_cooper.__version__} == {_core.version}


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(zenml_cooper, "biuld")


def test_both_builds_take_the_same_arguments() -> None:
    left, right = (inspect.signature(function).parameters for function in (zenml_cooper.build, zenml_cooper.aio.build))
    assert list(left) == list(right)
    for name, parameter in left.items():
        assert parameter.kind == right[name].kind
        assert parameter.default == right[name].default
        if name != "credentials":
            assert parameter.annotation == right[name].annotation
