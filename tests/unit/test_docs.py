"""The documentation tells what the source does: lists in it are compared with those in the source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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


def test_every_field_of_the_configuration_is_documented() -> None:
    source = (ROOT / "python" / "zenml_cooper" / "config.py").read_text()
    fields = re.findall(r"^    ([a-z_]+): .*= Field\(", source, re.MULTILINE)
    assert len(fields) > 10
    assert sorted(first_cells(DOCS / "flavors" / "docker.md", "## Configuration")) == sorted(fields)


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


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set()
    for page in [*ROOT.glob("*.md"), *DOCS.glob("**/*.md")]:
        named |= set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= targets
