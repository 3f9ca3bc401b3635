"""Claims on workers, as one agent sees those of the others."""

from __future__ import annotations

import pytest
from nats.aio.client import Client

from infra.testing.broker.lost_words import LostWords
from infra.testing.mesh import eventually
from schemas import subjects
from services.agent.workers import claims as claims_module
from services.agent.workers.claims import Claims


async def test_claims_that_have_run_out_are_forgotten(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers come and go for as long as an agent lives."""
    claims = Claims(connection, "agent-1")
    await claims.start()
    bucket = await connection.jetstream().key_value(subjects.WORKER_CLAIMS_BUCKET)
    for number in range(20):
        await bucket.put(subjects.worker_key(f"gone-{number}"), b"agent-2")
    await eventually(lambda: not claims.is_free("gone-19"))
    monkeypatch.setattr(claims_module, "LEASE_TTL_S", 0.0)
    await bucket.put(subjects.worker_key("there"), b"agent-2")
    await eventually(lambda: len(claims._others) <= 1)
    assert len(claims._bucket._keys) <= 1


async def test_a_claim_is_kept_where_the_word_of_its_renewal_was_lost(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims, others = Claims(connection, "agent-1"), Claims(connection, "agent-2")
    assert await claims.take("mac")
    words = LostWords(monkeypatch, subjects.WORKER_CLAIMS_BUCKET, 1)
    assert await claims.renew("mac")
    assert words.lost == 1
    assert await claims.renew("mac")
    assert not await others.take("mac")
    await claims.release("mac")
    assert await others.take("mac")
