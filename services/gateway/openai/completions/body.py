"""The body of `POST /v1/completions`, made into an `Ask` for each prompt."""

from __future__ import annotations

from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from schemas.commands import Ask
from schemas.requests.sampling import MAX_SAMPLES
from services.gateway.http.body import Many
from services.gateway.openai.asking.ask import build
from services.gateway.openai.asking.many import part_id
from services.gateway.openai.asking.sampling import ResponseFormat, SamplingBody, sampling_fields, schema_of
from services.gateway.openai.chat.body import StreamOptions
from services.gateway.openai.chat.messages import refused
from services.gateway.requests.models import Target

DEFAULT_TOKENS = 16
MAX_PROMPTS = 256

Prompt = str | Many[int]
PROMPTS: TypeAdapter[Prompt | Many[Prompt]] = TypeAdapter(Prompt | Many[Prompt])


class CompletionBody(SamplingBody):
    """What a completion may say. A prompt is a text or token ids; several are answered in one reply."""

    model: str
    prompt: Any
    suffix: str | None = None
    max_tokens: int | None = Field(default=None, ge=0)
    n: int | None = Field(default=None, ge=1, le=MAX_SAMPLES)
    best_of: int | None = None
    echo: bool | None = None
    logprobs: int | bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    background: bool | None = None

    @property
    def prompts(self) -> list[Prompt]:
        """All prompts. InvalidRequest if there is none, or what is given is none."""
        try:
            given = PROMPTS.validate_python(self.prompt, strict=True)
        except ValidationError as error:
            raise refused("prompt", "it must be a text, token ids, or a list of these") from error
        several = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
        prompts: list[Prompt] = given if several else [given]  # type: ignore[assignment,list-item]
        if len(prompts) > MAX_PROMPTS:
            raise refused("prompt", f"it may have {MAX_PROMPTS} entries at most")
        if not all(prompts):
            raise refused("prompt", "it must not be empty")
        return prompts

    @property
    def alternatives(self) -> int | None:
        """How many alternatives each token is told with; None if nobody asked for any probabilities."""
        return None if self.logprobs is None or self.logprobs is False else int(self.logprobs)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def scores(self) -> bool:
        """Whether the tokens of the prompt are told with their probabilities."""
        return bool(self.echo) and self.alternatives is not None


def completion_asks(body: CompletionBody, target: Target, request_id: str, timeout_s: float) -> list[Ask]:
    """What the mesh is asked, a request for each prompt. InvalidRequest names the field that cannot be."""
    if body.suffix:
        raise refused("suffix", "texts are not filled in here: leave it out")
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise refused("best_of", "all texts that are generated are sent: give n, and leave it out")
    if body.max_tokens == 0 and not body.echo:
        raise refused("max_tokens", "it must be at least 1, or echo must be true")
    if target.ensemble is not None:
        raise refused("model", "an ensemble answers conversations: complete or score with one model")
    prompts = body.prompts
    alone = len(prompts) == 1 and not body.scores and (body.n or 1) == 1 and body.max_tokens != 0
    return [
        build(
            {
                "raw": {"text": prompt} if isinstance(prompt, str) else {"tokens": prompt},
                "sampling": _sampling(body, request_id),
                "stream": bool(body.stream) and alone and target.streams,
            },
            target,
            part_id(request_id, number),
            timeout_s,
        )
        for number, prompt in enumerate(prompts)
    ]


def _sampling(body: CompletionBody, request_id: str) -> dict[str, Any]:
    limit = DEFAULT_TOKENS if body.max_tokens is None else max(1, body.max_tokens)
    sampling = sampling_fields(body, request_id, limit)
    sampling["json_schema"] = schema_of(body.response_format)
    sampling["logprobs"] = max(1, body.alternatives) if body.alternatives is not None else 0
    sampling["prompt_logprobs"] = body.scores
    sampling["n"] = body.n or 1
    return sampling
