"""What an acknowledgement subject tells, in both of its forms."""

from __future__ import annotations

from typing import Any, cast

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from services.chassis.work.delivery import NEVER_FRESH, Delivery

SHORT = "$JS.ACK.COMMANDS.generate-batch-a.3.1041.77.1763740800500000000.12"
LONG = "$JS.ACK.hub.ACCOUNTHASH.COMMANDS.generate-batch-a.3.1041.77.1763740800500000000.12"


@pytest.mark.parametrize("reply", [SHORT, LONG, f"{LONG}.r4nd0m"])
def test_the_delivery_count_is_read_from_every_form_of_the_subject(reply: str) -> None:
    msg = Msg(_client=cast(Client, None), subject="choir.command.generate.batch.a.r1", reply=reply)
    delivery = Delivery.of(msg, 0)
    assert (delivery.count, delivery.sequence, delivery.waiting) == (3, 1041, 12)
    assert delivery.stored_at_s == 1763740800.5
    assert not delivery.fresh


@pytest.mark.parametrize(("floor", "fresh"), [(1040, True), (1041, False), (NEVER_FRESH, False)])
def test_a_first_delivery_is_fresh_if_it_was_stored_since_the_connection_was_made(
    floor: int, fresh: bool
) -> None:
    parts: dict[str, Any] = {"subject": "choir.command.generate.batch.a.r1"}
    msg = Msg(_client=cast(Client, None), reply=LONG.replace(".3.1041", ".1.1041"), **parts)
    assert Delivery.of(msg, floor).fresh is fresh
