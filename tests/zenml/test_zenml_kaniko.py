"""The image builder `cooper_kaniko`, with a stand-in for `kubectl` that records its calls. No cluster is reached."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from zenml.image_builders import BuildContext

from zenml_cooper.context import CooperBuildContext
from zenml_cooper.exceptions import BuildError, TimedOut, UnsupportedError
from zenml_cooper.flavors import KanikoImageBuilderFlavor
from zenml_cooper.image_builders import pod

if TYPE_CHECKING:
    from conftest import StandInRegistry

IMAGE = "registry.example:5000/team/app:v1"
DIGEST = f"sha256:{'a' * 64}"
PUSHED = f"registry.example:5000/team/app@{DIGEST}"

KUBECTL = """#!%(python)s -S
import json, os, pathlib, sys, time

home = pathlib.Path(os.environ["STAND_IN"])
arguments = sys.argv[1:]
with open(home / "calls", "a") as calls:
    calls.write(json.dumps(arguments) + chr(10))
play = json.loads((home / "play").read_text())
verb = arguments[4]
if verb in play.get("errors", {}):
    sys.exit(play["errors"][verb])

def turn(things):
    # One after the other, the last one again and again.
    done = home / f"{verb}-turns"
    number = int(done.read_text()) if done.exists() else 0
    done.write_text(str(number + 1))
    return things[min(number, len(things) - 1)]

if verb == "create":
    (home / "manifest").write_text(sys.stdin.read())
elif verb == "get":
    status = json.dumps({"status": turn(play["statuses"])})
    print(status.replace("POD", json.loads((home / "manifest").read_text())["metadata"]["name"]))
elif verb == "delete":
    time.sleep(play.get("delete_takes", 0))
    (home / "deleted").write_text("")
elif verb == "attach":
    received = sys.stdin.buffer.read(play.get("reads", -1))
    (home / "part").write_bytes(received)
    (home / "part").rename(home / "received")
elif verb == "logs":
    while play.get("waits_for") and not (home / play["waits_for"]).exists():
        time.sleep(0.02)
    print(turn(play.get("logs", ["built"])), end="", flush=True)
    if play.get("hangs"):
        time.sleep(600)
"""


def container(kind: str, **detail: Any) -> dict[str, Any]:
    """A pod's status, with this state of the container."""
    sidecar = {"name": "a-sidecar", "state": {"running": {}}}
    phase = {"waiting": "Pending", "running": "Running", "terminated": "Succeeded"}[kind]
    if detail.get("exitCode"):
        phase = "Failed"
    return {"phase": phase, "containerStatuses": [sidecar, {"name": "POD", "state": {kind: detail}}]}


RUNNING = container("running")
DONE = container("terminated", exitCode=0, reason="Completed", message=f"{PUSHED}\n")


class Kubectl:
    """The stand-in: what it shall do, and what it was asked for."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def plays(self, **play: Any) -> None:
        """Says what happens: `statuses` one after the other, `logs` likewise, `errors` by verb."""
        (self.home / "play").write_text(json.dumps(play))

    @property
    def calls(self) -> list[list[str]]:
        path = self.home / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def verbs(self) -> list[str]:
        return [call[4] for call in self.calls]

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.home / "manifest").read_text())

    @property
    def arguments(self) -> list[str]:
        """The arguments of the executor."""
        return self.manifest["spec"]["containers"][0]["args"]


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    home = tmp_path / "kubectl"
    (home / "bin").mkdir(parents=True)
    program = home / "bin" / "kubectl"
    program.write_text(KUBECTL % {"python": sys.executable})
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN", str(home))
    monkeypatch.setattr(pod, "POLL", 0.02)
    monkeypatch.setattr(pod, "GRACE", 0.1)
    return Kubectl(home)


@pytest.fixture
def context(tmp_path: Path) -> CooperBuildContext:
    root = tmp_path / "root"
    root.mkdir()
    (root / "code.py").write_text("print()")
    made = CooperBuildContext(root=str(root))
    made.add_file("FROM scratch\nCOPY . .", "Dockerfile")
    return made


Build = Callable[..., str]


@pytest.fixture
def build(component: Callable[..., Any], stand_in_registry: "StandInRegistry", context: CooperBuildContext) -> Build:
    """Builds, with a configuration and options."""

    def run(options: Any = None, build_context: BuildContext = context, **config: Any) -> str:
        builder = component(KanikoImageBuilderFlavor(), **{"kubernetes_context": "cluster", **config})
        return builder.build(IMAGE, build_context, options, stand_in_registry)

    return run


def test_a_build(
    kubectl: Kubectl, build: Build, stand_in_registry: "StandInRegistry", caplog: pytest.LogCaptureFixture
) -> None:
    creating = container("waiting", reason="ContainerCreating")
    kubectl.plays(statuses=[{"phase": "Pending"}, creating, RUNNING, DONE], waits_for="received", logs=["one\ntwo\n"])
    with caplog.at_level(logging.INFO):
        image = build(env=[{"name": "TOKEN", "value": "hunter2"}])

    assert image == PUSHED, "the port of the registry is no tag"
    assert stand_in_registry.prepared == [IMAGE]
    assert "one" in caplog.messages
    assert "two" in caplog.messages
    assert any("ContainerCreating" in message for message in caplog.messages)

    assert kubectl.verbs[0] == "create"
    assert kubectl.verbs[-1] == "delete"
    assert all(call[:4] == ["--context", "cluster", "--namespace", "zenml-kaniko"] for call in kubectl.calls)
    assert "hunter2" not in json.dumps(kubectl.calls), "arguments can be read by everybody on the machine"
    assert "hunter2" not in caplog.text
    spec = kubectl.manifest["spec"]
    assert spec["restartPolicy"] == "Never"
    assert spec["containers"][0]["env"] == [{"name": "TOKEN", "value": "hunter2"}]
    assert "--context=tar://stdin" in kubectl.arguments
    assert f"--destination={IMAGE}" in kubectl.arguments
    with tarfile.open(fileobj=io.BytesIO((kubectl.home / "received").read_bytes()), mode="r:gz") as archive:
        assert sorted(archive.getnames()) == ["Dockerfile", "code.py"]


def test_every_pod_has_a_name_of_its_own(kubectl: Kubectl, build: Build) -> None:
    kubectl.plays(statuses=[RUNNING, DONE])
    names = set()
    for _ in range(3):
        build()
        names.add(kubectl.manifest["metadata"]["name"])
        assert kubectl.manifest["spec"]["containers"][0]["name"] == kubectl.manifest["metadata"]["name"]
    assert len(names) == 3
    assert all(len(name) < 64 for name in names)


def test_options_become_arguments_after_those_of_the_configuration(
    kubectl: Kubectl, build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    kubectl.plays(statuses=[RUNNING, DONE])
    options = {
        "build_args": {"A": "$(HOME) $$"},
        "labels": {"l": "x y"},
        "target": "last",
        "nocache": True,
        "rm": False,
    }
    build({**options, "cache_from": ["a/b"]}, executor_args=["--cache=true", "--verbosity=debug"])
    # Kubernetes makes `$` of `$$`.
    assert kubectl.arguments[-6:] == [
        "--cache=true",
        "--verbosity=debug",
        "--build-arg=A=$$(HOME) $$$$",
        "--label=l=x y",
        "--target=last",
        "--cache=false",
    ]
    assert any("--cache-repo" in message for message in caplog.messages), "what is left out is told"


@pytest.mark.parametrize("options", [{"network": "host"}, {"secret": ["id=a,env=HOME"]}, {"add_host": ["a:1.2.3.4"]}])
def test_what_kaniko_cannot_do_is_refused_before_anything_is_sent(
    kubectl: Kubectl, build: Build, options: dict[str, Any]
) -> None:
    with pytest.raises(UnsupportedError, match="Kaniko cannot serve"):
        build(options)
    assert kubectl.calls == []


def test_a_context_of_the_artifact_store(kubectl: Kubectl, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl.plays(statuses=[RUNNING, DONE])
    build(store_context_in_artifact_store=True, build_timeout=600)
    assert "attach" not in kubectl.verbs
    (source,) = (argument for argument in kubectl.arguments if argument.startswith("--context="))
    assert "/kaniko-build-contexts/" in source
    assert source.endswith(".tar.gz")
    assert kubectl.manifest["spec"]["activeDeadlineSeconds"] == 600
    assert kubectl.manifest["spec"]["containers"][0]["stdin"] is False


def test_a_failing_build_shows_its_log_and_leaves_no_pod(kubectl: Kubectl, build: Build) -> None:
    failed = container("terminated", exitCode=1, reason="Error")
    lines = [f"line {number}" for number in range(30)]
    kubectl.plays(statuses=[RUNNING, RUNNING, failed], logs=["\n".join(lines) + "\n\x1b[31merror: no such package"])
    with pytest.raises(BuildError, match="Error, exit code 1") as caught:
        build()
    assert caught.value.code == "build-failed"
    assert caught.value.tail == [*lines[-19:], "error: no such package"]
    assert "line 29" in str(caught.value)
    assert kubectl.verbs[-1] == "delete"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (container("terminated", exitCode=137, reason="OOMKilled"), "OOMKilled, exit code 137"),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."},
            "Evicted: The node was low",
        ),
        ({"phase": "Failed", "reason": "DeadlineExceeded"}, "DeadlineExceeded"),
    ],
)
def test_the_cluster_s_reason_is_told(kubectl: Kubectl, build: Build, status: dict[str, Any], reason: str) -> None:
    kubectl.plays(statuses=[RUNNING, status])
    with pytest.raises(BuildError, match=reason):
        build()
    assert kubectl.verbs[-1] == "delete"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (container("waiting", reason="ImagePullBackOff", message="no such image"), "ImagePullBackOff: no such image"),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
                ],
            },
            "Unschedulable: 0/3 nodes",
        ),
    ],
)
def test_a_pod_that_does_not_start_is_given_up_with_the_reason(
    kubectl: Kubectl, build: Build, status: dict[str, Any], reason: str
) -> None:
    kubectl.plays(statuses=[{"phase": "Pending"}, status])
    with pytest.raises(TimedOut, match=f"did not start within 1 s: {reason}") as caught:
        build(pod_running_timeout=1)
    assert caught.value.code == "timed-out"
    assert "pod_running_timeout" in str(caught.value)
    assert kubectl.verbs[-1] == "delete"


def test_what_waiting_does_not_mend_is_not_waited_for(kubectl: Kubectl, build: Build) -> None:
    kubectl.plays(statuses=[container("waiting", reason="InvalidImageName", message="couldn't parse")])
    started = time.monotonic()
    with pytest.raises(BuildError, match="InvalidImageName: couldn't parse"):
        build(pod_running_timeout=60)
    assert time.monotonic() - started < 10
    assert kubectl.verbs[-1] == "delete"


def large(context: CooperBuildContext) -> CooperBuildContext:
    """More than a pipe holds, whatever is compressed."""
    context.add_file(os.urandom(4 << 20), "large.bin")
    return context


def test_an_input_that_cannot_be_sent_is_the_error(kubectl: Kubectl, build: Build, context: CooperBuildContext) -> None:
    kubectl.plays(statuses=[RUNNING], errors={"attach": "error: pods/attach is forbidden"}, hangs=True)
    for sent in (context, large(context)):
        with pytest.raises(BuildError, match="could not be sent to the pod: error: pods/attach is forbidden"):
            build(build_context=sent)
        assert kubectl.verbs[-1] == "delete"


def test_a_pod_that_ends_while_the_context_is_sent_says_why(
    kubectl: Kubectl, build: Build, context: CooperBuildContext
) -> None:
    failed = container("terminated", exitCode=1, reason="Error")
    kubectl.plays(statuses=[RUNNING, failed], reads=10, logs=["kaniko should only be run inside of a container\n"])
    with pytest.raises(BuildError) as caught:
        build(build_context=large(context))
    assert caught.value.tail == ["kaniko should only be run inside of a container"]


def test_a_context_that_cannot_be_read_leaves_no_pod(kubectl: Kubectl, build: Build) -> None:
    kubectl.plays(statuses=[RUNNING])
    with pytest.raises(Exception, match="no-such-root"):
        build(build_context=CooperBuildContext(root="/no-such-root"))
    assert kubectl.verbs[-1] == "delete"


def test_a_log_that_breaks_off_goes_on(kubectl: Kubectl, build: Build, caplog: pytest.LogCaptureFixture) -> None:
    kubectl.plays(statuses=[RUNNING, RUNNING, DONE], logs=["first\nsecond\n", "first\nsecond\nthird\n"])
    with caplog.at_level(logging.INFO):
        assert build() == PUSHED
    assert [m for m in caplog.messages if m in ("first", "second", "third")] == ["first", "second", "third"]


def test_a_log_that_cannot_be_read_does_not_stop_a_build(
    kubectl: Kubectl, build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    kubectl.plays(statuses=[RUNNING, RUNNING, DONE], errors={"logs": "error: pods/log is forbidden"})
    assert build() == PUSHED
    assert any("pods/log is forbidden" in message for message in caplog.messages)


def test_a_pod_that_cannot_be_deleted_is_told(kubectl: Kubectl, build: Build, caplog: pytest.LogCaptureFixture) -> None:
    kubectl.plays(statuses=[RUNNING, DONE], errors={"delete": "error: connection refused"})
    assert build() == PUSHED
    name = kubectl.manifest["metadata"]["name"]
    assert any(f"delete pod {name}" in message for message in caplog.messages)


@pytest.mark.parametrize("message", ["", "nonsense", f"registry.example:5000/team/app-other@{DIGEST}"])
def test_a_build_that_names_no_digest_of_the_image_is_an_error(kubectl: Kubectl, build: Build, message: str) -> None:
    kubectl.plays(statuses=[RUNNING, container("terminated", exitCode=0, reason="Completed", message=message)])
    with pytest.raises(BuildError, match="names no digest of `registry.example:5000/team/app`"):
        build()


def test_kubectl_s_own_words_are_told(kubectl: Kubectl, build: Build) -> None:
    kubectl.plays(errors={"create": 'error: namespaces "zenml-kaniko" not found'})
    with pytest.raises(BuildError, match='`kubectl create` failed: error: namespaces "zenml-kaniko" not found'):
        build()


@pytest.mark.parametrize("again", [False, True])
def test_ctrl_c_deletes_the_pod(kubectl: Kubectl, tmp_path: Path, again: bool) -> None:
    kubectl.plays(statuses=[RUNNING], logs=["started\n"], hangs=True, delete_takes=2 if again else 0)
    script = f"""
import datetime, uuid, types
from zenml_cooper.context import CooperBuildContext
from zenml_cooper.flavors import KanikoImageBuilderFlavor

flavor = KanikoImageBuilderFlavor()
now = datetime.datetime.now()
builder = flavor.implementation_class(
    name="b", id=uuid.uuid4(), config=flavor.config_class(kubernetes_context="cluster"), flavor=flavor.name,
    type=flavor.type, user=uuid.uuid4(), created=now, updated=now,
)
registry = types.SimpleNamespace(
    is_valid_image_name_for_registry=lambda name: True, prepare_image_push=lambda name: None,
)
context = CooperBuildContext()
context.add_file("FROM scratch", "Dockerfile")
builder.build("{IMAGE}", context, None, registry)
"""
    # A group of its own, all of which the terminal would interrupt: the `kubectl` processes too.
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path
    )

    def wait_for(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    wait_for(lambda: "logs" in kubectl.verbs or process.poll() is not None)
    assert process.poll() is None, process.communicate()[1]
    os.killpg(process.pid, signal.SIGINT)
    if again:
        wait_for(lambda: "delete" in kubectl.verbs)
        os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert errors.rstrip().endswith("KeyboardInterrupt"), errors
    assert kubectl.verbs[-1] == "delete"
    name = kubectl.manifest["metadata"]["name"]
    assert name in kubectl.calls[-1]
    wait_for((kubectl.home / "deleted").exists)


@pytest.mark.parametrize("argument", ["--no-push", "--context=dir:///x", "--image-name-with-digest-file=/tmp/x"])
def test_arguments_that_the_builder_needs_are_refused(argument: str) -> None:
    with pytest.raises(ValueError, match="is set by the image builder"):
        KanikoImageBuilderFlavor().config_class(kubernetes_context="c", executor_args=[argument])
