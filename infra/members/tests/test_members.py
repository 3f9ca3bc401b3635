"""Who belongs to a mesh, on a real broker with TLS: invites, hosts, tenants, and who is let in no more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import nats
import nats.errors
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.broker.access.accounts import accounts
from infra.broker.access.keys import KeyRing
from infra.broker.access.permissions import OPERATOR
from infra.broker.broker import Broker
from infra.broker.provision import provision
from infra.broker.tls.authority import Authority
from infra.broker.tls.names import LOOPBACK
from infra.host.children.processes import until
from infra.host.credentials import Credentials
from infra.host.operator_connection import connect_operator, provision_patiently
from infra.host.parts.instances import Instance
from infra.members import accounts_controller, joining
from infra.members.accounts_controller import AccountsController
from infra.members.brokers import publish_own_host
from infra.members.desk import Desk
from infra.members.enrolment import enrol, in_words_without
from infra.members.inviting import Whereabouts
from infra.members.joining import CLIENT, join, join_once, leave
from infra.members.members import Members
from infra.members.operations import Operations
from infra.testing.broker.cable import Cable
from infra.testing.mesh import eventually
from infra.testing.plugin import all_read
from schemas import subjects
from schemas.broker import catalog
from schemas.commands import Ask
from schemas.ensembles.named import Ensemble
from schemas.errors import ChoirError, ConfigurationError, InvalidRequest, NotPermitted
from schemas.events import MeshChanged
from schemas.nodes.joining import Enrol, HostedInstance, Join, MakeInvite, ManageHosts
from schemas.nodes.model_store import ManageStore, StoreReply
from schemas.replies import Accepted, ErrorReply
from schemas.requests.keys import ApiKey, digest_of, new_secret
from schemas.requests.tenants import ManageTenants, TenantLimits
from services.chassis.identity import Identity
from services.chassis.nats.bucket import Bucket, messages
from services.chassis.nats.connection import ConnectionEvents
from services.chassis.nats.endpoints import Caller, Endpoints
from services.chassis.process.cancelling import ended
from services.chassis.registry.ensembles import Ensembles
from services.chassis.settings import MeshSection
from services.chassis.telemetry.events import EventLog
from services.client.client import Choir
from services.client.finding.invite_line import BEGINNING, InviteLine, parse_line
from services.client.finding.inviting import invite_from_elsewhere, new_seed
from services.client.finding.local_mesh import RunningMesh
from services.client.finding.membership import FILE, Membership, joined

pytestmark = pytest.mark.asyncio(loop_scope="module")
DEADLINE_S = 180.0
HOUR_S = 3600.0


async def nothing() -> None:
    """Where nobody need be told."""


@dataclass
class Mesh:
    """A broker with its supervisor's desk, and an operator beside it."""

    broker: Broker
    controller: AccountsController
    operations: Operations
    inside: Client
    ca: Path
    folder: Path
    served: list[str] = field(default_factory=list)
    places: int = 0

    def place(self) -> tuple[Path, Path]:
        """The state folder and the configuration folder of another host."""
        self.places += 1
        home = self.folder / f"elsewhere-{self.places}"
        return home / "state", home / "config"

    async def joined(self, line: InviteLine) -> Membership:
        return await join(line, *self.place())

    async def person(self, name: str) -> Membership:
        return await self.joined(
            await self.operations.invite(kind="person", name=name, role="ask", ttl_s=HOUR_S)
        )

    async def host(self, name: str, *instances: HostedInstance) -> tuple[Membership, Client]:
        member = await self.joined(await self.operations.invite(kind="host", name=name, ttl_s=HOUR_S))
        client = await self.host_client(member)
        if instances:
            await enrol(client, name, Enrol(instances=instances, models=("llama",)), print)
        return member, client

    async def host_client(
        self, member: Membership, on_refused: Callable[[], Awaitable[None]] = nothing
    ) -> Client:
        inbox = subjects.host_inbox(member.name)
        return await connect_operator(member.url, member.section, nothing, inbox=inbox, on_refused=on_refused)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("mesh")
    authority, keys = Authority(folder / "tls"), KeyRing(folder / "keys")
    authority.renew(LOOPBACK)
    operator = keys.public_key(OPERATOR)

    def block(members: Members) -> str:
        now_s = time.time()
        return accounts(
            operator,
            (),
            members.tenants_at(now_s),
            hosts=members.hosts_at(now_s),
            invites=members.invites_at(now_s),
            worker_models=members.worker_models_at(now_s),
        )

    broker = Broker(folder / "broker", accounts=block(Members()), tls=authority.files)
    async with broker:
        section = MeshSection(url=broker.url, nkey=str(keys.path(OPERATOR)), ca=str(authority.certificate))
        inside = await connect_operator(broker.url, section, nothing)
        await provision(inside, ())
        controller = AccountsController(folder, block, broker.reload, print)
        await controller.start(inside)
        served: list[str] = []

        async def serve(models: tuple[str, ...]) -> None:
            served.extend(models)
            await provision_patiently(inside, models)

        running = RunningMesh(
            url=broker.url,
            pid=1,
            process_started_at_s=0.0,
            ca=str(authority.certificate),
            addresses=(f"127.0.0.1:{broker.port}",),
        )

        def where() -> Whereabouts:
            return Whereabouts.of(running.addresses, running.ca)

        events = EventLog(inside, Identity("supervisor", "here"))
        await Desk(inside, controller, ["here"], serve, where, events).start()
        router = await _router(inside)
        keeping = asyncio.create_task(controller.keep())
        yield Mesh(
            broker, controller, Operations(inside, running), inside, authority.certificate, folder, served
        )
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await router.stop()
        await events.close()
        await inside.close()


async def _router(client: Client) -> Endpoints:
    """A router that answers with whose door a question came through."""

    async def answer(ask: Ask, caller: Caller) -> None:
        await caller.send(Accepted(request_id=caller.tenant))

    endpoints = Endpoints(client, Identity("router", "one"), "for a test")
    await endpoints.start()
    await endpoints.add(subjects.doors(subjects.SUBMIT), Ask, answer)
    await all_read(client)
    return endpoints


async def asks_as(member: Membership) -> str:
    """As which tenant the mesh knows whoever asks with what `choir join` has kept."""
    async with Choir(section=member.section) as choir:
        return await choir.submit("hi", model="m")


# --- a person -------------------------------------------------------------------------------


async def test_a_person_joins_by_one_line_and_asks_in_their_own_name(mesh: Mesh) -> None:
    line = await mesh.operations.invite(kind="person", name="ann", role="observe", ttl_s=HOUR_S)
    state, config = mesh.place()
    member = await join(parse_line(f"  {line.text}\n"), state, config)
    assert (member.name, member.role, member.kind) == ("ann", "observe", "person")
    assert joined(config) == member
    assert sorted((path.name, path.stat().st_mode & 0o777) for path in config.iterdir()) == [
        ("ca.pem", 0o600), ("client.nk", 0o600), (FILE, 0o600),
    ]  # fmt: skip
    assert not state.exists()
    assert await asks_as(member) == "ann"


async def test_the_secret_of_a_person_never_travels(mesh: Mesh) -> None:
    member = await mesh.person("secretive")
    seed = Path(member.nkey).read_bytes()
    stored = [path for path in mesh.folder.rglob("*") if path.is_file() and "elsewhere" not in str(path)]
    assert [path for path in stored if seed in path.read_bytes()] == []


async def test_an_invite_is_good_once(mesh: Mesh) -> None:
    line = await mesh.operations.invite(kind="person", name="bob", role="ask", ttl_s=HOUR_S)
    member = await mesh.joined(line)
    with pytest.raises(ConfigurationError, match=r"has been used: it is good once.*choir invite"):
        await mesh.joined(line)
    assert await asks_as(member) == "bob"


async def test_of_two_who_come_at_once_one_joins(mesh: Mesh) -> None:
    line = await mesh.operations.invite(kind="person", name="twins", role="ask", ttl_s=HOUR_S)
    came = await asyncio.gather(mesh.joined(line), mesh.joined(line), return_exceptions=True)
    assert sorted(type(one).__name__ for one in came) == ["ConfigurationError", "Membership"]


async def test_an_expired_invite_is_refused(mesh: Mesh) -> None:
    line = await mesh.operations.invite(kind="person", name="late", role="ask", ttl_s=0.001)
    with pytest.raises(ConfigurationError, match=r"has expired.*choir invite"):
        await mesh.joined(line)


async def test_an_invite_that_nobody_has_made_is_refused(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "REFUSED_PATIENCE_S", 0.5)
    line = await mesh.operations.invite(kind="person", name="forged", role="ask", ttl_s=HOUR_S)
    with pytest.raises(ConfigurationError, match="does not know this invite"):
        await mesh.joined(line.model_copy(update={"seed": new_seed()[0]}))


async def test_whoever_stands_between_with_another_authority_learns_nothing(mesh: Mesh) -> None:
    other = Authority(mesh.folder / "other")
    other.renew(LOOPBACK)
    line = await mesh.operations.invite(kind="person", name="careful", role="ask", ttl_s=HOUR_S)
    async with Broker(mesh.folder / "between", tls=other.files) as between:
        wrong = line.model_copy(update={"addresses": (f"127.0.0.1:{between.port}",)})
        with pytest.raises(ConfigurationError, match="not of the authority"):
            await mesh.joined(wrong)
        # And the right one is found beside it
        both = line.model_copy(update={"addresses": (*wrong.addresses, *line.addresses)})
        assert (await mesh.joined(both)).url == mesh.broker.url


async def test_a_name_is_given_once(mesh: Mesh) -> None:
    await mesh.person("carol")
    with pytest.raises(InvalidRequest, match="choir tenants rotate carol"):
        await mesh.operations.invite(kind="person", name="carol", role="ask", ttl_s=HOUR_S)


@pytest.mark.parametrize("damage", ["cut", "changed", "another"])
async def test_a_damaged_line_is_said(mesh: Mesh, damage: str) -> None:
    text = (await mesh.operations.invite(kind="person", name=f"line-{damage}", role="ask", ttl_s=HOUR_S)).text
    damaged = {"cut": text[:-20], "changed": text[:40] + text[50:], "another": "hello"}[damage]
    with pytest.raises(ConfigurationError, match=r"not whole|begins with"):
        parse_line(damaged)
    assert text.startswith(BEGINNING)


# --- inviting from elsewhere ------------------------------------------------------------------


async def client_of(mesh: Mesh, name: str, role: catalog.Role) -> Choir:
    """A person of a role, on a host of their own."""
    member = await mesh.joined(
        await mesh.operations.invite(kind="person", name=name, role=role, ttl_s=HOUR_S)
    )
    return Choir(section=member.section)


async def test_an_operator_elsewhere_invites_and_whoever_is_invited_joins(mesh: Mesh) -> None:
    async with await client_of(mesh, "far-operator", "operate") as choir:
        person = await invite_from_elsewhere(
            choir, kind="person", name="far-ann", role="observe", ttl_s=HOUR_S
        )
        host = await invite_from_elsewhere(choir, kind="host", name="far-host", ttl_s=HOUR_S)
        with pytest.raises(InvalidRequest, match="at most"):
            await invite_from_elsewhere(choir, kind="host", name="for-ever", ttl_s=1e9)
    member = await mesh.joined(parse_line(person.text))
    assert (member.role, await asks_as(member)) == ("observe", "far-ann")
    joined_host = await mesh.joined(host)
    client = await mesh.host_client(joined_host)
    await client.close()
    assert joined_host.kind == "host" and "router" not in joined_host.services
    # The secret was made where the line is, and nothing of the mesh has it
    stored = [path for path in mesh.folder.rglob("*") if path.is_file() and "elsewhere" not in str(path)]
    assert [path for path in stored if person.seed.encode() in path.read_bytes()] == []


async def test_who_may_only_ask_or_observe_invites_nobody(mesh: Mesh) -> None:
    roles: tuple[catalog.Role, ...] = ("ask", "observe")
    for role in roles:
        async with await client_of(mesh, f"far-{role}", role) as choir:
            with pytest.raises(NotPermitted, match="needs the role operate"):
                await invite_from_elsewhere(choir, kind="person", name=f"friend-of-{role}", ttl_s=HOUR_S)
        assert f"friend-of-{role}" not in {one.name for one in mesh.controller.members.invites.values()}


async def test_an_invite_for_a_key_that_somebody_has_is_refused_and_the_same_wish_is_one_invite(
    mesh: Mesh,
) -> None:
    operator = KeyRing(mesh.folder / "keys").public_key(OPERATOR)
    async with await client_of(mesh, "sly-operator", "operate") as choir:
        request = MakeInvite(kind="person", name="sly", public_key=operator, ttl_s=HOUR_S)
        with pytest.raises(InvalidRequest, match="known already"):
            await choir.invite(request)
        request = request.model_copy(update={"public_key": new_seed()[1]})
        assert await choir.invite(request) == await choir.invite(request)
        with pytest.raises(InvalidRequest, match="known already"):
            await choir.invite(request.model_copy(update={"name": "another"}))


async def test_nobody_comes_with_the_key_of_an_invite(mesh: Mesh) -> None:
    """A broker that is told one key twice takes nothing more: nobody else would be let in."""
    line = await mesh.operations.invite(kind="person", name="twice", role="ask", ttl_s=HOUR_S)
    invite = _public_of(line.seed)
    assert await until(lambda: invite in mesh.controller.taken, DEADLINE_S)
    client = await _connected(mesh, Refusals(), subjects.joining_inbox(invite), nkeys_seed_str=line.seed)
    body = Join(public_key=invite).to_bytes()
    reply = await client.request(subjects.join(invite), body, timeout=DEADLINE_S)
    assert ErrorReply.read(reply.data).error.code == "invalid_request"
    await client.close()
    member, host = await mesh.host("borrower")
    own = HostedInstance(service="agent", name="borrower-agent", public_key=invite)
    with pytest.raises(ConfigurationError, match="known already"):
        await enrol(host, member.name, Enrol(instances=(own,)), print)
    await host.close()
    await mesh.person("after-the-key-of-an-invite")


# --- what an invite and a host may ------------------------------------------------------------


class Refusals:
    """What the broker refuses a connection."""

    def __init__(self) -> None:
        self.said: list[str] = []

    async def on_error(self, error: Exception) -> None:
        self.said.append(str(error).lower())

    async def of(self, client: Client, asked: list[str], heard: list[str]) -> set[str]:
        """Which of these subjects it may not publish to or hear."""
        for subject in (*asked, "nobody.may"):
            await client.publish(subject, b"")
        for subject in heard:
            await client.subscribe(subject)
        await client.subscribe("nobody.hears")
        assert await until(lambda: any("nobody.hears" in one for one in self.said), DEADLINE_S)
        return {one for one in (*asked, *heard) if self._was_refused(one)}

    def _was_refused(self, subject: str) -> bool:
        names = {subject, catalog.door_mappings().get(subject, subject)}
        return any(f'"{name.lower()}"' in each for name in names for each in self.said)


async def _connected(mesh: Mesh, refusals: Refusals, inbox: str, **key: str) -> Client:
    told = {**MeshSection(url=mesh.broker.url, ca=str(mesh.ca)).credentials, **key}
    return await nats.connect(
        mesh.broker.url, error_cb=refusals.on_error, inbox_prefix=inbox.encode(), **told
    )


MANAGING = ("DIRECT.GET", "STREAM.INFO", "STREAM.DELETE", "CONSUMER.CREATE", "STREAM.MSG.GET")
OTHERS = [
    *(
        endpoint.subject
        for endpoint in catalog.ENDPOINTS
        if endpoint.subject not in (subjects.SHARD, subjects.MODELS)
    ),
    *(subjects.door("ann", endpoint.subject) for endpoint in catalog.ENDPOINTS),
    *(
        subjects.door(subjects.LOCAL_TENANT, endpoint.subject)
        for endpoint in catalog.ENDPOINTS
        if endpoint.subject not in (subjects.SHARD, subjects.MODELS)
    ),
    *(subjects.bucket_key(bucket.name, "some.key") for bucket in catalog.BUCKETS),
    *(
        f"$JS.API.{asked}.{stream}"
        for stream in (*(spec.name for spec in catalog.STREAMS), f"KV_{subjects.HOSTS_BUCKET}")
        for asked in MANAGING
    ),
    "$JS.API.INFO", "$SRV.PING", "$SYS.REQ.SERVER.PING", subjects.result("r1"), subjects.join("another"),
    subjects.enrol("another"), "_INBOX.x", "_INBOX_supervisor.x",
]  # fmt: skip
HEARD = [
    ">", "$SRV.>", "_INBOX.>", "_INBOX_join.>", "_INBOX_host.>", "_INBOX_supervisor.>", subjects.ALL_JOINS,
    subjects.ALL_ENROLS, subjects.ALL_RESULTS, subjects.doors(subjects.ASK),
    subjects.bucket_updates(subjects.HOSTS_BUCKET), subjects.bucket_updates(subjects.TENANTS_BUCKET),
]  # fmt: skip


async def test_an_invite_opens_joining_and_nothing_else(mesh: Mesh) -> None:
    line = await mesh.operations.invite(kind="person", name="narrow", role="operate", ttl_s=HOUR_S)
    refusals = Refusals()
    invite = _public_of(line.seed)
    assert await until(lambda: invite in mesh.controller.taken, DEADLINE_S)
    client = await _connected(mesh, refusals, subjects.joining_inbox(invite), nkeys_seed_str=line.seed)
    assert await refusals.of(client, OTHERS, HEARD) == {*OTHERS, *HEARD}
    # And a reply that is to go elsewhere goes nowhere
    seen: list[str] = []

    async def see(msg: Msg) -> None:
        seen.append(msg.subject)

    spy = await mesh.inside.subscribe(">", cb=see)
    await all_read(mesh.inside)
    target = subjects.bucket_key(subjects.TENANTS_BUCKET, "narrow")
    body = Join(public_key=new_seed()[1]).to_bytes()
    await client.publish(subjects.join(invite), body, reply=target)
    reply = await client.request(subjects.join(invite), b"{}", timeout=DEADLINE_S)
    assert ErrorReply.read(reply.data).error.code == "invalid_request"
    await all_read(mesh.inside)
    assert target not in seen
    await spy.unsubscribe()
    await client.close()


def _public_of(seed: str) -> str:
    import nkeys

    public: bytes = nkeys.from_seed(bytearray(seed.encode())).public_key
    return public.decode()


async def test_a_host_asks_for_nothing_that_clients_ask(mesh: Mesh) -> None:
    member, first = await mesh.host("strict")
    await first.close()
    refusals = Refusals()
    client = await _connected(mesh, refusals, subjects.host_inbox("strict"), nkeys_seed=member.nkey)
    assert await refusals.of(client, OTHERS, HEARD) == {*OTHERS, *HEARD}
    await client.close()


# --- a host -----------------------------------------------------------------------------------


def instance(
    keys: KeyRing, name: str, service: str = "agent", models: tuple[str, ...] = ()
) -> HostedInstance:
    return HostedInstance(service=service, name=name, public_key=keys.public_key(name), models=models)


async def test_the_processes_of_a_host_are_let_in_with_the_rights_of_their_own(mesh: Mesh) -> None:
    keys = KeyRing(mesh.folder / "keys-of-two")
    _, host = await mesh.host("two", instance(keys, "two-agent", models=("llama",)))
    assert mesh.served[-1:] == ["llama"]
    refusals = Refusals()
    inbox = subjects.service_inbox("agent", "two-agent")
    agent = await _connected(mesh, refusals, inbox, nkeys_seed=str(keys.path("two-agent")))
    leases = [subjects.node_key("agent", name) for name in ("two-agent", "here")]
    own, other = (subjects.bucket_key(subjects.NODES_BUCKET, key) for key in leases)
    refused = await refusals.of(agent, [own, other, subjects.KEYS], [])
    assert refused == {other, subjects.KEYS}
    await agent.close()
    await host.close()


def work_of(model: str) -> tuple[list[str], list[str]]:
    """What it takes to do a model's work: what is published, and what is heard."""
    consumer = subjects.generate_consumer("batch", model)
    acknowledging = subjects.acknowledgements(subjects.COMMANDS_STREAM, consumer)
    taken = [subjects.pull_next(subjects.COMMANDS_STREAM, consumer), acknowledging.replace(">", "1.1.1.1.1")]
    return taken, [subjects.count_tokens(model), subjects.tokenizer(model)]


async def test_an_agent_that_takes_workers_has_the_work_of_its_own_models_and_of_registered_ones(
    mesh: Mesh,
) -> None:
    # Given agents of a host that serves llama, and would take up any worker; one says so as it once was said
    keys = KeyRing(mesh.folder / "keys-of-open")
    agents = [
        instance(keys, "open-1", models=("llama",)).model_copy(update={"takes_workers": True}),
        instance(keys, "open-2").model_copy(update={"models": None}),
    ]
    _, host = await mesh.host("open", *agents)
    models = ("llama", "registered", "of-others")
    asked, heard = ([one for model in models for one in work_of(model)[place]] for place in (0, 1))
    for name in ("open-1", "open-2"):
        refusals = Refusals()
        inbox = subjects.service_inbox("agent", name)
        agent = await _connected(mesh, refusals, inbox, nkeys_seed=str(keys.path(name)))
        for registered, missing in (((), models[1:]), (("registered",), models[2:]), ((), models[2:])):
            # When workers are registered, and removed: what was in work then can still be acknowledged
            await mesh.controller.let_workers(frozenset(registered))
            refusals.said.clear()
            # Then nobody has the work of a model that it neither serves nor is a worker's
            expected = {one for model in missing for part in work_of(model) for one in part}
            assert await refusals.of(agent, asked, heard) == expected, (name, registered)
        await agent.close()
        mesh.controller.members.former_models.clear()
        await mesh.controller.settle()
    await host.close()


async def test_what_runs_on_a_host_with_a_broker_is_let_in_here_and_its_supervisor_is_not(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a host of the same cluster that has told what it runs, twice
    other = Credentials(mesh.folder / "state-of-other")
    own = other.host_with_broker((Instance("agent", "other-agent", {}, ("llama",)),), "other-0a1b")
    for _ in range(2):
        await publish_own_host(mesh.controller, own, None)
    # Then its agent may do here what it may do there
    inbox, refusals = subjects.service_inbox("agent", "other-agent"), Refusals()
    seed = str(other.of_instance("agent", "other-agent"))
    agent = await _connected(mesh, refusals, inbox, nkeys_seed=seed)
    leases = [subjects.node_key("agent", name) for name in ("other-agent", "here")]
    mine, another = (subjects.bucket_key(subjects.NODES_BUCKET, key) for key in leases)
    assert await refusals.of(agent, [mine, another, *work_of("llama")[0]], []) == {another}
    await agent.close()
    # Its supervisor has nothing to do here
    section = MeshSection(url=mesh.broker.url, nkey=str(other.operator), ca=str(mesh.ca))
    monkeypatch.setattr("infra.host.operator_connection.CONNECT_DEADLINE_S", 1.0)
    with pytest.raises(ConfigurationError, match="lets nobody in"):
        await connect_operator(mesh.broker.url, section, nothing)
    # And once it is revoked it does not come back with the same keys
    await mesh.operations.revoke_host(own.name)
    with pytest.raises(ConfigurationError, match="was revoked as other-0a1b"):
        await publish_own_host(mesh.controller, own, None)


async def test_a_host_that_is_started_with_a_line_joins_by_it_once(mesh: Mesh) -> None:
    line = await mesh.operations.invite(kind="host", name="boxed", ttl_s=HOUR_S)
    state, config = mesh.place()
    for _ in range(2):  # at its first start, and at every other one
        await join_once(line.text, state, config)
    member = joined(state)
    assert member is not None and (member.name, member.kind) == ("boxed", "host")
    # A new line is taken up: the host was revoked meanwhile
    await mesh.operations.revoke_host("boxed")
    again = await mesh.operations.invite(kind="host", name="boxed", ttl_s=HOUR_S)
    await join_once(again.text, state, config)
    client = await mesh.host_client(joined(state) or member)
    await client.close()
    person = await mesh.operations.invite(kind="person", name="boxer", ttl_s=HOUR_S)
    with pytest.raises(ConfigurationError, match="for a person"):
        await join_once(person.text, state, config)


async def test_a_process_finds_out_what_it_may_hear(mesh: Mesh) -> None:
    keys, events = KeyRing(mesh.folder / "keys-of-ears"), ConnectionEvents()
    _, host = await mesh.host("ears", instance(keys, "ears-agent", models=("llama",)))
    told = {**MeshSection(url=mesh.broker.url, ca=str(mesh.ca)).credentials}
    seed, inbox = str(keys.path("ears-agent")), subjects.service_inbox("agent", "ears-agent").encode()
    agent = await nats.connect(
        mesh.broker.url, error_cb=events.failed, inbox_prefix=inbox, **told, nkeys_seed=seed
    )
    may = [await events.may_hear(agent, subjects.count_tokens(model)) for model in ("llama", "of-others")]
    assert may == [True, False]
    await agent.close()
    await host.close()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"service": "router"}, "was invited to run agent, shard_stage, modelstore, not router"),
        ({"name": "here"}, "an instance is called here on the broker's host as well"),
        ({"name": "taken"}, "an instance is called taken on holder as well"),
        ({"key_of": "taken"}, "the key of mine is already that of taken"),
    ],
)
async def test_a_host_takes_nothing_that_is_another_s(mesh: Mesh, wrong: dict[str, str], said: str) -> None:
    keys = KeyRing(mesh.folder / "keys-of-thieves")
    if "holder" not in mesh.controller.members.hosts:
        _, holder = await mesh.host("holder", instance(keys, "taken"))
        await holder.close()
    name = f"thief-{abs(hash(said)) % 1000}"
    _, host = await mesh.host(name)
    wanted = HostedInstance(
        service=wrong.get("service", "agent"),
        name=wrong.get("name", "mine"),
        public_key=keys.public_key(wrong.get("key_of", f"{name}-key")),
        models=(),
    )
    with pytest.raises(ConfigurationError, match=said):
        await enrol(host, name, Enrol(instances=(wanted,)), print)
    await host.close()


async def test_the_ensembles_of_a_host_s_choir_toml_are_the_mesh_s_until_it_says_so_no_more(
    mesh: Mesh,
) -> None:
    kept = Ensembles(mesh.inside)
    await kept.start()
    council, other = Ensemble(name="council", members=("llama",)), Ensemble(name="council", quorum=1)
    member, host = await mesh.host("with-council")
    assert await enrol(host, member.name, Enrol(instances=(), ensembles=(council,)), print) == ()
    await eventually(lambda: kept.all == (council,))

    # Another host that says otherwise is told so, and who was first
    second, another = await mesh.host("against-it")
    (told,) = await enrol(another, second.name, Enrol(instances=(), ensembles=(other,)), print)
    assert "the choir.toml of against-it says otherwise than with-council" in told
    assert kept.all == (council,)

    # The first is let in no more: the second one's word counts
    await mesh.operations.revoke_host(member.name)
    await eventually(lambda: kept.all == (other,))
    await enrol(another, second.name, Enrol(instances=()), print)
    await eventually(lambda: kept.find("council") is None)
    await host.close()
    await another.close()


async def test_a_broker_s_host_of_an_earlier_choir_is_told_what_it_understands() -> None:
    said = Enrol(
        instances=(
            HostedInstance(
                service="agent", name="a", public_key="U" + "A" * 55, models=("llama",), takes_workers=True
            ),
            HostedInstance(service="gateway", name="g", public_key="U" + "B" * 55, keyless=True),
        ),
        ensembles=(Ensemble(name="council"),),
    )
    without = in_words_without("ensembles", said)
    assert without is not None and without.ensembles == ()
    assert in_words_without("ensembles", without) is None
    earlier = in_words_without("instances.0.takes_workers", without)
    assert earlier is not None and not earlier.instances[0].takes_workers
    keyed = in_words_without("instances.1.keyless", earlier)
    assert keyed is not None and not keyed.instances[1].keyless
    assert in_words_without("instances.name", said) is None


async def test_a_host_that_was_revoked_hears_so_while_its_connection_lasts(mesh: Mesh) -> None:
    # Given what a host that is known no more still sends; it is sent from inside, for it is cut in a moment
    inbox = f"{subjects.host_inbox('gone')}.1"
    replies = await mesh.inside.subscribe(inbox)
    await mesh.inside.publish(subjects.enrol("gone"), Enrol(instances=()).to_bytes(), reply=inbox)
    error = ErrorReply.read((await replies.next_msg(DEADLINE_S)).data).error
    assert error.code == "not_permitted" and "choir invite host" in error.message
    await replies.unsubscribe()


async def test_a_revoked_host_and_all_that_it_runs_lose_their_connections(
    mesh: Mesh, record_property: Callable[[str, object], None]
) -> None:
    keys = KeyRing(mesh.folder / "keys-of-three")
    member, first = await mesh.host("three", instance(keys, "three-agent"))
    await first.close()
    told: list[str] = []

    async def refused() -> None:
        told.append("revoked")

    host = await mesh.host_client(member, refused)
    refusals = Refusals()
    inbox = subjects.service_inbox("agent", "three-agent")
    agent = await _connected(mesh, refusals, inbox, nkeys_seed=str(keys.path("three-agent")))
    # When it is revoked
    began_s = time.monotonic()
    await mesh.operations.revoke_host("three")
    # Then both are cut, and do not come in again
    assert await until(lambda: not host.is_connected and not agent.is_connected, DEADLINE_S)
    record_property("seconds_until_a_host_is_cut", time.monotonic() - began_s)
    assert await until(lambda: told == ["revoked"], DEADLINE_S)
    with pytest.raises(ConfigurationError, match="lets nobody in"):
        await mesh.host_client(member)
    await host.close()
    await agent.close()
    # And the name may be given anew
    again, client = await mesh.host("three")
    assert again.name == "three"
    await client.close()


# --- tenants ----------------------------------------------------------------------------------


async def test_a_revoked_tenant_loses_its_connections_within_seconds(
    mesh: Mesh, record_property: Callable[[str, object], None]
) -> None:
    member = await mesh.person("dan")
    client = await _connected(mesh, Refusals(), "_INBOX", nkeys_seed=member.nkey)
    async with Choir(section=member.section) as choir:
        assert await choir.submit("hi", model="m") == "dan"
        began_s = time.monotonic()
        await mesh.operations.revoke_tenant("dan")
        assert await until(lambda: not client.is_connected, DEADLINE_S)
        record_property("seconds_until_a_tenant_is_cut", time.monotonic() - began_s)
        with pytest.raises(ChoirError):
            while True:
                await choir.submit("hi", model="m", timeout_s=2.0)
    await client.close()
    with pytest.raises(ConfigurationError, match="does not let"):
        await asks_as(member)


async def test_a_limit_of_connections_holds_as_soon_as_it_is_said(mesh: Mesh) -> None:
    member = await mesh.person("heidi")
    assert await asks_as(member) == "heidi"
    one = TenantLimits(connections=1)
    # by a client that operates, from anywhere
    operator = await mesh.joined(
        await mesh.operations.invite(kind="person", name="owen", role="operate", ttl_s=HOUR_S)
    )
    async with Choir(section=operator.section) as choir:
        said = ManageTenants(action="limit", name="heidi", limits=one, weight=2.0)
        (changed,) = [each for each in await choir.tenants(said) if each.name == "heidi"]
        with pytest.raises(InvalidRequest, match="there is no tenant nobody"):
            await choir.tenants(said.model_copy(update={"name": "nobody"}))
        _, visitor = await mesh.host("visitor")
        for revoked in (None, "visitor"):
            known = ManageHosts() if revoked is None else ManageHosts(action="revoke", name=revoked)
            (host,) = [each for each in await choir.hosts(known) if each.name == "visitor"]
            assert (host.revoked_at_s is not None) == (revoked is not None)
        await visitor.close()
    async with Choir(section=member.section) as choir:
        for asked in (choir.tenants(said), choir.hosts(ManageHosts())):
            with pytest.raises(NotPermitted):
                await asked
    assert (changed.limits, changed.weight) == (one, 2.0)
    assert await until(lambda: '"max_connections": 1' in mesh.controller.taken, DEADLINE_S)
    await mesh.controller.settle()
    async with Choir(section=member.section) as choir:
        assert await choir.submit("hi", model="m") == "heidi"
        with pytest.raises(ChoirError):
            await asks_as(member)


async def test_whoever_leaves_keeps_nothing_and_may_join_again(mesh: Mesh) -> None:
    line = await mesh.operations.invite(kind="person", name="ivan", role="ask", ttl_s=HOUR_S)
    _, config = mesh.place()
    await join(line, config.with_name("state"), config)
    other = await mesh.operations.invite(kind="person", name="ivan-again", role="ask", ttl_s=HOUR_S)
    with pytest.raises(ConfigurationError, match="choir join --leave"):
        await join(other, config.with_name("state"), config)
    assert leave(config, KeyRing(config), CLIENT)
    assert joined(config) is None and not KeyRing(config).path(CLIENT).exists()
    assert not leave(config, KeyRing(config), CLIENT)
    again = await join(other, config.with_name("state"), config)
    assert await asks_as(again) == "ivan-again"


class BreakingCable(Cable):
    """Hangs up on the first connections, as a broker does that reads its configuration anew."""

    breaks = 2

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.breaks:
            self.breaks -= 1
            await reader.read(1)
            writer.transport.abort()
        else:
            await super()._connected(reader, writer)


async def test_who_joins_asks_again_when_the_broker_hangs_up(mesh: Mesh) -> None:
    line = await mesh.operations.invite(kind="person", name="noah", role="ask", ttl_s=HOUR_S)
    cable = BreakingCable(mesh.broker.url)
    await cable.mend()
    try:
        address = cable.url.removeprefix("nats://")
        assert (await mesh.joined(line.model_copy(update={"addresses": (address,)}))).name == "noah"
    finally:
        await cable.end()
    assert not cable.breaks


@dataclass
class Asker:
    """Asks again as soon as it is answered, in eve's name; what went wrong ends it, and is kept."""

    ask: Callable[[], Awaitable[str]]
    answered: int = 0
    failed: Exception | None = None

    async def go(self) -> None:
        """For ever, but for a failure."""
        try:
            while True:
                assert await self.ask() == "eve"
                self.answered += 1
        except (ChoirError, AssertionError) as error:
            self.failed = error

    async def goes_on(self) -> None:
        """Returns when some more was answered."""
        enough = self.answered + 5
        assert await until(lambda: self.failed is not None or self.answered >= enough, 2 * DEADLINE_S)
        if self.failed is not None:
            raise self.failed


async def test_a_key_is_rotated_without_an_outage(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    monkeypatch.setattr(accounts_controller, "LOOK_INTERVAL_S", 0.1)
    old = await mesh.person("eve")
    home = Path(old.nkey).parent
    before = Path(old.nkey).read_bytes()
    (home / "kept.nk").write_bytes(before)
    kept = old.model_copy(update={"nkey": str(home / "kept.nk")})
    line = await mesh.operations.invite(
        kind="person", name="eve", ttl_s=HOUR_S, rotates=True, overlap_s=HOUR_S
    )
    async with Choir(section=old.section) as lasting, Choir(section=kept.section) as other:
        # Given a program that is connected all the time, one that comes anew for each request, and another
        # machine of hers, which has the old key for good
        here = Asker(partial(lasting.submit, "hi", model="m"))
        again = Asker(partial(asks_as, old))
        elsewhere = Asker(partial(other.submit, "hi", model="m"))
        askers = (here, again, elsewhere)
        asking = [asyncio.create_task(asker.go()) for asker in askers]
        try:
            with monkeypatch.context() as patient:
                patient.setattr("services.client.connection.CONNECT_PATIENCE_S", DEADLINE_S)
                await asyncio.gather(*(asker.goes_on() for asker in askers))
                # When the new key comes, on the host of the first two
                new = await join(line, mesh.folder / "no-state", home)
                assert Path(new.nkey).read_bytes() != before
                await asyncio.gather(*(asker.goes_on() for asker in askers))
                # Then not one request fails, and the old key is good until its time is over
                patient.setattr(mesh.controller, "now", lambda: time.time() + HOUR_S - DEADLINE_S)
                await asyncio.gather(*(asker.goes_on() for asker in askers))
                patient.setattr(mesh.controller, "now", lambda: time.time() + HOUR_S)
                assert await until(
                    lambda: len(mesh.controller.members.tenants["eve"].public_keys) == 1, DEADLINE_S
                )
                await mesh.controller.settle()
                # And whoever had come by it goes on by the new one where that is
                await asyncio.gather(here.goes_on(), again.goes_on())
                await ended(asking)
            with pytest.raises(ConfigurationError, match="does not let"):
                await asks_as(kept)
            assert await asks_as(new) == "eve"
        finally:
            await ended(asking)
    record_property("answered_during_the_rotation", [asker.answered for asker in askers])


async def test_who_has_joined_is_let_in_by_a_broker_that_starts_again(mesh: Mesh) -> None:
    member = await mesh.person("frank")
    kept = AccountsController(mesh.folder, lambda members: "", mesh.broker.reload, print).members
    assert kept.tenants["frank"].public_keys == mesh.controller.members.tenants["frank"].public_keys
    assert (mesh.folder / "members.json").stat().st_mode & 0o777 == 0o600
    assert member.name == "frank"


async def test_nobody_who_stays_is_cut_when_others_come_and_go(mesh: Mesh) -> None:
    # Given a tenant who asks without a pause
    member = await mesh.person("grace")
    client = await _connected(mesh, Refusals(), "_INBOX", nkeys_seed=member.nkey)
    answered, going = 0, True
    body = b'{"prompt": "hi", "model": "m", "request_id": "r1"}'

    async def ask() -> None:
        nonlocal answered
        while going:
            try:
                reply = await client.request(subjects.SUBMIT, body, timeout=DEADLINE_S)
            except nats.errors.NoRespondersError:  # for a moment, while the broker reads who may come in
                continue
            assert Accepted.read(reply.data).request_id == "grace"
            answered += 1

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    try:
        # When others join and are revoked
        for number in range(4):
            await mesh.person(f"guest-{number}")
            await mesh.operations.revoke_tenant(f"guest-{number}")
        so_far = answered
        assert await until(lambda: answered > so_far + 20, DEADLINE_S)
    finally:
        going = False
        await asyncio.gather(*asking)
    # Then nothing was lost, and no connection was made anew
    assert (mesh.inside.stats["reconnects"], client.stats["reconnects"]) == (0, 0)
    await client.close()


async def test_a_gateway_lets_nobody_in_without_the_key_of_an_operator(mesh: Mesh) -> None:
    # Given an operator's key, and one that opens all and whose tenant may only ask
    bucket = Bucket(mesh.inside, subjects.KEYS_BUCKET, messages(ApiKey))
    secrets = {}
    for key_id, tenant in (("for-operators", "local"), ("for-ann", "ann-who-asks")):
        secrets[tenant] = secret = new_secret(key_id)
        key = ApiKey(
            id=key_id, tenant=tenant, scopes=("operate",), digest=digest_of(secret), ending=secret[-4:],
            created_at_s=time.time(),
        )  # fmt: skip
        await bucket.put(subjects.api_key(key_id), key)
    asked = {
        subjects.INVITE: MakeInvite(kind="host", name="let-in", public_key=new_seed()[1], ttl_s=HOUR_S),
        subjects.TENANTS: ManageTenants(),
        subjects.HOSTS: ManageHosts(),
    }

    async def code(tenant: str, subject: str, secret: str) -> str | None:
        headers = {subjects.API_KEY_HEADER: secret, subjects.KEY_HEADER: "somebody-else"}
        where = subjects.keyed_door(tenant, subject)
        reply = await mesh.inside.request(
            where, asked[subject].to_bytes(), timeout=DEADLINE_S, headers=headers
        )
        return ErrorReply.read(reply.data).error.code if b'"error"' in reply.data else None

    told = await mesh.inside.subscribe(subjects.event("supervisor", "mesh_changed"))
    # When a gateway asks, then it is done with the operator's key alone
    for subject in asked:
        assert await code("local", subject, "") == "unauthenticated"
        assert await code("local", subject, secrets["ann-who-asks"]) == "unauthenticated"
        assert await code("ann-who-asks", subject, secrets["ann-who-asks"]) == "not_permitted"
        assert await code("ann-who-asks", subject, secrets["local"]) == "unauthenticated"
        assert await code("local", subject, secrets["local"]) is None
    # And it is told by whose key it was done or refused, whatever the gateway says of that
    acts: list[tuple[str | None, bool]] = []
    while ("for-operators", False) not in acts:
        act = MeshChanged.read((await told.next_msg(timeout=DEADLINE_S)).data)
        if act.endpoint == subjects.INVITE:
            acts.append((act.key, act.error is not None))
    assert acts == [
        (None, True), ("for-ann", True), ("for-ann", True), ("for-operators", True), ("for-operators", False),
    ]  # fmt: skip
    await told.unsubscribe()


async def test_a_tenant_names_no_key_as_whose_it_acts(mesh: Mesh) -> None:
    # Given a store, which takes a router's word for whose key it has looked at
    events = EventLog(mesh.inside, Identity("modelstore", "store-1"))
    store = Endpoints(mesh.inside, Identity("modelstore", "store-1"), "for a test", events=events)
    removes = ManageStore(action="remove", name="m").to_bytes()
    headers = {subjects.KEY_HEADER: "somebody-else"}

    async def answer(_request: ManageStore, caller: Caller) -> None:
        await caller.send(StoreReply())

    await store.start()
    await store.add(subjects.doors(subjects.STORE), ManageStore, answer)
    told = await mesh.inside.subscribe(subjects.event("modelstore", "mesh_changed"))
    # When an operator asks over NATS and says so too, and a router does
    line = await mesh.operations.invite(kind="person", name="pat", role="operate", ttl_s=HOUR_S)
    client = await _connected(mesh, Refusals(), "_INBOX", nkeys_seed=(await mesh.joined(line)).nkey)
    relayed = subjects.door("local", subjects.STORE)
    try:
        for asks, where in ((client, subjects.STORE), (mesh.inside, relayed)):
            await asks.request(where, removes, timeout=DEADLINE_S, headers=headers)
        acts = [MeshChanged.read((await told.next_msg(timeout=DEADLINE_S)).data) for _ in range(2)]
    finally:
        await client.close()
        await store.stop(patience_s=0.1)
        await events.close()
    # Then the router alone is believed
    assert [(act.tenant, act.key) for act in acts] == [("pat", None), ("local", "somebody-else")]
