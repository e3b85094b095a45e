"""Scripts that run in an interpreter of their own: signals, forks and exits are theirs alone."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any, Protocol

import pytest


class RunScript(Protocol):
    def __call__(self, code: str, timeout: float = 60) -> Any: ...


@pytest.fixture
def run_script() -> RunScript:
    """Runs a script, which has to succeed; gives what it prints, as JSON."""

    def run(code: str, timeout: float = 60) -> Any:
        command = [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    return run
