"""What a command imports: no more than it needs, so that it begins at once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from services.cli.app import COMMANDS

RUN = """
import json, sys
from services.cli.app import build_app
from services.cli.shell.outcome import run
code = run(build_app(), sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""
LOAD_ALL = """
import json, sys
from services.cli.app import COMMANDS
code = 0 if all(callable(entry.load()) for entry in COMMANDS) else 1
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""
HEAVY = (
    *(
        "openai",
        "ollama",
        "llama_cpp",
        "numpy",
        "duckdb",
        "pandas",
        "pyarrow",
        "scipy",
        "statsmodels",
        "altair",
    ),
    *(
        "prompt_toolkit",
        "pypdf",
        "faststream",
        "uvicorn",
        "structlog",
        "infra.host.supervisor",
        "infra.settings",
    ),
    *("services.engine", "services.agent", "services.aggregator", "services.metrics", "analysis"),
)
ONLY_OPERATORS_SAY = (
    *(
        "schemas.ensembles.kept",
        "schemas.nodes.cordons",
        "schemas.requests.dead_letters",
        "schemas.nodes.joining",
        "schemas.requests.keys",
    ),
    *(
        "schemas.nodes.loading",
        "schemas.nodes.model_store",
        "schemas.requests.queries",
        "schemas.requests.tenants",
    ),
)
TOO_SLOW_FOR_HELP = (*HEAVY, "rich", "pydantic", "nats", "asyncio")


def modules_of(program: str, *arguments: str, **environment: str) -> set[str]:
    """The modules that a program has imported by its end."""
    outcome = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    code, modules = json.loads(outcome.stderr.splitlines()[-1])
    assert code == 0, outcome.stdout
    return set(modules)


def test_asking_imports_nothing_that_only_other_commands_need(live_mesh: str) -> None:
    modules = modules_of(RUN, "ask", "Capital of France?", "--model", "choir-one", CHOIR_MESH__URL=live_mesh)
    assert "nats" in modules
    assert not modules.intersection((*HEAVY, *ONLY_OPERATORS_SAY))
    assert "services.cli.commands.asking.batch" not in modules


@pytest.mark.parametrize("arguments", [(), ("--help",), ("--version",)])
def test_help_and_version_import_no_command_and_no_library_that_takes_long(
    arguments: tuple[str, ...],
) -> None:
    modules = modules_of(RUN, *arguments)
    assert not modules.intersection(TOO_SLOW_FOR_HELP)
    assert not any(name.startswith("services.cli.commands.") for name in modules)


def test_the_help_of_a_command_imports_neither_pydantic_nor_the_client() -> None:
    assert not modules_of(RUN, "ask", "--help").intersection((*HEAVY, "pydantic", "nats", "rich"))


def test_the_module_of_each_command_leaves_heavy_libraries_for_when_it_runs() -> None:
    assert not modules_of(LOAD_ALL).intersection((*HEAVY, "nats", "pydantic", "rich"))


def test_every_line_of_help_fits_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from services.cli.app import build_app
    from services.cli.shell.outcome import run

    monkeypatch.setenv("COLUMNS", "80")
    for name in (None, *(entry.name for entry in COMMANDS)):
        assert run(build_app(), [name, "--help"] if name else ["--help"]) == 0
        page = capsys.readouterr().out
        assert all(len(line) <= 80 for line in page.splitlines()), page
        # No name is cut off, and no value is called by its type in Python.
        assert "…" not in page and "..." not in re.sub(r"[\]A-Z]\.{3}", "", page), page
        assert not any(f"<{kind}" in page for kind in ("bool", "str", "int", "float", "path", "list")), page


def test_every_command_has_a_form_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    from services.cli.app import build_app
    from services.cli.shell.outcome import run

    def page(*command: str) -> str:
        assert run(build_app(), [*command, "--help"]) == 0
        return capsys.readouterr().out

    without = []
    for entry in COMMANDS:
        text = page(entry.name)
        _, _, listed = text.partition("\nCommands:\n")
        parts = re.findall(r"^  (\w+) ", listed, re.MULTILINE)
        pages = {f"{entry.name} {part}": page(entry.name, part) for part in parts} or {entry.name: text}
        without += [name for name, text in pages.items() if "--json" not in text]
    assert without == []
