"""The documentation says what the code does: commands, exit codes, environment, links; its notebooks and examples run."""

from __future__ import annotations

import argparse
import ast
import functools
import json
import re
import shutil
from pathlib import Path

import pytest
from sample_bundles import ROOT

from ptycho_runtime.cli import main as runtime

DOCS = ROOT / "docs"
REFERENCE = (DOCS / "reference.md").read_text(encoding="utf-8")
HOUSES = ("ptycho_runtime", "ptycho_torch", "exporters")
# Pages that are made when the site is built: from files at the root, and from the examples.
MADE = {"security.md", "contributing.md", "changelog.md", "gallery/index.md"}
# Python's own, of which no module here asks by name.
PYTHONS_OWN = {"TMPDIR"}
# Constants of the system and of ONNX that look alike.
_OTHER = ("SC_", "TYPE_")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|MPLCONFIGDIR")
_LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")


@functools.cache
def sources() -> dict[str, ast.Module]:
    """Return every file of the houses as a tree, by its text."""
    texts = (path.read_text(encoding="utf-8") for house in HOUSES for path in sorted((ROOT / house).rglob("*.py")))
    return {text: ast.parse(text) for text in texts}


def section(title: str) -> str:
    return REFERENCE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """Return what stands in backticks in the first cells of a table, or the first cells themselves."""
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [name for cell in rows for name in (re.findall(r"`([^`]+)`", cell) or [cell])]


def test_commands_are_those_of_the_programs() -> None:
    cells = first_cells(section("Commands"))
    found = cells[cells.index("ptycho-runtime") + 1 : cells.index("ptycho-export")]
    actions = runtime.parser()._actions
    commands = next(action for action in actions if isinstance(action, argparse._SubParsersAction)).choices
    assert set(found) == set(commands)
    assert len(found) == len(commands)
    pytest.importorskip("click")
    from exporters.cli.main import cli

    shown = {name for name, command in cli.commands.items() if not command.hidden}
    assert set(cells[cells.index("ptycho-export") + 1 :]) == shown


def test_exit_codes_are_those_of_the_code() -> None:
    known = {0}
    for tree in sources().values():
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Assign):
                names = [part.id for part in ast.walk(node.targets[0]) if isinstance(part, ast.Name)]
            values = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names = [node.target.id]
            if values is None or not any(re.fullmatch(r"exit_code|EXIT_[A-Z_]+", name) for name in names):
                continue
            known |= {
                part.value for part in ast.walk(values) if isinstance(part, ast.Constant) and type(part.value) is int
            }
    documented = [int(cell) for cell in first_cells(section("Exit codes")) if cell.isdecimal()]
    assert set(documented) == known
    assert documented == sorted(documented)


def test_environment_variables_are_those_of_the_code() -> None:
    asked: set[str] = set()
    for text, tree in sources().items():
        if "environ" in text or "TF32_OVERRIDE" in text:
            constants = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            names = {value for value in constants if isinstance(value, str) and _VARIABLE.fullmatch(value)}
            asked |= {name for name in names if not name.startswith(_OTHER)}
    documented = set(first_cells(section("Environment"))) - {"variable"}
    assert documented - PYTHONS_OWN == asked


def pages() -> list[Path]:
    return sorted(path for path in DOCS.rglob("*.md") if path.relative_to(DOCS).as_posix() not in MADE)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(DOCS).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        path = (page.parent / target).resolve() if target else page
        made = path.is_relative_to(DOCS) and path.relative_to(DOCS).as_posix() in MADE
        assert made or path.exists(), f"{page.name}: {link}"
        if anchor and path.suffix == ".md" and not made:
            assert anchor in anchors(path), f"{page.name}: {link}"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_the_site_has_every_page() -> None:
    named = re.findall(r"(\S+\.(?:md|ipynb))$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    there = {page.relative_to(DOCS).as_posix() for page in pages()}
    there |= {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.ipynb")}
    assert set(named) == there | MADE
    assert len(named) == len(set(named))


@pytest.mark.parametrize("notebook", sorted(DOCS.rglob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_run_and_hold_no_output(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = json.loads(notebook.read_text(encoding="utf-8"))
    names: dict[str, object] = {}
    for cell in document["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec(compile("".join(cell["source"]), notebook.name, "exec"), names)
    assert "result" in names


@pytest.mark.long
@pytest.mark.parametrize(
    "example", sorted(set((ROOT / "examples" / "gallery").glob("*.py"))), ids=lambda path: path.stem
)
def test_gallery_is_made_by_the_examples(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import runpy

    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    shutil.copy(example, tmp_path)
    if example.stem != "make":
        runpy.run_path(str(tmp_path / example.name), run_name="__main__")
        assert (tmp_path / f"{example.stem}.figure.png").stat().st_size > 50_000


def test_version_and_citation_agree() -> None:
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
