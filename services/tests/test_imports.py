"""What the process of a service imports: no library that only others need, so that a mesh starts soon."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

MODULES = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps(sorted(sys.modules)))
"""
SELDOM = frozenset(
    (
        "openai",
        "ollama",
        "gguf",
        "pypdf",
        "statsmodels",
        "pandas",
        "altair",
        "prompt_toolkit",
        "typer",
        "huggingface_hub",
    )
)
"""What is used by a command, or by a service that is told to."""

ABOVE = ("infra.", "loadtest.", "analysis.", "services.cli.")
"""The floors above the services."""
INFERENCE, TABLES = frozenset(("llama_cpp", "numpy", "scipy")), frozenset(("duckdb", "pyarrow", "numpy"))


@pytest.mark.parametrize(
    ("service", "needed"),
    [
        ("agent", frozenset()),
        ("aggregator", frozenset()),
        ("gateway", frozenset()),
        ("metrics", TABLES),
        ("modelstore", frozenset()),
        ("router", frozenset()),
        ("shard_stage", INFERENCE),
        ("summarizer", frozenset()),
    ],
)
def test_a_service_imports_no_library_that_only_others_need(service: str, needed: frozenset[str]) -> None:
    printed = subprocess.run(
        [sys.executable, "-c", MODULES, f"services.{service}.__main__"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    imported = set(json.loads(printed))
    assert f"services.{service}.service" in imported
    assert not imported & ((SELDOM | INFERENCE | TABLES) - needed)
    assert not [name for name in imported if f"{name}.".startswith(ABOVE)]
