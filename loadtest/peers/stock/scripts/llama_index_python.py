"""LlamaIndex, by its Ollama and by its OpenAI-like class, of which that asks chats and completions."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Literal

from harness import LIMITED, QUESTION, TOO_LONG, WORDS, Mesh, cut, must_be_limited, must_fail, run, unheard
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.ollama import OllamaEmbedding
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.ollama import Ollama
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    city: Literal["Lima", "Paris"]


def weather(city: str) -> str:
    """Tells the weather."""
    return f"sunny in {city}"


def both(mesh: Mesh, model: str | None = None, key: str = "any") -> list[Any]:
    name = model or mesh.model
    told = {"api_base": f"{mesh.address}/v1", "api_key": key, "max_retries": 0, "timeout": 60}
    return [
        Ollama(model=name, base_url=mesh.address, temperature=0, context_window=-1, request_timeout=60),
        OpenAILike(model=name, temperature=0, is_chat_model=True, is_function_calling_model=True, **told),
    ]


def completing(mesh: Mesh, model: str | None = None) -> OpenAILike:
    """The same class where it is told of no chat model, which is its default: it asks `/v1/completions`."""
    told = {"api_base": f"{mesh.address}/v1", "api_key": "any", "max_retries": 0, "timeout": 60}
    return OpenAILike(model=model or mesh.model, temperature=0, is_chat_model=False, max_tokens=300, **told)


def plain(mesh: Mesh) -> str:
    for name in (mesh.model, mesh.ensemble):
        for one in both(mesh, name):
            reply = one.complete(QUESTION)
            assert reply.text, one
    text = completing(mesh).complete("The capital of").text
    assert text, "a completion says nothing"
    return reply.text


def stream(mesh: Mesh) -> None:
    for name in (mesh.model, mesh.ensemble):
        for one in both(mesh, name):
            text = "".join(part.delta or "" for part in one.stream_complete(QUESTION))
            assert text == one.complete(QUESTION).text, (one, text)
    one = completing(mesh)
    text = "".join(part.delta or "" for part in one.stream_complete("The capital of"))
    assert text and text == one.complete("The capital of").text, text


def tools(mesh: Mesh) -> None:
    tool = FunctionTool.from_defaults(weather)
    for one in both(mesh, mesh.caller):
        reply = one.chat_with_tools([tool], user_msg=QUESTION)
        (call,) = one.get_tool_calls_from_response(reply)
        assert (call.tool_name, call.tool_kwargs) == ("weather", {"city": "Paris"})


def schema(mesh: Mesh) -> str:
    from llama_index.core.llms import ChatMessage

    one, other = both(mesh)
    other.should_use_structured_outputs = True
    for asked in (one, other):
        found = asked.as_structured_llm(City).chat([ChatMessage(role="user", content=QUESTION)]).raw
        assert found.city in ("Lima", "Paris"), asked
    return found.city


def embeddings(mesh: Mesh) -> None:
    one = OllamaEmbedding(model_name=mesh.model, base_url=mesh.address)
    two = OpenAILikeEmbedding(model_name=mesh.model, api_base=f"{mesh.address}/v1", api_key="any")
    near = zip(one.get_text_embedding("one"), two.get_text_embedding("one"), strict=True)
    assert max(abs(a - b) for a, b in near) < 1e-4


def unknown(mesh: Mesh) -> str:
    first, second = both(mesh, "nobody")
    first.context_window = 4096
    must_fail(lambda: first.complete(QUESTION), "nobody")
    must_fail(lambda: completing(mesh, "nobody").complete(QUESTION), "nobody")
    return must_fail(lambda: second.complete(QUESTION), "nobody")


def hang_up(mesh: Mesh) -> None:
    for one in (*both(mesh, mesh.slow), completing(mesh, mesh.slow)):
        with mesh.left(type(one).__name__):
            parts = one.stream_complete(unheard())
            next(parts)
            parts.close()
            if isinstance(one, OpenAILike):  # its stream is held on to: only with its client it is closed
                one._get_client().close()


def restart(mesh: Mesh) -> str:
    seen = []
    for one in (*both(mesh, mesh.slow), completing(mesh, mesh.slow)):
        seen.append(cut(one.stream_complete(unheard()), mesh))
        text = mesh.asked_again(lambda one=one: one.complete(unheard()).text)
        assert text == WORDS, text
    return ", ".join(seen)


VERSION = version("llama-index-core")


def oversize(mesh: Mesh) -> str:
    for one in (*both(mesh), completing(mesh)):
        if isinstance(one, Ollama):
            one.context_window = 4096
        said = must_fail(lambda one=one: one.complete(TOO_LONG), "tokens", "context", "400")
    return said


def limited(mesh: Mesh) -> str:
    _, one = both(mesh, key=mesh.limited_key)
    return str(must_be_limited(lambda: one.complete(unheard()), "429", LIMITED))[:160]


TALK = (plain, stream, tools, schema, embeddings, unknown, hang_up, restart, oversize, limited)
run("llama-index", VERSION, *TALK)
