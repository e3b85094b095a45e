"""`scripts/bed`: servers are ended for certain, and only those that it started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from bed import image, process, say

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]


def is_up(log: Path) -> bool:
    return "up" in log.read_text()


def test_a_server_goes_on_until_it_is_stopped(tmp_path: Path) -> None:
    log = tmp_path / "log"
    record = process.start(SLEEP, log, lambda: is_up(log))
    try:
        assert process.alive(record)
    finally:
        process.stop(record)
    assert not process.alive(record)
    process.stop(record)  # the second time nothing happens


def test_one_that_ignores_the_signal_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_TIMEOUT", 0.5)
    log = tmp_path / "log"
    program = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP[2]}"
    record = process.start([*SLEEP[:2], program], log, lambda: is_up(log))
    process.stop(record)
    assert not process.alive(record)


def test_a_later_process_with_the_same_id_is_left_alone() -> None:
    started = process._started(os.getpid())
    assert started
    assert process.alive({"pid": os.getpid(), "started": started})
    process.stop({"pid": os.getpid(), "started": str(int(started) - 1)})


def test_a_server_that_ends_at_once_fails_with_its_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('the port is taken'); raise SystemExit(3)"]
    with pytest.raises(say.Failure, match=r"(?s)exit code 3.*the port is taken"):
        process.start(command, tmp_path / "log", lambda: False)


def test_a_server_that_never_answers_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "START_TIMEOUT", 0.5)
    started: list[int] = []
    real = subprocess.Popen

    def popen(*arguments: object, **options: object) -> object:
        server = real(*arguments, **options)  # type: ignore[call-overload]
        started.append(server.pid)
        return server

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(say.Failure, match="did not answer"):
        process.start(SLEEP, tmp_path / "log", lambda: False)
    assert [process._started(pid) for pid in started] == [None]


def test_a_command_that_fails_shows_its_last_lines() -> None:
    with pytest.raises(say.Failure, match=r"(?s)exit code 2.*the reason"):
        say.run(["/bin/sh", "-c", "echo the reason >&2; exit 2"])


def test_a_command_that_is_missing_comes_with_a_hint() -> None:
    with pytest.raises(say.Failure, match="`no-such-program` is not installed; install this"):
        say.run(["no-such-program"], hint="install this")


def test_an_image_is_the_same_by_import_and_by_a_dockerfile() -> None:
    recipe = image.Recipe("x", lambda _: None, {}, {"A": 'b "c"'}, ("sh", "-c"))
    assert recipe.changes() == ['ENV A="b \\"c\\""', 'CMD ["sh", "-c"]']


def test_an_image_is_named_after_its_recipe() -> None:
    def recipe(**inputs: str) -> image.Recipe:
        return image.Recipe("python", lambda _: None, inputs)

    assert recipe(suite="bookworm").tag() == recipe(suite="bookworm").tag()
    assert recipe(suite="bookworm").tag() != recipe(suite="trixie").tag()
    assert recipe(suite="bookworm").tag().startswith("cooper-test/python:")


def test_settings_of_the_host_reach_the_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [*image._PASSED_ON, "PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"]:
        monkeypatch.delenv(name, raising=False)
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("certificates")
    monkeypatch.setattr(image, "_pip_config", lambda: {"trusted-host": "index.example", "no-color": "1"})
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    cas, environment = image.host_settings()
    assert cas == "certificates"
    assert environment == {
        "PIP_INDEX_URL": "https://index.example/simple",
        "UV_DEFAULT_INDEX": "https://index.example/simple",
        "PIP_TRUSTED_HOST": "index.example",
        "SSL_CERT_FILE": image.SYSTEM_CAS,
        "PIP_CERT": image.SYSTEM_CAS,
        "REQUESTS_CA_BUNDLE": image.SYSTEM_CAS,
    }
