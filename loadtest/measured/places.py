"""The places of figures in the READMEs: which there are, and which one a report belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.docs.measured import bench_of, marker_of, places
from infra.docs.readmes import readmes, with_section
from loadtest.bench.report import Report
from loadtest.faults import WrongOption
from loadtest.measured.section import section

PARTS = "CHOIR_BENCH_PARTS"

Places = dict[str, list[Path]]
"""The READMEs that have a place of this name."""


def all_places(root: Path) -> Places:
    """All places, in the order of the READMEs. ConfigurationError if markers are broken."""
    found: Places = {}
    for readme in readmes(root):
        for place in places(readme.read_text()):
            found.setdefault(place, []).append(readme)
    return found


def chosen(names: Sequence[str], known: Mapping[str, object]) -> list[str]:
    """The places that are meant: all without names, and all of a bench by its name. WrongOption if there is
    none of a name."""
    if not names:
        return list(known)
    found: list[str] = []
    for name in names:
        meant = [place for place in known if name in (place, bench_of(place))]
        if not meant:
            raise WrongOption(f"no README has a place for {name!r}; there are: {', '.join(known)}")
        found += [place for place in meant if place not in found]
    return found


def parts_of(place: str) -> dict[str, str]:
    """The environment of a place's bench: which of its parts are measured, where the place names some."""
    parts = place.partition("/")[2]
    return {PARTS: parts} if parts else {}


def place_of(report: Report, known: Mapping[str, object]) -> str:
    """Where a report belongs, by its bench and the parts that it measured. WrongOption if that is nowhere."""
    parts = report.settings.get(PARTS)
    place = f"{report.bench}/{parts}" if parts else report.bench
    if place not in known:
        of_bench = ", ".join(one for one in known if bench_of(one) == report.bench)
        raise WrongOption(
            f"no README has a place for {place!r}; name the one that is meant: {of_bench or 'there is none'}"
        )
    return place


def write(report: Report, place: str, known: Places) -> list[Path]:
    """Puts a report where it belongs; the READMEs that are written."""
    for readme in known[place]:
        text = with_section(readme.read_text(), marker_of(place), section(report, place))
        readme.write_text(text)
    return known[place]
