"""What the READMEs name is there: files, folders, modules, headings, functions."""

from __future__ import annotations

import ast
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.docs.readmes import PACKAGES, ROOT, readmes
from schemas.ensembles.strategies import STRATEGIES
from services.agent.backends import BACKENDS
from services.cli.app import COMMANDS

LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
FILE = re.compile(r"`([\w./*-]+\.py)`")
FOLDER = re.compile(r"`([\w.-]+/(?:[\w.-]+/)*)`")
MODULE = re.compile(r"python -m ((?:schemas|services|infra|loadtest|analysis)[\w.]*)")
NAME = re.compile(r"`((?:schemas|services|infra|loadtest|analysis)(?:\.[A-Za-z_]\w*)+)`")
IMPORT = re.compile(r"^from ((?:schemas|services|infra|loadtest|analysis)[\w.]*) import (.+)$", re.MULTILINE)
IMPORT_OF_TESTS = re.compile(r"^\s*(?:from|import) [\w.]+\.tests\b", re.MULTILINE)
DEFINITION = re.compile(r"`([A-Za-z_][\w.]*)`")
OUTSIDE = ("http://", "https://")
COMMAND_LINES = (ROOT / "services" / "cli" / "README.md").read_text()
DOCUMENTS = [*readmes(), ROOT / "CONTRIBUTING.md"]


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


def test_every_link_leads_somewhere() -> None:
    found = [(document, path, anchor) for document in DOCUMENTS for _, path, anchor in links(document)]
    assert len(found) > len(DOCUMENTS)
    assert [f"{document}: {path}" for document, path, _ in found if not path.exists()] == []
    headings = {path: anchors(path) for _, path, anchor in found if anchor}
    missing = [(document, path, one) for document, path, one in found if one and one not in headings[path]]
    assert [f"{document}: {path}#{anchor}" for document, path, anchor in missing] == []


def test_every_file_and_folder_that_is_named_exists() -> None:
    lacking = []
    for document in DOCUMENTS:
        text = LINK.sub("", document.read_text())  # what a link names is there if the link leads somewhere
        names = FILE.findall(text) + FOLDER.findall(text)
        lacking += [f"{document}: {name}" for name in names if not places(document, name)]
    assert lacking == []


def test_every_module_that_can_be_run_exists() -> None:
    named = [(document, name) for document in DOCUMENTS for name in MODULE.findall(document.read_text())]
    assert named
    lacking = [f"{document}: {name}" for document, name in named if not can_be_run(name.rstrip("."))]
    assert lacking == []


def can_be_run(name: str) -> bool:
    """Whether `python -m` finds a module of this name, or a package with a main module."""
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__main__.py").exists()


def test_every_name_that_is_imported_or_spelled_out_exists() -> None:
    lacking = []
    for document in DOCUMENTS:
        text = document.read_text()
        names = [name for name in NAME.findall(text) if not places(document, name)]
        for module, many in IMPORT.findall(text):
            names += [f"{module}.{name.strip()}" for name in many.split(",")]
        lacking += [f"{document}: {name}" for name in names if not can_be_imported(name)]
    assert lacking == []


def test_every_function_that_a_link_names_is_in_its_file() -> None:
    named = [
        (document, match[1], path)
        for document in DOCUMENTS
        for text, path, _ in links(document)
        if path.suffix == ".py" and (match := DEFINITION.fullmatch(text))
    ]
    assert [f"{document}: {name} in {path}" for document, name, path in named if not is_in(name, path)] == []


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


@pytest.mark.parametrize("readme", ["README.md", "services/aggregator/README.md"])
def test_every_strategy_is_explained(readme: str) -> None:
    rows = [line for line in (ROOT / readme).read_text().splitlines() if line.startswith("| `")]
    explained = " ".join(row.split(" | ")[0] for row in rows)
    assert [name for name in STRATEGIES if f"`{name}`" not in explained] == []


def test_every_backend_is_explained() -> None:
    readme = (ROOT / "services" / "agent" / "README.md").read_text()
    assert [name for name in BACKENDS if f"`{name}`" not in readme] == []


def test_every_command_is_explained() -> None:
    shown = re.findall(r"^choir (.*?)(?:  |$)|`choir (\w+)", COMMAND_LINES, flags=re.MULTILINE)
    words = {word for groups in shown for line in groups for word in re.split(r"[\s|]+", line)}
    assert [command.name for command in COMMANDS if command.name not in words] == []


def test_a_function_that_is_not_there_is_noticed() -> None:
    module = ROOT / "services" / "router" / "admission" / "planner.py"
    assert is_in("plan", module) and is_in("Plan.asked_first", module) and is_in("planner.py", module)
    name = "services.router.admission.planner"
    assert can_be_imported(f"{name}.plan") and can_be_imported(name)
    assert not can_be_imported(f"{name}.plans") and not can_be_imported("services.rooter")
    assert not is_in("plans", module) and not is_in("Plan.asked_last", module)


MOST_SIBLINGS = 12
LARGER = {"services", "loadtest/peers/stock/scripts"}
"""Named in CONTRIBUTING.md."""


def siblings(folder: Path) -> list[str]:
    """The modules and wings in a folder, but for its tests and what every package has."""
    modules = [path for path in folder.glob("*.py") if path.stem not in ("__init__", "__main__")]
    wings = [path for path in folder.iterdir() if path.name != "tests" and any(path.glob("*.py"))]
    return sorted(path.name for path in (*modules, *wings))


def test_a_folder_has_at_most_twelve_siblings() -> None:
    folders = {
        path.parent for top in PACKAGES for path in (ROOT / top).rglob("*.py") if "golden" not in path.parts
    }
    assert len(folders) > MOST_SIBLINGS
    crowded = {str(folder.relative_to(ROOT)): siblings(folder) for folder in folders}
    assert [
        name for name, found in crowded.items() if len(found) > MOST_SIBLINGS and name not in LARGER
    ] == []


def test_nothing_but_tests_imports_tests() -> None:
    modules = [path for top in PACKAGES for path in (ROOT / top).rglob("*.py") if "tests" not in path.parts]
    assert len(modules) > 100
    assert [str(path.relative_to(ROOT)) for path in modules if IMPORT_OF_TESTS.search(path.read_text())] == []
