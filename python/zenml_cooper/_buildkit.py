"""What is wrong with the settings of a BuildKit, as far as it can be told without one.

Nothing here quotes what may be a secret.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

_SOCKETS = ("tcp", "https", "unix")
_PROGRAMS = ("docker-container", "podman-container", "nerdctl-container", "kube-pod", "ssh")
# Addresses of a Docker daemon, behind `docker+`.
_DOCKER = ("unix", "tcp", "http", "https", "ssh")
_ENCRYPTED = ("tcp", "https", "docker+tcp", "docker+https")
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\r?\n.*?\n-----END \1-----", re.DOTALL)
_MARKER = "-----BEGIN"
# ZenML shows what is in a configuration to everybody who may look at the stack, fields that are marked as secret too.
_NO_SECRETS = "secrets themselves do not belong into a configuration, which can be read; write a reference such as"
_FORMS = (
    "`tcp://HOST:PORT`, `https://HOST:PORT`, `unix:///PATH`, `docker-container://NAME`, `podman-container://NAME`, "
    "`nerdctl-container://NAME`, `kube-pod://NAME`, `ssh://USER@HOST`, or `docker://` for the BuildKit in a Docker "
    "daemon"
)


def split(text: str) -> list[str]:
    """The entries of a list that was written with commas between them."""
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def is_docker(endpoint: str) -> bool:
    """Whether an address is that of the BuildKit inside a Docker daemon."""
    return _scheme(endpoint) == "docker" or _scheme(endpoint).startswith("docker+")


def endpoint_problems(endpoints: Sequence[str]) -> list[str]:
    """What is wrong with addresses."""
    problems = [problem for endpoint in endpoints for problem in _address_problems(endpoint)]
    problems.extend(
        f"`endpoints`: `{_shown(endpoint)}` is given twice"
        for place, endpoint in enumerate(endpoints)
        if endpoint in endpoints[:place]
    )
    return problems


def _address_problems(endpoint: str) -> list[str]:
    scheme, rest = _scheme(endpoint), endpoint.partition("://")[2]
    shown = _shown(endpoint)
    if not scheme:
        guess = f"unix://{shown}" if endpoint.startswith("/") else f"tcp://{shown}"
        return [f"`endpoints`: `{shown}` has no scheme; did you mean `{guess}`?"]
    if scheme == "docker":
        if rest:
            return [f"`endpoints`: `{shown}`: write `docker://` alone, or e.g. `docker+unix:///run/docker.sock`"]
        return []
    if scheme not in (*_SOCKETS, *_PROGRAMS, *(f"docker+{inner}" for inner in _DOCKER)):
        return [f"`endpoints`: `{scheme}://` is not supported; write {_FORMS}"]
    if not rest.strip("/"):
        return [f"`endpoints`: `{shown}` has no address"]
    if scheme.endswith("unix") and not rest.startswith("/"):
        return [f"`endpoints`: the path of a unix socket is absolute: `{scheme}:///{rest}`"]
    if "@" in rest and not scheme.endswith("ssh"):
        return [f"`endpoints`: `{shown}`: an address holds no user or password; `token` is shown to the worker"]
    if re.match(r"[^/@]*:[^/@]*@", rest):
        return [f"`endpoints`: `{shown}`: an address holds no password; ssh has keys"]
    return []


def tls_problems(given: Iterable[str], endpoints: Sequence[str] | None) -> list[str]:
    """What is wrong with TLS settings, of which the names are given; `None` where the addresses are not known yet."""
    given = set(given)
    problems = []
    if ("tls_client_cert" in given) != ("tls_client_key" in given):
        problems.append("`tls_client_cert` and `tls_client_key` go together")
    if {"tls_skip_verify", "tls_ca_cert"} <= given:
        problems.append("`tls_ca_cert` says whom to trust, and `tls_skip_verify` trusts everybody; give one of them")
    if given and endpoints and not any(_scheme(endpoint) in _ENCRYPTED for endpoint in endpoints):
        problems.append(
            f"`{min(given)}` is for `tcp://` and `https://` addresses; there is none, and the others use no TLS"
        )
    return problems


def pem_problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with certificates and keys that are given as text; what has no marker of PEM names a file."""
    problems = []
    for name in ("tls_ca_cert", "tls_client_cert"):
        text = values.get(name) or ""
        kinds = [match[1] for match in _PEM.finditer(text)]
        if _MARKER not in text:
            if "\n" in text.strip():
                problems.append(f"`{name}`: this is neither the name of a file nor PEM (`-----BEGIN CERTIFICATE-----`)")
        elif not kinds:
            problems.append(f"`{name}`: this is no PEM: its lines have been joined, or its end is missing")
        elif not any(kind.endswith("CERTIFICATE") for kind in kinds):
            problems.append(f"`{name}`: this is the PEM of a {kinds[0].lower()}; a certificate belongs here")
    key = values.get("tls_client_key") or ""
    if _MARKER in key or "\n" in key.strip():
        problems.append(f"`tls_client_key`: {_NO_SECRETS} `{{{{buildkit.client_key}}}}`, or name a file")
    return problems


def token_problems(token: str | None, endpoints: Sequence[str], encrypted: bool) -> list[str]:
    """What is wrong with showing a token to these addresses; it is `None` where it is a secret reference."""
    if token:
        return [f"`token`: {_NO_SECRETS} `{{{{buildkit.token}}}}`"]
    open_ones = [endpoint for endpoint in endpoints if _scheme(endpoint) == "tcp" and not _is_loopback(endpoint)]
    if open_ones and not encrypted:
        return [
            f"`token`: it would go to `{_shown(open_ones[0])}` without TLS, for everybody in between to read; give "
            "`tls_ca_cert`, or write `https://`"
        ]
    if endpoints and not any(_scheme(endpoint) in _SOCKETS for endpoint in endpoints):
        return ["`token` is shown to `tcp://`, `https://` and `unix://` addresses; there is none"]
    return []


def repository_problems(repository: str) -> list[str]:
    """What is wrong with the place of a cache."""
    example = "write e.g. `registry.example/team/cache`"
    if "type=" in repository or "," in repository:
        return [f"`cache_repository`: {example}; `cache_from` and `cache_to` take `type=...`"]
    if "://" in repository or "@" in repository or re.search(r"[\sA-Z]", repository.rpartition("/")[0]):
        return [f"`cache_repository`: `{_shown(repository)}` is no repository; {example}"]
    if "/" not in repository:
        return [f"`cache_repository`: `{repository}` names no registry; {example}"]
    return []


def _scheme(endpoint: str) -> str:
    scheme, separator, _ = endpoint.partition("://")
    return scheme if separator else ""


def _shown(endpoint: str) -> str:
    """An address without what may be a password."""
    return re.sub(r"(://|^)[^/@]*:[^/@]*@", r"\1***@", endpoint)


def _is_loopback(endpoint: str) -> bool:
    address = endpoint.partition("://")[2].partition("/")[0]
    host = re.sub(r":\d+$", "", address).strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
