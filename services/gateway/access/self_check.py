"""A gateway that wants keys tries itself without one before anybody else can."""

from __future__ import annotations

from starlette.types import ASGIApp, Message

from schemas.errors import InternalError

PATH = "/v1/models"
REFUSED = 401


async def check_locked(app: ASGIApp) -> None:
    """Raises InternalError if a request without a key is answered with anything but a refusal."""
    status = await _status_without_key(app)
    if status != REFUSED:
        raise InternalError(f"this gateway wants keys, and answered {status} without one: it does not start")


async def _status_without_key(app: ASGIApp) -> int:
    status = 0

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": PATH, "raw_path": PATH.encode(), "query_string": b"", "root_path": "", "state": {},
        "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 0), "server": ("127.0.0.1", 0),
    }  # fmt: skip
    await app(scope, receive, send)
    return status
