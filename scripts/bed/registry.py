"""Registries on loopback: a plain one, and one with TLS and a password."""

from __future__ import annotations

import base64
import json
import os
import secrets
import ssl
import string
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

from . import debian, process
from .say import Failure, run, step

USER = "cooper"

TRIES = 3
"""How often a start is tried: another process may take the free port first."""


class Registry(process.Record):
    """A running registry."""

    address: str
    password: str
    ca: str


def program(tools: Path) -> str:
    """The path of docker-registry."""
    return debian.program("docker-registry", "docker-registry", tools)


def start(name: str, home: Path, tools: Path, *, secured: bool) -> Registry:
    """Starts a registry whose data is in `home`."""
    home.mkdir(parents=True, exist_ok=True)
    binary = program(tools)
    password = secrets.token_urlsafe(18) if secured else ""
    if secured:
        _certificates(home)
        (home / "htpasswd").write_text(f"{USER}:{_bcrypt(password)}\n")
    for attempt in range(1, TRIES + 1):
        address = f"127.0.0.1:{process.free_port()}"
        ca = str(home / "ca.crt") if secured else ""
        registry: Registry = {"pid": 0, "started": "", "address": address, "password": password, "ca": ca}
        config = home / "config.json"  # YAML's subset
        config.write_text(json.dumps(_config(home, address, secured=secured), indent=1))
        try:
            server = process.start([binary, "serve", str(config)], home / "log", partial(answers, registry))
        except Failure:
            if attempt == TRIES:
                raise
            continue
        step(f"{name} answers at {address}")
        return {**registry, **server}
    raise AssertionError("unreachable")


def _config(home: Path, address: str, *, secured: bool) -> dict[str, object]:
    http: dict[str, object] = {"addr": address, "secret": secrets.token_hex(16)}
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(home / "data")}, "delete": {"enabled": True}},
        "http": http,
    }
    if secured:
        http["tls"] = {"certificate": str(home / "server.crt"), "key": str(home / "server.key")}
        config["auth"] = {"htpasswd": {"realm": "cooper", "path": str(home / "htpasswd")}}
    return config


def answers(registry: Registry) -> bool:
    """Whether the registry answers a request for /v2/, with its password where it has one."""
    ca = registry["ca"]
    request = urllib.request.Request(f"{'https' if ca else 'http'}://{registry['address']}/v2/")
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if ca:
        login = base64.b64encode(f"{USER}:{registry['password']}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca)))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=5) as response:
            status: int = response.status
            return status == 200
    except (OSError, urllib.error.URLError):
        return False


def _bcrypt(password: str) -> str:
    """The password as htpasswd wants it. Perl is essential in Debian, and its crypt() is that of the system."""
    salt = "$2b$05$" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(21)) + "."
    environment = {**os.environ, "PASSWORD": password, "SALT": salt}
    hashed = run(["perl", "-e", "print crypt($ENV{PASSWORD}, $ENV{SALT})"], env=environment)
    if not hashed.startswith("$2b$"):
        raise Failure("this system's crypt() has no bcrypt, which a registry's htpasswd file needs")
    return hashed


def _certificates(home: Path) -> None:
    """An authority, and a certificate of 127.0.0.1 and localhost that it signed."""
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    (home / "server.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n")
    for arguments in (
        f"req -x509 {key} -days 30 -subj /CN=cooper-test-authority -keyout ca.key -out ca.crt"
        " -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign",
        f"req {key} -subj /CN=127.0.0.1 -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile server.ext -days 30"
        " -out server.crt",
    ):
        run(["openssl", *arguments.split()], cwd=home, hint="install the package openssl")
