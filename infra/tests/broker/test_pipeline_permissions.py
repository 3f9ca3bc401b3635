"""A pipeline on a broker that lets each service do only what the catalog says."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import nats
from nats.aio.client import Client

from infra.broker.access.permissions import CLIENT, OPERATOR
from infra.demo_models.family import FOLDER
from infra.testing.plugin import SpawnService
from infra.tests.broker.test_permissions import PASSWORDS, guarded
from schemas import subjects
from schemas.pipelines.plan import PipelinePlan

__all__ = ["guarded"]  # a fixture, for this module too

MODEL = "alpha"
DEADLINE_S = 180.0
REQUEST_S = 180


async def connected(url: str, user: str) -> Client:
    prefix = subjects.inbox_prefix(user).encode()
    return await nats.connect(url, user=user, password=PASSWORDS[user], inbox_prefix=prefix)


async def test_a_pipeline_is_placed_mended_and_ended_within_its_services_permissions(
    guarded: str, spawn_service: SpawnService, tmp_path: Path
) -> None:
    operator = await connected(guarded, OPERATOR)
    client = await connected(guarded, CLIENT)

    def url(service: str) -> str:
        return guarded.replace("nats://", f"nats://{service}:{PASSWORDS[service]}@")

    def stage(name: str) -> dict[str, str]:
        section = {
            "name": name,
            "models": [{"name": MODEL, "path": str(FOLDER / "choir-llama.gguf")}],
            "threads": 1,
            "cache": str(tmp_path / "slices"),
        }
        return {"CHOIR_STAGE": json.dumps(section)}

    # Given a router and three stages, each with the permissions of its own user
    router = spawn_service("router", "r", url=url("router"))
    stages = {
        name: spawn_service("shard_stage", name, url=url("shard_stage"), env=stage(name)) for name in "abc"
    }
    services = (router, *stages.values())
    await asyncio.gather(*(service.wait_ready(operator, DEADLINE_S) for service in services))
    # When a client has two stages made of them, and asks
    request = json.dumps({"model": MODEL, "stages": 2, "force": True}).encode()
    placed = json.loads((await client.request(subjects.SHARD, request, timeout=REQUEST_S)).data)
    ask = json.dumps({"prompt": "What is the capital of Kenya?", "model": MODEL}).encode()
    answered = json.loads((await client.request(subjects.ASK, ask, timeout=REQUEST_S)).data)
    assert answered.get("text") == "Nairobi", answered
    # And one of them dies, and it is asked again, and the pipeline is ended
    stages.pop(PipelinePlan.model_validate(placed["plan"]).stages[1].instance).kill()
    again = json.loads((await client.request(subjects.ASK, ask, timeout=REQUEST_S)).data)
    assert again.get("text") == "Nairobi", again
    end = json.dumps({"model": MODEL, "remove": True}).encode()
    ended = json.loads((await client.request(subjects.SHARD, end, timeout=REQUEST_S)).data)
    assert "plan" not in ended and "error" not in ended
    # Then the broker has refused nobody anything
    for service in (router, *stages.values()):
        assert await service.stop() == 0
        assert "ermissions" not in service.log()
    await client.close()
    await operator.close()
