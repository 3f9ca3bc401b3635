"""Who belongs to a mesh, on a real broker with TLS: invites, hosts, tenants, and who is let in no more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import nats
import nats.errors
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.broker.accounts import accounts
from infra.broker.broker import Broker
from infra.broker.keys import KeyRing, new_seed
from infra.broker.permissions import OPERATOR
from infra.broker.provision import provision
from infra.broker.tls.authority import Authority
from infra.broker.tls.names import LOOPBACK
from infra.host.operator_connection import connect_operator
from infra.host.processes import until
from infra.members.accounts_keeper import AccountsKeeper
from infra.members.desk import Desk
from infra.members.enrolment import enrol
from infra.members.joining import join
from infra.members.members import Members
from infra.members.operations import Operations
from schemas import catalog, subjects
from schemas.commands import Ask
from schemas.errors import ChoirError, ConfigurationError, InvalidRequest
from schemas.joining import HostedInstance, Join
from schemas.replies import Accepted, ErrorReply
from services.chassis.identity import Identity
from services.chassis.nats.endpoints import Caller, Endpoints
from services.chassis.settings import MeshSection
from services.client.client import Choir
from services.client.invite_line import BEGINNING, InviteLine, parse_line
from services.client.local_mesh import RunningMesh
from services.client.membership import FILE, Membership, joined

pytestmark = pytest.mark.asyncio(loop_scope="module")
DEADLINE_S = 60.0
HOUR_S = 3600.0


async def nothing() -> None:
    """Where nobody need be told."""


@dataclass
class Mesh:
    """A broker with its supervisor's desk, and an operator beside it."""

    broker: Broker
    keeper: AccountsKeeper
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
        return await self.joined(await self.operations.invite_person(name, "ask", HOUR_S))

    async def host(self, name: str, *instances: HostedInstance) -> tuple[Membership, Client]:
        member = await self.joined(await self.operations.invite_host(name, HOUR_S))
        client = await self.host_client(member)
        if instances:
            await enrol(client, name, instances, ("llama",), print)
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
        )

    broker = Broker(folder / "broker", accounts=block(Members()), tls=authority.files)
    async with broker:
        section = MeshSection(url=broker.url, nkey=str(keys.path(OPERATOR)), ca=str(authority.certificate))
        inside = await connect_operator(broker.url, section, nothing)
        await provision(inside, ())
        keeper = AccountsKeeper(folder, block, broker.reload, print)
        await keeper.start(inside)
        served: list[str] = []

        async def serve(models: tuple[str, ...]) -> None:
            served.extend(models)
            await provision(inside, models)

        await Desk(inside, keeper, ["here"], serve).start()
        running = RunningMesh(
            url=broker.url,
            pid=1,
            process_started_at_s=0.0,
            ca=str(authority.certificate),
            addresses=(f"127.0.0.1:{broker.port}",),
        )
        router = await _router(inside)
        keeping = asyncio.create_task(keeper.keep())
        yield Mesh(broker, keeper, Operations(inside, running), inside, authority.certificate, folder, served)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await router.stop()
        await inside.close()


async def _router(client: Client) -> Endpoints:
    """A router that answers with whose door a question came through."""

    async def answer(ask: Ask, caller: Caller) -> None:
        await caller.send(Accepted(request_id=caller.tenant))

    endpoints = Endpoints(client, Identity("router", "one"), "for a test")
    await endpoints.start()
    await endpoints.add(subjects.doors(subjects.SUBMIT), Ask, answer)
    await client.flush()
    return endpoints


async def asks_as(member: Membership) -> str:
    """As which tenant the mesh knows whoever asks with what `choir join` has kept."""
    async with Choir(section=member.section) as choir:
        return await choir.submit("hi", model="m")


# --- a person -------------------------------------------------------------------------------


async def test_a_person_joins_by_one_line_and_asks_in_their_own_name(mesh: Mesh) -> None:
    line = await mesh.operations.invite_person("ann", "observe", HOUR_S)
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
    line = await mesh.operations.invite_person("bob", "ask", HOUR_S)
    member = await mesh.joined(line)
    with pytest.raises(ConfigurationError, match=r"has been used: it is good once.*choir invite"):
        await mesh.joined(line)
    assert await asks_as(member) == "bob"


async def test_of_two_who_come_at_once_one_joins(mesh: Mesh) -> None:
    line = await mesh.operations.invite_person("twins", "ask", HOUR_S)
    came = await asyncio.gather(mesh.joined(line), mesh.joined(line), return_exceptions=True)
    assert sorted(type(one).__name__ for one in came) == ["ConfigurationError", "Membership"]


async def test_an_expired_invite_is_refused(mesh: Mesh) -> None:
    line = await mesh.operations.invite_person("late", "ask", 0.001)
    with pytest.raises(ConfigurationError, match=r"has expired.*choir invite"):
        await mesh.joined(line)


async def test_an_invite_that_nobody_has_made_is_refused(mesh: Mesh) -> None:
    line = await mesh.operations.invite_person("forged", "ask", HOUR_S)
    with pytest.raises(ConfigurationError, match="does not know this invite"):
        await mesh.joined(line.model_copy(update={"seed": new_seed()[0]}))


async def test_whoever_stands_between_with_another_authority_learns_nothing(mesh: Mesh) -> None:
    other = Authority(mesh.folder / "other")
    other.renew(LOOPBACK)
    line = await mesh.operations.invite_person("careful", "ask", HOUR_S)
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
        await mesh.operations.invite_person("carol", "ask", HOUR_S)


@pytest.mark.parametrize("damage", ["cut", "changed", "another"])
async def test_a_damaged_line_is_said(mesh: Mesh, damage: str) -> None:
    text = (await mesh.operations.invite_person(f"line-{damage}", "ask", HOUR_S)).text
    damaged = {"cut": text[:-20], "changed": text[:40] + text[50:], "another": "hello"}[damage]
    with pytest.raises(ConfigurationError, match=r"not whole|begins with"):
        parse_line(damaged)
    assert text.startswith(BEGINNING)


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
    line = await mesh.operations.invite_person("narrow", "operate", HOUR_S)
    refusals = Refusals()
    invite = _public_of(line.seed)
    assert await until(lambda: invite in mesh.keeper.taken, DEADLINE_S)
    client = await _connected(mesh, refusals, subjects.joining_inbox(invite), nkeys_seed_str=line.seed)
    assert await refusals.of(client, OTHERS, HEARD) == {*OTHERS, *HEARD}
    # And a reply that is to go elsewhere goes nowhere
    seen: list[str] = []

    async def see(msg: Msg) -> None:
        seen.append(msg.subject)

    spy = await mesh.inside.subscribe(">", cb=see)
    await mesh.inside.flush()
    target = subjects.bucket_key(subjects.TENANTS_BUCKET, "narrow")
    body = Join(public_key=new_seed()[1]).to_bytes()
    await client.publish(subjects.join(invite), body, reply=target)
    reply = await client.request(subjects.join(invite), b"{}", timeout=DEADLINE_S)
    assert ErrorReply.read(reply.data).error.code == "invalid_request"
    await mesh.inside.flush()
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


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"service": "router"}, "was invited to run agent, shard_stage, not router"),
        ({"name": "here"}, "an instance is called here on the broker's host as well"),
        ({"name": "taken"}, "an instance is called taken on holder as well"),
        ({"key_of": "taken"}, "the key of mine is already that of taken"),
    ],
)
async def test_a_host_takes_nothing_that_is_another_s(mesh: Mesh, wrong: dict[str, str], said: str) -> None:
    keys = KeyRing(mesh.folder / "keys-of-thieves")
    if "holder" not in mesh.keeper.members.hosts:
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
        await enrol(host, name, (wanted,), (), print)
    await host.close()


async def test_a_revoked_host_and_all_that_it_runs_lose_their_connections(mesh: Mesh) -> None:
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
    await mesh.operations.revoke_host("three")
    # Then both are cut, and do not come in again
    assert await until(lambda: not host.is_connected and not agent.is_connected, DEADLINE_S)
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


async def test_a_revoked_tenant_loses_its_connections_within_seconds(mesh: Mesh) -> None:
    member = await mesh.person("dan")
    async with Choir(section=member.section) as choir:
        assert await choir.submit("hi", model="m") == "dan"
        await mesh.operations.revoke_tenant("dan")
        with pytest.raises(ChoirError):
            while True:
                await choir.submit("hi", model="m", timeout_s=2.0)
    with pytest.raises(ConfigurationError, match="does not let"):
        await asks_as(member)


async def test_a_key_is_rotated_without_an_outage(mesh: Mesh) -> None:
    old = await mesh.person("eve")
    line = await mesh.operations.rotate("eve", HOUR_S, overlap_s=3.0)
    assert await asks_as(old) == "eve"
    # When the new key comes, on the same host
    home = Path(old.nkey).parent
    before = Path(old.nkey).read_bytes()
    (home / "kept.nk").write_bytes(before)
    new = await join(line, mesh.folder / "no-state", home)
    kept = old.model_copy(update={"nkey": str(home / "kept.nk")})
    # Then both are good for a while, and the old one is not after that
    assert Path(new.nkey).read_bytes() != before
    assert (await asks_as(new), await asks_as(kept)) == ("eve", "eve")
    assert await until(lambda: len(mesh.keeper.members.tenants["eve"].public_keys) == 1, DEADLINE_S)
    await mesh.keeper.settle()
    with pytest.raises(ConfigurationError, match="does not let"):
        await asks_as(kept)
    assert await asks_as(new) == "eve"


async def test_who_has_joined_is_let_in_by_a_broker_that_starts_again(mesh: Mesh) -> None:
    member = await mesh.person("frank")
    kept = AccountsKeeper(mesh.folder, lambda members: "", mesh.broker.reload, print).members
    assert kept.tenants["frank"].public_keys == mesh.keeper.members.tenants["frank"].public_keys
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
