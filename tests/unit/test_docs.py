"""The documentation tells what the source does: lists in it are compared with those in the source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def first_cells(page: Path, heading: str = "") -> list[str]:
    """The code spans in the first column of a page's tables, below a heading if one is named."""
    text = page.read_text()
    if heading:
        _, found, text = text.partition(f"\n{heading}\n")
        assert found, f"{page} has no heading {heading!r}"
        text = re.split(r"\n#{1,2} ", text)[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_every_error_code_is_documented() -> None:
    source = (ROOT / "src" / "error.rs").read_text()
    declared = re.search(r"const CODES: &\[&str\] = &\[(.*?)\];", source, re.DOTALL)
    assert declared
    codes = re.findall(r'"([a-z-]+)"', declared.group(1))
    assert len(codes) > 30
    assert first_cells(DOCS / "errors.md") == codes


def test_every_build_option_is_documented() -> None:
    source = (ROOT / "src" / "options.rs").read_text()
    options = re.findall(r'^    known\("([a-z-]+)", &\[([^]]*)\]', source, re.MULTILINE)
    assert len(options) > 25
    documented = {}
    section = (DOCS / "flavors" / "docker.md").read_text().partition("\n## Build options\n")[2]
    for line in section.splitlines():
        if line.startswith("| `"):
            name, others = (re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:3])
            documented[name[0]] = others
    assert documented == {name: re.findall(r'"([^"]+)"', aliases) for name, aliases in options}


@pytest.mark.parametrize(
    ("file", "enum", "heading"),
    [("why.rs", "Reason", "## Why a path is in or out"), ("report/findings.rs", "Warning", "## Warnings")],
)
def test_every_reason_and_warning_of_a_context_is_documented(file: str, enum: str, heading: str) -> None:
    source = (ROOT / "src" / "context" / file).read_text()
    declared = source.partition(f"pub enum {enum} {{")[2].partition("\n}")[0]
    variants = re.findall(r"^    ([A-Z]\w+)", declared, re.MULTILINE)
    assert len(variants) > 5
    names = [re.sub(r"(?<=.)([A-Z])", r"-\1", variant).lower() for variant in variants]
    assert first_cells(DOCS / "context.md", heading) == names


@pytest.mark.parametrize(
    ("flavor", "own"),
    [("docker", "DockerImageBuilder"), ("native", "NativeImageBuilder"), ("buildkit", "BuildKitImageBuilder")],
)
def test_every_field_of_the_configuration_is_documented(flavor: str, own: str) -> None:
    source = (ROOT / "python" / "zenml_cooper" / "config.py").read_text()
    classes = dict(re.findall(r"^class (\w+)Config\b.*?:\n(.*?)(?=^class |\Z)", source, re.MULTILINE | re.DOTALL))
    fields = [
        re.findall(r"^    ([a-z_]+): .*= (?:Secret)?Field\(", classes[name], re.MULTILINE)
        for name in ("Package", "CooperImageBuilder", own)
    ]
    assert all(fields)
    documented = first_cells(DOCS / "flavors" / f"{flavor}.md", "## Configuration")
    assert sorted(documented) == sorted(name for names in fields for name in names)


def test_the_code_of_the_page_on_contexts_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "1.csv").write_text("1")
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "context.md").read_text()
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found
    shown: list[object] = []
    exec(found.group(1), {"print": lambda *words: shown.extend(words)})
    assert "data/raw/1.csv" in shown
    assert "`data/raw/1.csv` is in the build context: no pattern matches it" in shown
    commands = set(re.findall(r"^\| `cooper context (\w+)", page, re.MULTILINE))
    assert commands == {"ls", "du", "why", "suggest", "digest", "pack"}


@pytest.mark.parametrize("flavor", ["kaniko", "aws", "gcp"])
def test_every_field_that_zenml_s_own_lack_is_documented(flavor: str) -> None:
    source = (ROOT / "python" / "zenml_cooper" / "flavors" / f"{flavor}.py").read_text()
    own = re.findall(r"^    (\w+): .* = Field\($", source, re.MULTILINE)
    assert first_cells(DOCS / "flavors" / f"{flavor}.md", "## Configuration") == [*own, "include_package"]


def test_what_the_native_engine_refuses_is_documented() -> None:
    source = (ROOT / "src" / "engine" / "native" / "options.rs").read_text()
    refused = re.search(r"const REFUSED: .*?= &\[(.*?)\n    \];", source, re.DOTALL)
    assert refused
    names = set(re.findall(r'\(r#""([a-z-]+)"', refused.group(1)))
    assert len(names) > 10
    assert set(first_cells(DOCS / "flavors" / "native.md", "## Build options")) == names


def test_what_becomes_of_every_build_option_elsewhere_is_documented() -> None:
    listed = first_cells(DOCS / "flavors" / "elsewhere.md", "## Build options")
    known = first_cells(DOCS / "flavors" / "docker.md", "## Build options")
    assert len(listed) >= 13
    assert set(listed) <= set(known)


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *DOCS.glob("**/*.md")]), ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path) if path else page
        assert other.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", other.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, f"{page.name}: {target}"


def test_every_decision_is_listed() -> None:
    pages = sorted(path.name for path in (DOCS / "decisions").glob("0*.md"))
    assert pages
    index = (DOCS / "decisions" / "README.md").read_text()
    assert re.findall(r"\]\((0[^)]*)\)", index) == pages


def test_the_pod_of_the_examples_has_no_privileges() -> None:
    pod = yaml.safe_load((ROOT / "examples" / "kubernetes-pod.yaml").read_text())
    assert (pod["apiVersion"], pod["kind"]) == ("v1", "Pod")
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "Unconfined"}
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert "privileged" not in security
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert all("emptyDir" in volume for volume in mounts.values())
    store = Path(next(entry["value"] for entry in container["env"] if entry["name"] == "COOPER_CACHE_DIR"))
    assert str(store.parent) in mounts, "the store is a folder of its own in a volume"
    assert "kubernetes-pod.yaml" in (DOCS / "flavors" / "native.md").read_text()


def test_what_only_the_buildkit_engine_serves_is_marked() -> None:
    source = (ROOT / "src" / "options.rs").read_text().partition("pub fn only_buildkit_engine")[2]
    only = set(re.findall(r'^        \("([a-z-]+)", "', source.partition("\n}")[0], re.MULTILINE))
    assert {"annotation", "attest", "allow", "platform"} <= only
    section = (DOCS / "flavors" / "docker.md").read_text().partition("\n## Build options\n")[2]
    rows = [line for line in section.splitlines() if line.startswith("| `") and "BuildKit engine)" in line]
    # `attest` in the source is whatever asks for an attestation; `compression` is the native engine's too.
    assert {row.split("`")[1] for row in rows} == only | {"provenance", "sbom", "compression"}


def test_every_address_of_a_buildkit_is_documented() -> None:
    checks = (ROOT / "python" / "zenml_cooper" / "_buildkit.py").read_text()
    lists = re.findall(r"^_(SOCKETS|PROGRAMS|DOCKER) = \((.*?)\)$", checks, re.MULTILINE)
    schemes = {name: set(re.findall(r'"([a-z-]+)"', text)) for name, text in lists}
    source = (ROOT / "src" / "engine" / "buildkit" / "address.rs").read_text()
    parse = source.partition("\nfn parse(")[2].partition("\n}")[0]
    known = {name for arm in re.findall(r"^ +((?:\"[a-z-]+\" ?\|? ?)+).*=>", parse, re.MULTILINE)
             for name in re.findall(r'"([a-z-]+)"', arm)}  # fmt: skip
    assert known == schemes["SOCKETS"] | schemes["PROGRAMS"] | {"docker"}
    documented = first_cells(DOCS / "flavors" / "buildkit.md", "## Addresses")
    assert {cell.partition("://")[0] for cell in documented} == known


def test_the_workers_of_the_examples_fit_together() -> None:
    documents = list(yaml.safe_load_all((ROOT / "examples" / "buildkitd-kubernetes.yaml").read_text()))
    kinds = {document["kind"]: document for document in documents}
    assert len(kinds) == len(documents) == 5
    (namespace,) = {document["metadata"]["namespace"] for document in documents}
    service, workers = kinds["Service"]["spec"], kinds["StatefulSet"]["spec"]
    pod = workers["template"]["spec"]
    (container,) = pod["containers"]
    labels = workers["template"]["metadata"]["labels"]

    # Every part means the same pods.
    assert service["clusterIP"] == "None"
    assert workers["serviceName"] == kinds["Service"]["metadata"]["name"]
    selectors = [workers["selector"], kinds["PodDisruptionBudget"]["spec"]["selector"]]
    selectors.append(kinds["NetworkPolicy"]["spec"]["podSelector"])
    assert all(selector == {"matchLabels": labels} for selector in selectors)
    assert service["selector"] == labels

    # One port, by which the addresses of the documentation reach a worker.
    (port,), (opened,) = service["ports"], container["ports"]
    (allowed,) = kinds["NetworkPolicy"]["spec"]["ingress"][0]["ports"]
    assert port["port"] == opened["containerPort"] == 1234
    assert port["targetPort"] == opened["name"] == allowed["port"]
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in container["args"] if "=" in argument)
    assert f"--addr=tcp://0.0.0.0:{opened['containerPort']}" in container["args"]
    page = (DOCS / "flavors" / "buildkit.md").read_text()
    name = f"{kinds['StatefulSet']['metadata']['name']}-{workers['replicas'] - 1}"
    assert f"tcp://{name}.{workers['serviceName']}.{namespace}.svc:{port['port']}" in page
    assert f"*.{workers['serviceName']}.{namespace}.svc" in page, "a name in the certificate"

    # What the arguments name is mounted, and out of what the documentation makes.
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    for flag in ("tlscacert", "tlscert", "tlskey", "config"):
        assert mounts[str(Path(flags[flag]).parent)]["readOnly"] is True, flag
    secret = volumes[mounts["/certs"]["name"]]["secret"]
    assert f"create secret generic {secret['secretName']}" in page
    assert f"secretName: {secret['secretName']}\n" in page
    assert {Path(flags[flag]).name for flag in ("tlscacert", "tlscert", "tlskey")} == {"ca.crt", "tls.crt", "tls.key"}
    assert all(f"--from-file={name}" in page for name in ("ca.crt", "tls.crt", "tls.key"))
    configured = kinds["ConfigMap"]
    assert volumes[mounts["/config"]["name"]]["configMap"]["name"] == configured["metadata"]["name"]
    assert Path(flags["config"]).name in configured["data"]
    (claim,) = workers["volumeClaimTemplates"]
    assert mounts["/home/user/.local/share/buildkit"]["name"] == claim["metadata"]["name"]

    # Rootless, as BuildKit's own examples have it.
    assert container["image"].endswith("-rootless")
    assert "--oci-worker-no-process-sandbox" in container["args"]
    security = container["securityContext"]
    assert security["runAsUser"] == security["runAsGroup"] == pod["securityContext"]["fsGroup"] == 1000
    assert security["seccompProfile"] == security["appArmorProfile"] == {"type": "Unconfined"}
    assert "privileged" not in security
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["exec"]["command"] == ["buildctl", "debug", "workers"]
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert "No cluster was reached" in page


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set()
    for page in [*ROOT.glob("*.md"), *DOCS.glob("**/*.md")]:
        named |= set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= targets
