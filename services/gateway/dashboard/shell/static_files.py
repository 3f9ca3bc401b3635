"""The style sheet and the scripts, from memory, with a tag by which a browser knows that it has them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.dashboard.shell.pages import SECURITY

TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
ICON = "choir.svg"
KEPT = {"cache-control": "no-cache"}


@cache
def _file(name: str) -> tuple[bytes, str] | None:
    folder = files("services.gateway.dashboard") / "static"
    if name not in {entry.name for entry in folder.iterdir()}:
        return None
    content = (folder / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


async def static_file(request: Request) -> Response:
    """One of the files, or 304 to a browser that has it."""
    return _sent(request, request.path_params["name"])


async def icon(request: Request) -> Response:
    """The sign of Choir, for which a browser asks by itself where no page names one: beside JSON, say."""
    return _sent(request, ICON)


def _sent(request: Request, name: str) -> Response:
    if (found := _file(name)) is None:
        raise HTTPException(404)
    content, tag = found
    headers = {**SECURITY, **KEPT, "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, 200, headers, TYPES[name.rpartition(".")[2]])
