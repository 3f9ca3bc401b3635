"""The request that was asked last from this host's command line, so that `--last` needs no id."""

from __future__ import annotations

import contextlib
from pathlib import Path

from schemas.errors import InvalidRequest
from services.client.finding.local_mesh import state_folder

FILE = "last_request"


def _path() -> Path:
    return state_folder() / FILE


def remember(request_id: str) -> None:
    """Notes an id, before the request is sent. Where nothing can be written, asking goes on without."""
    path = _path()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{FILE}.new")
        new.write_text(request_id, encoding="utf-8")
        new.replace(path)


def last_request() -> str:
    """The id. Raises InvalidRequest if nothing has been asked here."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if request_id := _path().read_text(encoding="utf-8").strip():
            return request_id
    raise InvalidRequest(
        "nothing has been asked from this host yet: give the id, which `choir requests` has",
        field="request_id",
    )


def chosen(request_id: str | None, last: bool) -> str:
    """The id that was typed, or with `last` the remembered one. InvalidRequest for both or neither."""
    if (request_id is None) != last:
        raise InvalidRequest(
            "give the id of a request or --last, one of the two; `choir requests` lists ids",
            field="request_id",
        )
    return request_id or last_request()
