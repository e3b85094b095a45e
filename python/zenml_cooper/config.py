"""What can be set on the image builders."""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator
from zenml.image_builders import BaseImageBuilderConfig
from zenml.utils import secret_utils
from zenml.utils.secret_utils import SecretField

from zenml_cooper import _buildkit

_HOST_SCHEMES = ("unix", "tcp", "http", "https", "ssh")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/v?[a-z0-9]+)?")
_SECRET_SOURCE = re.compile(r"(env|src)=.+", re.DOTALL)
_COMPRESSION = re.compile(r"(gzip|zstd)(:\d+)?")
_SIZE = re.compile(r"\d+(\.\d+)? ?([kmgt]i?)?b?", re.IGNORECASE)
_OUTPUTS = ("type=docker", "type=oci,")
_PARAMETERS = re.compile(r"\w[\w-]*=[^,]*(,\w[\w-]*=[^,]*)*")
_SANDBOXES = ("root", "subordinate", "single", "chroot")
_EXAMPLES = {
    "add_hosts": '{"pypi.internal": "10.0.0.7"}',
    "build_args": '{"HTTPS_PROXY": "http://proxy.internal:3128"}',
    "labels": '{"team": "ml"}',
    "build_secrets": '{"pip": "{{pypi.token}}"}',
}


class PackageConfig(BaseImageBuilderConfig):
    """What every image builder of this package has, those that are subclasses of ZenML's among them."""

    # Merged with ZenML's own. An error shall not quote what may be a secret.
    model_config = ConfigDict(hide_input_in_errors=True)

    include_package: bool = Field(
        default=True,
        description="Add the Python part of zenml-cooper (no native code, under 1 MB) to the images that ZenML makes "
        "for pipelines. ZenML loads every component of the stack in every step, the image builder too. Switch it off "
        "where zenml-cooper is installed in the images another way.",
    )


class CooperImageBuilderConfig(PackageConfig):
    """What every image builder has that builds with the native module.

    A value that is a string may be a `{{secret.key}}` reference. There are no field validators, because ZenML refuses
    references for fields that have one; all checks are in one model validator, which leaves references alone.
    """

    progress: Literal["auto", "tty", "plain", "json", "quiet"] = Field(
        default="auto",
        description="How a build shows its progress: `tty` draws a live tree, `plain` writes lines to the ZenML log, "
        "`json` writes one JSON object per event to stderr, `quiet` shows nothing. `auto` draws a tree on a terminal "
        "and logs lines elsewhere.",
    )
    platform: str | None = Field(
        default=None,
        description="Platform to build for where the build options name none, e.g. `linux/amd64`. Without it, the "
        "platform of the machine that builds.",
    )
    network: str | None = Field(
        default=None,
        description="Network of RUN steps where the build options name none: `default`, `none`, `host`, or, with the "
        "classic builder, the name of a network.",
    )
    add_hosts: dict[str, str] = Field(
        default_factory=dict,
        description="Extra host names for RUN steps, name to address, e.g. for a private package index.",
    )
    build_args: dict[str, str] = Field(
        default_factory=dict,
        description="Build arguments of every build, e.g. `HTTPS_PROXY`; those of the build options win. They can be "
        "read from the image's history: use `build_secrets` for secrets.",
    )
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="Labels of every image; those of the build options win.",
    )
    build_secrets: dict[str, str] = Field(
        default_factory=dict,
        description="Secrets for `RUN --mount=type=secret,id=ID`, by id. A value is a `{{secret.key}}` reference, "
        "`env=VARIABLE` or `src=FILE`; the latter two are read on the machine that runs ZenML. Secrets stay "
        "out of the image and its history. A Docker daemon needs BuildKit for them.",
    )
    ssh: list[str] = Field(
        default_factory=list,
        description="SSH agents or keys for `RUN --mount=type=ssh`: `default`, `ID`, `ID=SOCKET` or `ID=KEY`. A "
        "Docker daemon needs BuildKit for them.",
    )
    cache_from: list[str] = Field(
        default_factory=list,
        description="Where to look for cached steps, unless the build options say so: image names, or "
        "`type=registry,ref=NAME`.",
    )
    cache_to: list[str] = Field(
        default_factory=list,
        description="Where to keep the cache, unless the build options say so, e.g. "
        "`type=registry,ref=NAME,mode=max`. A Docker daemon needs BuildKit for it.",
    )

    @property
    def required_secrets(self) -> set[secret_utils.SecretReference]:
        """The secrets that the configuration refers to, those in `build_secrets` included."""
        nested = {
            secret_utils.parse_secret_reference(source)
            for source in self.build_secrets.values()
            if secret_utils.is_secret_reference(source)
        }
        return super().required_secrets | nested

    @model_validator(mode="before")
    @classmethod
    def _one_is_a_list(cls, data: Any) -> Any:
        """Takes `--ssh=default` for a list of one; ZenML itself would ask for a JSON list."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        for name, field in cls.model_fields.items():
            value = data.get(name)
            if not isinstance(value, str):
                continue
            if field.annotation == list[str] and not value.lstrip().startswith("["):
                data[name] = [value]
            elif field.annotation == dict[str, str] and not value.lstrip().startswith("{"):
                raise ValueError(f"`{name}`: write a JSON object, e.g. '{_EXAMPLES[name]}'")
        return data

    @model_validator(mode="after")
    def _check(self) -> "CooperImageBuilderConfig":
        # Not by attribute: reading a reference would resolve it, with a call to the server.
        problems = list(
            self._problems({key: value for key, value in self.__dict__.items() if not _is_reference(value)})
        )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self, values: Mapping[str, Any]) -> list[str]:
        """What is wrong with the values; secret references are not among them."""
        problems = []
        platform = values.get("platform")
        if platform and not _PLATFORM.fullmatch(platform):
            problems.append(f"`platform`: `{platform}` is no platform; write os/architecture, e.g. `linux/amd64`")
        for id_, source in values.get("build_secrets", {}).items():
            if not id_:
                problems.append("`build_secrets`: an id is empty")
            elif not _is_reference(source) and not _SECRET_SOURCE.fullmatch(source):
                # Without the value: it may be the secret.
                problems.append(
                    f"`build_secrets`: the value of `{id_}` says no source; write a `{{{{secret.key}}}}` reference, "
                    "`env=VARIABLE` or `src=FILE`. Secrets themselves do not belong into a configuration"
                )
        for name in ("add_hosts", "build_args", "labels", "ssh", "cache_from", "cache_to"):
            entries = values.get(name) or []
            if any(map(_is_reference, entries.values() if isinstance(entries, dict) else entries)):
                problems.append(
                    f"`{name}`: a secret reference cannot stand here; what is in it would be readable later"
                )
        problems.extend(
            f"`ssh`: `{entry}` has no id; write `default` or `ID=SOCKET`"
            for entry in values.get("ssh", [])
            if not entry.partition("=")[0]
        )
        problems.extend(
            f"`cache_to`: `{entry}` has no type; write e.g. `type=registry,ref={entry}`"
            for entry in values.get("cache_to", [])
            if "type=" not in entry
        )
        return problems


class NativeImageBuilderConfig(CooperImageBuilderConfig):
    """Configuration of the image builder `cooper`."""

    compression: str | None = Field(
        default=None,
        description="How new layers are compressed, unless the build options say so: `gzip` or `zstd`, with a level or "
        "without, e.g. `zstd:5`. Without it, gzip, or what the base has. Some services, such as SageMaker and Lambda, "
        "take gzip only.",
    )
    fold: bool = Field(
        default=True,
        description="Make the `RUN chmod` and `RUN chown` that ZenML puts behind its COPY a part of it, where the "
        "result is provably the same. Without this, they are run like any other command.",
    )
    output: str | None = Field(
        default=None,
        description="Where an image goes when the stack has no container registry: `type=docker` (the Docker or Podman "
        "daemon that the docker command line would use), `type=docker,dest=FILE`, `type=oci,dest=PATH` or `store`. "
        "Without it, to that daemon where one runs, else it stays in the store.",
    )
    cache_dir: str | None = Field(
        default=None,
        description="Directory of the store, in which layers and results of steps are kept between builds; it should "
        "be on a local disk. Without it, that of COOPER_CACHE_DIR, or `zenml-cooper` in the user's cache.",
    )

    cache_size: str | None = Field(
        default=None,
        description="How large the store may become, e.g. `50g`: what was not used for the longest time goes first. "
        "Without it, what COOPER_CACHE_SIZE says, or 20 GiB.",
    )
    sandbox: str | None = Field(
        default=None,
        description="How commands of RUN are isolated: `root`, `subordinate`, `single` or `chroot`. Without it, the "
        "best that works; `chroot`, which isolates next to nothing, is taken only where it is named.",
    )
    runtime: str | None = Field(
        default=None,
        description="An OCI runtime that runs commands in place of the sandbox that is built in: `runc`, `crun`, or "
        "the path of one.",
    )

    def _problems(self, values: Mapping[str, Any]) -> list[str]:
        problems = super()._problems(values)
        problems += _compression_problems(values.get("compression"))
        size = values.get("cache_size")
        if size is not None and not _SIZE.fullmatch(size):
            problems.append(f"`cache_size`: `{size}` is no size; write bytes, or a number with k, m, g or t")
        sandbox = values.get("sandbox")
        if sandbox is not None and sandbox not in _SANDBOXES:
            problems.append(f"`sandbox`: `{sandbox}` is none; write one of {', '.join(map(repr, _SANDBOXES))}")
        output = values.get("output")
        if output is not None and output != "store" and not output.startswith(_OUTPUTS):
            problems.append(
                f"`output`: `{output}` is none; write `type=docker`, `type=docker,dest=FILE`, `type=oci,dest=PATH` or "
                "`store`"
            )
        return problems


class DockerImageBuilderConfig(CooperImageBuilderConfig):
    """Configuration of the image builder `cooper_docker`."""

    host: str | None = Field(
        default=None,
        description="Address of the Docker or Podman daemon: `unix:///run/user/1000/podman/podman.sock`, "
        "`tcp://build.example:2376` or `ssh://user@build.example`. Without it (and `docker_context`), the daemon is "
        "found as the docker command line does: DOCKER_HOST, DOCKER_CONTEXT, the current Docker context, the usual "
        "sockets.",
    )
    docker_context: str | None = Field(
        default=None,
        description="Name of a Docker context (`docker context ls`) to use in place of the current one.",
    )
    tls_ca_cert: str | None = Field(
        default=None,
        description="File with the certificates that the certificate of a `tcp://` host is checked against. Default: "
        "those of the system.",
    )
    tls_client_cert: str | None = Field(
        default=None,
        description="File with the client certificate for a `tcp://` host.",
    )
    tls_client_key: str | None = Field(
        default=None,
        description="File with the key of the client certificate.",
    )
    tls_skip_verify: bool = Field(
        default=False,
        description="Do not check the certificate of a `tcp://` host. Anybody in between can then read and change "
        "builds.",
    )
    builder: Literal["auto", "buildkit", "classic"] = Field(
        default="auto",
        description="Which builder of the daemon: `buildkit` fails where there is none, `auto` then takes the classic "
        "builder.",
    )

    def _problems(self, values: Mapping[str, Any]) -> list[str]:
        problems = super()._problems(values)
        host = values.get("host")
        if host is not None:
            problems.extend(_host_problems(host))
        # `values` lacks references, `__dict__` has them.
        given = {key for key, value in self.__dict__.items() if value}
        if {"host", "docker_context"} <= given:
            problems.append("`host` and `docker_context` both name a daemon; give one of them")
        tls = sorted(key for key in given if key.startswith("tls_"))
        if tls and "host" not in given:
            problems.append(
                f"`{tls[0]}` belongs to a `host`, and there is none; a Docker context has its own TLS files"
            )
        elif tls and host is not None and host.startswith(("unix:", "ssh:")):
            problems.append(f"`{tls[0]}` is for a `tcp://` host; `{host}` uses no TLS")
        if ("tls_client_cert" in given) != ("tls_client_key" in given):
            problems.append("`tls_client_cert` and `tls_client_key` go together")
        return problems


class BuildKitImageBuilderConfig(CooperImageBuilderConfig):
    """Configuration of the image builder `cooper_buildkit`."""

    # A text where it is a secret reference, and comes out of the secret as one, with commas.
    endpoints: list[str] | str = Field(
        default_factory=list,
        description="Addresses of the workers, with commas or as a JSON list: "
        "`tcp://buildkitd-0.buildkitd.ci.svc:1234`, `unix:///run/buildkit/buildkitd.sock`, `docker-container://NAME`, "
        "`podman-container://NAME`, `kube-pod://NAME?namespace=NAMESPACE`, `ssh://USER@HOST`, `docker://`. Without "
        "it, BUILDKIT_HOST, or the socket of a buildkitd on the machine that runs ZenML.",
    )
    tls_ca_cert: str | None = Field(
        default=None,
        description="Certificates of the authority that signed those of the workers: a file, or the PEM text, which is "
        "best a secret reference. Default: the authorities of the system.",
    )
    tls_client_cert: str | None = Field(
        default=None,
        description="The certificate that is shown to the workers: a file, or the PEM text.",
    )
    tls_client_key: str | None = SecretField(
        default=None,
        description="The key of the client certificate: a file, or a secret reference to the PEM text: "
        "`{{buildkit.client_key}}`.",
    )
    tls_server_name: str | None = Field(
        default=None,
        description="The name in the certificates of the workers, where it is not that of the address, e.g. behind a "
        "port that is forwarded.",
    )
    tls_skip_verify: bool = Field(
        default=False,
        description="Do not check the certificates of the workers. Anybody in between can then read and change builds.",
    )
    token: str | None = SecretField(
        default=None,
        description="A token that is shown with each call (`authorization: Bearer`), for a proxy before the workers "
        "that asks for one: a secret reference.",
    )
    pool_policy: Literal["affinity", "least_loaded", "ordered"] = Field(
        default="affinity",
        description="Which of several workers builds: `affinity` keeps a project with the worker that has its cache, "
        "`least_loaded` takes the one with the fewest builds, `ordered` the first that answers.",
    )
    pool_busy: int | None = Field(
        default=None,
        description="With so many builds, a worker is passed over as long as another has fewer. Default: 4.",
    )
    platforms: list[str] = Field(
        default_factory=list,
        description="Platforms to build for where the build options name none, with commas or as a JSON list; several "
        "make an index. In place of `platform`.",
    )
    cache_repository: str | None = Field(
        default=None,
        description="Repository where the results of all steps are kept and looked for, e.g. "
        "`registry.example/team/cache`, besides `cache_from` and `cache_to`. Without a tag, each image has one there "
        "by the name of its own. A cache that cannot be written fails no build.",
    )
    compression: str | None = Field(
        default=None,
        description="How new layers are compressed, unless the build options say so: `gzip` or `zstd`, with a level or "
        "without, e.g. `zstd:5`. Default: gzip, which everything takes.",
    )
    oci_mediatypes: bool | None = Field(
        default=None,
        description="OCI's media types, or Docker's. Default: Docker's, which every registry and service takes, unless "
        "something needs OCI's.",
    )
    provenance: bool | str = Field(
        default=False,
        description="Attest how images were made: `true`, or parameters such as `mode=max`. Services such as SageMaker "
        "and Lambda refuse images with attestations.",
    )
    sbom: bool | str = Field(
        default=False,
        description="Attest what is in images: `true`, or parameters such as `generator=IMAGE`. The same services "
        "refuse them.",
    )
    output: str | None = Field(
        default=None,
        description="Where an image goes when the stack has no container registry: `type=docker` (the Docker or Podman "
        "daemon that the docker command line would use), `type=docker,dest=FILE` or `type=oci,dest=PATH`. Without it, "
        "a stack without a registry is an error, unless the worker is part of a Docker daemon, which then has the "
        "image.",
    )

    @model_validator(mode="before")
    @classmethod
    def _lists_with_commas(cls, data: Any) -> Any:
        """Takes `--endpoints=A,B` and JSON for a list; a secret reference stays what it is."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        for name in ("endpoints", "platforms"):
            value = data.get(name)
            if not isinstance(value, str) or _is_reference(value):
                continue
            if not value.lstrip().startswith("["):
                data[name] = _buildkit.split(value)
                continue
            try:
                data[name] = json.loads(value)
            except ValueError:
                raise ValueError(f"`{name}`: this is no JSON; commas between the entries will do as well") from None
        return data

    def _problems(self, values: Mapping[str, Any]) -> list[str]:
        problems = super()._problems(values)
        # `values` lacks references, `__dict__` has them.
        given = {key for key, value in self.__dict__.items() if value}
        tls = {key for key in given if key.startswith("tls_")}
        # Where a reference has them, or the environment, they are looked at when a build starts.
        endpoints = values.get("endpoints") or []
        if any(map(_is_reference, endpoints)):
            problems.append("`endpoints`: one of several cannot be a secret reference; let one secret have them all")
        problems += _buildkit.endpoint_problems(endpoints)
        problems += _buildkit.tls_problems(tls, endpoints)
        problems += _buildkit.pem_problems(values)
        if "token" in given:
            problems += _buildkit.token_problems(values.get("token"), endpoints, encrypted=bool(tls))
        if values.get("pool_busy") is not None and values["pool_busy"] < 1:
            problems.append("`pool_busy`: a worker that is busy without a build never gets one; write 1 or more")
        problems += self._image_problems(values, given)
        return problems

    def _image_problems(self, values: Mapping[str, Any], given: set[str]) -> list[str]:
        problems = [
            f"`platforms`: `{platform}` is no platform; write os/architecture, e.g. `linux/amd64`"
            for platform in values.get("platforms") or []
            if not _PLATFORM.fullmatch(platform)
        ]
        if {"platform", "platforms"} <= given:
            problems.append("`platform` and `platforms` say the same; give one of them")
        if values.get("cache_repository"):
            problems += _buildkit.repository_problems(values["cache_repository"])
        problems += _compression_problems(values.get("compression"))
        attested = [name for name in ("provenance", "sbom") if self.__dict__[name] not in (False, "false")]
        problems.extend(
            f"`{name}`: write `true`, `false`, or parameters such as `mode=max`"
            for name in attested
            if isinstance(values.get(name), str) and not _is_attestation(values[name])
        )
        if values.get("oci_mediatypes") is False:
            needs = attested[:1] + (["compression"] if str(values.get("compression")).startswith("zstd") else [])
            problems.extend(f"`oci_mediatypes`: `{name}` exists with OCI's media types only" for name in needs)
        output = values.get("output")
        if output is not None and not output.startswith(_OUTPUTS):
            problems.append(
                f"`output`: `{output}` is none; write `type=docker`, `type=docker,dest=FILE` or `type=oci,dest=PATH`"
            )
        return problems


def _is_attestation(text: str) -> bool:
    return text in ("true", "false") or bool(_PARAMETERS.fullmatch(text))


def _compression_problems(compression: str | None) -> list[str]:
    if compression is None or _COMPRESSION.fullmatch(compression):
        return []
    return [f"`compression`: `{compression}` is neither `gzip` nor `zstd`, with a level or without"]


def _is_reference(value: Any) -> bool:
    return bool(secret_utils.is_secret_reference(value))


def _host_problems(host: str) -> list[str]:
    scheme, separator, rest = host.partition("://")
    if not separator:
        guess = f"unix://{host}" if host.startswith("/") else f"tcp://{host}"
        return [f"`host`: `{host}` has no scheme; did you mean `{guess}`?"]
    if scheme not in _HOST_SCHEMES:
        known = ", ".join(f"`{name}://`" for name in _HOST_SCHEMES)
        return [f"`host`: `{scheme}://` is not supported; use one of {known}"]
    if scheme == "unix" and not rest.startswith("/"):
        return [f"`host`: the path of a unix socket is absolute: `unix:///{rest}`"]
    if not rest:
        return [f"`host`: `{host}` has no address"]
    return []
