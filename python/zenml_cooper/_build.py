"""Builds without ZenML: keyword arguments to a request, a request through the native module."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zenml_cooper.outcome import Outcome

if TYPE_CHECKING:
    import logging

    from zenml_cooper._core import CancelHandle
    from zenml_cooper.progress import Mode

PathLike = str | os.PathLike[str]
Event = dict[str, Any]
Credential = Mapping[str, str]
Credentials = Callable[[str, bool], Credential | None] | Mapping[str, Credential]
ExtraFiles = Mapping[str, str | bytes | tuple[str | bytes, int]]


def build(
    context: PathLike | None = ".",
    *,
    dockerfile: PathLike | None = None,
    dockerfile_text: str | None = None,
    tags: Sequence[str] = (),
    push: bool = False,
    outputs: Sequence[str | Mapping[str, Any]] = (),
    build_args: Mapping[str, str | None] | None = None,
    labels: Mapping[str, str] | None = None,
    target: str | None = None,
    platform: str | Sequence[str] | None = None,
    no_cache: bool = False,
    no_cache_filter: Sequence[str] | None = None,
    pull: bool = False,
    cache_from: Sequence[str] | None = None,
    cache_to: Sequence[str] | None = None,
    compression: str | None = None,
    fold: bool | None = None,
    secrets: Sequence[str | Mapping[str, str | bytes]] | None = None,
    options: Mapping[str, Any] | None = None,
    ignore_file: PathLike | None = None,
    extra_files: ExtraFiles | None = None,
    engine: Literal["auto", "native", "docker", "buildkit"] = "auto",
    endpoint: str | Sequence[str] | None = None,
    docker_context: str | None = None,
    tls: Mapping[str, Any] | None = None,
    token: str | None = None,
    pool: Mapping[str, Any] | None = None,
    builder: Literal["auto", "buildkit", "classic"] = "auto",
    sandbox: Literal["root", "subordinate", "single", "chroot"] | None = None,
    runtime: str | None = None,
    credentials: Credentials | None = None,
    progress: "Mode" = "quiet",
    on_event: Callable[[Event], object] | None = None,
    cancel: "CancelHandle | None" = None,
) -> Outcome:
    """Builds an image, and pushes it if asked to.

    Args:
        context: The directory that COPY reads; `None` for the extra files alone.
        dockerfile: A Dockerfile on this machine; without it, `Dockerfile` in the context.
        dockerfile_text: The text of the Dockerfile, in place of a file.
        tags: The image's names.
        push: Push every tag.
        outputs: Where else the image goes, as `--output` of the command takes it: `"type=docker"`,
            `"type=docker,dest=FILE"`, `"type=oci,dest=PATH"`, `"type=local,dest=DIR"`, or mappings of the same. With
            none, the image stays where the engine keeps its own.
        build_args: Build arguments; `None` takes the value from the environment. They stay in the image's history.
        labels: Labels of the image.
        target: The stage to build.
        platform: `os/architecture[/variant]`; without it, that of the machine that builds. Several make one index
            (BuildKit engine).
        no_cache: Run every step again.
        no_cache_filter: Stages, by name (or, with the native engine, number), whose steps run again.
        pull: Look for newer base images.
        cache_from: Where to take cached steps from: names of images, or `"type=registry,ref=NAME"`.
        cache_to: Where to keep cached steps: `"type=registry,ref=NAME[,mode=min|max][,ignore-error=true]"`.
        compression: How the native engine compresses new layers: `"gzip"` or `"zstd"`, perhaps with a level:
            `"zstd:5"`. Without it, gzip, or what the base has.
        fold: Whether the native engine makes `RUN chmod` and `RUN chown` part of the COPY before them where that gives
            the same files; without it, it does.
        secrets: Secrets for `RUN --mount=type=secret`: `"id=ID,src=FILE"`, `"id=ID,env=VARIABLE"`, or
            `{"id": ..., "value": ...}`.
        options: Other options of `docker build`, by their names there or in docker-py (`docs/flavors/docker.md`).
        ignore_file: The ignore file, in place of `<Dockerfile>.dockerignore` or `.dockerignore`.
        extra_files: Files that are in the context and not on disk: path to content, or to content and mode.
        engine: What builds: `"docker"` is a daemon, `"buildkit"` one or several buildkitd, `"native"` this process.
        endpoint: The daemon's address; without it, the one that the Docker CLI would use. With the BuildKit engine one
            or several (`tcp://`, `unix://`, `docker-container://`, `podman-container://`, `kube-pod://`, `ssh://`,
            `docker://`); without it, `BUILDKIT_HOST` or buildkitd's own socket.
        docker_context: A context of the Docker CLI, in place of the current one.
        tls: `ca_cert`, `client_cert`, `client_key` (paths, or the PEM texts themselves), `server_name` and
            `skip_verify` for `endpoint`.
        token: Shown to a buildkitd with each call (`authorization: Bearer`), for a proxy before it that asks for one.
        pool: How several buildkitd share the work: `policy` (`"affinity"`, `"least_loaded"`, `"ordered"`) and `busy`,
            the number of builds from which on a worker is passed over.
        builder: Which builder of the daemon.
        sandbox: How the native engine isolates commands; without it, the best way that works, but never `"chroot"`.
        runtime: An OCI runtime that runs the native engine's commands in place of its own sandbox: `"runc"`, `"crun"`
            or a path.
        credentials: Credentials of registries: a function of the registry and whether the last answer was refused, or a
            mapping of registry to credential. A credential is `{"username", "password"}` or `{"identity_token"}`.
            Where there is none, the Docker config is asked.
        progress: What is shown on stderr.
        on_event: Called with each event, on this thread; an exception cancels the build.
        cancel: Stops this build from another thread.

    Returns:
        What was built.

    Raises:
        CooperError: If the build fails; the subclasses in `zenml_cooper.exceptions` say why.
        KeyboardInterrupt: On Ctrl-C, once the build has stopped.

    """
    request = make_request(
        context=context_spec(context, ignore_file, extra_files),
        dockerfile=dockerfile_spec(dockerfile, dockerfile_text),
        tags=tags,
        push=push,
        outputs=outputs,
        options={
            "build-arg": build_args,
            "label": labels,
            "target": target,
            "platform": platform,
            "no-cache": no_cache or None,
            "no-cache-filter": no_cache_filter,
            "pull": pull or None,
            "cache-from": cache_from,
            "cache-to": cache_to,
            "compression": compression,
            "fold": fold,
            "secret": secrets,
        },
        more_options=options,
        engine=engine_spec(engine, endpoint, docker_context, tls, builder, sandbox, runtime, token=token, pool=pool),
    )
    return Outcome.from_dict(run(request, credentials=credentials, progress=progress, on_event=on_event, cancel=cancel))


def run(
    request: Mapping[str, Any],
    *,
    credentials: Credentials | None = None,
    progress: "Mode" = "quiet",
    logger: "logging.Logger | None" = None,
    on_event: Callable[[Event], object] | None = None,
    cancel: "CancelHandle | None" = None,
) -> dict[str, Any]:
    """Runs a request as the native module takes it, and shows how it goes.

    Args:
        request: The request.
        credentials: As for `build`.
        progress: What is shown. `auto` draws a tree on a terminal, and writes lines elsewhere.
        logger: Where plain lines go, in place of stderr.
        on_event: Called with each event.
        cancel: Stops the build from another thread.

    Returns:
        The outcome, as the native module returns it.

    """
    from zenml_cooper import _core
    from zenml_cooper.progress import renderer

    with renderer(progress, logger=logger) as show:

        def deliver(event: Event) -> None:
            show(event)
            if on_event is not None:
                on_event(event)

        outcome = _core.build(request, on_event=deliver, credentials=credentials_function(credentials), cancel=cancel)
        show.finish(outcome)
    return outcome


def make_request(
    *,
    context: Mapping[str, Any],
    dockerfile: Mapping[str, Any],
    tags: Sequence[str],
    push: bool,
    outputs: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] = (),
    options: Mapping[str, Any],
    more_options: Mapping[str, Any] | None,
    engine: Mapping[str, Any],
) -> dict[str, Any]:
    """A request as the native module takes it. An option that is `None` is not given."""
    if isinstance(tags, str):
        tags = [tags]
    given = {name: plain(value) for name, value in options.items() if value is not None}
    given.update({name: plain(value) for name, value in (more_options or {}).items()})
    return {
        "context": dict(context),
        "dockerfile": dict(dockerfile),
        "tags": list(tags),
        "push": push,
        "outputs": plain(outputs),
        "options": given,
        "engine": {name: plain(value) for name, value in engine.items()},
    }


def engine_spec(
    kind: str,
    endpoint: str | Sequence[str] | None = None,
    docker_context: str | None = None,
    tls: Mapping[str, Any] | None = None,
    builder: str = "auto",
    sandbox: str | None = None,
    runtime: str | None = None,
    *,
    token: str | None = None,
    pool: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Where and how to build, as the native module takes it."""
    return {
        "kind": kind,
        "endpoints": [endpoint] if isinstance(endpoint, str) else list(endpoint or ()),
        "docker_context": docker_context,
        "tls": tls,
        "token": token,
        "pool": pool or {},
        "builder": builder,
        "sandbox": sandbox,
        "runtime": runtime,
    }


def context_spec(
    root: PathLike | None, ignore_file: PathLike | None = None, extra_files: ExtraFiles | None = None
) -> dict[str, Any]:
    """A context as the native module takes it."""
    files = []
    for path, content in (extra_files or {}).items():
        content, mode = content if isinstance(content, tuple) else (content, 0o644)
        files.append({"path": path, "content": plain(content), "mode": mode})
    return {
        "root": None if root is None else str(Path(root).absolute()),
        "ignore_file": None if ignore_file is None else str(Path(ignore_file).absolute()),
        "extra_files": files,
    }


def dockerfile_spec(path: PathLike | None = None, text: str | None = None) -> dict[str, Any]:
    """A Dockerfile as the native module takes it."""
    if text is not None:
        if path is not None:
            raise TypeError("give either `dockerfile` or `dockerfile_text`")
        return {"text": text}
    return {"in_context": "Dockerfile"} if path is None else {"path": str(Path(path).absolute())}


def credentials_function(credentials: Credentials | None) -> Callable[[str, bool], Any] | None:
    """A function that answers for registries."""
    if credentials is None or callable(credentials):
        return credentials
    known = dict(credentials)
    # Having been refused, the same answer again would not help.
    return lambda registry, refresh: None if refresh else known.get(registry)


def plain(value: Any) -> Any:
    """A value in the types that the native module reads."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value
