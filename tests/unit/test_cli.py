"""The command: what it asks for, what it refuses, what it prints where, how it ends."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zenml_cooper import _build, _core, cli
from zenml_cooper.exceptions import CooperError

IMAGE = "localhost:5000/app@sha256:" + "ab" * 32
OUTCOME: dict[str, Any] = {
    **_core._exercise_for_test({}),
    "image": IMAGE,
    "tags": ["localhost:5000/app:1"],
    "digest": "sha256:" + "ab" * 32,
    "config_digest": "sha256:" + "cd" * 32,
}


class Builds:
    """Stands in for the builds of the native module."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.progress: list[str] = []
        self.error: BaseException | None = None

    def run(self, request: dict[str, Any], *, progress: str) -> dict[str, Any]:
        # What is asked for is what the native module would take.
        _core.check_request(request)
        self.requests.append(request)
        self.progress.append(progress)
        if self.error:
            raise self.error
        return OUTCOME


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> Builds:
    builds = Builds()
    monkeypatch.setattr(_build, "run", builds.run)
    return builds


def test_a_plain_build(builds: Builds, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["build"]) == 0
    assert capfd.readouterr().out == f"{IMAGE}\n"
    (request,) = builds.requests
    assert request == {
        "context": {"root": str(Path.cwd()), "ignore_file": None, "extra_files": []},
        "dockerfile": {"in_context": "Dockerfile"},
        "tags": [],
        "push": False,
        "outputs": [],
        "options": {},
        "engine": {
            "kind": "auto",
            "endpoints": [],
            "docker_context": None,
            "tls": None,
            "token": None,
            "pool": {},
            "builder": "auto",
            "sandbox": None,
            "runtime": None,
        },
    }
    assert builds.progress == ["auto"]


def test_every_option_arrives(builds: Builds, tmp_path: Path) -> None:
    typed = (
        "build -f Other -t a:1 -t localhost:5000/b --engine docker --endpoint tcp://h:1 --build-arg A=1 --build-arg B "
        "--label k=v --target t --platform linux/arm64 --build-context base=docker-image://x --secret id=s,env=S "
        "--ssh default --no-cache --pull --cache-from r1 --cache-from r2 --cache-to type=inline --push "
        "--output type=docker --ignorefile ig --network host --shm-size 64m --source-date-epoch 1 --progress plain "
        "--add-host a:::1 --ulimit core=1 --no-cache-filter s1 --no-cache-filter s2,s3 --compression zstd:5 --no-fold "
        "--sandbox single --runtime crun"
    )
    assert cli.main([*typed.split(), str(tmp_path)]) == 0
    (request,) = builds.requests
    assert request["options"] == {
        "build-arg": ["A=1", "B"],
        "label": ["k=v"],
        "target": "t",
        "platform": "linux/arm64",
        "build-context": ["base=docker-image://x"],
        "secret": ["id=s,env=S"],
        "ssh": ["default"],
        "no-cache": True,
        "pull": True,
        "cache-from": ["r1", "r2"],
        "cache-to": ["type=inline"],
        "network": "host",
        "shm-size": "64m",
        "source-date-epoch": "1",
        "add-host": ["a:::1"],
        "ulimit": ["core=1"],
        "no-cache-filter": ["s1", "s2,s3"],
        "compression": "zstd:5",
        "fold": False,
    }
    assert request["outputs"] == ["type=docker"]
    assert request["tags"] == ["a:1", "localhost:5000/b"]
    assert request["push"] is True
    assert request["dockerfile"] == {"path": str(Path("Other").absolute())}
    assert request["context"]["root"] == str(tmp_path)
    assert request["context"]["ignore_file"] == str(Path("ig").absolute())
    engine = request["engine"]
    assert (engine["endpoints"], engine["sandbox"], engine["runtime"]) == (["tcp://h:1"], "single", "crun")
    assert builds.progress == ["plain"]


def test_what_is_for_buildkits_arrives(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDKIT_TOKEN", "t0ken")
    typed = (
        "build -t localhost:5000/a:1 --engine buildkit --endpoint tcp://a --endpoint tcp://b:1 --tlscacert ca.pem "
        "--tlscert cert.pem --tlskey key.pem --tlsservername bk --pool-policy least-loaded --pool-busy 2 "
        "--platform linux/amd64,linux/arm64 --annotation k=v --annotation index:k=w --attest type=provenance,mode=max "
        "--provenance mode=min --sbom true --allow network.host --allow security.insecure --oci-mediatypes "
        "--force-compression --compression zstd"
    )
    assert cli.main(typed.split()) == 0
    (request,) = builds.requests
    assert request["engine"] == {
        "kind": "buildkit",
        "endpoints": ["tcp://a", "tcp://b:1"],
        "docker_context": None,
        "tls": {"ca_cert": "ca.pem", "client_cert": "cert.pem", "client_key": "key.pem", "server_name": "bk"},
        "token": "t0ken",
        "pool": {"policy": "least_loaded", "busy": 2},
        "builder": "auto",
        "sandbox": None,
        "runtime": None,
    }
    assert request["options"] == {
        "platform": "linux/amd64,linux/arm64",
        "annotation": ["k=v", "index:k=w"],
        "attest": ["type=provenance,mode=max"],
        "provenance": "mode=min",
        "sbom": "true",
        "allow": ["network.host", "security.insecure"],
        "oci-mediatypes": True,
        "force-compression": True,
        "compression": "zstd",
    }


@pytest.mark.parametrize("engine", ["auto", "docker", "native"])
def test_the_token_goes_to_buildkits_only(builds: Builds, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setenv("BUILDKIT_TOKEN", "t0ken")
    assert cli.main(["build", "--engine", engine]) == 0
    assert builds.requests[0]["engine"]["token"] is None


def test_the_native_engine_takes_the_address_of_a_daemon(builds: Builds) -> None:
    """With `--output type=docker`, that is where the image goes."""
    assert (
        cli.main(
            ["build", "--engine", "native", "-o", "type=docker", "--endpoint", "tcp://a:1", "--tlscacert", "ca.pem"]
        )
        == 0
    )
    engine = builds.requests[0]["engine"]
    assert (engine["endpoints"], engine["tls"]) == (["tcp://a:1"], {"ca_cert": "ca.pem"})


def test_an_empty_token_is_none(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDKIT_TOKEN", "")
    assert cli.main(["build", "--engine", "buildkit"]) == 0
    assert builds.requests[0]["engine"]["token"] is None


def test_the_doctor_asks_the_same_workers(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []

    def doctor(engine: dict[str, Any], **_: object) -> dict[str, Any]:
        asked.append(engine)
        return {"attempts": [], "findings": [], "status": "ok"}

    monkeypatch.setattr(_core, "doctor", doctor)
    monkeypatch.setenv("BUILDKIT_TOKEN", "t0ken")
    typed = "doctor --engine buildkit --endpoint tcp://a --endpoint tcp://b --tlscacert ca.pem"
    assert cli.main(typed.split()) == 0
    (engine,) = asked
    assert (engine["kind"], engine["endpoints"], engine["tls"]) == (
        "buildkit",
        ["tcp://a", "tcp://b"],
        {"ca_cert": "ca.pem"},
    )
    assert engine["token"] == "t0ken"
    assert "t0ken" not in "".join(capfd.readouterr())


def test_every_option_is_one_of_the_native_module() -> None:
    names = {option for option, _, _ in (*cli._REPEATED, *cli._SINGLE)} | set(cli._OTHERS)
    assert names <= set(_core.build_option_names())


def test_a_dockerfile_from_stdin(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("FROM scratch\n"))
    assert cli.main(["build", "-f", "-", "."]) == 0
    assert builds.requests[0]["dockerfile"] == {"text": "FROM scratch\n"}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("build --engine buildkit --pool-policy random", "random"),
        ("build --engine buildkit --pool-busy 0", "1 or more"),
        ("build --engine docker --pool-busy 2", "`--engine buildkit`"),
        ("build --pool-policy ordered", "`--engine buildkit`"),
        ("build --attest type=signature", "provenance, sbom"),
        ("build --provenance max", "mode=max"),
        ("build --allow root", "network.host"),
        ("build --annotation nothing", "annotation"),
        ("build --tlscert cert.pem --tlskye key.pem", "did you mean `--tlskey`?"),
        ("build --engine foo", "foo"),
        ("build --compression zstd:99", "from 1 to 22"),
        ("build --compression lz4", "neither `gzip` nor `zstd`"),
        ("build --output type=oci", "dest=PATH"),
        ("build --output type=oci,dst=x", "did you mean `dest`?"),
        ("build -o -", "stdout"),
        ("build -o type=tar,dest=x", "type=local"),
        ("build --no-cache-filter ,", "a name is empty"),
        ("build --cache-to type=registry", "ref=NAME"),
        ("build --endpoint a --endpoint b", "one daemon"),
        ("build --push", "--tag"),
        ("build --output type=registry", "--tag"),
        ("build --metadata-file /no/such/place/m.json", "--metadata-file"),
        ("build --bulid-arg A=1", "did you mean `--build-arg`?"),
        ("build --no-cach", "did you mean `--no-cache`?"),
        ("build a b", "unknown argument `b`"),
        ("build --progress loud", "loud"),
        ("biuld", "biuld"),
        ("", "a command is missing"),
        ("context", "a command is missing"),
        ("context ls --jsn", "did you mean `--json`?"),
        ("context pack .", "--output"),
        ("context why", "PATH"),
        ("context ls --json --long", "--json"),
        ("context ls --null --long", "--null"),
        ("context du --depth deep", "is no number"),
        ("cache", "a command is missing"),
        ("cache prune --keep-storge 1g", "did you mean `--keep-storage`?"),
        ("cache prune --keep-storage much", "`much` is no size"),
        ("cache prune --older-than long", "`long` is no age"),
        ("doctor --endpoint tcp://a --endpoint tcp://b", "`--engine buildkit` takes several"),
        ("doctor --tlscacrt ca.pem", "did you mean `--tlscacert`?"),
    ],
)
def test_wrong_usage(typed: str, said: str, builds: Builds, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(typed.split()) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert builds.requests == []


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("build -t UPPER", "is no image name"),
        ("build --platform nowhere", "is no platform"),
        ("build --shm-size lots", "shm-size"),
        ("build --secret id", "secret"),
    ],
)
def test_wrong_values_are_wrong_usage(typed: str, code: str, builds: Builds, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(typed.split()) == 2
    assert code in capfd.readouterr().err


def sample(code: str) -> CooperError:
    with pytest.raises(CooperError) as info:
        _core._raise_for_test(code)
    return info.value


@pytest.mark.parametrize("code", _core.error_codes())
def test_every_error_has_an_exit_code_and_goes_to_stderr(
    code: str, builds: Builds, capfd: pytest.CaptureFixture[str]
) -> None:
    builds.error = sample(code)
    usage = {"invalid-reference", "invalid-digest", "invalid-platform", "unknown-option", "invalid-option"}
    expected = 2 if code in usage else 130 if code == "interrupted" else 1
    assert cli.main(["build"]) == expected
    out, err = capfd.readouterr()
    assert out == ""
    if code != "interrupted":
        assert err == f"error: {builds.error}\n"


def test_a_failed_step_is_shown_with_its_place(builds: Builds, capfd: pytest.CaptureFixture[str]) -> None:
    builds.error = sample("step-failed")
    assert cli.main(["build"]) == 1
    err = capfd.readouterr().err
    assert "--> Dockerfile:2:1" in err
    assert "the last words" in err


def test_ctrl_c(builds: Builds, capfd: pytest.CaptureFixture[str]) -> None:
    builds.error = KeyboardInterrupt()
    assert cli.main(["build"]) == 130
    assert capfd.readouterr() == ("", "interrupted\n")


def test_the_metadata_file(builds: Builds, tmp_path: Path) -> None:
    path = tmp_path / "meta.json"
    path.write_text("old")
    assert cli.main(["build", "--metadata-file", str(path)]) == 0
    data = json.loads(path.read_text())
    assert data["image"] == IMAGE
    assert data["digest"] == OUTCOME["digest"]
    assert data["config_digest"] == OUTCOME["config_digest"]
    assert data["steps"] == []
    assert data["cache"] == {"cached_steps": 0, "total_steps": 0}
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("typed", "pushed", "printed"),
    [
        ("", False, "app:1"),
        ("-o type=docker", False, "app:1"),
        ("-o type=image", False, "app:1"),
        ("-o type=oci,dest=a.tar", False, "a.tar"),
        ("-o type=oci,dest=a.tar -o b", False, "a.tar\nb"),
        ("-o type=oci,dest=a.tar -o type=docker", False, "app:1"),
        ("-o a --push -t app:1", True, IMAGE),
        ("-o a -o type=registry -t app:1", True, IMAGE),
    ],
)
def test_stdout_says_where_the_image_is(
    typed: str, pushed: bool, printed: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = OUTCOME if pushed else {**OUTCOME, "image": "app:1", "digest": None}
    monkeypatch.setattr(_build, "run", lambda request, **_: outcome)
    assert cli.main(["build", *typed.split()]) == 0
    assert capfd.readouterr().out == f"{printed}\n"


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_no_metadata_without_a_build(builds: Builds, tmp_path: Path) -> None:
    path = tmp_path / "meta.json"
    path.write_text("old")
    builds.error = sample("build-failed")
    assert cli.main(["build", "--metadata-file", str(path)]) == 1
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(UnicodeEncodeError):
        cli.write_atomically(str(path), "\udcff")
    assert list(tmp_path.iterdir()) == []
    # A link is followed; a device is written to, not replaced.
    target = tmp_path / "target"
    target.write_text("old")
    path.symlink_to(target)
    cli.write_atomically(str(path), "new")
    assert path.is_symlink()
    assert target.read_text() == "new"
    cli.write_atomically(os.devnull, "gone")
    assert not Path(os.devnull).is_file()


def checked(folder: Path, text: str, *more: str) -> int:
    (folder / "Dockerfile").write_text(text)
    return cli.main(["build", "--check", *more, str(folder)])


def test_a_good_dockerfile_is_checked(builds: Builds, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert checked(tmp_path, 'FROM scratch\nCMD ["/x"]\n') == 0
    assert capfd.readouterr() == ("", "checked: nothing to complain about\n")
    assert builds.requests == []


def test_findings_go_to_stdout_with_their_lines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = "FROM scratch AS Base\nCMD x\n"
    assert checked(tmp_path, text) == 1
    out, err = capfd.readouterr()
    expected = (
        "warning: StageNameCasing: stage name `Base` should be lowercase\n"
        " --> Dockerfile:1:1\n"
        "1 | FROM scratch AS Base\n"
        "  | ^^^^^^^^^^^^^^^^^^^^\n"
        "\n"
        "warning: JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to "
        "OS signals\n"
        " --> Dockerfile:2:1\n"
        "2 | CMD x\n"
        "  | ^^^^^\n"
        "\n"
    )
    assert (out, err) == (expected, "checked: 2 warnings\n")
    assert checked(tmp_path, "# check=skip=StageNameCasing;error=true\n" + text) == 1
    assert capfd.readouterr().out.startswith("error: JSONArgsRecommended: ")
    assert checked(tmp_path, "# check=skip=all\n" + text) == 0
    assert checked(tmp_path, text, "--progress", "quiet") == 1
    assert capfd.readouterr().out == ""


def test_an_error_is_shown_with_its_place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert checked(tmp_path, "FROM scratch\nRUNN x\n") == 1
    out, err = capfd.readouterr()
    frame = " --> Dockerfile:2:1\n2 | RUNN x\n  | ^^^^"
    assert (out, err) == ("", f"error: unknown instruction `RUNN`\n{frame}\nhint: did you mean `RUN`?\n")
    assert checked(tmp_path, "FROM scratch\nARG PORT\nEXPOSE $PORT\n", "--build-arg", "PORT=70000") == 1
    assert checked(tmp_path, "FROM scratch\n", "--target", "nope") == 1
    assert cli.main(["build", "--check", "-f", str(tmp_path / "none"), str(tmp_path)]) == 1
    assert "there is no Dockerfile" in capfd.readouterr().err


def test_a_check_as_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".dockerignore").write_text("secret\n")
    assert checked(tmp_path, "FROM scratch\nCOPY secret /\nCOPY --form=x y /\n", "--progress", "json") == 1
    told = json.loads(capfd.readouterr().out)
    assert (told["findings"], told["error"]["code"]) == ([], "dockerfile-syntax")
    assert (told["error"]["hint"], told["error"]["fields"]["line"]) == ("did you mean `--from`?", 3)
    assert checked(tmp_path, "FROM scratch\nCOPY secret /\n", "--progress", "json") == 1
    told = json.loads(capfd.readouterr().out)
    (finding,) = told["findings"]
    assert (finding["rule"], finding["location"]["line"], told["error"]) == ("CopyIgnoredFile", 2, None)


def test_a_check_of_stdin(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("FROM scratch\nmaintainer me\n"))
    assert cli.main(["build", "--check", "-f", "-", "."]) == 1
    assert "MaintainerDeprecated" in capfd.readouterr().out


def test_help_is_short_and_complete(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for typed in ("", "build", "context", "context ls", "context du", "context why", "context suggest",
                  "context digest", "context pack", "doctor",
                  "cache", "cache du", "cache prune", "zenml", "zenml register"):  # fmt: skip
        assert cli.main([*typed.split(), "--help"]) == 0
        out = capsys.readouterr().out
        assert out.startswith("usage: cooper")
        assert len(out.splitlines()) < 80
    assert cli.main(["build", "--help"]) == 0
    out = capsys.readouterr().out
    for option in ("-f, --file FILE", "-t, --tag NAME", "--build-arg K=V", "--secret SPEC", "--metadata-file FILE",
                   "-o, --output SPEC", "--fold, --no-fold", "--no-cache-filter STAGE", "--tlscacert FILE",
                   "--tlsservername NAME", "--pool-policy POLICY", "--oci-mediatypes, --no-oci-mediatypes",
                   "--pool-busy N", "--annotation KEY=VALUE", "--attest SPEC", "--allow RIGHT"):  # fmt: skip
        assert option in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"cooper {_core.version}\n"


def test_it_is_terminated_like_interrupted() -> None:
    script = (
        "import os, signal, sys, threading; from zenml_cooper import cli, _build, _core\n"
        "_build.run = lambda *a, **k: _core._exercise_for_test({'seconds': 30, 'stop_seconds': 0.3})\n"
        "threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "sys.exit(cli.main(['build']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=20, check=False)
    assert done.returncode == 128 + 15
    assert done.stderr == b""
