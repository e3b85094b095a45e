"""A pod that runs once, by way of the `kubectl` program."""

import json
import selectors
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import IO, Any

from zenml.logger import get_logger

from zenml_cooper._text import sanitize
from zenml_cooper.exceptions import BuildError, TimedOut

logger = get_logger(__name__)

# Seconds between two looks at a pod.
POLL = 1.0
# How long a pod may be said to run after its input has failed: the cluster learns of an end with a delay.
GRACE = 10.0
# How often in a row the cluster may fail to say how the pod is.
_ATTEMPTS = 5
# How many of the last lines an error shows.
_TAIL = 20
# Seconds; a cluster that takes longer to delete a pod is not waited for.
_DELETE_TIMEOUT = 60
# What waiting does not mend.
_HOPELESS = ("InvalidImageName", "ErrImageNeverPull")


class Pod:
    """One pod, and its container of the same name; a cluster may add containers of its own."""

    def __init__(self, kubectl: list[str], name: str) -> None:
        """Names a pod.

        Args:
            kubectl: The command line up to the verb.
            name: The pod's name.
        """
        self.name = name
        self._kubectl = kubectl
        self._input: subprocess.Popen[bytes] | None = None
        self._input_errors: IO[bytes] | None = None

    @contextmanager
    def created(self, manifest: Mapping[str, Any]) -> Iterator["Pod"]:
        """Creates the pod, and deletes it whatever happens.

        The manifest goes over standard input: as an argument, everybody on this machine could read what is in it.
        """
        try:
            self._run("create", "--filename=-", stdin=json.dumps(manifest))
            yield self
        finally:
            self._end_input()
            self._delete()

    def wait_until_started(self, timeout: int) -> None:
        """Waits until the container runs or has ended.

        Raises:
            TimedOut: If it does not within this many seconds.
            BuildError: If it never will.
        """
        deadline = time.monotonic() + timeout
        told = None
        while (state := self._state()).kind == "waiting":
            if state.reason != told:
                logger.info("The pod `%s` is waiting: %s", self.name, state)
                told = state.reason
            if state.reason in _HOPELESS:
                raise _failed(f"the pod cannot start: {state}")
            if time.monotonic() >= deadline:
                raise TimedOut(
                    f"the pod did not start within {timeout} s: {state}",
                    code="timed-out",
                    hint="mend what it waits for, or raise `pod_running_timeout` of the image builder",
                    fields={"action": "starting the pod", "seconds": timeout},
                )
            time.sleep(POLL)

    def feed(self, write: Callable[[IO[bytes]], object]) -> None:
        """Writes the container's standard input, as far as it is read; what went wrong shows in how the pod ends."""
        self._input_errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._input = subprocess.Popen(
            [*self._kubectl, "attach", "--stdin", "--quiet", self.name, "--container", self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._input_errors,
        )
        assert self._input.stdin
        try:
            write(self._input.stdin)
            self._input.stdin.close()
        except BrokenPipeError:
            logger.debug("The pod `%s` stopped reading its input.", self.name)

    def follow(self) -> str:
        """Logs what the container prints until it ends; gives its termination message.

        Raises:
            BuildError: If it fails, with the reason and its last lines.
        """
        printed: deque[str] = deque(maxlen=_TAIL)
        seen = 0
        # The log ends early where a connection breaks, and then starts from the front again.
        while True:
            number = 0
            with closing(self._log()) as lines:
                for number, line in enumerate(lines, start=1):
                    if number > seen:
                        logger.info("%s", line)
                        printed.append(line)
            seen = max(seen, number)
            state = self._state()
            if state.kind == "ended":
                break
            self._check_input()
            time.sleep(POLL)
        if state.exit_code != 0:
            raise _failed(f"the build failed: {state}", printed)
        return state.message

    def _log(self) -> Generator[str, None, None]:
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [*self._kubectl, "logs", "--follow", self.name, "--container", self.name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
            try:
                assert process.stdout
                yield from _lines(process.stdout, self._check_input)
                if process.wait():
                    logger.warning("The pod's log cannot be read: %s", _text(errors))
            finally:
                process.kill()
                process.wait()
                assert process.stdout
                process.stdout.close()

    def _check_input(self) -> None:
        """Fails where the input could not be sent and the container goes on waiting for it."""
        if self._input is None or not self._input.poll():
            return
        deadline = time.monotonic() + GRACE
        while self._state().kind != "ended":
            if time.monotonic() >= deadline:
                assert self._input_errors
                raise _failed(f"the build context could not be sent to the pod: {_text(self._input_errors)}")
            time.sleep(POLL)

    def _end_input(self) -> None:
        if self._input:
            self._input.kill()
            self._input.wait()
            assert self._input.stdin
            try:
                self._input.stdin.close()
            except BrokenPipeError:
                logger.debug("The rest of the input of the pod `%s` is dropped.", self.name)
        if self._input_errors:
            self._input_errors.close()

    def _state(self) -> "State":
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return State(json.loads(self._run("get", "pod", self.name, "--output=json"))["status"], self.name)
            except BuildError as error:
                if attempt == _ATTEMPTS or "NotFound" in error.message:
                    raise
                logger.debug("Asking again for the pod `%s`: %s", self.name, error.message)
                time.sleep(POLL)
        raise AssertionError("the last attempt returns or raises")

    def _delete(self) -> None:
        command = [*self._kubectl, "delete", "pod", self.name, "--ignore-not-found", "--wait=false"]
        # In a session of its own, and not killed by an exception here: a second Ctrl-C shall not leave the pod behind.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            _, errors = process.communicate(timeout=_DELETE_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            errors = f"no answer after {_DELETE_TIMEOUT} s"
        if process.returncode:
            left = sanitize(errors.strip())
            logger.warning("The pod is left behind (%s). Delete it with `%s`.", left, " ".join(command))

    def _run(self, *arguments: str, stdin: str | None = None) -> str:
        ended = subprocess.run([*self._kubectl, *arguments], input=stdin, capture_output=True, text=True, check=False)
        if ended.returncode:
            reason = sanitize(ended.stderr.strip()) or f"exit code {ended.returncode}"
            raise _failed(f"`kubectl {arguments[0]}` failed: {reason}")
        return ended.stdout


class State:
    """How a pod and one container of it are, out of the pod's `status`."""

    def __init__(self, status: Mapping[str, Any], container_name: str) -> None:
        containers = {found["name"]: found for found in status.get("containerStatuses") or []}
        # Kubernetes has one of `waiting`, `running` and `terminated`, with what is to be said about it.
        state: Mapping[str, dict[str, Any]] = containers.get(container_name, {}).get("state") or {"waiting": {}}
        ((kind, detail),) = state.items()
        phase = status.get("phase", "Pending")
        # A pod that is evicted or out of time may end before its container had a state.
        ended = kind == "terminated" or phase in ("Failed", "Succeeded")
        self.kind = "ended" if ended else kind
        self.exit_code: int | None = detail.get("exitCode")
        self.message: str = detail.get("message", "") if ended else ""
        # The pod's own reason is the cause of its container's: `Evicted`, `DeadlineExceeded`.
        places = [status, detail, *_unscheduled(status)]
        because = next((place for place in places if place.get("reason")), {"reason": phase})
        self.reason: str = because["reason"]
        self._explanation: str = because.get("message", "")

    def __str__(self) -> str:
        text = self.reason if self.exit_code is None else f"{self.reason}, exit code {self.exit_code}"
        return sanitize(f"{text}: {self._explanation}" if self._explanation else text)


def _unscheduled(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Why no node was found for a pod, where none was."""
    conditions = status.get("conditions") or []
    return [found for found in conditions if found.get("type") == "PodScheduled" and found.get("status") == "False"]


def _lines(stream: IO[bytes], idle: Callable[[], None]) -> Iterator[str]:
    """The lines of a stream; `idle` is called whenever it has said nothing for a while."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if not selector.select(timeout=POLL):
                idle()
                continue
            data = stream.read1()  # type: ignore[attr-defined]
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            yield from (sanitize(line.decode(errors="replace")) for line in lines)
    if rest:
        yield sanitize(rest.decode(errors="replace"))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return sanitize(file.read().decode(errors="replace").strip()) or "it says nothing"


def _failed(message: str, tail: Iterable[str] = ()) -> BuildError:
    return BuildError(message, code="build-failed", fields={"message": message, "tail": list(tail)})
