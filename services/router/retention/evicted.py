"""Explains a request that has neither a command nor a result any more.

Results go in the order in which they were stored. So one whose request is younger than the oldest that is
kept is still there; of an older one nobody knows whether there ever was one. When a request was made is
known where its id is a ULID.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

import nats.errors
from ulid import ULID

from schemas import subjects
from schemas.errors import BrokerUnavailable, ChoirError, ResultEvicted, UnknownRequest
from services.chassis.nats.reading import READ_TIMEOUT_S
from services.chassis.nats.streams import Storage

FIELD = "request_id"


@dataclass(frozen=True)
class Kept:
    """Results stored before `since` are gone; None if none is. There have been results from `began` on."""

    began: datetime
    since: datetime | None

    @property
    def words(self) -> str:
        """The same, to be read."""
        if self.since is None:
            return "no result has gone so far"
        return f"results stored before {self.since:%Y-%m-%dT%H:%M:%SZ} are gone"


async def kept(storage: Storage) -> Kept:
    """How far the stored results go back. BrokerUnavailable if the broker does not say."""
    subject = subjects.stream_info(subjects.RESULTS_STREAM)
    try:
        reply = await storage.client.request(subject, timeout=READ_TIMEOUT_S)
    except (nats.errors.TimeoutError, nats.errors.NoRespondersError) as error:
        raise BrokerUnavailable(f"stream {subjects.RESULTS_STREAM} could not be read") from error
    # nats-py leaves out the times of the first and the last message.
    info = json.loads(reply.data)
    if "state" not in info:
        raise BrokerUnavailable(f"stream {subjects.RESULTS_STREAM} could not be read")
    state, began = info["state"], datetime.fromisoformat(info["created"])
    if state["first_seq"] <= 1:
        return Kept(began, None)
    oldest = state["first_ts"] if state["messages"] else state["last_ts"]
    return Kept(began, datetime.fromisoformat(oldest))


async def why_unknown(storage: Storage, request_id: str) -> ChoirError:
    """The error for a request that is neither in the queue nor answered."""
    what, request_id = await kept(storage), subjects.bare_id(request_id)
    made_at = _made_at(request_id)
    if what.since is not None and made_at is not None and what.began <= made_at < what.since:
        return ResultEvicted(
            f"{FIELD}: the result of {request_id!r} is no longer kept, if there was one: {what.words}",
            field=FIELD,
        )
    return UnknownRequest(f"{FIELD}: there is no request {request_id!r}; {what.words}", field=FIELD)


async def surely_evicted(storage: Storage, request_id: str) -> ResultEvicted:
    """The error for a request that was accepted under this id, and whose result is not there any more."""
    what, request_id = await kept(storage), subjects.bare_id(request_id)
    return ResultEvicted(
        f"{FIELD}: {request_id!r} was asked and ended before, and its result is no longer kept: {what.words}",
        field=FIELD,
    )


def _made_at(request_id: str) -> datetime | None:
    try:
        return datetime.fromtimestamp(ULID.from_str(request_id).timestamp, UTC)
    except ValueError:
        return None
