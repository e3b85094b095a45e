"""Every error of the core is one exception class, with all that the error knows."""

from __future__ import annotations

import pickle

import pytest

from zenml_cooper import _core, exceptions
from zenml_cooper.exceptions import CooperError, StepFailed

CODES = _core.error_codes()


def raised(code: str) -> CooperError:
    with pytest.raises(CooperError) as info:
        _core._raise_for_test(code)
    return info.value


def test_there_are_codes() -> None:
    assert len(CODES) > 30
    assert len(CODES) == len(set(CODES))


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_class_of_its_area(code: str) -> None:
    error = raised(code)
    # A code without a sample in Rust comes back as `internal`.
    assert error.code == code
    assert type(error) is not CooperError
    assert type(error).__module__ == "zenml_cooper.exceptions"
    assert error.message
    assert error.message in str(error)
    assert str(error).count("\n\n") == 0
    if error.hint:
        assert str(error).endswith(f"hint: {error.hint}")


@pytest.mark.parametrize("code", CODES)
def test_errors_cross_processes(code: str) -> None:
    error = raised(code)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert (copy.code, copy.hint, copy.frame, copy.fields) == (error.code, error.hint, error.frame, error.fields)


def test_every_class_is_used() -> None:
    used = {type(raised(code)) for code in CODES}
    classes = {
        value for value in vars(exceptions).values() if isinstance(value, type) and issubclass(value, CooperError)
    }
    assert classes - used == {CooperError}


@pytest.mark.parametrize(
    ("code", "area"),
    [
        ("unknown-option", exceptions.OptionError),
        ("unsupported", exceptions.UnsupportedError),
        ("ignore-pattern", exceptions.ContextError),
        ("dockerfile", exceptions.DockerfileError),
        ("base-missing", exceptions.BuildError),
        ("daemon-denied", exceptions.DaemonError),
        ("no-space", exceptions.DaemonError),
        ("registry-denied", exceptions.RegistryError),
        ("interrupted", exceptions.CooperCancelled),
        ("timed-out", exceptions.TimedOut),
        ("internal", exceptions.InternalError),
    ],
)
def test_areas(code: str, area: type[CooperError]) -> None:
    assert type(raised(code)) is area


def test_a_failed_step_tells_everything() -> None:
    error = raised("step-failed")
    assert isinstance(error, StepFailed)
    assert isinstance(error, exceptions.BuildError)
    assert error.tail == ["the last words"]
    assert error.fields["exit_code"] == 1
    assert (error.fields["file"], error.fields["line"]) == ("Dockerfile", 2)
    assert str(error).splitlines() == [
        "`RUN false` failed with exit code 1",
        " --> Dockerfile:2:1",
        "2 | RUN false",
        "  | ^^^^^^^^^",
        "the end of its output:",
        "  the last words",
    ]


def test_fields_hold_the_facts() -> None:
    assert raised("context-root").fields == {"path": "/none", "errno": 13}
    assert raised("daemon-refused").fields["status"] == 500
    assert raised("unknown-option").fields == {"name": "buildarg", "suggestion": "build-arg"}


def test_control_characters_of_a_build_do_not_reach_the_terminal() -> None:
    fields = {"tail": ["\x1b]0;title\x07\x1b[31mred\x1b[0m\x08", "50%\r100%"]}
    error = StepFailed("\x1b[2Jcleared", code="step-failed", fields=fields)
    assert str(error) == "cleared\nthe end of its output:\n  red\n  100%"
