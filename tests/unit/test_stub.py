"""The stub of the native module says what the module has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_stub_fits_the_module() -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "mypy.stubtest", "zenml_cooper._core", "--mypy-config-file", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root / "tests", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 module" in done.stdout
