"""The frame of every page that is written to disk: it loads nothing, and shows what was written as text.

A page is a template that extends `frame.html.j2` and has the blocks `style` and `content`, or is made by
`framed` from what is HTML already.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

FRAME = "frame.html.j2"


def templates(folder: Path) -> Environment:
    """The templates of a folder, which may extend the frame. What they are not told is an error."""
    loader = FileSystemLoader([folder, Path(__file__).parent])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined)


def framed(title: str, content: str, style: str = "", javascript: str = "") -> str:
    """A page with this title; all but the title is HTML, CSS and JavaScript already, and not escaped."""
    return (
        templates(Path(__file__).parent)
        .get_template(FRAME)
        .render(title=title, content=Markup(content), style=Markup(style), javascript=Markup(javascript))
    )
