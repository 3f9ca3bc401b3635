"""What stands in a README of one report: when, where and of which commit it is, targets, figures: pure."""

from __future__ import annotations

from infra.docs.readmes import table
from loadtest.bench.report import QUIET_SHARE, Report
from loadtest.measured.figures import figure_tables, number, words

GENERATED = "Written by `just measured {place}`"
UNTOLD = "not told"


def section(report: Report, place: str) -> str:
    """All of what stands between the markers of a place."""
    parts = [" ".join(_sentences(report, place))]
    if report.targets:
        parts.append(_targets(report))
    parts += figure_tables(report.raw)
    if report.notes:
        parts.append(" ".join(_ended(note) for note in report.notes))
    return "\n\n".join(parts)


def does_not_count(report: Report) -> str:
    """Why the figures of a report do not count; nothing if they do."""
    if report.quiet:
        return ""
    most = QUIET_SHARE * report.machine.cores
    return f"the load was {report.load_before_1m} when this began, and {most:g} is the most on this machine"


def _sentences(report: Report, place: str) -> list[str]:
    machine = report.machine
    told = [
        f"{GENERATED.format(place=place)} on {report.day or 'a day that was ' + UNTOLD}, commit "
        f"{report.commit or UNTOLD}: {words(machine.cpu)}, {machine.cores} cores, {machine.memory_gb:g} GB, "
        f"{machine.system}, Python {machine.python}; load {report.load_before_1m} before, "
        f"{machine.load_1m} after."
    ]
    if why := does_not_count(report):
        told.append(f"**These figures do not count**: {why}.")
    if report.settings:
        told.append("Set: " + ", ".join(f"`{name}={value}`" for name, value in report.settings.items()) + ".")
    return told


def _targets(report: Report) -> str:
    rows = [
        (
            words(target.name),
            number(target.value),
            f"at {'least' if target.comparison == '>=' else 'most'} {target.target:,g}",
            "met" if target.met else "**missed**",
        )
        for target in report.targets
    ]
    return table(("target", "measured", "aim", ""), rows)


def _ended(note: str) -> str:
    sentence = " ".join(note.split())
    sentence = sentence[:1].upper() + sentence[1:]
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."
