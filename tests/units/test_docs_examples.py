"""The documentation holds: its Python runs, its links resolve, its tables name what the code has."""

import inspect
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import hhat
from hhat import registry
from hhat.types import Status

ROOT = Path(__file__).parents[2]
PAGES = [p for p in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if p.is_file()]
SIGNATURES_ONLY = {"docs/sionna.md"}
"""Pages whose blocks show calls with their arguments left out; tests/reference/test_sionna_*.py make these calls."""

FENCE = re.compile(r"^```python(?: title=\"(?P<file>[\w.]+)\")?\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
SETTING = re.compile(r"^\| `(\w+)` \| ([^|]+) \|", re.MULTILINE)


class Block(NamedTuple):
    file: str | None
    """Name under which the reader saves the block, to be imported by a later one"""
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [Block(m["file"], m["code"], text.count("\n", 0, m.start("code"))) for m in FENCE.finditer(text)]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """Anchors as Python-Markdown makes them of headings."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.M), re.M)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


@pytest.fixture
def untouched_registry():
    """A page may register names and import files it wrote: both are undone."""
    tables = {kind: dict(table) for kind, table in registry.KINDS.items()}
    modules = set(sys.modules)
    yield
    for kind, table in registry.KINDS.items():
        table.clear()
        table.update(tables[kind])
    for fresh in set(sys.modules) - modules:
        if getattr(sys.modules[fresh], "__file__", None) and Path(sys.modules[fresh].__file__).parent == Path.cwd():
            del sys.modules[fresh]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p) and name(p) not in SIGNATURES_ONLY], ids=name)
def test_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch, untouched_registry):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {"__name__": "page"}
    for block in blocks(page):
        if block.file:
            Path(block.file).write_text(block.code)
        else:
            exec(compile("\n" * block.line + block.code, name(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_internal_links_resolve(page):
    for match in LINK.finditer(page.read_text()):
        target, _, anchor = match["target"].partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.is_file(), f"{name(page)}: no file behind {match['target']}"
        assert not anchor or anchor in anchors(there), f"{name(page)}: no heading behind {match['target']}"


@pytest.mark.parametrize("method", sorted(registry.METHODS))
def test_settings_table_of_a_method_is_its_signature(method):
    page = ROOT / "docs" / "methods" / f"{method}.md"
    text = page.read_text().split("## Settings")[1].split("\n## ")[0]
    told = {key: value.strip().strip("`") for key, value in SETTING.findall(text)}
    known = inspect.signature(registry.load("methods", method)).parameters
    if method in ("ls", "auto"):  # one step, or those of the choice: max_steps and tol do nothing
        known = {key: value for key, value in known.items() if key not in ("max_steps", "tol")}
        told = {key: value for key, value in told.items() if key not in ("max_steps", "tol")}
    assert told.keys() == known.keys()
    for key, parameter in known.items():
        if isinstance(parameter.default, bool | int | float):
            assert float(told[key]) == float(parameter.default), f"{key}: {told[key]}"
        else:
            assert told[key] == ("none" if parameter.default is None else str(parameter.default)), key


@pytest.mark.parametrize("method", sorted(registry.METHODS))
def test_page_of_a_method_has_the_common_sections(method):
    page = ROOT / "docs" / "methods" / f"{method}.md"
    sections = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
    wanted = ["Model", "Algorithm", "Settings", "Variance", "When", "Cost", "Source", "Example", "Measured"]
    assert sections == wanted


def test_conventions_tell_every_status_with_its_text():
    text = (ROOT / "docs" / "conventions.md").read_text()
    for status in Status:
        assert f"| `{status.name}` | {status.text} |" in text


@pytest.mark.parametrize("scenario", sorted(registry.SCENARIOS))
def test_conventions_tell_the_snr_of_every_scenario(scenario):
    rows = [r for r in (ROOT / "docs" / "conventions.md").read_text().splitlines() if f"`{scenario}`" in r]
    scene = registry.load("scenarios", scenario).example(hhat.generator("docs"))
    said = scene.draw(1, hhat.generator("docs")).about.snr_definition
    assert any(said in row for row in rows), said


def test_conventions_tell_every_field_of_the_capture_schema():
    from hhat.io.fields import ARRAYS
    from hhat.io.root import UNITS, Root

    text = (ROOT / "docs" / "conventions.md").read_text()
    for field in (*ARRAYS, *(k for k in Root.model_fields if k not in ("geometry", "constants"))):
        assert f"`{field}`" in text, field
    assert " ".join("_" + unit for unit in UNITS) in text


def test_changelog_knows_every_registered_name():
    text = (ROOT / "CHANGELOG.md").read_text()
    for kind in ("methods", "priors", "operators", "scenarios"):
        assert all(entry in text for entry in registry.KINDS[kind])


def test_navigation_lists_every_page():
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert listed == {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
