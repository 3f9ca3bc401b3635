"""The finding of a check."""

from __future__ import annotations

from typing import Literal

from schemas.message import Message, Struct

State = Literal["ok", "warning", "wrong"]


class Finding(Struct):
    """One line of the report: what was looked at, what was found, and what to do if it is not ok."""

    what: str
    state: State
    found: str
    to_do: str = ""


class Findings(Message):
    """The whole report."""

    findings: tuple[Finding, ...]

    @property
    def good(self) -> bool:
        """Whether nothing is wrong; warnings do not count."""
        return all(finding.state != "wrong" for finding in self.findings)


def ok(what: str, found: str) -> Finding:
    """Something is as it should be."""
    return Finding(what=what, state="ok", found=found)


def warning(what: str, found: str, to_do: str) -> Finding:
    """Something will work, but not well."""
    return Finding(what=what, state="warning", found=found, to_do=to_do)


def wrong(what: str, found: str, to_do: str) -> Finding:
    """Something will not work."""
    return Finding(what=what, state="wrong", found=found, to_do=to_do)
