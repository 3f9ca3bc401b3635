"""What a cluster of brokers asks of its clients: patience while it chooses a leader, and whom to believe.

Each stream has a leader among the servers that keep it. While there is none the API refuses for a moment, in
many words and numbers, and what was sent may be stored or not. A direct get is answered by any server that
has a copy, so by one that may not know yet what has been acknowledged: only the leader's word is current.
"""

from __future__ import annotations

import nats.errors
import nats.js.errors

STREAM_FULL = 10077
"""The broker's code for a message that a stream did not take: because it is full, or could not be written."""
FULL = ("maximum messages", "maximum bytes", "maximum message")
SERVER_FAULT = 500
IN_PROCESS = 10158
"""The broker's code for a message whose id it is just storing, or has lost the leader over."""
ELECTION_PATIENCE_S = 20.0
"""Longer than a cluster needs to notice that a leader is gone, and to choose another one."""

NO_WORD = (
    nats.errors.TimeoutError,
    nats.errors.NoRespondersError,
    nats.errors.OutboundBufferLimitError,
    nats.js.errors.NoStreamResponseError,
)


def stream_is_full(error: BaseException) -> bool:
    """Whether a stream has refused a message for want of room, or because its subject has one already."""
    return (
        isinstance(error, nats.js.errors.APIError)
        and error.err_code == STREAM_FULL
        and any(words in (error.description or "") for words in FULL)
    )


def passes(error: BaseException) -> bool:
    """Whether the broker may do a moment later what it has not done now: no word came, there is no leader, a
    server is just starting or cannot write. Nobody knows then whether it has stored what was sent."""
    if isinstance(error, nats.js.errors.APIError):
        if isinstance(error, nats.js.errors.ServiceUnavailableError):
            return not stream_is_full(error)
        fault = (error.code or 0) >= SERVER_FAULT and not stream_is_full(error)
        return fault or error.err_code == IN_PROCESS
    return isinstance(error, NO_WORD)
