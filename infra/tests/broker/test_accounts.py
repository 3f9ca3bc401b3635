"""Accounts on a real broker: who may use which subject, and what a hostile client can do: nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import nats
import nats.errors
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.broker.access.accounts import Insider, ServiceUser, accounts
from infra.broker.access.guard import check_guarded
from infra.broker.access.keys import KeyRing
from infra.broker.access.permissions import OPERATOR, Scope, publishes
from infra.broker.broker import Broker
from infra.broker.provision import provision
from infra.host.children.processes import until
from infra.host.credentials import Credentials
from infra.settings import HostSettings
from infra.testing.plugin import INSIDE, all_read
from schemas import subjects
from schemas.broker import catalog
from schemas.broker.catalog import ACCESS, ENDPOINTS, Access
from schemas.broker.channels import matches
from schemas.commands import Ask
from schemas.errors import ConfigurationError
from schemas.nodes.joining import Host, HostedInstance
from schemas.replies import Accepted
from schemas.requests.tenants import LOCAL, Tenant, TenantLimits
from services.chassis.identity import Identity
from services.chassis.nats.endpoints import Caller, Endpoints
from services.chassis.settings import MeshSection

MODELS = ("alpha", "beta")
SERVED = ("alpha",)
ONE = "one"
"""The name of each service's instance."""
NOBODYS = "nobody.may"
DEADLINE_S = 180.0
SERVING = ("agent", "shard_stage")
MOST_CONNECTIONS = 4
TENANTS = (
    LOCAL,
    Tenant(name="alice", role="ask", limits=TenantLimits(connections=MOST_CONNECTIONS)),
    Tenant(name="bob", role="observe"),
    Tenant(name="carol", role="operate"),
)
ROLES = {tenant.name: tenant.role for tenant in TENANTS}


class User:
    """A connection, and what the broker has refused it."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.client = Client()

    async def open(self, url: str, seed: Path | None, inbox: str) -> User:
        key = {} if seed is None else {"nkeys_seed": str(seed)}
        await self.client.connect(url, error_cb=self._on_error, inbox_prefix=inbox, **key)  # type: ignore[arg-type]
        return self

    async def _on_error(self, error: Exception) -> None:
        self.refused.append(str(error).lower())

    async def may_publish(self, asked: list[str]) -> set[str]:
        """Which of these subjects the broker lets it publish to."""
        self.refused.clear()
        for subject in (*asked, NOBODYS):
            await self.client.publish(subject, b"")
        await self._told()
        return {one for one in asked if not self._was_refused(one)}

    async def may_hear(self, asked: list[str]) -> set[str]:
        """Which of these subjects the broker lets it listen to."""
        self.refused.clear()
        heard = [await self.client.subscribe(subject) for subject in (*asked, NOBODYS)]
        await self._told()
        allowed = {one for one in asked if not self._was_refused(one)}
        for subscription in heard:
            await subscription.unsubscribe()
        return allowed

    async def _told(self) -> None:
        """The broker has told of all that it refuses: of the last one as well, which it refuses everybody."""
        assert await until(lambda: self._was_refused(NOBODYS), DEADLINE_S), self.refused

    def _was_refused(self, subject: str) -> bool:
        names = {subject, catalog.door_mappings().get(subject, subject)}
        return any(f'"{name.lower()}"' in refusal for name in names for refusal in self.refused)


@dataclass
class Guarded:
    """A broker with accounts: one instance of each service, and a tenant of each role."""

    url: str
    keys: KeyRing

    async def service(self, service: str) -> User:
        inbox = subjects.service_inbox(service, ONE)
        return await User().open(self.url, self.keys.path(service), inbox)

    async def tenant(self, name: str) -> User:
        seed = None if name == subjects.LOCAL_TENANT else self.keys.path(name)
        return await User().open(self.url, seed, "_INBOX")

    async def operator(self) -> Client:
        return (await User().open(self.url, self.keys.path(OPERATOR), "_INBOX_supervisor")).client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    keys = KeyRing(folder / "keys")
    services = [
        ServiceUser(
            access,
            Scope(ONE, SERVED if access.service in SERVING else ()),
            keys.public_key(access.service),
        )
        for access in ACCESS
    ]
    tenants = [
        one.model_copy(
            update={"public_keys": (keys.public_key(one.name), keys.public_key(f"{one.name}-new"))}
        )
        for one in TENANTS
    ]
    insider = Insider("choir", "secret")
    block = accounts(keys.public_key(OPERATOR), services, tenants, insider, anonymous=LOCAL.name)
    async with Broker(folder / "broker", accounts=block) as broker:
        running = Guarded(broker.url, keys)
        nc = await running.operator()
        await provision(nc, MODELS)
        await nc.close()
        yield running


pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVICES_OWN = [
    one
    for access in ACCESS
    for one in (
        subjects.event(access.service, "test"),
        subjects.dead(access.service, "r1"),
        subjects.bucket_key(subjects.NODES_BUCKET, subjects.node_key(access.service, ONE)),
        subjects.bucket_key(subjects.NODES_BUCKET, subjects.node_key(access.service, "another")),
    )
]
KEPT = [
    subjects.generate("interactive", "alpha", "r1"),
    subjects.gather("interactive", "r1"),
    subjects.summarize("batch", "r1"),
    subjects.answer("r1", 1, "alpha"),
    subjects.result("r1"),
    subjects.token("r1", "alpha"),
    subjects.stage(1, 0),
    subjects.CANARY,
    "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.COMMANDS.gather-batch",
]
SIGNALS = [
    subjects.cancel_signal("r1"),
    subjects.stage_signal(1),
    subjects.load_order(ONE),
    subjects.prefix_signal(ONE),
    *(spell(model) for spell in (subjects.count_tokens, subjects.tokenizer) for model in MODELS),
    *(spell(ONE) for spell in (subjects.blob, subjects.store_order, subjects.held_models)),
]
KEYS = [
    subjects.bucket_key(bucket.name, "some.key")
    for bucket in catalog.BUCKETS
    if bucket.name != subjects.NODES_BUCKET
]
PULLED = [
    (spec.stream, spec.name, spell(spec.stream, spec.name).replace(">", "1.1.1.1.1"))
    for spec in catalog.consumers(MODELS)
    for spell in (subjects.pull_next, subjects.acknowledgements)
]
READ = [
    (stream, f"$JS.API.{asked}.{stream}")
    for stream in (
        *(spec.name for spec in catalog.STREAMS),
        *(subjects.bucket_stream(spec.name) for spec in catalog.BUCKETS),
    )
    for asked in (
        "DIRECT.GET",
        "STREAM.MSG.GET",
        "STREAM.INFO",
        "STREAM.MSG.DELETE",
        "STREAM.PURGE",
        "STREAM.DELETE",
        "CONSUMER.LIST",
    )
]
OPERATORS = [
    f"$JS.API.{asked}"
    for asked in (
        "INFO", "STREAM.CREATE.SPY", "STREAM.UPDATE.RESULTS", "STREAM.NAMES", "STREAM.SNAPSHOT.RESULTS",
        "CONSUMER.CREATE.RESULTS", "CONSUMER.DURABLE.CREATE.COMMANDS.spy",
        "CONSUMER.DELETE.COMMANDS.gather-batch",
    )
] + ["$SYS.REQ.SERVER.PING"]  # fmt: skip
ASKED = [
    subject
    for endpoint in ENDPOINTS
    for subject in (
        endpoint.subject,
        subjects.door("alice", endpoint.subject),
        subjects.keyed_door("alice", endpoint.subject),
    )
]
PEOPLES = ["_INBOX_supervisor.x", "_INBOX.x", "_R_.x.y"]
INBOXES = [*(f"{subjects.inbox_prefix(access.service)}.{ONE}.x" for access in ACCESS), *PEOPLES]
READING = (".DIRECT.GET.", ".STREAM.INFO.", ".MSG.GET.")
"""How a stream is read: from any of its copies, or from the one that leads."""
PUBLISHED = [
    *SERVICES_OWN, *KEPT, *SIGNALS, *KEYS, *(subject for _, _, subject in PULLED),
    *(subject for _, subject in READ), *OPERATORS, *ASKED, *INBOXES, "$SRV.PING", subjects.AGENT_PING,
]  # fmt: skip
"""Every kind of subject that there is."""


def may_publish(access: Access) -> set[str]:
    """What the catalog lets an instance publish to."""
    service = access.service
    own = {
        subjects.event(service, "test"),
        subjects.dead(service, "r1") if subjects.ALL_DEAD in access.publishes else "",
        subjects.bucket_key(subjects.NODES_BUCKET, subjects.node_key(service, ONE)),
    }
    kinds = [one for one in access.publishes if one not in (subjects.ALL_EVENTS, subjects.ALL_DEAD)]
    named = {
        one for one in (*KEPT, *SIGNALS, subjects.AGENT_PING) if any(matches(one, kind) for kind in kinds)
    }
    doors = {
        one
        for endpoint in ENDPOINTS
        if endpoint.doors in access.publishes
        for one in (endpoint.subject, subjects.door("alice", endpoint.subject))
    } | {
        subjects.keyed_door("alice", endpoint.subject)
        for endpoint in ENDPOINTS
        if endpoint.keyed_doors in access.publishes
    }
    keys = {one for one in KEYS if one.split(".")[1] in access.buckets_written}
    consumers = access.consumers or tuple(
        spec.name for model in SERVED for spec in catalog.model_consumers(model) if service in SERVING
    )
    work = {one for stream, name, one in PULLED if stream in access.pulls and name in consumers}
    buckets = {subjects.bucket_stream(one) for one in (*access.buckets_read, *access.buckets_written)}
    reading = {
        one
        for stream, one in READ
        if (stream in {*access.reads, *buckets} and any(kind in one for kind in READING))
        or (stream in access.pulls and ".STREAM.INFO." in one)
        or (stream in access.deletes and ".MSG.DELETE." in one)
        or (stream in access.purges and ".PURGE." in one)
        or (stream in access.counts and ".CONSUMER.LIST." in one)
    }
    inboxes = set(INBOXES if access.subscribes else PEOPLES)
    return (own - {""}) | named | doors | keys | work | reading | inboxes


HEARD = [
    *(endpoint.doors for endpoint in ENDPOINTS),
    *(subjects.keyed_doors(endpoint.subject) for endpoint in ENDPOINTS),
    *(endpoint.subject for endpoint in ENDPOINTS),
    subjects.ALL_STORED_ANSWERS, subjects.ALL_STORED_RESULTS, subjects.ALL_STORED_TOKENS,
    subjects.ALL_ANSWERS, subjects.ALL_RESULTS, subjects.ALL_TOKENS, subjects.ALL_COMMANDS,
    subjects.ALL_EVENTS, subjects.ALL_STAGES, subjects.ALL_STAGE_SIGNALS, subjects.ALL_CANCELS,
    *(spell(model) for spell in (subjects.count_tokens, subjects.tokenizer) for model in MODELS),
    subjects.ALL_BLOBS, subjects.ALL_STORE_ORDERS, subjects.ALL_HELD_MODELS,
    subjects.ALL_LOAD_ORDERS, subjects.load_order(ONE), subjects.load_order("another"),
    subjects.ALL_PREFIX_SIGNALS, subjects.prefix_signal(ONE), subjects.prefix_signal("another"),
    *(subjects.bucket_updates(bucket.name) for bucket in catalog.BUCKETS),
    *(subjects.bucket_keys(bucket.name) for bucket in catalog.BUCKETS),
    *(f"{subjects.inbox_prefix(access.service)}.{ONE}.>" for access in ACCESS),
    *(f"{subjects.inbox_prefix(access.service)}.>" for access in ACCESS),
    "_INBOX_supervisor.>", "_INBOX.>", "_R_.>", ">", "$JS.>", "$SYS.>", "$SRV.>",
]  # fmt: skip


def may_hear(access: Access) -> set[str]:
    """What the catalog lets an instance listen to."""
    models = {
        spell(model)
        for all_of, spell in (
            (subjects.ALL_COUNTS, subjects.count_tokens),
            (subjects.ALL_TOKENIZERS, subjects.tokenizer),
        )
        if all_of in access.subscribes
        for model in SERVED
    }
    updates = {
        subjects.bucket_updates(bucket.name)
        for bucket in catalog.BUCKETS
        if bucket.republished and bucket.name in access.buckets_read
    }
    own = {f"{subjects.service_inbox(access.service, ONE)}.>", "$SRV.>"}
    to_one = {
        subjects.ALL_LOAD_ORDERS: subjects.load_order(ONE),
        subjects.ALL_PREFIX_SIGNALS: subjects.prefix_signal(ONE),
    }
    orders = {own_one for all_of, own_one in to_one.items() if all_of in access.subscribes}
    anybodys = {one for one in HEARD if one in access.subscribes} - set(to_one)
    return anybodys | orders | models | updates | own


@pytest.mark.parametrize("access", ACCESS, ids=lambda access: access.service)
async def test_an_instance_may_do_what_the_catalog_says_and_nothing_else(
    guarded: Guarded, access: Access
) -> None:
    user = await guarded.service(access.service)
    assert await user.may_publish(PUBLISHED) == may_publish(access)
    assert await user.may_hear(HEARD) == may_hear(access)
    await user.client.close()


@pytest.mark.parametrize("tenant", ROLES)
async def test_a_tenant_may_ask_what_its_role_says_and_nothing_else(guarded: Guarded, tenant: str) -> None:
    user = await guarded.tenant(tenant)
    asks = {endpoint.subject for endpoint in catalog.endpoints_of(ROLES[tenant])}
    services_api = {"$SRV.PING", subjects.AGENT_PING} if ROLES[tenant] != "ask" else set()
    assert await user.may_publish(PUBLISHED) == asks | services_api
    assert await user.may_hear(HEARD) == {"_INBOX.>"}
    await user.client.close()


async def test_a_gateway_that_wants_no_keys_does_more_as_local_alone_and_never_on_the_word_of_a_host() -> (
    None
):
    gateway = next(access for access in ACCESS if access.service == "gateway")
    more = {*publishes(gateway, Scope(ONE, (), keyless=True))} - {*publishes(gateway, Scope(ONE, ()))}
    assert more == {subjects.door(subjects.LOCAL_TENANT, subject) for subject in catalog.KEYED}
    for access in ACCESS:
        if access is not gateway:
            assert publishes(access, Scope(ONE, (), keyless=True)) == publishes(access, Scope(ONE, ()))
    # Given hosts whose gateways say that they want no keys
    process = HostedInstance(service="gateway", name=ONE, public_key="U" + "A" * 55, models=(), keyless=True)
    for broker in (False, True):
        host = Host(
            name="joined",
            public_key="U" + "B" * 55,
            services=("gateway",),
            instances=(process,),
            created_at_s=0.0,
            broker=broker,
        )
        block = accounts("U" + "C" * 55, (), (), hosts=(host,))
        # Then it counts of one that runs a broker of the cluster, and of no other
        door = f'"{subjects.door(subjects.LOCAL_TENANT, subjects.WORKER)}"'
        assert block.count(door) == 1 + broker  # once where the broker leads `local` itself


async def test_every_subject_of_the_catalog_is_among_those_that_are_tried() -> None:
    for access in ACCESS:
        untried = [kind for kind in access.publishes if not any(matches(one, kind) for one in PUBLISHED)]
        unheard = [kind for kind in access.subscribes if not any(matches(one, kind) for one in HEARD)]
        assert (untried, unheard) == ([], []), access.service


async def test_each_role_may_do_more_than_the_one_before() -> None:
    ask, observe, operate = (
        {endpoint.subject for endpoint in catalog.endpoints_of(role)} for role in catalog.ROLES
    )
    assert ask < observe < operate == {endpoint.subject for endpoint in ENDPOINTS}
    assert {subjects.ASK, subjects.FETCH, subjects.CANCEL, subjects.FEEDBACK} <= ask
    assert {subjects.SQL, subjects.NODES, subjects.STATUS} <= observe - ask
    assert operate - observe == {
        subjects.WORKER, subjects.SHARD, subjects.SCORES, subjects.DEAD_LETTERS, subjects.KEYS,
        subjects.STORE, subjects.INVITE, subjects.CORDON, subjects.TENANTS, subjects.HOSTS, subjects.LOAD,
        subjects.ENSEMBLES,
    }  # fmt: skip


@pytest_asyncio.fixture(loop_scope="module")
async def doorkeeper(guarded: Guarded) -> AsyncIterator[list[str]]:
    """A router that says who asked, and remembers it."""
    asked: list[str] = []

    async def answer(ask: Ask, caller: Caller) -> None:
        asked.append(f"{caller.tenant}:{ask.request_id}")
        await caller.send(Accepted(request_id=caller.tenant))

    router = (await guarded.service("router")).client
    endpoints = Endpoints(router, Identity("router", ONE), "for a test")
    await endpoints.start()
    await endpoints.add(subjects.doors(subjects.ASK), Ask, answer)
    await endpoints.add(subjects.doors(subjects.STREAM_ASK), Ask, answer, streams=True)
    await all_read(router)
    yield asked
    await endpoints.stop()
    await router.close()


BODY = json.dumps({"prompt": "hi", "request_id": "r1"}).encode()


@pytest.mark.parametrize("tenant", ROLES)
async def test_who_asks_is_the_broker_s_word(guarded: Guarded, doorkeeper: list[str], tenant: str) -> None:
    user = await guarded.tenant(tenant)
    reply = await user.client.request(subjects.ASK, BODY, timeout=60)
    assert Accepted.read(reply.data).request_id == tenant
    # And nobody comes through another's door
    for other in ROLES:
        await user.client.publish(subjects.door(other, subjects.ASK), BODY)
    await all_read(user.client)
    assert set(doorkeeper) == {f"{tenant}:r1"}
    await user.client.close()


async def test_several_replies_and_their_end_come_to_a_tenant(
    guarded: Guarded, doorkeeper: list[str]
) -> None:
    user = await guarded.tenant("alice")
    replies = await user.client.subscribe("_INBOX.several")
    await user.client.publish(subjects.STREAM_ASK, BODY, reply="_INBOX.several")
    assert [bool((await replies.next_msg(60)).data) for _ in range(2)] == [True, False]
    assert doorkeeper == ["alice:r1"]
    await user.client.close()


async def last_stored(client: Client) -> dict[str, int]:
    """How much was ever stored in each stream and bucket."""
    js = client.jetstream()
    names = [
        *(spec.name for spec in catalog.STREAMS),
        *(subjects.bucket_stream(spec.name) for spec in catalog.BUCKETS),
    ]
    return {name: (await js.stream_info(name)).state.last_seq for name in names}


async def test_a_reply_subject_points_at_nothing_inside(guarded: Guarded, doorkeeper: list[str]) -> None:
    # Given somebody who sees all that passes between the services, and who answers at every door and may
    # publish anything: what holds the replies back is the broker, and nobody's good will
    inside = await guarded.operator()
    seen: list[str] = []

    async def see(msg: Msg) -> None:
        seen.append(msg.subject)

    async def answer(msg: Msg) -> None:
        if msg.reply:
            await inside.publish(msg.reply, b"forged")

    await inside.subscribe(">", cb=see)
    for opened in (*(endpoint.doors for endpoint in ENDPOINTS), "$SRV.>"):
        await inside.subscribe(opened, cb=answer)
    await all_read(inside)
    before = await last_stored(inside)
    seen.clear()
    # When a tenant has its replies sent there, from wherever it may ask
    user = await guarded.tenant("carol")
    targets = [*KEPT, *KEYS, *(subject for _, subject in READ)]
    for target in targets:
        await user.client.publish(subjects.ASK, BODY, reply=target)
        await user.client.publish("$SRV.PING", b"", reply=target)
    endpoints = catalog.endpoints_of(ROLES["carol"])
    for endpoint in endpoints:
        for target in INSIDE:
            await user.client.publish(endpoint.subject, BODY, reply=target)
    await all_read(user.client)
    # Then all of that has come in
    asked = {subjects.door("carol", endpoint.subject) for endpoint in endpoints} | {"$SRV.PING"}
    assert await until(lambda: all(seen.count(one) >= len(INSIDE) for one in asked), DEADLINE_S)
    await user.client.request(subjects.ASK, BODY, timeout=60)
    await all_read(inside)
    # And the answers have come nowhere inside, and nothing is stored
    assert [subject for subject in seen if subject in {*targets, *INSIDE}] == []
    assert not {subject for subject in seen if subject.startswith(("$KV.", "$JS.API.", "choir.result."))}
    assert await last_stored(inside) == before
    await user.client.close()
    await inside.close()


async def test_a_tenant_hears_nothing_that_is_for_another(guarded: Guarded, doorkeeper: list[str]) -> None:
    alice, bob = await guarded.tenant("alice"), await guarded.tenant("bob")
    overheard = await bob.client.subscribe("_INBOX.>")
    await all_read(bob.client)
    await alice.client.request(subjects.ASK, BODY, timeout=60)
    with pytest.raises(nats.errors.TimeoutError):
        await overheard.next_msg(0.2)
    await alice.client.close()
    await bob.client.close()


async def test_the_services_api_answers_who_may_observe(guarded: Guarded, doorkeeper: list[str]) -> None:
    bob = await guarded.tenant("bob")
    pong = json.loads((await bob.client.request("$SRV.PING.router", b"", timeout=60)).data)
    assert pong["name"] == "router"
    await bob.client.close()


async def test_the_broker_says_at_once_that_no_service_is_there(guarded: Guarded) -> None:
    alice = await guarded.tenant("alice")
    with pytest.raises(nats.errors.NoRespondersError):
        await alice.client.request(subjects.ASK, BODY, timeout=10)
    await alice.client.close()


async def test_who_has_the_password_of_the_mesh_is_inside_and_asks_as_local(
    guarded: Guarded, doorkeeper: list[str]
) -> None:
    nc = await nats.connect(guarded.url, user="choir", password="secret")
    await nc.jetstream().stream_info(subjects.RESULTS_STREAM)
    reply = await nc.request(subjects.ASK, BODY, timeout=60)
    assert Accepted.read(reply.data).request_id == "local"
    await nc.close()


async def test_what_a_broker_without_accounts_has_stored_is_kept(tmp_path: Path) -> None:
    # Given a store of an earlier Choir
    async with Broker(tmp_path) as broker:
        nc = await nats.connect(broker.url)
        await provision(nc, MODELS)
        await nc.jetstream().publish(subjects.result("r1"), b"kept")
        await nc.close()
    # When the broker has accounts
    keys = KeyRing(tmp_path / "keys")
    async with Broker(tmp_path, accounts=accounts(keys.public_key(OPERATOR), (), ())) as broker:
        nc = await nats.connect(broker.url, nkeys_seed=str(keys.path(OPERATOR)))
        stored = await nc.jetstream().get_last_msg(subjects.RESULTS_STREAM, subjects.result("r1"))
        assert stored.data == b"kept"
        assert await provision(nc, MODELS) == ()
        await nc.close()


async def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    keys = KeyRing(tmp_path / "keys")
    first = keys.public_key("agent-alpha")
    assert (first, keys.public_key("agent-beta") != first) == (keys.public_key("agent-alpha"), True)
    assert keys.path("agent-alpha").stat().st_mode & 0o777 == 0o600
    assert keys.path("x").parent.stat().st_mode & 0o777 == 0o700
    assert keys.path("../../etc").parent == tmp_path / "keys"


@pytest.mark.parametrize("damaged", [b"", b"no seed"])
async def test_a_damaged_key_is_said_and_never_replaced(tmp_path: Path, damaged: bytes) -> None:
    keys = KeyRing(tmp_path)
    keys.path("router").write_bytes(damaged)
    with pytest.raises(ConfigurationError, match="holds no seed"):
        keys.public_key("router")
    assert keys.path("router").read_bytes() == damaged


async def test_a_tenant_has_two_keys_while_one_is_exchanged(guarded: Guarded) -> None:
    for key in ("bob", "bob-new"):
        user = await User().open(guarded.url, guarded.keys.path(key), "_INBOX")
        assert subjects.STATUS in await user.may_publish([subjects.STATUS])
        await user.client.close()


async def test_a_tenant_has_only_so_many_connections(guarded: Guarded) -> None:
    opened = [await guarded.tenant("alice") for _ in range(MOST_CONNECTIONS)]
    one_more = Client()
    with pytest.raises(nats.errors.Error, match=r"(?i)maximum.*connections"):
        await one_more.connect(guarded.url, nkeys_seed=str(guarded.keys.path("alice")), allow_reconnect=False)
    await one_more.close()
    another = await guarded.tenant("bob")
    for user in (*opened, another):
        await user.client.close()


async def test_on_a_host_of_several_users_whoever_comes_may_be_given_less_or_nothing(tmp_path: Path) -> None:
    """Loopback is open to every user and process of a host: what they may is the tenant `local`."""

    async def let_in(name: str, settings: HostSettings) -> set[str]:
        block = Credentials(tmp_path / name).accounts(settings, ())
        async with Broker(tmp_path / name / "broker", accounts=block) as broker:
            with contextlib.suppress(ConfigurationError):  # somebody is let in
                await check_guarded("127.0.0.1", broker.port, None)
                return set()
            nobody = await User().open(broker.url, None, "_INBOX")
            may = await nobody.may_publish([subjects.ASK, subjects.STATUS, subjects.WORKER, "$JS.API.INFO"])
            await nobody.client.close()
            return may

    asking = Tenant(name=subjects.LOCAL_TENANT, role="ask")
    password = MeshSection(user="choir", password="secret")
    assert await let_in("open", HostSettings()) == {subjects.ASK, subjects.STATUS, subjects.WORKER}
    assert await let_in("asking", HostSettings(tenants=(asking,))) == {subjects.ASK}
    revoked = asking.model_copy(update={"revoked_at_s": 1.0})
    assert await let_in("revoked", HostSettings(tenants=(revoked,))) == set()
    assert await let_in("closed", HostSettings(mesh=password)) == set()
