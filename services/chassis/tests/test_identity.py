"""Ids of requests are ULIDs: of their moment, and of nobody else."""

from __future__ import annotations

import time

from ulid import ULID

from services.chassis.identity import new_id


def test_an_id_is_a_ulid_of_the_moment() -> None:
    before_ms = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(1_000)]
    after_ms = time.time_ns() // 1_000_000
    for made in ids:
        read = ULID.from_str(made)
        assert str(read) == made
        assert before_ms <= read.milliseconds <= after_ms
    assert len(set(ids)) == len(ids)
    moments = [made[:10] for made in ids]
    assert moments == sorted(moments)
