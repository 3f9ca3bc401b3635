"""langchain-ollama and langchain-openai, by the same scenarios: `CHOIR_CLIENT` says which."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any, Literal

from harness import LIMITED, QUESTION, TOO_LONG, WORDS, Mesh, cut, must_be_limited, must_fail, run, unheard
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

CLIENT = os.environ.get("CHOIR_CLIENT", "langchain-ollama")
if CLIENT == "langchain-ollama":
    from langchain_ollama import ChatOllama, OllamaEmbeddings
else:
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings


class City(BaseModel):
    """A city."""

    city: Literal["Lima", "Paris"]


@tool
def weather(city: Literal["Lima", "Paris"]) -> str:
    """Tells the weather."""
    return f"sunny in {city}"


def chat(mesh: Mesh, model: str | None = None, key: str = "any") -> Any:
    if CLIENT == "langchain-ollama":
        headers = {} if key == "any" else {"authorization": f"Bearer {key}"}
        return ChatOllama(
            client_kwargs={"headers": headers},
            base_url=mesh.address,
            model=model or mesh.model,
            temperature=0,
            num_predict=400,
            validate_model_on_init=key == "any",
        )
    return ChatOpenAI(
        base_url=f"{mesh.address}/v1", api_key=key, model=model or mesh.model, temperature=0, max_retries=0
    )


def plain(mesh: Mesh) -> str:
    for name in (mesh.model, mesh.ensemble):
        reply = chat(mesh, name).invoke(QUESTION)
        assert reply.content and reply.usage_metadata["output_tokens"]
    assert len(chat(mesh).batch([QUESTION, "What is the capital of Italy?"])) == 2
    return reply.content


def stream(mesh: Mesh) -> None:
    for name in (mesh.model, mesh.ensemble):
        parts = list(chat(mesh, name).stream(QUESTION))
        assert "".join(part.content for part in parts) == chat(mesh, name).invoke(QUESTION).content


def tools(mesh: Mesh) -> None:
    called = chat(mesh, mesh.caller).bind_tools([weather]).invoke(QUESTION)
    (call,) = called.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Paris"})
    if CLIENT == "langchain-openai":
        forced = chat(mesh).bind_tools([weather], tool_choice="weather").invoke(QUESTION)
        assert forced.tool_calls[0]["name"] == "weather"
    answered = ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
    after = chat(mesh).bind_tools([weather]).invoke([HumanMessage(QUESTION), called, answered])
    assert after.content or after.tool_calls


def schema(mesh: Mesh) -> str:
    found = chat(mesh).with_structured_output(City).invoke(QUESTION)
    assert found.city in ("Lima", "Paris")
    return found.city


def embeddings(mesh: Mesh) -> str:
    if CLIENT == "langchain-ollama":
        made = OllamaEmbeddings(base_url=mesh.address, model=mesh.model)
        assert len(made.embed_documents(["one", "two"])) == 2
        return ""
    told = {"base_url": f"{mesh.address}/v1", "api_key": "any", "model": mesh.model}
    made = OpenAIEmbeddings(check_embedding_ctx_length=False, **told)
    assert len(made.embed_documents(["one", "two"])) == 2
    try:
        other = OpenAIEmbeddings(max_retries=0, **told)
        return must_fail(lambda: other.embed_query("one"), "check_embedding_ctx_length")
    except AssertionError as error:
        if "ConnectionError" in str(error) or "tiktoken" in str(error):
            return "token ids of tiktoken were not tried: its vocabulary was not to be had"
        raise


def unknown(mesh: Mesh) -> str:
    return must_fail(lambda: chat(mesh, "nobody").invoke(QUESTION), "nobody")


def hang_up(mesh: Mesh) -> None:
    with mesh.left():
        pieces = chat(mesh, mesh.slow).stream(unheard())
        next(pieces)
        pieces.close()


def restart(mesh: Mesh) -> str:
    seen = cut(chat(mesh, mesh.slow).stream(unheard()), mesh)
    text = mesh.asked_again(lambda: chat(mesh, mesh.slow).invoke(unheard()).content)
    assert text == WORDS, text
    return seen


def oversize(mesh: Mesh) -> str:
    return must_fail(lambda: chat(mesh).invoke(TOO_LONG), "tokens", "context", "400")


def limited(mesh: Mesh) -> str:
    one = chat(mesh, key=mesh.limited_key)
    return str(must_be_limited(lambda: one.invoke(unheard()), "429", LIMITED))[:160]


TALK = (plain, stream, tools, schema, embeddings, unknown, hang_up, restart, oversize, limited)
run(CLIENT, version(CLIENT), *TALK)
