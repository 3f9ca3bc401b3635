"""Ollama's options, what holds where they say nothing, and what they are in the mesh."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from schemas.errors import InvalidRequest
from services.chassis.plain_words import first_fault
from services.gateway.http.body import Body, Many
from services.gateway.requests.identity import seed_of

MOST_TOKENS = 32_768
"""What the mesh allows. Ollama's own text ends where the model ends it, or its context."""
MOST_CANDIDATES = 1_000
SEEDS = 2**32
SMALLEST_TOP_P = 1e-6

DEFAULTS: Mapping[str, Any] = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "repeat_penalty": 1.1,
    "max_tokens": MOST_TOKENS,
}
"""Of Ollama; a comparison with it is of the same sampling."""

OF_THE_HOST = frozenset(
    (
        "num_ctx", "num_keep", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "use_mlock",
        "low_vram", "numa", "f16_kv", "vocab_only", "logits_all", "embedding_only",
    )
)  # fmt: skip
"""How a server loads a model: choir.toml says that here, and so the context is what it is."""


class Options(Body):
    """The options that change a text here."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    num_predict: int | None = None
    stop: str | Many[str] | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    think: bool | str | None = None


def read_options(given: Mapping[str, Any] | None, pass_over: Callable[[str], None]) -> Options:
    """The options of a request. The names of those that nobody knows are told to `pass_over`.

    InvalidRequest names the first that is of a wrong type.
    """
    given = given or {}
    for name in given:
        if name not in Options.model_fields and name not in OF_THE_HOST:
            pass_over(name)
    try:
        return Options.model_validate({name: _whole(value) for name, value in given.items()})
    except ValidationError as error:
        field, what = first_fault(error, whole="options", passed_over=("str", "list[str]", "int", "bool"))
        raise InvalidRequest(f"options.{field}: {what}", field=f"options.{field}") from error


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 40.0 is 40."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def sampling_fields(options: Options, request_id: str) -> dict[str, Any]:
    """The fields of `Sampling` that options stand for, with Ollama's defaults."""
    given = {
        "temperature": options.temperature,
        "top_k": None if options.top_k is None else min(max(options.top_k, 0), MOST_CANDIDATES),
        "top_p": None if options.top_p is None else min(max(options.top_p, SMALLEST_TOP_P), 1.0),
        "min_p": options.min_p,
        "repeat_penalty": options.repeat_penalty or None,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "max_tokens": _max_tokens(options.num_predict),
        "seed": _seed(options.seed, request_id),
        "stop": _stops(options.stop),
    }
    return {**DEFAULTS, **{name: value for name, value in given.items() if value is not None}}


def _max_tokens(num_predict: int | None) -> int | None:
    """-1 is until the end, -2 until the context is full, and so is 0."""
    return None if num_predict is None or num_predict <= 0 else min(num_predict, MOST_TOKENS)


def _seed(seed: int | None, request_id: str) -> int:
    """-1 is a random one. It comes from the request's id: asked again under that, it is the same request."""
    if seed is None or seed < 0:
        return seed_of(request_id)
    return seed % SEEDS


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    given = (stop,) if isinstance(stop, str) else stop or ()
    return tuple(dict.fromkeys(text for text in given if text))
