"""The lines of all services on standard error, each as one JSON document."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import typer


def echo_json(instance: str, line: str) -> None:
    """Writes a line, for machines."""
    typer.echo(as_json(instance, line), err=True)


def as_json(instance: str, line: str) -> str:
    """The line as one JSON document: as it is if it is one of this instance's, else as the event of a
    document of our own. What a library prints may look like the entry of another service."""
    if _is_entry(instance, line):
        return line
    document = {
        "event": line,
        "level": "info",
        "timestamp": datetime.now(UTC).isoformat(),
        "instance": instance,
    }
    return json.dumps(document, ensure_ascii=False)


def _is_entry(instance: str, line: str) -> bool:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("instance", instance) == instance
