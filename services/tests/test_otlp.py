"""Spans reach an OpenTelemetry collector, with the identifiers of the messages and its conventions' names."""

from __future__ import annotations

import sys

import pytest
from nats.aio.client import Client

from infra.testing.mesh import DEADLINE_S
from infra.testing.plugin import SpawnService
from infra.testing.stand_ins.collector import collector
from schemas import subjects
from schemas.commands import Ask
from schemas.errors import ConfigurationError
from services.chassis.identity import Identity
from services.chassis.process import runner as chassis_service
from services.chassis.process.runner import open_spans
from services.chassis.settings import OtlpSection
from services.chassis.telemetry.tracing import Span

pytestmark = pytest.mark.long

AGENT = {
    "name": "agent-1",
    "backend": "instant",
    "models": [{"name": "alpha", "reply": "It is Paris", "delay_ms": 20}],
}
SERVER, CONSUMER = 2, 5


async def test_the_work_for_a_request_is_seen_by_a_collector(
    mesh_url: str, connection: Client, spawn_service: SpawnService
) -> None:
    client = Span.begin()
    with collector() as seen:
        env = {"CHOIR_OTLP__ENDPOINT": seen.endpoint}
        services = [
            spawn_service("router", "router-1", env=env),
            spawn_service("aggregator", "aggregator-1", env=env),
            spawn_service("agent", "agent-1", agent=AGENT, env=env),
        ]
        for service in services:
            await service.wait_ready(connection)
        ask = Ask(request_id="r1", prompt="What is the capital of France?", models=("alpha",)).to_bytes()
        await connection.request(subjects.ASK, ask, timeout=DEADLINE_S, headers=client.headers)
        for service in services:  # what is left is sent when a service stops
            assert await service.stop() == 0

    # And what was sent has arrived: the collector answers when it has read a span.
    spans = {span.name: span for span in seen.spans if span.trace_id == client.trace_id}
    assert seen.refused == []
    assert set(spans) == {"choir.ask", "gather", "chat alpha"}
    asked, gathered, generated = spans["choir.ask"], spans["gather"], spans["chat alpha"]
    assert asked.parent_span_id == client.span_id
    assert (gathered.parent_span_id, generated.parent_span_id) == (asked.span_id, gathered.span_id)
    assert (asked.kind, gathered.kind, generated.kind) == (SERVER, CONSUMER, CONSUMER)
    assert asked.start_ns <= gathered.start_ns <= generated.start_ns
    # Work ends with its acknowledgement, which may come after the reply that it led to.
    assert min(asked.end_ns, generated.end_ns) - generated.start_ns >= 20e6
    assert generated.attributes["gen_ai.operation.name"] == "chat"
    assert generated.attributes["gen_ai.request.model"] == "alpha"
    assert generated.attributes["gen_ai.usage.output_tokens"] == 3
    assert generated.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert generated.attributes["choir.task_id"] == "r1.1.alpha"
    assert generated.events == ("task_pulled", "task_completed")
    assert "decision_made" in gathered.events and not gathered.failed
    assert generated.resource["service.name"] == "agent"
    assert generated.resource["service.instance.id"] == "agent-1"


@pytest.mark.soak
async def test_a_collector_that_is_away_harms_nobody(
    mesh_url: str, connection: Client, spawn_service: SpawnService
) -> None:
    router = spawn_service("router", "router-1")
    away = {"CHOIR_OTLP__ENDPOINT": "http://127.0.0.1:1"}
    agent = spawn_service("agent", "agent-1", agent=AGENT, env=away)
    for service in (router, agent):
        await service.wait_ready(connection)
    ask = Ask(prompt="What is the capital of France?", model="alpha").to_bytes()
    reply = await connection.request(subjects.ASK, ask, timeout=DEADLINE_S)
    assert subjects.ERROR_HEADER not in (reply.headers or {})
    assert await agent.stop() == 0


def test_without_an_endpoint_opentelemetry_is_not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry.sdk")]:
        monkeypatch.delitem(sys.modules, name)
    assert open_spans(OtlpSection(), Identity("agent", "a")) is None
    assert not any(name.startswith("opentelemetry.sdk") for name in sys.modules)


def test_an_endpoint_without_opentelemetry_is_a_fault_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chassis_service, "find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError, match=r"choir\[otlp\]"):
        open_spans(OtlpSection(endpoint="http://127.0.0.1:4318"), Identity("agent", "a"))
