"""Ensembles with a name: whose word counts, and that each copy follows the bucket."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.client import Client

from infra.broker.provision import provision
from infra.testing.mesh import eventually
from schemas import subjects
from schemas.ensembles.kept import EnsembleWord, NamedEnsemble
from schemas.ensembles.named import MAX_ENSEMBLES, Ensemble
from schemas.errors import BrokerUnavailable, InvalidRequest
from services.chassis.nats.bucket import BYTES, Bucket
from services.chassis.registry.ensembles import Ensembles, with_word

ONE = Ensemble(name="council", members=("alpha", "beta"))
TWO = Ensemble(name="council", members=("beta",))
THREE = Ensemble(name="council", quorum=1)


def said(*words: tuple[str, Ensemble | None]) -> list[tuple[Ensemble, tuple[str, ...]]]:
    """What is said in the end of what these hosts (`-` are the operators) say one after the other."""
    known: NamedEnsemble | None = None
    for speaker, ensemble in words:
        known = with_word(known, None if speaker == "-" else speaker, ensemble)
    if known is None:
        return []
    return [(word.ensemble, (*word.hosts, *(("-",) if word.operators else ()))) for word in known.words]


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        # who says it alone changes and takes back what it said
        ([("a", ONE)], [(ONE, ("a",))]),
        ([("a", ONE), ("a", TWO)], [(TWO, ("a",))]),
        ([("a", ONE), ("a", None)], []),
        ([("a", None)], []),
        # the same of two hosts is one word, until nobody says it
        ([("a", ONE), ("b", ONE)], [(ONE, ("a", "b"))]),
        ([("a", ONE), ("b", ONE), ("a", None)], [(ONE, ("b",))]),
        # what was said first counts, however often both start again; the other one waits for its turn
        ([("a", ONE), ("b", TWO), ("a", ONE), ("b", TWO)], [(ONE, ("a",)), (TWO, ("b",))]),
        ([("a", ONE), ("b", TWO), ("a", None)], [(TWO, ("b",))]),
        ([("a", ONE), ("b", TWO), ("a", THREE)], [(THREE, ("a",)), (TWO, ("b",))]),
        # a change on two hosts: the first one waits for the second
        ([("a", ONE), ("b", ONE), ("a", TWO)], [(ONE, ("b",)), (TWO, ("a",))]),
        ([("a", ONE), ("b", ONE), ("a", TWO), ("b", TWO)], [(TWO, ("a", "b"))]),
        ([("a", ONE), ("b", ONE), ("a", TWO), ("b", THREE)], [(THREE, ("b",)), (TWO, ("a",))]),
        # operators are one more who says something
        ([("-", ONE), ("a", ONE), ("a", None)], [(ONE, ("-",))]),
        ([("-", ONE), ("a", TWO), ("-", THREE)], [(THREE, ("-",)), (TWO, ("a",))]),
    ],
)
def test_the_first_word_counts_until_nobody_says_it_any_more(
    words: list[tuple[str, Ensemble | None]], kept: list[tuple[Ensemble, tuple[str, ...]]]
) -> None:
    assert said(*words) == kept


async def test_two_hosts_that_disagree_are_told_so_and_change_nothing_in_turn(connection: Client) -> None:
    copy, first, second = Ensembles(connection), Ensembles(connection), Ensembles(connection)
    await copy.start()
    assert await first.declare("attic", (ONE,)) == ()
    revision = await revision_of_council(connection)
    for _ in range(2):
        (told,) = await second.declare("cellar", (TWO,))
        assert "the choir.toml of cellar says otherwise than attic" in told
        assert "`choir ensembles rm council`" in told
        (told_too,) = await first.declare("attic", (ONE,))
        assert told_too == told
    await eventually(lambda: copy.disputes == (told,))
    assert copy.find("council") == ONE
    assert await revision_of_council(connection) == revision + 1

    # When the first one says it no more, the second one's word counts
    assert await first.declare("attic", ()) == ()
    await eventually(lambda: copy.find("council") == TWO)
    assert copy.disputes == ()


async def revision_of_council(connection: Client) -> int:
    return await Bucket(connection, subjects.ENSEMBLES_BUCKET, BYTES).revision("council")


async def test_many_that_say_something_at_once_are_all_heard(connection: Client) -> None:
    copy = Ensembles(connection)
    await copy.start()
    hosts = [f"host-{number}" for number in range(8)]
    await asyncio.gather(*(Ensembles(connection).declare(host, (ONE,)) for host in hosts))
    await eventually(lambda: {host for entry in copy.kept for host in entry.words[0].hosts} == set(hosts))
    await asyncio.gather(*(Ensembles(connection).declare(host, ()) for host in hosts))
    await eventually(lambda: copy.kept == ())


async def test_operators_change_their_own_and_no_choir_toml(connection: Client) -> None:
    operators, host = Ensembles(connection), Ensembles(connection)
    await operators.start()
    await operators.add(ONE)
    assert (await operators.add(TWO)).ensemble == TWO
    (told,) = await host.declare("attic", (ONE,))
    assert "attic says otherwise than `choir ensembles add`" in told
    gone = await operators.remove("council")
    assert [word.hosts for word in gone.words] == [(), ("attic",)]
    with pytest.raises(InvalidRequest, match="there is no ensemble 'council'; there are: none"):
        await operators.remove("council")
    assert await host.declare("attic", (ONE,)) == ()
    otherwise = "`choir ensembles add` says otherwise than attic"
    with pytest.raises(InvalidRequest, match=f"council: {otherwise}") as refused:
        await operators.add(TWO)
    assert refused.value.field == "ensemble.name"
    await operators.remove("council")


async def test_what_cannot_be_read_is_left_alone_and_the_rest_is_kept(connection: Client) -> None:
    # Given a name of which a newer Choir says what this one does not understand
    bucket = Bucket(connection, subjects.ENSEMBLES_BUCKET, BYTES)
    newer = b'{"schema_version":1,"words":[{"ensemble":{"name":"council","strategies":["telepathy"]}}]}'
    await bucket.put("council", newer)
    other = Ensemble(name="other")
    (told,) = await Ensembles(connection).declare("attic", (ONE, other))
    assert "of a newer Choir" in told
    copy = Ensembles(connection)
    await copy.start()
    assert copy.all == (other,)
    assert (await bucket.get("council")).value == newer
    await bucket.delete("council")
    await Ensembles(connection).declare("attic", ())


async def test_there_are_no_more_than_the_list_of_models_has_room_for(connection: Client) -> None:
    """Many of few words, or few of many: each is refused by name with the way out."""
    copy = Ensembles(connection)
    await copy.start()
    members = tuple(f"{number:02d}" + "m" * 120 for number in range(64))
    heavy = [Ensemble(name=f"heavy-{number}", members=members) for number in range(MAX_ENSEMBLES)]
    problems = await copy.declare("attic", heavy)
    assert 0 < len(problems) < MAX_ENSEMBLES
    assert f"heavy-{MAX_ENSEMBLES - 1}: there is no room for more ensembles" in problems[-1]
    assert await copy.declare("attic", ()) == ()


async def test_as_long_as_the_mesh_has_no_place_for_them_those_of_this_host_count(connection: Client) -> None:
    # Given a broker whose host has an older Choir
    await connection.jetstream().delete_stream(subjects.bucket_stream(subjects.ENSEMBLES_BUCKET))
    copy = Ensembles(connection, (ONE,))
    await copy.start()
    assert (copy.all, copy.find("council"), copy.find("other")) == ((ONE,), ONE, None)

    # When that has a newer one too
    await provision(connection, [])
    await copy.resume()
    assert copy.find("council") is None
    await Ensembles(connection).declare("attic", (TWO,))
    await eventually(lambda: copy.all == (TWO,))


async def test_a_host_comes_up_though_nobody_can_keep_its_ensembles_at_present(connection: Client) -> None:
    await connection.jetstream().delete_stream(subjects.bucket_stream(subjects.ENSEMBLES_BUCKET))
    (told,) = await Ensembles(connection).declare_if_possible("attic", (ONE,))
    assert "could not be read" in told and "`choir up` there" in told
    # Whoever takes back what a host said is told that it was not done
    with pytest.raises(BrokerUnavailable, match="could not be read"):
        await Ensembles(connection).declare("attic", ())


def test_a_word_of_nobody_is_none() -> None:
    known = NamedEnsemble(words=(EnsembleWord(ensemble=ONE, hosts=("a",)),))
    assert with_word(known, "a", None) is None
