"""Scores, vectors, calls and tokens: from a client through router and agent to a real model, and back."""

from __future__ import annotations

from nats.aio.client import Client

from infra.demo_models.family import FOLDER
from infra.testing.plugin import SpawnService
from schemas.commands import Tokenize
from services.client.client import Choir

CITY = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}


async def test_a_client_has_a_model_score_embed_call_and_tokenize(
    mesh_url: str, connection: Client, spawn_service: SpawnService
) -> None:
    model = {"name": "alpha", "path": str(FOLDER / "choir-llama.gguf"), "slots": 2, "context_tokens": 512}
    agent = {"name": "singer", "backend": "llama_cpp", "models": [model], "threads": 1}
    services = [spawn_service("router", "router-1"), spawn_service("agent", "agent-1", agent=agent)]
    for service in services:
        await service.wait_ready(connection)
    async with Choir(mesh_url) as mesh:
        (told,) = await mesh.models()
        assert {"completion", "tools", "embedding", "scoring", "tokenizing"} <= set(told.capabilities)

        text = "The capital of France is Paris"
        tokens = (await mesh.tokenize(Tokenize(model="alpha", text=text))).tokens or ()
        scored = await mesh.score("alpha", tokens, top=2)
        assert [entry["token_id"] for entry in scored.prompt_logprobs] == list(tokens)
        assert len(scored.logprobs) == 1

        one, other = await mesh.embed("alpha", ["a giraffe", "the moon"])
        assert len(one) == len(other) and one != other

        tool = {"name": "weather", "parameters": CITY}
        result = await mesh.ask("Rain?", model="alpha", tools=[tool], tool_choice="required", max_tokens=80)
        (call,) = result.tool_calls
        assert call.name == "weather" and call.arguments["city"] in ("Paris", "Rome")
