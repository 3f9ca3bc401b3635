"""What `choir up` writes to standard error: the lines of all services, for people or for machines."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Literal

import typer
from rich.console import Console

from infra.forward import Forward, to_console


def forward_for(log_format: Literal["console", "json"]) -> Forward:
    """Where the lines go."""
    if log_format == "console":
        return to_console(Console(stderr=True))
    return lambda instance, line: typer.echo(as_json(instance, line), err=True)


def as_json(instance: str, line: str) -> str:
    """The line as one JSON document: as it is if it is one, else as the event of a document of our own."""
    if _is_document(line):
        return line
    document = {
        "event": line,
        "level": "info",
        "timestamp": datetime.now(UTC).isoformat(),
        "instance": instance,
    }
    return json.dumps(document, ensure_ascii=False)


def _is_document(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
