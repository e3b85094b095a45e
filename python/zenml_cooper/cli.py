"""The command `cooper`. Results go to stdout, everything else to stderr."""

import argparse
import difflib
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from zenml_cooper import _cli_cache, _cli_context
from zenml_cooper._text import count, sanitize, say

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

# Errors in what was typed, found by the native module.
_USAGE_CODES = frozenset(
    {"invalid-reference", "invalid-digest", "invalid-platform", "unknown-option", "invalid-option"}
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        0 done, 1 failed, 2 wrong usage, 130 interrupted.

    """
    # A terminated build is cleaned up like an interrupted one.
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(arguments)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(arguments: Sequence[str] | None) -> int:
    from zenml_cooper.exceptions import CooperCancelled, CooperError

    try:
        parsed = _parser().parse_args(arguments)
        code: int = parsed.run(parsed)
        sys.stdout.flush()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    except (KeyboardInterrupt, CooperCancelled):
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`cooper context ls | head`). Python must not try to write the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except CooperError as error:
        say(f"error: {error}")
        return USAGE if error.code in _USAGE_CODES else FAILED
    except OSError as error:
        say(f"error: {error}")
        return FAILED
    return code


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


class _Parser(argparse.ArgumentParser):
    """Whole option names only, and a suggestion for one that is not there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", _Help)
        super().__init__(*args, **kwargs)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses; an argument that means nothing is told by the command that got it."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            getattr(parsed, "parser", self).unknown(unknown[0])
        return parsed

    def unknown(self, argument: str) -> NoReturn:
        """Fails for an argument that means nothing."""
        known = [option for action in self._actions for option in action.option_strings]
        close = difflib.get_close_matches(argument.partition("=")[0], known, n=1) if argument.startswith("-") else []
        hint = f"\nhint: did you mean `{close[0]}`?" if close else ""
        self.error(f"unknown argument `{argument}`{hint}")

    def error(self, message: str) -> NoReturn:
        """Fails with a usage error."""
        say(f"error: {message}\n{self.format_usage().rstrip()}\n`{self.prog} --help` says more")
        raise SystemExit(USAGE)


class _Help(argparse.HelpFormatter):
    """Room for the longer options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # `-f, --file FILE` in place of `-f FILE, --file FILE`.
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        shown = action.metavar or (
            f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper()
        )
        return f"{', '.join(action.option_strings)} {shown}"


def _parser() -> _Parser:
    parser = _Parser(prog="cooper", description="Build container images, and look into build contexts.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    parser.set_defaults(run=lambda _: parser.error("a command is missing"), parser=parser)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    _add_build(commands)
    _cli_context.add(commands, _command)
    _add_doctor(commands)
    _cli_cache.add(commands, _command)
    _add_zenml(commands)
    return parser


class _Version(argparse.Action):
    def __call__(self, *_: object) -> None:
        from zenml_cooper import __version__

        print(f"cooper {__version__}")
        raise SystemExit(DONE)


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int] | None, text: str) -> _Parser:
    parser: _Parser = commands.add_parser(name, help=text[0].lower() + text[1:].rstrip("."), description=text)
    parser.set_defaults(run=run or (lambda _: parser.error("a command is missing")), parser=parser)
    return parser


# cooper build


def _add_build(commands: Any) -> None:
    parser = _command(commands, "build", _build, "Build an image from a Dockerfile and a context.")
    parser.usage = "cooper build [OPTIONS] [CONTEXT]"
    add = parser.add_argument
    add("context", metavar="CONTEXT", nargs="?", default=".", help="directory that COPY reads (default: .)")
    add("-f", "--file", metavar="FILE", help="Dockerfile; - reads stdin (default: CONTEXT/Dockerfile)")
    add("-t", "--tag", metavar="NAME", action="append", default=[], help="name of the image; repeatable")
    add("--check", action="store_true", help="check the Dockerfile, and build nothing")
    add("--progress", metavar="MODE", choices=("auto", "tty", "plain", "json", "quiet"), default="auto",
        help="auto, tty, plain, json or quiet; on stderr")  # fmt: skip

    where = parser.add_argument_group("where to build")
    add = where.add_argument
    add("--engine", metavar="ENGINE", choices=_ENGINES, default="auto",
        help="native (no daemon), docker, buildkit, or auto: docker if a daemon answers (default: auto)")  # fmt: skip
    _add_endpoints(add)
    add("--pool-policy", metavar="POLICY", choices=_POLICIES,
        help="which of several buildkitd: affinity, least-loaded or ordered (default: affinity)")  # fmt: skip
    add("--pool-busy", metavar="N", type=int, help="builds from which on a buildkitd is passed over (default: 4)")
    add("--sandbox", metavar="LEVEL", choices=_SANDBOXES,
        help="how commands are isolated: root, subordinate, single, chroot (default: the best that works)")  # fmt: skip
    add("--runtime", metavar="PROGRAM", help="run commands with an OCI runtime: runc, crun or a path")

    out = parser.add_argument_group("where the image goes")
    add = out.add_argument
    add("--push", action="store_true", help="push every tag")
    add("-o", "--output", metavar="SPEC", action="append", default=[],
        help="type=docker[,dest=FILE], type=oci,dest=PATH[,tar=true] or type=local,dest=DIR; repeatable")  # fmt: skip
    add("--compression", metavar="KIND", help="gzip or zstd, with a level: zstd:5")
    add("--metadata-file", metavar="FILE", help="write the result as JSON")

    how = parser.add_argument_group("how to build")
    add = how.add_argument
    for option, metavar, text in _REPEATED:
        add(f"--{option}", metavar=metavar, action="append", help=f"{text}; repeatable")
    for option, metavar, text in _SINGLE:
        add(f"--{option}", metavar=metavar, help=text)
    add("--no-cache", action="store_true", default=None, help="run every step again")
    add("--fold", action=argparse.BooleanOptionalAction,
        help="make RUN chmod and chown part of the COPY before them (default: if the result is the same)")  # fmt: skip
    add("--oci-mediatypes", action=argparse.BooleanOptionalAction,
        help="OCI's media types, or Docker's (buildkit; default: Docker's where they can say it)")  # fmt: skip
    add("--force-compression", action="store_true", default=None,
        help="compress the layers of the base anew (buildkit)")  # fmt: skip
    add("--pull", action="store_true", default=None, help="look for newer base images")
    add("--ignorefile", metavar="FILE", help="in place of FILE.dockerignore and .dockerignore")


def _add_endpoints(add: Callable[..., Any]) -> None:
    add("--endpoint", metavar="URL", action="append", default=[],
        help="address of the daemon (default: as docker does); of buildkitd (BUILDKIT_HOST), repeatable")  # fmt: skip
    for name, text in _TLS:
        add(f"--{name}", metavar=text.split(" ")[0].upper(), help=text.partition(" ")[2])


def _engine(arguments: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """The engine that was chosen, as the native module takes it."""
    from zenml_cooper import _build as building

    # A token on the command line could be seen by everybody on this machine.
    token = os.environ.get("BUILDKIT_TOKEN") if arguments.engine == "buildkit" else None
    return building.engine_spec(arguments.engine, arguments.endpoint, tls=_tls(arguments), token=token or None, **more)


def _tls(arguments: argparse.Namespace) -> dict[str, str] | None:
    given = vars(arguments)
    return {_TLS_FIELDS[name]: given[name] for name, _ in _TLS if given[name] is not None} or None


_TLS = (
    ("tlscacert", "file trust only certificates signed by this CA"),
    ("tlscert", "file client certificate"),
    ("tlskey", "file key of the client certificate"),
    ("tlsservername", "name the name in the daemon's certificate, if it is not the address's"),
)
_TLS_FIELDS = {
    "tlscacert": "ca_cert",
    "tlscert": "client_cert",
    "tlskey": "client_key",
    "tlsservername": "server_name",
}
_POLICIES = ("affinity", "least-loaded", "ordered")
_SANDBOXES = ("root", "subordinate", "single", "chroot")
_ENGINES = ("auto", "native", "docker", "buildkit")
_REPEATED = (
    ("build-arg", "K=V", "build argument; K alone takes the value from the environment"),
    ("label", "K=V", "label of the image"),
    ("secret", "SPEC", "for RUN --mount=type=secret: id=ID,src=FILE or id=ID,env=VAR"),
    ("ssh", "SPEC", "for RUN --mount=type=ssh: default, ID=SOCKET or ID=KEY"),
    ("build-context", "NAME=SOURCE", "another context, for COPY --from=NAME"),
    ("no-cache-filter", "STAGE", "run every step of this stage again"),
    ("cache-from", "REF", "take cached steps from there: NAME or type=registry,ref=NAME"),
    (
        "cache-to",
        "REF",
        "keep the cache there: type=registry,ref=NAME[,mode=min|max][,mounts=true][,ignore-error=true]",
    ),
    ("add-host", "HOST:ADDRESS", "another host name for RUN"),
    ("ulimit", "NAME=SOFT[:HARD]", "limit for RUN"),
    ("annotation", "KEY=VALUE", "annotation of the manifest, or of index:KEY=VALUE (buildkit)"),
    ("attest", "SPEC", "attestation: type=provenance[,mode=max] or type=sbom (buildkit)"),
    ("allow", "RIGHT", "let the build use network.host or security.insecure (buildkit)"),
)
_OTHERS = ("no-cache", "pull", "fold", "compression", "oci-mediatypes", "force-compression")
_SINGLE = (
    ("target", "STAGE", "the stage to build"),
    ("platform", "OS/ARCH[/VARIANT]", "platform of the image; several with commas make an index (buildkit)"),
    ("network", "MODE", "network of RUN: host, none or default"),
    ("shm-size", "BYTES", "size of /dev/shm for RUN; 64m is fine too"),
    ("provenance", "VALUE", "true, or parameters such as mode=max (buildkit)"),
    ("sbom", "VALUE", "true, or parameters such as generator=IMAGE (buildkit)"),
    ("source-date-epoch", "N", "Unix time that replaces newer times in the image"),
)


def _build(arguments: argparse.Namespace) -> int:
    from zenml_cooper import _build as building
    from zenml_cooper import _core

    if arguments.check:
        return _check(arguments)
    _refuse(arguments)
    metadata = arguments.metadata_file
    if metadata and not os.access(Path(metadata).absolute().parent, os.W_OK):
        arguments.parser.error(f"--metadata-file: the directory of `{metadata}` cannot be written to")
    goes = _core.build_outputs(arguments.output)
    if (arguments.push or goes["push"]) and not arguments.tag:
        arguments.parser.error("--push needs a name; give one with --tag")
    outcome = building.run(_request(arguments), progress=arguments.progress)
    if metadata:
        totals = outcome["totals"]
        cache = {"cached_steps": totals["cached_steps"], "total_steps": totals["total_steps"]}
        write_atomically(metadata, json.dumps({**outcome, "cache": cache}, indent=2) + "\n")
    print(*_results(outcome, goes["outputs"]), sep="\n")
    return DONE


def _results(outcome: dict[str, Any], outputs: Sequence[dict[str, Any]]) -> list[str]:
    """The lines for stdout: the image's name, or where it was written if it is nowhere else."""
    files = [output["dest"] for output in outputs if output.get("dest")]
    only_files = outputs and len(files) == len(outputs) and outcome["digest"] is None
    return files if only_files else [outcome["image"]]


def _request(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was typed, as the native module takes it."""
    from zenml_cooper import _build as building

    text = sys.stdin.read() if arguments.file == "-" else None
    given = vars(arguments)
    names = [option for option, _, _ in (*_REPEATED, *_SINGLE)] + [*_OTHERS]
    return building.make_request(
        context=building.context_spec(arguments.context, arguments.ignorefile),
        dockerfile=building.dockerfile_spec(None if text is not None else arguments.file, text),
        tags=arguments.tag,
        push=arguments.push,
        outputs=arguments.output,
        options={name: given[name.replace("-", "_")] for name in names},
        more_options=None,
        engine=_engine(arguments, sandbox=arguments.sandbox, runtime=arguments.runtime, pool=_pool(arguments)),
    )


def _pool(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {"policy": arguments.pool_policy and arguments.pool_policy.replace("-", "_"), "busy": arguments.pool_busy}
    return {name: value for name, value in given.items() if value is not None}


def _check(arguments: argparse.Namespace) -> int:
    """Says what can be said against the Dockerfile. As with `docker build --check`, anything at all is a failure."""
    from zenml_cooper import _core

    report = _core.dockerfile_check(_request(arguments))
    findings, error = report["findings"], report["error"]
    if arguments.progress == "json":
        told = error and {"code": error.code, "message": error.message, "hint": error.hint, "fields": error.fields}
        print(json.dumps({"findings": findings, "error": told}, indent=2))
    elif arguments.progress != "quiet":
        kind = "error" if report["findings_are_errors"] else "warning"
        for finding in findings:
            print(f"{kind}: {finding['rule']}: {sanitize(finding['message'])}")
            print("\n".join(map(sanitize, finding["frame"].splitlines())), end="\n\n")
        if error:
            say(f"error: {error}")
        else:
            say(f"checked: {count(len(findings), kind) if findings else 'nothing to complain about'}")
    return FAILED if findings or error else DONE


def _refuse(arguments: argparse.Namespace) -> None:
    """Fails for what the chosen engine does not have."""
    fail = arguments.parser.error
    _refuse_several(arguments)
    if arguments.engine != "buildkit" and _pool(arguments):
        fail("--pool-policy and --pool-busy are for `--engine buildkit`")
    if arguments.pool_busy is not None and arguments.pool_busy < 1:
        fail("--pool-busy: a worker that is busy without a build never gets one; give 1 or more")


def _refuse_several(arguments: argparse.Namespace) -> None:
    if arguments.engine != "buildkit" and len(arguments.endpoint) > 1:
        arguments.parser.error(
            "--endpoint: give one; there is one daemon in a build, and `--engine buildkit` takes several"
        )


def write_atomically(path: str, text: str) -> None:
    """Writes a file that is there as a whole or not at all."""
    # A link is followed, so that what it points to is replaced; a device or pipe is no file to replace.
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        target.write_text(text, encoding="utf-8")
        return
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".cooper-")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        # As a file that is simply created, and not only for this user.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    except BaseException:
        temporary.unlink()
        raise


# cooper doctor


def _add_doctor(commands: Any) -> None:
    parser = _command(commands, "doctor", _doctor, "Say what works here, what does not, and what to do about it.")
    parser.add_argument("--engine", metavar="ENGINE", choices=_ENGINES, default="auto",
                        help="auto, native, docker or buildkit (default: auto)")  # fmt: skip
    _add_endpoints(parser.add_argument)
    parser.add_argument("--registry", metavar="REF", help="try this registry, or that of this image name, too")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _doctor(arguments: argparse.Namespace) -> int:
    from zenml_cooper import _core

    _refuse_several(arguments)
    engine = _engine(arguments)
    registry = arguments.registry and _image_in(arguments.registry)
    report = _core.doctor(engine, registry=registry)
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        for attempt in report["attempts"]:
            if attempt["error"]:
                say(f"tried {attempt['endpoint']} ({attempt['source']}): {attempt['error']}")
        for finding in report["findings"]:
            print(f"{finding['status']:<4}  {finding['check']}: {sanitize(finding['text'])}")
            if finding["advice"]:
                print(f"      do: {sanitize(finding['advice'])}")
    return FAILED if report["status"] == "fail" else DONE


def _image_in(registry: str) -> str:
    """An image name in a registry; what has a slash is one already."""
    is_host = registry == "localhost" or re.fullmatch(r"[^/:]*\.[^/:]*(:\d+)?|[^/:]+:\d+", registry)
    return f"{registry}/cooper-doctor" if is_host else registry


# cooper zenml


def _add_zenml(commands: Any) -> None:
    sub = _command(commands, "zenml", None, "Work with ZenML.").add_subparsers(metavar="COMMAND", title="commands")
    _command(sub, "register", _zenml_register, "Register the image builder flavors with ZenML.")


def _zenml_register(_arguments: argparse.Namespace) -> int:
    from zenml_cooper._register import FlavorNameTaken, register_flavors

    try:
        register_flavors()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "zenml":
            raise
        say("error: ZenML is not installed here\nhint: pip install 'zenml-cooper[zenml]'")
        return FAILED
    except FlavorNameTaken as error:
        say(f"error: {error}")
        return FAILED
    return DONE


if __name__ == "__main__":
    sys.exit(main())
