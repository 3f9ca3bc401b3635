"""Messages of all kinds of nonsense on every subject that a tenant reaches: each is answered, nobody falls.

The tenant comes in by its own account, with the rights of an operator, as on any mesh of `choir up`.
`CHOIR_TEST_FUZZ_MESSAGES` says how many messages (300); `just fuzz` sends ten thousand, and prints by how
much each process has grown.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import nats
import psutil
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.broker.access.accounts import ServiceUser, accounts
from infra.broker.access.keys import KeyRing
from infra.broker.access.permissions import OPERATOR, Scope
from infra.broker.broker import Broker
from infra.broker.provision import provision
from infra.members.tests.desks import start_desk
from infra.testing.plugin import ServiceProcess, SpawnService
from schemas import subjects
from schemas.broker.catalog import ACCESS, endpoints_of
from schemas.replies import ErrorReply
from schemas.requests.tenants import Tenant
from schemas.tests.golden.samples import SAMPLES
from services.metrics.tests.mesh import spawn_metrics
from services.modelstore.tests.stores import spawn_store
from services.tests.load import MODELS, SmallMesh

MESSAGES = int(os.environ.get("CHOIR_TEST_FUZZ_MESSAGES", "300"))
AT_ONCE = 50
ANSWER_DEADLINE_S = 120.0
MOST_GROWTH = 96 * 1024**2
WARM_MESSAGES = 100
CLOSED_PORT = 9

TENANT = Tenant(name="fuzzer", role="operate")
ENDPOINTS = endpoints_of(TENANT.role)
SERVICES_API = tuple(
    f"$SRV.{verb}{of}" for verb in ("PING", "INFO", "STATS") for of in ("", ".router", ".agent", ".metrics")
)
SUBJECTS = (*(endpoint.subject for endpoint in ENDPOINTS), *SERVICES_API)
"""What whoever may observe reaches besides: it takes no request, and is answered whatever that is."""
INSTANCES = {
    "router": ("router-1",),
    "aggregator": ("aggregator-1",),
    "agent": ("agent-1", "agent-2"),
    "metrics": ("metrics-1",),
    "modelstore": ("store-1",),
}

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 0.5, 10**40, -(10**40), 1e308, "", " ", "\x00", "\x1b[2J", "\u202e", "../../etc/hosts",
    "*", ">", "choir.>", "$JS.API.STREAM.DELETE.RESULTS", "a.b c\r\nPUB x 0\r\n", "x" * 70_000, "é" * 300,
    "{text}", "{0.__class__}", "'; DROP TABLE task_completed; --", [], {}, [[]] * 2_000, {"a": {"b": {}}},
    ["alpha"] * 500, "NaN", "Infinity", "01HZZZZZZZZZZZZZZZZZZZZZZZ",
)  # fmt: skip
WHOLE: tuple[bytes, ...] = (
    b"", b"null", b"[]", b"0", b'"text"', b"\xff\xfe\x00", b"{", b"{}}", b"[" * 100_000, b'{"a":' * 50_000,
    b'{"prompt": "\\ud800"}', b'{"prompt": NaN}', b'{"prompt": 1e999}', b'{"prompt": "a", "prompt": "b"}',
    b"{" + b" " * 900_000 + b"}", b"\x00" * 10_000, b"Infinity", b"true false",
)  # fmt: skip
HEADERS: tuple[dict[str, str] | None, ...] = (
    None,
    None,
    {"traceparent": "00-zz-zz-zz"},
    {"traceparent": "x" * 8_000},
    {"Nats-Msg-Id": "one", "Nats-Expected-Stream": "OTHER"},
    {subjects.KIND_HEADER: "error", subjects.ERROR_HEADER: "forged"},
)


def requests_of(takes: str) -> list[dict[str, Any]]:
    """Requests as they should be, for something to begin with."""
    known = [json.loads(sample.to_bytes()) for sample in SAMPLES.values() if type(sample).__name__ == takes]
    return known or [{}]


class Fuzz:
    """Makes messages; the same ones from the same seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._known = {endpoint.subject: requests_of(endpoint.takes) for endpoint in ENDPOINTS}

    def messages(self, count: int) -> Iterator[tuple[str, bytes, dict[str, str] | None]]:
        """Subject, payload, headers."""
        for _ in range(count):
            subject = self._chance.choice(SUBJECTS)
            if subject in SERVICES_API:
                yield subject, self._whole(subject), self._chance.choice(HEADERS)
                continue
            spoil = self._chance.choice(
                (self._whole, self._cut, self._flipped, self._field, self._field, self._more)
            )
            yield subject, spoil(subject), self._chance.choice(HEADERS)

    def _request(self, subject: str) -> dict[str, Any]:
        request: dict[str, Any] = json.loads(json.dumps(self._chance.choice(self._known[subject])))
        for name in ("timeout_s", "wait_s"):  # nobody waits for an hour here
            if name in request:
                request[name] = 1.0
        if isinstance(request.get("worker"), dict):
            request["worker"] |= {"host": "127.0.0.1", "port": CLOSED_PORT}
        return request

    def _whole(self, _subject: str) -> bytes:
        return self._chance.choice(WHOLE)

    def _cut(self, subject: str) -> bytes:
        text = json.dumps(self._request(subject)).encode()
        return text[: self._chance.randrange(len(text) + 1)]

    def _flipped(self, subject: str) -> bytes:
        text = bytearray(json.dumps(self._request(subject)).encode())
        for _ in range(self._chance.randrange(1, 6)):
            text[self._chance.randrange(len(text))] = self._chance.randrange(256)
        return bytes(text)

    def _field(self, subject: str) -> bytes:
        request = self._request(subject)
        place: Any = request
        while isinstance(place, dict) and place and self._chance.random() < 0.5:
            inner = [value for value in place.values() if isinstance(value, dict) and value]
            if not inner:
                break
            place = self._chance.choice(inner)
        names = [name for name in place if name not in ("timeout_s", "wait_s")]
        if names:
            place[self._chance.choice(names)] = self._chance.choice(ODD)
        return json.dumps(request).encode()

    def _more(self, subject: str) -> bytes:
        name = self._chance.choice(
            ("prompt", "model", "grammar", "__class__", "schema_version", "tenant", "\x00")
        )
        return json.dumps(self._request(subject) | {name: self._chance.choice(ODD)}).encode()


class Answers:
    """Sends messages, some at once, and keeps what came first as the answer to each."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.silent: list[tuple[str, bytes]] = []
        self.codes: Counter[str] = Counter()
        self.internal: list[tuple[str, bytes, str]] = []

    async def send_all(self, messages: Iterator[tuple[str, bytes, dict[str, str] | None]]) -> None:
        """Sends messages that are made when there is room for them: all of them would fill the memory."""

        async def one_after_another() -> None:
            for subject, payload, headers in messages:
                await self._send(subject, payload, headers)

        async with asyncio.TaskGroup() as sending:
            for _ in range(AT_ONCE):
                sending.create_task(one_after_another())

    async def _send(self, subject: str, payload: bytes, headers: dict[str, str] | None) -> None:
        try:
            reply = await self._client.request(subject, payload, ANSWER_DEADLINE_S, headers=headers)
        except TimeoutError:
            self.silent.append((subject, payload[:2_000]))
        else:
            self._count(subject, payload, reply)

    def _count(self, subject: str, payload: bytes, reply: Msg) -> None:
        if not (reply.headers or {}).get(subjects.ERROR_CODE_HEADER):
            self.codes["answered"] += 1
            return
        document = json.loads(reply.data)
        error = document["error"]
        self.codes[error["code"]] += 1
        if error["code"] == "internal":
            self.internal.append((subject, payload[:2_000], error["message"]))
        elif "request_id" not in document:
            ErrorReply.model_validate_json(reply.data)


def memory_of(services: list[ServiceProcess]) -> dict[str, int]:
    return {service.instance: psutil.Process(service.pid).memory_info().rss for service in services}


def accounts_of(keys: KeyRing) -> str:
    """The accounts of the broker: an instance of each service that is asked, and the tenant that asks."""
    users = [
        ServiceUser(access, Scope(instance, MODELS), keys.public_key(instance))
        for access in ACCESS
        for instance in INSTANCES.get(access.service, ())
    ]
    tenant = TENANT.model_copy(update={"public_keys": (keys.public_key(TENANT.name),)})
    return accounts(keys.public_key(OPERATOR), users, [tenant])


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "keys")


@pytest_asyncio.fixture
async def guarded(tmp_path: Path, keys: KeyRing) -> AsyncIterator[str]:
    """The URL of a broker with accounts."""
    async with Broker(tmp_path / "broker", accounts=accounts_of(keys)) as broker:
        yield broker.url


async def test_nonsense_is_answered_and_nobody_falls(
    guarded: str, keys: KeyRing, spawn_service: SpawnService, tmp_path: Path
) -> None:
    def spawn(
        service: str, instance: str | None = None, *, env: Mapping[str, str] | None = None, **more: Any
    ) -> ServiceProcess:
        key = {"CHOIR_MESH__NKEY": str(keys.path(instance or service))}
        return spawn_service(service, instance, env={**key, **(env or {})}, **more)

    inside = await nats.connect(guarded, nkeys_seed=str(keys.path(OPERATOR)))
    await provision(inside, MODELS)
    mesh = SmallMesh(spawn, guarded)
    metrics = spawn_metrics(spawn, tmp_path / "metrics", guarded)
    hub = f"http://127.0.0.1:{CLOSED_PORT}"
    store = spawn_store(spawn, "store-1", tmp_path / "store", guarded, hub=hub, patience_s=1.0)
    services = [mesh.router, mesh.aggregator, metrics, store, *mesh.agents]
    await asyncio.gather(*(service.wait_ready(inside) for service in services))
    await start_desk(inside, tmp_path / "desk")
    tenant = await nats.connect(guarded, nkeys_seed=str(keys.path(TENANT.name)))
    try:
        await fuzz(tenant, services)
    finally:
        await tenant.close()
        await inside.close()


async def fuzz(tenant: Client, services: list[ServiceProcess]) -> None:
    """Sends it all, and looks at what became of the services."""
    pids = [service.pid for service in services]
    messages, answers = Fuzz(7), Answers(tenant)

    await answers.send_all(messages.messages(WARM_MESSAGES))
    before = memory_of(services)
    await answers.send_all(messages.messages(MESSAGES - WARM_MESSAGES))

    # Then each has an answer, none of which is a defect of ours
    assert not answers.silent
    assert not answers.internal
    assert answers.codes["invalid_request"] > MESSAGES // 4, answers.codes
    # And everybody is there, with the memory of before
    assert [service.pid for service in services if service.alive] == pids
    after = memory_of(services)
    grown = {name: now - before[name] for name, now in after.items()}
    print(f"{MESSAGES} messages: {dict(answers.codes)}")  # noqa: T201
    for name, growth in grown.items():
        print(f"{name}: {growth / 1e6:+.1f} MB, to {after[name] / 1e6:.0f} MB")  # noqa: T201
    assert all(growth < MOST_GROWTH for growth in grown.values()), grown
    reply = await tenant.request(subjects.ASK, b'{"prompt": "hi", "model": "alpha"}', ANSWER_DEADLINE_S)
    assert json.loads(reply.data)["text"] == "alpha says Paris"
