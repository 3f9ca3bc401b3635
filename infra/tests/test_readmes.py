"""What the READMEs name is there: files, folders, modules, headings, functions."""

from __future__ import annotations

import ast
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.docs import ROOT, readmes
from schemas.strategies import STRATEGIES
from services.agent.backends import BACKENDS
from services.cli.app import COMMANDS
from services.cli.command_group import Entry

LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
FILE = re.compile(r"`([\w./*-]+\.py)`")
FOLDER = re.compile(r"`([\w.-]+/(?:[\w.-]+/)*)`")
MODULE = re.compile(r"python -m ((?:schemas|services|infra|loadtest|analysis)[\w.]*)")
NAME = re.compile(r"`((?:schemas|services|infra|loadtest|analysis)(?:\.[A-Za-z_]\w*)+)`")
IMPORT = re.compile(r"^from ((?:schemas|services|infra|loadtest|analysis)[\w.]*) import (.+)$", re.MULTILINE)
DEFINITION = re.compile(r"`([A-Za-z_][\w.]*)`")
OUTSIDE = ("http://", "https://")
COMMAND_LINES = (ROOT / "services" / "cli" / "README.md").read_text()
DOCUMENTS = [*readmes(), ROOT / "CONTRIBUTING.md"]

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def places(document: Path, name: str) -> list[Path]:
    """The files of that name: beside the document or from the root; `*` stands for any."""
    return [path for folder in (document.parent, ROOT) for path in folder.glob(name)]


def anchors(document: Path) -> set[str]:
    """What can stand behind `#` in a link to a document: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(document: Path) -> Iterator[tuple[str, Path, str]]:
    """The text, the file and the anchor of every link within the repository."""
    for text, target in LINK.findall(document.read_text()):
        if not target.startswith(OUTSIDE):
            path, _, anchor = target.partition("#")
            yield text, (document.parent / path).resolve() if path else document, anchor


def definitions(module: Path) -> set[str]:
    """The classes, functions and methods of a module: `Choir`, `Choir.ask`, `plan`."""
    names = set()
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, FUNCTIONS)}
        if isinstance(node, (ast.ClassDef, *FUNCTIONS)):
            names.add(node.name)
    return names


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@every_document
def test_every_link_leads_somewhere(document: Path) -> None:
    found = list(links(document))
    assert [str(path) for _, path, _ in found if not path.exists()] == []
    headings = [(path, anchor) for _, path, anchor in found if anchor]
    assert [f"{path}#{anchor}" for path, anchor in headings if anchor not in anchors(path)] == []


@every_document
def test_every_file_and_folder_that_is_named_exists(document: Path) -> None:
    text = LINK.sub("", document.read_text())  # what a link names is there if the link leads somewhere
    names = FILE.findall(text) + FOLDER.findall(text)
    assert [name for name in names if not places(document, name)] == []


@every_document
def test_every_module_that_can_be_run_exists(document: Path) -> None:
    paths = [ROOT / name.rstrip(".").replace(".", "/") for name in MODULE.findall(document.read_text())]
    lacking = [p for p in paths if not p.with_suffix(".py").exists() and not (p / "__main__.py").exists()]
    assert [str(path) for path in lacking] == []


@every_document
def test_every_name_that_is_imported_or_spelled_out_exists(document: Path) -> None:
    text = document.read_text()
    names = [name for name in NAME.findall(text) if not places(document, name)]
    names += [f"{module}.{name.strip()}" for module, many in IMPORT.findall(text) for name in many.split(",")]
    assert [name for name in names if not can_be_imported(name)] == []


@every_document
def test_every_function_that_a_link_names_is_in_its_file(document: Path) -> None:
    named = [
        (match[1], path)
        for text, path, _ in links(document)
        if path.suffix == ".py" and (match := DEFINITION.fullmatch(text))
    ]
    assert [f"{name} in {path}" for name, path in named if not is_in(name, path)] == []


def can_be_imported(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def is_in(name: str, module: Path) -> bool:
    """Whether a module is the file of that name, or defines it."""
    return name == module.name or name in definitions(module)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_explained(name: str) -> None:
    for readme in ("README.md", "services/aggregator/README.md"):
        rows = [line for line in (ROOT / readme).read_text().splitlines() if line.startswith("| `")]
        assert any(f"`{name}`" in row.split(" | ")[0] for row in rows), readme


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_is_explained(name: str) -> None:
    assert f"`{name}`" in (ROOT / "services" / "agent" / "README.md").read_text()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_is_explained(command: Entry) -> None:
    shown = re.findall(r"^choir (.*?)(?:  |$)|`choir (\w+)", COMMAND_LINES, flags=re.MULTILINE)
    words = {word for groups in shown for line in groups for word in re.split(r"[\s|]+", line)}
    assert command.name in words


def test_a_function_that_is_not_there_is_noticed() -> None:
    module = ROOT / "services" / "router" / "planner.py"
    assert is_in("plan", module) and is_in("Plan.asked_first", module) and is_in("planner.py", module)
    assert can_be_imported("services.router.planner.plan") and can_be_imported("services.router.planner")
    assert not can_be_imported("services.router.planner.plans") and not can_be_imported("services.rooter")
    assert not is_in("plans", module) and not is_in("Plan.asked_last", module)
