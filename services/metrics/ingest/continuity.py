"""Checks that the stream is still the one that was read; where it is not, a new epoch begins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from services.metrics.ingest.position import Position, fingerprint
from services.metrics.ingest.stored_event import StoredEvent
from services.metrics.ingest.stream_reader import StreamReader, StreamState

Holds = Callable[[int, StoredEvent], Awaitable[bool]]
"""Whether the database has this very event under this epoch and the event's own sequence."""


async def follow(
    position: Position, state: StreamState, reader: StreamReader, holds: Holds
) -> tuple[Position, str]:
    """Where to read on, and why there; the same position if the stream is what it was.

    Raises BrokerUnavailable.
    """
    if not position.stream_created:
        why = f"read on after {position.sequence}" if position.sequence else "read from its beginning"
        return replace(position, stream_created=state.created), f"this stream is {why}"
    if position.stream_created != state.created:
        return position.in_new_epoch(0, state.created), "the stream was made anew"
    if position.sequence == 0 or position.sequence < state.first_sequence <= state.last_sequence:
        return position, ""
    if await _is_where_it_was(position, state, reader):
        return position, ""
    common = await _last_in_common(position, state, reader, holds)
    return position.in_new_epoch(common, state.created), (
        f"the stream has lost what came after {common}, and its numbers came again"
    )


async def _is_where_it_was(position: Position, state: StreamState, reader: StreamReader) -> bool:
    if state.last_sequence < position.sequence:
        return False
    found = await reader.read(position.sequence, 1)
    at_position = [event for event in found if event.sequence == position.sequence]
    # What was deleted cannot be compared; a number that was given once is not given again by deleting.
    return not at_position or fingerprint(at_position[0].body) == position.fingerprint


async def _last_in_common(position: Position, state: StreamState, reader: StreamReader, holds: Holds) -> int:
    """The last sequence at which stream and database have the same event, by bisection; 0 for none."""
    same, different = state.first_sequence - 1, min(state.last_sequence, position.sequence) + 1
    while different - same > 1:
        middle = (same + different) // 2
        found = await reader.read(middle, 1)
        if found and found[0].sequence < different and await holds(position.epoch, found[0]):
            same = found[0].sequence
        else:
            different = middle
    return max(0, same)
