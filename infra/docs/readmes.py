"""Writes the tables of the READMEs that the code says better than anybody by hand.

python -m infra.docs            # rewrite what stands between the markers
python -m infra.docs --check    # exit 1 if it is not what the code says

The main README has the tables of `schemas/broker/catalog.py`, between `<!-- subjects:begin -->` and
`<!-- subjects:end -->`; the README of a package has a table of its modules, between the markers of `files`;
that of the engine has the architectures that can be cut, between those of `architectures`, those that are
not, between those of `refused`, and the shapes that were tried, between those of `shapes`. Figures between
markers of `measured` are written by `just measured`: here only the markers are checked, and that there are
such benchmarks.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from infra.docs.architecture_tables import architecture_rows, refused_rows, shape_rows
from infra.docs.file_tables import files_section
from infra.docs.measured import check_places
from schemas import subjects
from schemas.broker import catalog
from schemas.broker.catalog import Access, BucketSpec, Endpoint, StreamSpec
from schemas.errors import ChoirError, ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "services", "infra", "loadtest", "analysis")
SUBJECTS, FILES = "subjects", "files"
ARCHITECTURES, REFUSED, SHAPES = "architectures", "refused", "shapes"
ARCHITECTURES_BEGIN = f"<!-- {ARCHITECTURES}:begin -->"
GIB = 1024 * catalog.MIB
MINUTE_S = 60.0


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(heads)]
    lines += [["---"] * len(lines[0]), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def duration(seconds: float) -> str:
    """A time as people say it: `6 h`, `7 d`, `90 s`; `-` for none."""
    if not seconds:
        return "-"
    for unit_s, unit in ((catalog.DAY_S, "d"), (catalog.HOUR_S, "h"), (MINUTE_S, "min")):
        if seconds % unit_s == 0 and (seconds > unit_s or unit != "d"):
            return f"{seconds / unit_s:g} {unit}"
    return f"{seconds:g} s"


def size(number: int) -> str:
    """A number of bytes as people say it; `-` for none."""
    if not number:
        return "-"
    return f"{number / GIB:g} GiB" if number % GIB == 0 else f"{number / catalog.MIB:g} MiB"


def code(names: Iterable[str]) -> str:
    """Names in a table cell."""
    return " ".join(f"`{name}`" for name in names) or "-"


def endpoint_row(endpoint: Endpoint) -> list[str]:
    """One line of the table of requests."""
    return [
        code([endpoint.subject]),
        endpoint.service,
        endpoint.takes,
        endpoint.gives,
        endpoint.role,
        endpoint.why,
    ]


def stream_row(spec: StreamSpec) -> list[str]:
    """One line of the table of streams."""
    kind = "work queue" if spec.retention == "work_queue" else "write-once" if spec.write_once else "log"
    bounds = f"{duration(spec.max_age_s)}, {size(spec.max_bytes)}".removeprefix("-, ")
    return [
        code([spec.name]),
        code(spec.subjects),
        kind,
        spec.storage,
        bounds,
        code([spec.republish_to] if spec.republish_to else []),
        spec.why,
    ]


def bucket_row(spec: BucketSpec) -> list[str]:
    """One line of the table of buckets."""
    told = [subjects.bucket_updates(spec.name)] if spec.republished else []
    return [code([spec.name]), spec.storage, duration(spec.ttl_s), size(spec.max_bytes), code(told), spec.why]


def access_row(access: Access) -> list[str]:
    """One line of the table of permissions."""
    return [
        access.service,
        code(access.publishes),
        code(access.subscribes),
        code(access.pulls),
        code(access.reads),
        code(access.buckets_read),
        code(access.buckets_written),
    ]


def subjects_section() -> str:
    """All of what stands between the markers."""
    return "\n\n".join(
        [
            "Requests, answered over core NATS:",
            table(
                ("subject", "answered by", "takes", "gives", "role", "for"),
                map(endpoint_row, catalog.ENDPOINTS),
            ),
            "Streams:",
            table(
                ("stream", "subjects", "kind", "storage", "kept", "what was stored is told on", "why"),
                map(stream_row, catalog.STREAMS),
            ),
            "Key-value buckets:",
            table(
                ("bucket", "storage", "a key lives", "at most", "what was stored is told on", "for"),
                map(bucket_row, catalog.BUCKETS),
            ),
            "Who may do what:",
            table(
                ("service", "publishes", "listens", "pulls from", "reads", "buckets read", "buckets written"),
                map(access_row, catalog.ACCESS),
            ),
        ]
    )


def architectures_section() -> str:
    """The architectures that can be cut."""
    return table(("architecture", "slices begin", "to know"), architecture_rows())


def refused_section() -> str:
    """The architectures that llama.cpp knows and that are not cut."""
    return table(("not cut", "why"), refused_rows())


def shapes_section() -> str:
    """The shapes of published models in which cuts are tested."""
    heads = ("model", "architecture", "width", "heads", "network", "window", "layers", "otherwise")
    return table(heads, shape_rows())


def readmes(root: Path = ROOT) -> list[Path]:
    """The main README, and that of each package."""
    return [root / "README.md", *sorted(path for top in PACKAGES for path in (root / top).rglob("README.md"))]


def renewed(readme: Path, root: Path = ROOT) -> str:
    """The text of a README as it should be now. ConfigurationError if its markers are broken."""
    folder = readme.parent
    marker, section = (SUBJECTS, subjects_section()) if folder == root else (FILES, files_section(folder))
    text = with_section(readme.read_text(), marker, section)
    check_places(text, root)
    if ARCHITECTURES_BEGIN not in text:
        return text
    for marker, told in (
        (ARCHITECTURES, architectures_section()),
        (REFUSED, refused_section()),
        (SHAPES, shapes_section()),
    ):
        text = with_section(text, marker, told)
    return text


def with_section(text: str, marker: str, section: str) -> str:
    """The text with `section` between its markers. ConfigurationError if it has none."""
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ConfigurationError(f"there is no {begin} followed by {end}: the table goes between them")
    return f"{before}{begin}\n{section}\n{end}{after}"


def main(
    check: Annotated[bool, typer.Option("--check", help="change nothing; exit 1 if one is stale")] = False,
    root: Annotated[Path, typer.Option(help="the folder of the main README")] = ROOT,
) -> None:
    """Regenerate the tables in the READMEs: subjects and permissions, and the files of each package."""
    stale = 0
    for readme in readmes(root):
        name = readme.relative_to(root)
        try:
            new = renewed(readme, root)
        except ChoirError as error:
            typer.echo(f"{name}: {error.message}", err=True)
            raise typer.Exit(1) from error
        if new == readme.read_text():
            continue
        stale += 1
        if check:
            typer.echo(f"{name} does not say what the code says: run `just docs`", err=True)
        else:
            readme.write_text(new)
            typer.echo(f"{name} rewritten")
    if not stale:
        typer.echo("all READMEs are up to date")
    raise typer.Exit(1 if check and stale else 0)
