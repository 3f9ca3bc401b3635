"""Has the mesh score a text after a prompt: the log probabilities of its tokens, and of no others."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.evaluation.asking.plan import Call
from analysis.evaluation.likelihood.texts import Continuation, Scored
from schemas.commands import Ask, ChatMessage, RawPrompt, Tokenize
from schemas.errors import GenerationFailed
from schemas.replies import Result
from services.client.client import Choir

MOST_KNOWN = 4_096
"""Of so many prompts it is remembered how many tokens they have."""


class Scoring:
    """Asks the scores of a plan. The tokens of the text are those of prompt and text together beyond those of
    the prompt alone, as lm-evaluation-harness has it; after a chat template those of the text alone."""

    def __init__(self, mesh: Choir) -> None:
        self._mesh = mesh
        self._known: dict[tuple[str, tuple[ChatMessage, ...]], tuple[int, ...]] = {}

    async def result_of(self, call: Call) -> tuple[Result, Scored]:
        """What came of one text, without the log probabilities of its prompt. ChoirError if it cannot be
        scored."""
        assert call.continuation is not None
        before = await self._tokens_before(call)
        result = await self._mesh.result_of(await self._complete(call, before))
        answer = result.answers[0]
        scored = scored_of(call.continuation, answer.prompt_logprobs[len(before) :])
        bare = answer.model_copy(update={"prompt_logprobs": (), "logprobs": (), "text": ""})
        return result.model_copy(update={"answers": (bare,), "text": None}), scored

    async def _complete(self, call: Call, before: tuple[int, ...]) -> Ask:
        if not call.item.chat_template or call.continuation is None:
            return call.ask
        wanted = Tokenize(model=call.agent, text=call.item.following(call.continuation), special=False)
        following = (await self._mesh.tokenize(wanted)).tokens or ()
        return call.ask.model_copy(update={"raw": RawPrompt(tokens=(*before, *following))})

    async def _tokens_before(self, call: Call) -> tuple[int, ...]:
        """The tokens of the prompt alone."""
        key = call.agent, call.item.conversation
        if (known := self._known.get(key)) is not None:
            return known
        wanted = (
            Tokenize(model=call.agent, messages=call.item.conversation)
            if call.item.chat_template
            else Tokenize(model=call.agent, text=call.item.before, bos=True)
        )
        tokens = (await self._mesh.tokenize(wanted)).tokens or ()
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[key] = tokens
        return tokens


def scored_of(continuation: Continuation, entries: Sequence[dict[str, object]]) -> Scored:
    """What the log probabilities of its tokens come to. GenerationFailed if there are none of a text that is
    not empty."""
    probabilities = [entry.get("logprob") for entry in entries]
    if not entries or not all(isinstance(each, float) for each in probabilities):
        raise GenerationFailed(f"no log probabilities came for the text {continuation.text!r}")
    return Scored(
        text=continuation.text,
        length=len(continuation.text),
        choice=continuation.choice,
        true=continuation.true,
        logprobs=tuple(float(str(each)) for each in probabilities),
        greedy=all(_is_likeliest(entry) for entry in entries),
    )


def _is_likeliest(entry: dict[str, object]) -> bool:
    top = entry.get("top")
    return isinstance(top, (list, tuple)) and bool(top) and top[0].get("token_id") == entry.get("token_id")
