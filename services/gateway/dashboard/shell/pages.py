"""Pages and fragments from templates. Whatever a model, a client or a host wrote is text in them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import Response

from schemas.errors import ChoirError
from services.gateway.access.authorization import NO_KEY
from services.gateway.http.errors import words_of

THOUSAND = 1_000
FEW = 10
MOST_CHARACTERS = 20_000
"""What a page shows of one text; the rest is in the JSON."""
LONGEST_NAME = 253
"""What a page shows of the name of a host: as much as a name of the network may have."""
SECURITY: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Link:
    """A page that the head of every page leads to."""

    name: str
    path: str
    words: str


PAGES = (
    Link("mesh", "/dashboard", "Mesh"),
    Link("ask", "/dashboard/ask", "Ask"),
    Link("requests", "/dashboard/requests", "Requests"),
    Link("nodes", "/dashboard/nodes", "Nodes"),
    Link("models", "/dashboard/models", "Models"),
    Link("pipelines", "/dashboard/pipelines", "Pipelines"),
    Link("workers", "/dashboard/workers", "Workers"),
    Link("runs", "/dashboard/runs", "Runs"),
    Link("queries", "/dashboard/queries", "Queries"),
    Link("admin", "/dashboard/admin", "Admin"),
)

_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_REPLACED = (*range(0x80, 0xA0), 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SHOWN: dict[int, str | int] = {**_PICTURES, **dict.fromkeys(_REPLACED, "\N{REPLACEMENT CHARACTER}")}


def shown(text: object) -> str:
    """A text as a page shows it: control characters as pictures of themselves, marks that turn the direction
    of writing replaced, and not more than a page can hold."""
    whole = str(text)
    cut = whole[:MOST_CHARACTERS].translate(_SHOWN)
    return cut if len(whole) <= MOST_CHARACTERS else f"{cut}\u2026 ({len(whole):,} characters in all)"


def named(host: object) -> str:
    """The name of a host as a page shows it: it is whatever a process has written into its lease."""
    whole = str(host)
    return shown(whole if len(whole) <= LONGEST_NAME else f"{whole[:LONGEST_NAME]}\u2026")


def duration(seconds: float | None) -> str:
    """`12 ms`, `1.4 s`, `3 min`, `2 h`, `5 d`; a dash for none."""
    if seconds is None:
        return "-"
    if seconds < 1:
        ms = seconds * 1000
        return f"{ms:.1f} ms" if 0 < ms < FEW else f"{ms:.0f} ms"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s"


def ago(at_s: float) -> str:
    """How long ago a Unix time was."""
    return duration(max(0.0, time.time() - at_s))


def age(at_s: float) -> Markup:
    """The same as an element that a browser keeps true by itself: it changes only where the time does."""
    return Markup('<time class="age" data-at="{:.0f}"></time>').format(at_s)


def left(at_s: float) -> Markup:
    """How long it is until a Unix time, as an element that a browser keeps true by itself."""
    return Markup('<time class="left" data-at="{:.0f}"></time>').format(at_s)


def number(value: object) -> str:
    """A cell of a table: four figures, thousands apart, a dash for nothing; whatever else is text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= THOUSAND else f"{value:.4g}"
    if isinstance(value, list | dict):
        return shown(json.dumps(value, ensure_ascii=False))
    return shown(value)


def size(count: float | None) -> str:
    """Bytes in a unit that reads well: `1.5 GiB`."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def layers(first: int, end: int) -> str:
    """Layers from `first` to before `end`, in words."""
    return f"layer {first}" if end - first == 1 else f"layers {first} to {end - 1}"


@cache
def templates() -> Environment:
    """The templates, read once."""
    environment = Environment(
        loader=PackageLoader("services.gateway.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        shown=shown, named=named, duration=duration, ago=ago, age=age, left=left, size=size, number=number
    )
    environment.globals.update(now=time.time, layers=layers)
    return environment


def fragment(template: str, **fields: Any) -> str:
    """A part of a page."""
    return templates().get_template(template).render(**fields)


def page(template: str, code: int = 200, **fields: Any) -> Response:
    """A whole page, sent with a status `code`."""
    return Response(fragment(template, **fields), code, SECURITY, "text/html; charset=utf-8")


def error_page(status: int, error: ChoirError) -> Response:
    """What a browser is told of a failure; without a key, or with one that is not valid, a form for it."""
    said = None if error.message == NO_KEY else words_of(error)  # that one tells programs how to send a key
    return page(
        "error.html.j2", status, status=status, error=error, said=said, pages=PAGES, active="", live=None
    )
