"""A stand-in for Ollama at the edge: its frames follow Ollama's API documentation, its text is made up.

It shows that the backend speaks the protocol. What a model makes of the options it cannot show: that is for
the tests with a real `ollama`. A token is a word; the seed decides which words come at a temperature.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from typing import Any

from services.agent.tests.servers.http_server import Reply, Request

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
MODEL = "tiny:latest"
VERSION = "0.12.11"
NDJSON = "application/x-ndjson"
STEP_NS = 1_000_000
PACE_S = 0.005


async def ollama(request: Request, reply: Reply) -> None:
    """Answers like Ollama."""
    match request.method, request.path:
        case "GET", "/api/version":
            await reply.json({"version": VERSION})
        case "GET", "/api/tags":
            await reply.json({"models": [{"name": MODEL, "model": MODEL, "size": 1_000, "details": {}}]})
        case "POST", "/api/show":
            details = {"family": "llama", "quantization_level": "Q8_0", "parameter_size": "1M"}
            await reply.json({"details": details, "model_info": {"general.parameter_count": 1_000_000}})
        case "POST", "/api/embed":
            texts = request.json["input"]
            await reply.json({"model": MODEL, "embeddings": [[float(len(text)), 1.0] for text in texts]})
        case "POST", "/api/chat":
            await chat(request.json, reply)
        case _:
            await reply.json({"error": "not found"}, 404)


async def chat(asked: dict[str, Any], reply: Reply) -> None:
    """`/api/chat`: a stream of frames, or one."""
    if asked["model"] not in (MODEL, MODEL.removesuffix(":latest")):
        await reply.json({"error": f"model '{asked['model']}' not found"}, 404)
        return
    options = asked.get("options", {})
    words, reason = text_of(asked, options)
    texts = [word if index == 0 else f" {word}" for index, word in enumerate(words)]
    end = final(asked, options, len(words), reason)
    if asked.get("stream", True):
        await reply.begin_chunks(NDJSON)
        for text in texts:
            await reply.chunk(line(frame(text) | logprobs(asked, text)))
            await asyncio.sleep(PACE_S)
        await reply.chunk(line(frame("") | end))
        await reply.chunk(b"")
    else:
        await reply.json(frame("".join(texts)) | end)


def text_of(asked: dict[str, Any], options: dict[str, Any]) -> tuple[list[str], str]:
    """The words of an answer, and why they end."""
    if asked.get("format"):
        return ['{"answer":', '"four"}'], "stop"
    words = list(WORDS)
    if options.get("temperature"):
        random.Random(options.get("seed")).shuffle(words)
    for stop in options.get("stop") or ():
        if stop in words:
            return words[: words.index(stop)], "stop"
    limit = options["num_predict"]
    return words[:limit], "length" if limit < len(words) else "stop"


def final(asked: dict[str, Any], options: dict[str, Any], count: int, reason: str) -> dict[str, Any]:
    """What the last frame has. A prompt over the context is cut, as Ollama does."""
    said = " ".join(message["content"] for message in asked["messages"])
    prompt_tokens = min(len(said.split()) + 3, options.get("num_ctx", 4_096))
    return {
        "done": True,
        "done_reason": reason,
        "total_duration": (count + 3) * STEP_NS,
        "load_duration": STEP_NS,
        "prompt_eval_count": prompt_tokens,
        "prompt_eval_duration": 2 * STEP_NS,
        "eval_count": count,
        "eval_duration": max(1, count) * STEP_NS,
    }


def frame(text: str) -> dict[str, Any]:
    """One frame of a stream."""
    message = {"role": "assistant", "content": text}
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"model": MODEL, "created_at": created, "message": message, "done": False}


def logprobs(asked: dict[str, Any], text: str) -> dict[str, Any]:
    """Where they were asked for."""
    if not asked.get("logprobs"):
        return {}
    top = [{"token": word, "logprob": -0.1 - index} for index, word in enumerate([text, *WORDS])]
    return {"logprobs": [{"token": text, "logprob": -0.1, "top_logprobs": top[: asked["top_logprobs"]]}]}


def line(document: dict[str, Any]) -> bytes:
    """NDJSON: one object a line."""
    return json.dumps(document).encode() + b"\n"


def frames(texts: list[str]) -> Iterator[bytes]:
    """A stream of chat frames without its end."""
    return (line(frame(text)) for text in texts)
