"""Tells commands of a newer version from damaged ones: they are left to a newer instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from schemas.errors import UnsupportedVersion

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class NewerCommand:
    """What can be said of such a command: what about it is newer, and its deadline if it has one."""

    what: str
    deadline_at_s: float | None

    def error(self, service: str) -> UnsupportedVersion:
        """Why the command cannot be worked on here, and the way out."""
        return UnsupportedVersion(
            f"the command has {self.what}, which this {service} does not know: a newer {service} has to "
            "take it, so upgrade the services that serve this model"
        )


def newer_command(data: bytes, error: ValidationError) -> NewerCommand | None:
    """What is newer about a command that was refused with `error`; None if it is simply wrong.

    It is newer if it says so with its `schema_version`, or if nothing is wrong with it but further fields.
    """
    document, deadline_at_s = _document(data), deadline_of(data)
    if document is None:
        return None
    version = document.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        return NewerCommand(f"schema_version {version}", deadline_at_s)
    faults = error.errors(include_input=False, include_url=False)
    if any(fault["type"] != "extra_forbidden" for fault in faults):
        return None
    names = ", ".join(sorted(".".join(map(str, fault["loc"])) for fault in faults))
    return NewerCommand(f"the field {names}" if len(faults) == 1 else f"the fields {names}", deadline_at_s)


def deadline_of(data: bytes) -> float | None:
    """When the time of a command is over (epoch), whatever else it says; None if it does not say that."""
    deadline = (_document(data) or {}).get("deadline_at_s")
    return float(deadline) if isinstance(deadline, int | float) else None


def _document(data: bytes) -> dict[str, Any] | None:
    try:
        document = from_json(data)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
