"""The places of measured figures in the READMEs: which benchmarks they name, and whether these exist.

Figures stand between `<!-- measured:overhead:begin -->` and `<!-- measured:overhead:end -->`; a bench that
has parts may have a place for some of them, `pipeline/decode,hop`. `just measured` writes there
(`loadtest/measured`); what was measured cannot be made again from the code, so it is not looked at here.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from schemas.errors import ConfigurationError

MARKER = "measured"
EDGE = re.compile(rf"<!-- {MARKER}:([a-z][\w-]*(?:/[a-z][\w,-]*)?):(begin|end) -->")
TABLE_OF_BENCHES = ("loadtest", "bench", "__main__.py")
NAME_OF_TABLE = "BENCHES"


def marker_of(place: str) -> str:
    """The name of a place in its markers: `measured:overhead`."""
    return f"{MARKER}:{place}"


def bench_of(place: str) -> str:
    """The bench whose figures stand in a place: `pipeline` for `pipeline/decode`."""
    return place.partition("/")[0]


def places(text: str) -> list[str]:
    """The places in a README, from its top. ConfigurationError if one is there twice or has no end, or if
    one begins within another."""
    edges = [(match[1], match[2]) for match in EDGE.finditer(text)]
    found = [place for place, edge in edges if edge == "begin"]
    whole = [(place, edge) for place in found for edge in ("begin", "end")]
    if edges != whole or len(set(found)) != len(found):
        told = ", ".join(f"{place}:{edge}" for place, edge in edges)
        raise ConfigurationError(
            f"the markers {told}: each place has one <!-- {MARKER}:NAME:begin --> and after it, before the "
            f"next one begins, <!-- {MARKER}:NAME:end -->"
        )
    return found


def benches(root: Path) -> set[str]:
    """The names of all benchmarks, read from the source of their table: nothing of it is imported. None if
    there is no such file."""
    path = root.joinpath(*TABLE_OF_BENCHES)
    for node in ast.parse(path.read_text() if path.is_file() else "").body:
        if isinstance(node, ast.Assign) and [ast.unparse(one) for one in node.targets] == [NAME_OF_TABLE]:
            return set(ast.literal_eval(node.value))
    return set()


def check_places(text: str, root: Path) -> None:
    """ConfigurationError if a README has a place for a bench that is not there, or broken markers."""
    named = places(text)
    if not named:
        return
    known = benches(root)
    for place in named:
        if bench_of(place) not in known:
            raise ConfigurationError(
                f"the marker {marker_of(place)}: there is no bench {bench_of(place)!r} in "
                f"{'/'.join(TABLE_OF_BENCHES)}; there are: {', '.join(sorted(known)) or 'none'}"
            )
