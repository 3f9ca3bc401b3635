"""Which request's result stands for equal ones."""

from __future__ import annotations

from schemas.message import Message, OwnedId


class CacheEntry(Message):
    """What a request says is answered by the result of `request_id`, in work or there, since `at_s` (Unix
    time)."""

    request_id: OwnedId
    at_s: float
