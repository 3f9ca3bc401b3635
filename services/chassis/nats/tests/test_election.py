"""Which errors of the broker pass by themselves."""

from __future__ import annotations

import nats.errors
import pytest
from nats.js.errors import APIError, NoStreamResponseError

from services.chassis.nats.election import passes, stream_is_full


def told(code: int, err_code: int, description: str) -> APIError:
    """An error as nats-py makes it of what the broker says."""
    with pytest.raises(APIError) as raised:
        APIError.from_error({"code": code, "err_code": err_code, "description": description})
    return raised.value


@pytest.mark.parametrize(
    "error",
    [
        told(503, 10008, "JetStream system temporarily unavailable"),
        told(500, 10009, "JetStream cluster can not handle request"),
        told(503, 10077, "raft: proposal dropped"),
        told(500, 10118, "stream is offline"),
        told(500, 10047, "insufficient storage resources available"),
        told(409, 10158, "duplicate message id is in process"),
        nats.errors.TimeoutError(),
        nats.errors.NoRespondersError(),
        NoStreamResponseError(),
    ],
    ids=str,
)
def test_what_an_election_or_a_server_that_starts_says_passes(error: Exception) -> None:
    assert passes(error)
    assert not stream_is_full(error)


@pytest.mark.parametrize(
    "error",
    [
        told(400, 10071, "wrong last sequence: 5"),
        told(404, 10059, "stream not found"),
        told(400, 10025, "invalid JSON"),
        nats.errors.ConnectionClosedError(),
    ],
    ids=str,
)
def test_what_is_refused_for_good_does_not_pass(error: Exception) -> None:
    assert not passes(error)


@pytest.mark.parametrize(
    "words",
    ["maximum messages exceeded", "maximum bytes exceeded", "maximum messages per subject exceeded"],
)
def test_a_full_stream_is_no_election(words: str) -> None:
    assert stream_is_full(told(503, 10077, words))
    assert not passes(told(503, 10077, words))
