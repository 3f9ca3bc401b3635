"""Permissions from the catalog, on a real broker, with real services."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import nats.errors
import pytest
import pytest_asyncio
from nats.aio.client import Client
from typer import Typer
from typer.testing import CliRunner

from infra.broker.access.permissions import CLIENT, OPERATOR, authorization, main, users
from infra.broker.broker import Broker
from infra.broker.provision import provision
from infra.host.children.processes import until
from infra.testing.mesh import all_kept, eventually, settled
from infra.testing.plugin import INSIDE, SpawnService
from schemas import subjects
from schemas.broker import catalog
from schemas.errors import ConfigurationError

pytestmark = pytest.mark.long

REPOSITORY = Path(__file__).resolve().parents[3]
ALPHA = {"name": "a", "backend": "instant", "models": [{"name": "alpha", "reply": "blue"}]}
PASSWORDS = {user: f"secret-of-{user}" for user in users()}

STREAM_SUBJECTS = {
    subjects.ALL_COMMANDS: subjects.gather("interactive", "r1"),
    subjects.ALL_ANSWERS: subjects.answer("r1", 0, "alpha"),
    subjects.ALL_RESULTS: subjects.result("r1"),
    subjects.ALL_TOKENS: subjects.token("r1", "alpha"),
    subjects.ALL_EVENTS: subjects.event("router", "test"),
    subjects.ALL_DEAD: subjects.dead("router", "r1"),
}
"""A subject of each kind that is kept in a stream."""

GUESSED = "guess-of-a-stranger"


class Session:
    """A connection as one of the users, and what the broker refused it."""

    def __init__(self, user: str, password: str | None = None) -> None:
        self.user = user
        self.password = password or PASSWORDS[user]
        self.refused: list[str] = []
        self.client: Client | None = None

    async def connect(self, url: str) -> Client:
        """Connect with the inbox prefix that this user's service has."""
        prefix = subjects.inbox_prefix(self.user)
        self.client = await nats.connect(
            url,
            user=self.user,
            password=self.password,
            inbox_prefix=prefix.encode(),
            error_cb=self._on_error,
        )
        return self.client

    async def heard(self, refusals: int) -> None:
        """Wait until the broker has refused so many things, and a round trip longer for any others."""
        assert self.client is not None
        await until(lambda: len(self.refused) >= refusals, 180)
        await settled(self.client)
        assert len(self.refused) == refusals, self.refused

    def was_refused(self, subject: str) -> bool:
        """Whether a refusal names this subject."""
        return any(subject.lower() in refusal for refusal in self.refused)

    async def _on_error(self, error: Exception) -> None:
        self.refused.append(str(error).lower())


@pytest_asyncio.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a broker on which everybody may do only what the catalog says."""
    async with Broker(tmp_path / "broker", more_config=authorization(PASSWORDS)) as broker:
        nc = await Session(OPERATOR).connect(broker.url)
        await provision(nc, ["alpha", "beta"])
        await nc.close()
        yield broker.url


async def test_nobody_gets_in_without_a_password(guarded: str) -> None:
    # nats-py leaves its socket open when it is refused, so the protocol is spoken by hand
    reader, writer = await asyncio.open_connection("127.0.0.1", int(guarded.rsplit(":", 1)[1]))
    writer.write(b"CONNECT {}\r\nPING\r\n")
    async with asyncio.timeout(180):
        said = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert b"-ERR 'Authorization Violation'" in said


@pytest.mark.parametrize("access", catalog.ACCESS, ids=lambda access: access.service)
async def test_a_service_publishes_what_is_its_own_and_nothing_else(
    guarded: str, access: catalog.Access
) -> None:
    session = Session(access.service)
    nc = await session.connect(guarded)
    own_name = {
        subjects.ALL_EVENTS: subjects.event(access.service, "test"),
        subjects.ALL_DEAD: subjects.dead(access.service, "r1"),
    }
    for subject in (STREAM_SUBJECTS | own_name).values():
        await nc.publish(subject, b"x")
    own = set(access.publishes) & set(STREAM_SUBJECTS)
    await session.heard(len(STREAM_SUBJECTS) - len(own))
    assert {
        kind for kind, subject in (STREAM_SUBJECTS | own_name).items() if not session.was_refused(subject)
    } == own
    # And nothing in the name of another service
    for subject in (subjects.event("another", "test"), subjects.dead("another", "r1")):
        await nc.publish(subject, b"x")
    await session.heard(len(STREAM_SUBJECTS) - len(own) + 2)
    await nc.close()


async def test_a_service_cannot_read_a_stream_that_is_not_its_own(guarded: str) -> None:
    session = Session("agent")
    nc = await session.connect(guarded)
    js = nc.jetstream(timeout=0.5)
    for forbidden in (
        js.stream_info(subjects.EVENTS_STREAM),
        js.get_msg(subjects.EVENTS_STREAM, seq=1, direct=True),
        js.add_consumer(subjects.COMMANDS_STREAM, name="spy"),
        js.delete_stream(subjects.COMMANDS_STREAM),
        js.purge_stream(subjects.RESULTS_STREAM),
    ):
        with pytest.raises(nats.errors.TimeoutError):
            await forbidden
    await session.heard(5)
    await nc.close()


async def test_a_service_cannot_listen_to_the_replies_of_another(guarded: str) -> None:
    session = Session("agent")
    nc = await session.connect(guarded)
    await nc.subscribe("_INBOX_router.>")
    await nc.subscribe(">")
    await session.heard(2)
    await nc.close()


async def test_a_client_may_ask_and_nothing_else(guarded: str) -> None:
    session = Session(CLIENT)
    nc = await session.connect(guarded)
    await nc.publish(subjects.ASK, b"{}")
    await settled(nc)
    assert session.refused == []
    for subject in STREAM_SUBJECTS.values():
        await nc.publish(subject, b"x")
    await nc.subscribe(subjects.ALL_STORED_RESULTS)
    await session.heard(len(STREAM_SUBJECTS) + 1)
    await nc.close()


async def test_a_guarded_mesh_answers(guarded: str, spawn_service: SpawnService) -> None:
    # Given a router, an aggregator, a summarizer and two agents, each with the permissions of its own user
    operator = await Session(OPERATOR).connect(guarded)
    services = [
        spawn_service(
            service,
            instance,
            url=guarded.replace("nats://", f"nats://{service}:{PASSWORDS[service]}@"),
            agent={
                "name": instance,
                "backend": "instant",
                "models": [{"name": model, "reply": "blue", "context_tokens": 32}],
            }
            if model
            else None,
        )
        for service, instance, model in (
            ("router", "r", None),
            ("aggregator", "g", None),
            ("summarizer", "s", None),
            ("agent", "a", "alpha"),
            ("agent", "b", "beta"),
        )
    ]
    guessing = guarded.replace("nats://", f"nats://summarizer:{GUESSED}@")
    stranger = spawn_service("summarizer", "stranger", url=guessing)
    await asyncio.gather(*(service.wait_ready(operator, 180) for service in services))
    # When a client asks one model, an ensemble, and a chain whose text has to be counted to know that it fits
    nc = await Session(CLIENT).connect(guarded)
    one = json.loads((await nc.request(subjects.ASK, b'{"prompt": "?", "model": "alpha"}', timeout=60)).data)
    chain = b'{"prompt": "?", "model": "alpha", "summarize_with": ["beta"]}'
    chained = json.loads((await nc.request(subjects.ASK, chain, timeout=60)).data)
    many = json.loads((await nc.request(subjects.ASK, b'{"prompt": "?"}', timeout=60)).data)
    feedback = json.dumps({"request_id": many["request_id"], "correct": "blue"}).encode()
    status = json.loads((await nc.request(subjects.STATUS, b"", timeout=60)).data)
    learnt = json.loads((await nc.request(subjects.FEEDBACK, feedback, timeout=60)).data)
    ping = json.loads((await nc.request("$SRV.PING", b"", timeout=60)).data)
    # And has replies sent to where services alone may publish
    for endpoint in catalog.ENDPOINTS:
        for target in INSIDE:
            await nc.publish(endpoint.subject, b"{}", reply=target)
    for asked in ("PING", "INFO", "STATS"):
        for target in INSIDE:
            await nc.publish(f"$SRV.{asked}", b"", reply=target)
    await settled(nc)
    doors = {endpoint.doors for endpoint in catalog.ENDPOINTS}

    async def counted() -> bool:
        """Whether the router says of each endpoint that it has dropped what came there."""
        stats = json.loads((await nc.request("$SRV.STATS.router", b"", timeout=60)).data)
        dropped = {one["num_errors"] for one in stats["endpoints"] if one["subject"] in doors}
        return dropped == {len(INSIDE)}

    await eventually(counted)
    await asyncio.gather(*(service.wait_ready(operator, 180) for service in services))
    kept = await all_kept(operator)
    # Then it is answered, and the broker has refused nobody anything
    assert (one["text"], many["text"], chained["text"]) == ("blue", "blue", "blue")
    assert all(step["ping_ns"] > 0 for step in chained["steps"])
    assert status["results"] == 3
    assert "error" not in learnt, learnt
    assert ping["type"] == "io.nats.micro.v1.ping_response"
    assert [await service.stop() for service in services] == [0] * len(services)
    await stranger.exited()
    # And nothing was stored in answer to who wanted it there, or tried
    kept_then = await all_kept(operator)
    assert "stolen" not in kept_then
    for service in services:
        assert "ermissions" not in service.log()
    assert sum(line.startswith(subjects.result("")) for line in kept_then.splitlines()) == 3
    # And no password of the broker's is told or stored anywhere
    told = [kept, kept_then, stranger.log(), *(service.log() for service in services)]
    assert all(told)
    for password in (*PASSWORDS.values(), GUESSED):
        assert not [words for words in told if password in words]
    await nc.close()
    await operator.close()


async def choir(url: str, user: str, *arguments: str) -> tuple[int, str]:
    """What the command line answers a user of the broker: its exit code and all that it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", *arguments),
        env={
            "PATH": os.environ["PATH"], "HOME": os.environ["HOME"],
            "CHOIR_MESH__URL": url, "CHOIR_MESH__USER": user, "CHOIR_MESH__PASSWORD": PASSWORDS[user],
        },
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_the_command_line_gets_its_answer_as_client(guarded: str, spawn_service: SpawnService) -> None:
    # Given a guarded mesh
    operator = await Session(OPERATOR).connect(guarded)
    services = [
        spawn_service(
            service,
            service,
            url=guarded.replace("nats://", f"nats://{service}:{PASSWORDS[service]}@"),
            agent=ALPHA if service == "agent" else None,
        )
        for service in ("router", "agent")
    ]
    await asyncio.gather(*(service.wait_ready(operator, 180) for service in services))
    # When a client asks, then it is answered
    code, said = await choir(guarded, CLIENT, "ask", "--model", "alpha", "?")
    assert (code, "blue" in said) == (0, True), said
    # And who may not ask is told so, and does not wait for the time to run out
    code, said = await choir(guarded, "metrics", "ask", "--model", "alpha", "--timeout", "3000", "?")
    assert (
        code == 1
        and "does not allow this to user 'metrics'" in said
        and subjects.door("local", subjects.ASK) in said
    )
    code, said = await choir(guarded, "metrics", "models")
    assert (
        code == 1
        and "does not allow this to user 'metrics'" in said
        and subjects.door("local", subjects.MODELS) in said
    )
    await operator.close()


async def test_clients_do_not_hear_one_another(tmp_path: Path) -> None:
    passwords = {**PASSWORDS, "alice": "a", "bob": "b"}
    block = authorization(passwords, ["alice", "bob"])
    async with Broker(tmp_path / "broker", more_config=block) as broker:
        bob = Session("bob", "b")
        nc = await bob.connect(broker.url)
        await nc.subscribe(f"{subjects.inbox_prefix('alice')}.>")
        await nc.subscribe("_INBOX.>")
        await bob.heard(2)
        await nc.subscribe(nc.new_inbox())
        await bob.heard(2)
        await nc.close()
    with pytest.raises(ConfigurationError, match="two users are called router"):
        authorization({**PASSWORDS, "router": "x"}, ["router"])


def test_a_missing_password_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="no password for router: set CHOIR_PASSWORD_ROUTER"):
        authorization({**PASSWORDS, "router": ""})
    app = Typer()
    app.command()(main)
    for user in users():
        monkeypatch.delenv(f"CHOIR_PASSWORD_{user.upper()}", raising=False)
    assert CliRunner().invoke(app).exit_code == 2
    for user in users():
        monkeypatch.setenv(f"CHOIR_PASSWORD_{user.upper()}", "secret")
    assert CliRunner().invoke(app).output.startswith("authorization: {")
