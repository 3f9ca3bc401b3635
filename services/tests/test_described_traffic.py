"""What travels in a running mesh is what `asyncapi.json` says: subjects, payloads and headers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from jsonschema import Draft7Validator
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.demo_models.family import FOLDER
from infra.host.children.processes import until
from infra.members.tests.desks import start_desk
from infra.testing.mesh import DEADLINE_S
from infra.testing.plugin import SpawnService
from schemas import subjects
from schemas.broker import catalog
from schemas.tests.golden.shared import API_KEY
from services.modelstore.tests.stores import spawn_store

pytestmark = pytest.mark.long

DOCUMENT: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "schemas" / "broker" / "asyncapi.json").read_text(encoding="utf-8")
)
ADDRESSES: dict[str, re.Pattern[str]] = {
    name: re.compile(re.sub(r"\\\{\w+\\\}", "[^.]+", re.escape(channel["address"])))
    for name, channel in DOCUMENT["channels"].items()
    if "address" in channel
}
BROKERS_OWN = ("$JS.", "$SRV.INFO", "_INBOX")
"""Subjects of the broker's own API, and replies."""

MODELS = ("alpha", "beta")
AGENT = {
    "name": "agent-1",
    "backend": "instant",
    "models": [{"name": model, "reply": "Paris"} for model in MODELS],
}
SIGNAL = re.compile(re.escape(subjects.ALL_STAGE_SIGNALS).replace(r"\*", "[1-9][0-9]*"))
"""What a pipeline's stages signal: pipelines are numbered from 1."""
QUESTION = {"prompt": "What is the capital of France?"}
WORKER = {"id": "w1", "type": "vllm", "host": "127.0.0.1", "port": 1, "model": "gamma"}
INVITED = {"kind": "person", "name": "ann", "public_key": "U" + "A" * 55, "ttl_s": 60.0}
REQUESTS: tuple[tuple[str, dict[str, Any], str], ...] = (
    (subjects.STREAM_ASK, {**QUESTION, "model": "alpha", "stream": True}, "Result"),
    (subjects.ASK, {**QUESTION, "model": "alpha", "stream": True}, "ErrorReply"),
    (subjects.ASK, {**QUESTION, "request_id": "ensemble", "choices": ["Paris", "Rome"]}, "Result"),
    (subjects.ASK, {**QUESTION, "model": "alpha", "summarize_with": ["beta"]}, "Result"),
    (subjects.ASK, {**QUESTION, "model": "unheard-of"}, "ErrorReply"),
    (subjects.ASK, {**QUESTION, "unheard_of": 1}, "ErrorReply"),
    (subjects.SUBMIT, {**QUESTION, "model": "beta", "request_id": "later"}, "Accepted"),
    (subjects.FETCH, {"request_id": "later", "wait_s": 10}, "Result"),
    (subjects.STREAM_FETCH, {"request_id": "later", "wait_s": 10, "stream": True}, "Result"),
    (subjects.CANCEL, {"request_id": "later"}, "Cancelled"),
    (subjects.FEEDBACK, {"request_id": "ensemble", "correct": "A"}, "FeedbackCounted"),
    (subjects.SCORES, {}, "ScoresReply"),
    (subjects.INVITE, INVITED, "InviteMade"),
    (subjects.TENANTS, {}, "TenantsReply"),
    (subjects.HOSTS, {}, "HostsReply"),
    (subjects.NODES, {}, "NodesReply"),
    (subjects.MODELS, {}, "ModelsReply"),
    (subjects.STATUS, {}, "StatusReply"),
    (subjects.SHARD, {"model": "alpha", "remove": True}, "ErrorReply"),
    (subjects.DEAD_LETTERS, {}, "DeadLettersReply"),
    (subjects.SQL, {"statement": "SELECT 1 AS one"}, "Rows"),
    (subjects.WORKER, {"action": "add", "worker": WORKER}, "WorkersReply"),
    (subjects.KEYS, {"action": "add", "key": json.loads(API_KEY.to_bytes())}, "KeysReply"),
    (subjects.CORDON, {"action": "cordon", "instance": "nobody"}, "ErrorReply"),
    (subjects.CORDON, {}, "CordonsReply"),
    (subjects.ENSEMBLES, {"action": "add", "ensemble": {"name": "council"}}, "EnsemblesReply"),
    (subjects.LOAD, {"action": "load", "model": "alpha"}, "ErrorReply"),
    (subjects.STORE, {"action": "list"}, "StoreReply"),
    (subjects.TOKENIZE, {"model": "alpha", "text": "Paris"}, "ErrorReply"),
    (subjects.count_tokens("alpha"), {"messages": [{"role": "user", "content": "Paris"}]}, "TokenCount"),
)
STREAMING = {endpoint.subject for endpoint in catalog.ENDPOINTS if endpoint.streams}
HEARD_AT_LEAST = {
    "generate", "gather", "summarize", "answer", "answer-stored", "result", "result-stored", "token",
    "token-stored", "event", "node", "node-stored", "worker-registration",
    "worker-registration-stored", "score", "score-stored", "unlabelled-score", "feedback-counted",
    "feedback-pending",
}  # fmt: skip


def faults(message: dict[str, Any], msg: Msg) -> list[str]:
    """In what a message on the wire is not the one that is described."""
    headers = dict(msg.headers or {})
    found = [f"header {name}" for name in headers if name not in _described(message, msg)]
    values: list[tuple[Any, Any]] = [(message.get("headers", {}), headers)]
    try:
        if message["contentType"] == "application/json":
            values.append((message["payload"], json.loads(msg.data)))
        elif message["contentType"] == "text/plain":
            values.append((message["payload"], msg.data.decode()))
    except ValueError as error:
        found.append(str(error))
    for schema, value in values:
        whole = {"allOf": [schema], "components": DOCUMENT["components"]}
        found += [error.message for error in Draft7Validator(whole).iter_errors(value)]
    return found


def _described(message: dict[str, Any], msg: Msg) -> set[str]:
    """The headers that may be there; the broker adds more of its own to what it passes on."""
    known = set(message.get("headers", {}).get("properties", {}))
    return known | {
        name for name in msg.headers or {} if name.startswith("Nats-") and subjects.SUBJECT_HEADER in known
    }


def channel_of(subject: str) -> str:
    """The channel with this address."""
    (name,) = (name for name, address in ADDRESSES.items() if address.fullmatch(subject))
    return name


def of_services(heard: list[Msg]) -> list[Msg]:
    """What services tell one another, without keys that go."""
    return [
        msg
        for msg in heard
        if not msg.subject.startswith(BROKERS_OWN)
        and subjects.asked_on(msg.subject) not in {subject for subject, _, _ in REQUESTS}
        and (msg.data or not msg.subject.startswith(("$KV.", "choir.stored.bucket.")))
    ]


def check(channel: str, msg: Msg) -> str:
    """The name of the message of a channel that this one is."""
    tried: dict[str, list[str]] = {
        name: faults(one, msg) for name, one in DOCUMENT["channels"][channel]["messages"].items()
    }
    fitting = [name for name, found in tried.items() if not found]
    assert fitting, (msg.subject, msg.headers, msg.data[:500], tried if len(tried) < 4 else list(tried))
    return fitting[0]


@pytest_asyncio.fixture
async def heard(connection: Client) -> list[Msg]:
    """Everything that travels, from before the first service starts."""
    messages: list[Msg] = []

    async def hear(msg: Msg) -> None:
        messages.append(msg)

    await connection.subscribe(">", cb=hear)
    return messages


async def replies_to(nc: Client, subject: str, body: dict[str, Any]) -> list[Msg]:
    """All replies to one request; what comes before the last is tokens."""
    inbox = nc.new_inbox()
    subscription = await nc.subscribe(inbox)
    await nc.publish(subject, json.dumps(body).encode(), reply=inbox)
    replies = [await subscription.next_msg(DEADLINE_S)]
    while (replies[-1].headers or {}).get(subjects.KIND_HEADER) == "token":
        replies.append(await subscription.next_msg(DEADLINE_S))
    if subject in STREAMING:
        replies.append(await subscription.next_msg(DEADLINE_S))
    await subscription.unsubscribe()
    return replies


async def test_everything_that_travels_is_described(
    heard: list[Msg], connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    # Given a mesh with one service of each kind that needs no model's file
    services = [
        spawn_service("router", "router-1"),
        spawn_service("aggregator", "aggregator-1"),
        spawn_service("summarizer", "summarizer-1"),
        spawn_service("metrics", "metrics-1", env={"CHOIR_METRICS__FOLDER": str(tmp_path)}),
        spawn_service("agent", "agent-1", agent=AGENT),
        spawn_store(spawn_service, "store-1", tmp_path / "store"),
    ]
    for service in services:
        await service.wait_ready(connection)
    await start_desk(connection, tmp_path / "desk")
    # When a client asks every endpoint, then every reply is one of those that are described
    for subject, body, reply in REQUESTS:
        came = [
            check(f"{channel_of(subject)}-reply", msg) for msg in await replies_to(connection, subject, body)
        ]
        last = [reply, "Empty"] if subject in STREAMING else [reply]
        assert came == ["TokenChunk"] * (len(came) - len(last)) + last
    assert {endpoint.subject for endpoint in catalog.ENDPOINTS} <= {subject for subject, _, _ in REQUESTS}

    # And so is all that the services tell one another
    await check_all(heard, HEARD_AT_LEAST)


async def test_everything_that_the_stages_of_a_pipeline_tell_one_another_is_described(
    heard: list[Msg], connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    # Given a router and two stages of a demo model
    model = {"name": "alpha", "path": str(FOLDER / "choir-llama.gguf")}
    section = {"models": [model], "threads": 1, "cache": str(tmp_path / "slices")}
    services = [
        spawn_service("router", "router-1"),
        *(
            spawn_service("shard_stage", name, env={"CHOIR_STAGE": json.dumps({"name": name, **section})})
            for name in ("one", "two")
        ),
    ]
    for service in services:
        await service.wait_ready(connection)
    # When they are made a pipeline, which is asked
    for subject, body, reply in (
        (subjects.SHARD, {"model": "alpha", "stages": 2, "force": True}, "ShardReply"),
        (subjects.ASK, {**QUESTION, "model": "alpha"}, "Result"),
    ):
        (answer,) = await replies_to(connection, subject, body)
        assert check(f"{channel_of(subject)}-reply", answer) == reply
    # Then all that they tell one another is described
    await check_all(heard, {"stage", "stage-signal", "pipeline", "pipeline-stored", "result"})
    signals = {check("stage-signal", msg) for msg in heard if SIGNAL.fullmatch(msg.subject)}
    assert signals == {"StageBeat"}


async def check_all(heard: list[Msg], channels: set[str]) -> None:
    """Waits until something came on each of these channels, and looks at everything that came."""

    def quiet() -> set[str]:
        return channels - {channel_of(msg.subject) for msg in of_services(heard)}

    assert await until(lambda: not quiet(), DEADLINE_S), quiet()
    for msg in of_services(heard):
        check(channel_of(msg.subject), msg)
