"""Pages and fragments from templates. Whatever a model, a client or a host wrote is text in them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response

from schemas.errors import ChoirError

MOST_CHARACTERS = 20_000
"""What a page shows of one text; the rest is in the JSON."""
SECURITY: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_REPLACED = (*range(0x80, 0xA0), 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SHOWN: dict[int, str | int] = {**_PICTURES, **dict.fromkeys(_REPLACED, "\N{REPLACEMENT CHARACTER}")}


def shown(text: object) -> str:
    """A text as a page shows it: control characters as pictures of themselves, marks that turn the direction
    of writing replaced, and not more than a page can hold."""
    whole = str(text)
    cut = whole[:MOST_CHARACTERS].translate(_SHOWN)
    return cut if len(whole) <= MOST_CHARACTERS else f"{cut}\u2026 ({len(whole):,} characters in all)"


def duration(seconds: float | None) -> str:
    """`12 ms`, `1.4 s`, `3 min`, `2 h`, `5 d`; a dash for none."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s"


def ago(at_s: float) -> str:
    """How long ago a Unix time was."""
    return duration(max(0.0, time.time() - at_s))


def size(count: float | None) -> str:
    """Bytes in a unit that reads well: `1.5 GiB`."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


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
    environment.filters.update(shown=shown, duration=duration, ago=ago, size=size)
    return environment


def fragment(template: str, **fields: Any) -> str:
    """A part of a page."""
    return templates().get_template(template).render(**fields)


def page(template: str, code: int = 200, **fields: Any) -> Response:
    """A whole page, sent with a status `code`."""
    return Response(fragment(template, **fields), code, SECURITY, "text/html; charset=utf-8")


def error_page(status: int, error: ChoirError) -> Response:
    """What a browser is told of a failure; without a key, or with one that is not valid, a form for it."""
    return page("error.html.j2", status, status=status, error=error)
