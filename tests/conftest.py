"""What all Python tests share: the servers and images of `scripts/testbed`.

A test that asks for one where none is up fails; it is never skipped.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

# What a test sees does not depend on the terminal, or the lack of one, that it was started from.
os.environ["TERM"] = "xterm-256color"
for _variable in ("CI", "COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR"):
    os.environ.pop(_variable, None)

# A shell that runs the tests in the background has them ignore SIGINT, and so would every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


class SecuredRegistry(NamedTuple):
    """A registry with TLS, whose authority nobody knows, and a password."""

    address: str
    user: str
    password: str
    ca: Path


def required(variable: str) -> str:
    """An environment variable that the test bed exports."""
    value = os.environ.get(variable)
    if not value:
        pytest.fail(
            f"{variable} is not set: start the test bed with `make testbed`, then"
            ' eval "$(scripts/testbed env .testbed)"; or use the Makefile\'s test targets',
            pytrace=False,
        )
    return value


@pytest.fixture(scope="session")
def registry() -> str:
    """Host and port of a plain registry."""
    return required("COOPER_TEST_REGISTRY")


@pytest.fixture(scope="session")
def registry_tls() -> SecuredRegistry:
    """A registry with TLS and a password."""
    return SecuredRegistry(
        required("COOPER_TEST_REGISTRY_TLS"),
        required("COOPER_TEST_REGISTRY_USER"),
        required("COOPER_TEST_REGISTRY_PASSWORD"),
        Path(required("COOPER_TEST_REGISTRY_CA")),
    )


@pytest.fixture(scope="session")
def busybox() -> str:
    """A small base image with a shell, in the daemon and in the plain registry."""
    return required("COOPER_TEST_BUSYBOX")


@pytest.fixture(scope="session")
def python_image() -> str:
    """A base image with Python, pip and uv that reaches the package index, in the daemon and in the plain registry."""
    return required("COOPER_TEST_PYTHON")


@pytest.fixture(scope="session")
def second_docker_socket() -> str:
    """Path of a socket on which a Docker daemon answers that is not the machine's."""
    return required("COOPER_TEST_DOCKERD")


@pytest.fixture(scope="session")
def second_docker_start() -> str:
    """A command that runs one more Docker daemon until its input ends; it prints first where that is."""
    return required("COOPER_TEST_DOCKERD_START")


@pytest.fixture(scope="session")
def podman_socket() -> str:
    """Path of a socket on which Podman's API answers."""
    return required("COOPER_TEST_PODMAN")
