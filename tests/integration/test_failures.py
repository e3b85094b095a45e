"""What is said when a build fails."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zenml_cooper
from zenml_cooper.exceptions import BuildError, CooperError, DaemonError, DockerfileError, StepFailed

from .conftest import is_there


@pytest.fixture(params=["classic", "buildkit"])
def builder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_failing_run(project: Callable[..., Path], busybox: str, name: Callable[..., str], builder: Any) -> None:
    root = project(
        {
            "Dockerfile": f"FROM {busybox}\n# a comment\nRUN true\n\n"
            "RUN echo said-before && \\\n    echo bad >&2; exit 42\nRUN true\n"
        }
    )
    image = name()
    with pytest.raises(StepFailed) as caught:
        zenml_cooper.build(root, tags=[image], builder=builder)
    error = caught.value
    assert error.code == "step-failed"
    assert error.fields["exit_code"] == 42
    assert error.fields["line"] == 5
    assert {"said-before", "bad"} <= {line.strip() for line in error.tail}
    shown = str(error)
    assert "--> Dockerfile:5:1" in shown
    assert "5 | RUN echo said-before" in shown
    assert "said-before" in shown.partition("the end of its output")[2]
    assert not is_there(image)


@pytest.mark.parametrize(
    ("dockerfile", "code", "line"),
    [
        ("FROM {base}\nRUNN true\n", "dockerfile", 2),
        ("FROM {base}\nCOPY missing.txt /\n", None, 2),
        ("FROM {registry}/cooper-test/no-such-image:1\n", "base-missing", 1),
        ("", "dockerfile", None),
    ],
)
def test_a_mistake_in_the_dockerfile(
    project: Callable[..., Path],
    busybox: str,
    registry: str,
    name: Callable[..., str],
    builder: Any,
    dockerfile: str,
    code: str | None,
    line: int | None,
) -> None:
    root = project({"Dockerfile": dockerfile.format(base=busybox, registry=registry), "other": ""})
    image = name()
    with pytest.raises((DockerfileError, BuildError)) as caught:
        zenml_cooper.build(root, tags=[image], builder=builder)
    if code:
        assert caught.value.code == code
    if line:
        assert f"Dockerfile:{line}" in str(caught.value)
    if "missing.txt" in dockerfile:
        assert "missing.txt" in str(caught.value)
    assert not is_there(image)


def test_no_dockerfile(project: Callable[..., Path], builder: Any) -> None:
    with pytest.raises(DockerfileError) as caught:
        zenml_cooper.build(project({"a": ""}), tags=["cooper-test/never:1"], builder=builder)
    assert caught.value.code == "dockerfile-missing"


def test_no_daemon(project: Callable[..., Path], tmp_path: Path) -> None:
    root = project({"Dockerfile": "FROM scratch\n"})
    with pytest.raises(DaemonError) as caught:
        zenml_cooper.build(root, tags=["cooper-test/never:1"], endpoint=f"unix://{tmp_path}/no.sock")
    assert caught.value.code == "daemon-unreachable"
    assert f"{tmp_path}/no.sock" in str(caught.value)


def test_no_secret_is_ever_shown(
    project: Callable[..., Path], busybox: str, name: Callable[..., str], capfd: pytest.CaptureFixture[str]
) -> None:
    root = project(
        {
            "Dockerfile": f"FROM {busybox}\nARG PASSWORD\n"
            "RUN --mount=type=secret,id=token test $(cat /run/secrets/token) = hunter2-marker\n"
            "RUN --mount=type=secret,id=token exit 7\n"
        }
    )
    events: list[Any] = []
    with pytest.raises(StepFailed) as caught:
        zenml_cooper.build(
            root,
            tags=[name()],
            builder="buildkit",
            secrets=[{"id": "token", "value": "hunter2-marker"}],
            progress="plain",
            on_event=events.append,
        )
    out, err = capfd.readouterr()
    assert caught.value.fields["exit_code"] == 7
    # The instruction itself has the marker; what must not is all that comes from the secret.
    for text in (out, err, str(caught.value), repr(caught.value.fields), repr(events)):
        assert "hunter2-marker" not in text.replace("= hunter2-marker", "")


def test_every_error_is_one_of_ours(project: Callable[..., Path]) -> None:
    with pytest.raises(CooperError) as caught:
        zenml_cooper.build(project({"Dockerfile": "FROM scratch"}), tags=["Not/A Name"])
    assert caught.value.code == "invalid-reference"
    with pytest.raises(CooperError) as caught:
        zenml_cooper.build(project({"Dockerfile": "FROM scratch"}), options={"buildarg": {"A": "b"}})
    assert caught.value.code == "unknown-option"
    assert "did you mean" in (caught.value.hint or "")
