"""A name that two hosts have given: who lives keeps it, and the other is told."""

from __future__ import annotations

import pytest
from nats.aio.client import Client

from schemas.errors import ConfigurationError
from services.chassis.identity import Identity
from services.chassis.registry.directory import Directory
from services.chassis.registry.lease import Lease, Load
from services.chassis.registry.namesake import refuse_namesake

HERE = Identity("agent", "alice", host="mac", host_id="aaaa")
THERE = Identity("agent", "alice", host="mac", host_id="bbbb")
COPIED = Identity("agent", "alice", host="pc", host_id="aaaa")
BY_HAND = Identity("agent", "alice", host="mac")


@pytest.mark.parametrize("second", [THERE, COPIED], ids=["of-one-name", "with-a-copied-state-folder"])
async def test_who_comes_second_is_refused_while_the_first_is_alive_on_another_host(
    connection: Client, second: Identity
) -> None:
    lease = Lease(connection, HERE, Load)
    await lease.start()
    with pytest.raises(ConfigurationError, match=r"agent 'alice' runs already, on host mac \(aaaa\)"):
        await refuse_namesake(connection, second)
    await lease.stop()
    await refuse_namesake(connection, second)


@pytest.mark.soak
async def test_what_is_left_of_one_that_has_died_on_another_host_runs_out_and_the_name_is_free(
    connection: Client,
) -> None:
    await Lease(connection, HERE, Load)._put()  # once, and then it dies
    await refuse_namesake(connection, THERE)
    directory = Directory(connection)
    await directory.start()
    assert directory.nodes == ()


@pytest.mark.parametrize("next_one", [HERE, BY_HAND], ids=["by-choir-up", "by-hand"])
async def test_an_instance_that_is_started_again_on_its_host_waits_for_nobody(
    connection: Client, next_one: Identity
) -> None:
    lease = Lease(connection, HERE, Load)
    await lease.start()
    await refuse_namesake(connection, next_one)
    await lease.stop()
