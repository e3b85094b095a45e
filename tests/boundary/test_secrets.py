"""No secret reaches an error, an event, a log or a terminal, whatever goes wrong. The daemon here is a fake."""

from __future__ import annotations

import json
import logging
import os
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from zenml_cooper import _build, _core
from zenml_cooper.exceptions import CooperError
from zenml_cooper.progress import MODES, Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

MARKER = "m4rker-s3cret"


class Daemon(BaseHTTPRequestHandler):
    """A daemon that answers the first questions, and fails with what it was sent in every answer after that."""

    sent = ""

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        Daemon.sent += f"{self.path} {self.headers}"
        if self.path.endswith("/_ping"):
            self.answer(200, b"OK", Api_Version="1.41", Builder_Version="1", OSType="linux")
        elif self.path.endswith("/version"):
            version = {
                "Version": "20.10.24",
                "ApiVersion": "1.41",
                "MinAPIVersion": "1.12",
                "Os": "linux",
                "Arch": "amd64",
            }
            self.answer(200, json.dumps(version).encode())
        else:
            self.answer(500, b'{"message": "broken"}')

    do_HEAD = do_GET  # noqa: N815 - the base class wants it so

    def do_POST(self) -> None:
        Daemon.sent += f"{self.path} {self.headers}"
        self.close_connection = True
        self.answer(500, b'{"message": "the daemon is broken"}')

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def daemon() -> Iterator[str]:
    Daemon.sent = ""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Daemon)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"tcp://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def request(endpoint: str, builder: str, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "secret-file").write_text(MARKER)
    return {
        "context": {"extra_files": [{"path": "a", "content": MARKER}]},
        "dockerfile": {"text": "FROM scratch\nCOPY a /a\n"},
        "tags": ["localhost:1/app:1"],
        "push": True,
        "options": {
            "secret": [{"id": "a", "value": MARKER}, f"id=b,src={tmp_path}/secret-file", "id=c,env=COOPER_MARKER"]
            if builder != "classic"
            else None,
        },
        "engine": {"kind": "docker", "endpoints": [endpoint], "builder": builder},
    }


def give(registry: str, refresh: bool) -> dict[str, str]:
    return {"username": "ada", "password": MARKER}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("builder", ["buildkit", "classic"])
def test_a_failing_build_shows_no_secret(
    mode: Mode,
    builder: str,
    daemon: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("COOPER_MARKER", MARKER)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    caplog.set_level(logging.DEBUG)
    events: list[dict[str, Any]] = []
    with pytest.raises(CooperError) as raised:
        _build.run(
            request(daemon, builder, tmp_path),
            credentials=give,
            progress=mode,
            logger=logging.getLogger("test"),
            on_event=events.append,
        )
    error = raised.value
    assert "/_ping" in Daemon.sent
    shown = [
        *capfd.readouterr(),
        caplog.text,
        json.dumps(events),
        "".join(traceback.format_exception(error)),
        repr(error),
        repr(error.fields),
        json.dumps(error.fields, default=str),
    ]
    assert not [text for text in shown if MARKER in text]


def test_secrets_in_addresses_are_not_shown() -> None:
    for endpoint in (f"tcp://ada:{MARKER}@127.0.0.1:1", f"ssh://ada:{MARKER}@127.0.0.1:1", f"http://{MARKER}@:bad"):
        with pytest.raises(CooperError) as raised:
            _core.build(
                {"context": {}, "dockerfile": {"text": "FROM a"}, "engine": {"kind": "docker", "endpoints": [endpoint]}}
            )
        assert MARKER not in str(raised.value) + repr(raised.value.fields)


@pytest.mark.parametrize(
    "options",
    [
        {"build_args": {"TOKEN": [MARKER]}},
        {"build_args": {"TOKEN": {"a": MARKER}}},
        {"secret": [{"id": "a", "value": {"b": MARKER}}]},
        {"secret": [{"id": "a", "value": MARKER, "env": "b"}]},
        {"secret": f"id=a,value={MARKER},nonsense={MARKER}"},
        {"secret": [f"{MARKER}"]},
        {"secret": {"a": [MARKER]}},
        {"label": [f"={MARKER}"]},
        {"no_cache": MARKER},
        {"shm_size": MARKER},
        {"ulimit": [f"nofile={MARKER}"]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_wrong_options_are_told_without_their_values(options: dict[str, Any]) -> None:
    with pytest.raises(CooperError) as raised:
        _core.check_request({"context": {}, "options": options})
    assert MARKER not in str(raised.value) + repr(raised.value.fields)


def test_the_doctor_shows_no_secret(daemon: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    report = _core.doctor({"kind": "docker", "endpoints": [daemon]}, registry="127.0.0.1:1/app", credentials=give)
    assert report["status"] == "fail"
    assert "ada" in json.dumps(report)
    assert MARKER not in json.dumps(report)


@pytest.mark.parametrize(
    "engine",
    [
        {"token": MARKER},
        {"token": MARKER, "endpoints": ["tcp://192.0.2.1"]},
        {"token": f"{MARKER}\n"},
        {"token": [MARKER]},
        {"tls": {"ca_cert": f"-----BEGIN CERTIFICATE-----\n{MARKER}\n-----END CERTIFICATE-----\n"}},
        {
            "tls": {
                "client_cert": f"-----BEGIN CERTIFICATE-----\n{MARKER}\n-----END CERTIFICATE-----\n",
                "client_key": f"-----BEGIN PRIVATE KEY-----\n{MARKER}\n-----END PRIVATE KEY-----\n",
            }
        },
        {"tls": {"client_key": f"-----BEGIN {MARKER}"}},
        {"tls": {"client_key": {"a": MARKER}}},
        {"endpoints": [f"tcp://ada:{MARKER}@127.0.0.1:1"]},
        {"endpoints": [f"ssh://ada:{MARKER}@127.0.0.1:1"]},
        {"endpoints": [f"kube-pod://ada:{MARKER}@bk"]},
    ],
    ids=lambda engine: next(iter(engine)),
)
def test_what_is_shown_to_workers_is_not_shown_to_people(
    engine: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    engine = {"kind": "buildkit", "endpoints": ["tcp://127.0.0.1:1"], **engine}
    request = {"context": {}, "dockerfile": {"text": "FROM a"}, "engine": engine}
    with pytest.raises((CooperError, TypeError, ValueError)) as raised:
        _core.build(request)
    shown = f"{raised.value} {raised.value!r} {getattr(raised.value, 'fields', '')}"
    try:
        shown += json.dumps(_core.doctor(engine))
    except (CooperError, TypeError, ValueError) as error:
        shown += str(error)
    assert MARKER not in shown


def test_nothing_secret_is_in_the_arguments_of_a_process(daemon: str, tmp_path: Path) -> None:
    """What runs while a build asks for credentials: no program is started with a secret in its arguments."""
    seen: list[str] = []

    def look(registry: str, refresh: bool) -> dict[str, str]:
        seen.extend(arguments(process) for process in os.listdir("/proc") if process.isdigit())
        return give(registry, refresh)

    _core.doctor({"kind": "docker", "endpoints": [daemon]}, registry="127.0.0.1:1/app", credentials=look)
    assert seen
    assert not [line for line in seen if MARKER in line]


def arguments(process: str) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text(errors="replace")
    except OSError:
        return ""
