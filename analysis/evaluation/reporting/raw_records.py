"""Every raw answer as one flat row: what was asked, how, of whom, what came, and what was read from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.benchmarks import seen_in_training
from analysis.evaluation.provenance.models import ModelFile
from analysis.evaluation.scoring.extraction import extraction
from schemas.commands import ChatMessage, Gather
from schemas.ensembles.rounds import purpose_of
from schemas.replies import Answer
from services.aggregator.tasks import debated, predicting

NS_PER_S = 1e9

Row = dict[str, Any]


def raw_records(
    exchanges: Iterable[Exchange], ways: Mapping[str, str], models: Mapping[str, ModelFile] | None = None
) -> list[Row]:
    """The rows, in the order of the plan; an agent whose answer did not come has one with the reason.

    `models` are the files behind the agents.
    """
    ordered = sorted(exchanges, key=lambda each: (each.position, each.phase, each.agents, each.sample))
    files = models or {}
    return [
        row | _file(files.get(str(row["agent"])))
        for each in ordered
        for row in _rows(each, ways[each.benchmark])
    ]


def _file(model: ModelFile | None) -> Row:
    """Which file of weights an answer is of, and the template that its prompt was in."""
    return {
        "model_identity": None if model is None else model.sha256_of_samples,
        "quantisation": None if model is None else model.quantisation,
        "chat_template_sha256": None if model is None else model.chat_template_sha256,
    }


def _rows(kept: Exchange, way: str) -> list[Row]:
    given = {answer.agent: answer for answer in kept.answers}
    first = [_row(kept, agent, given.get(agent), way) for agent in kept.agents]
    return first + [_row(kept, answer.agent, answer, way) for answer in kept.further_answers]


def _row(kept: Exchange, agent: str, answer: Answer | None, way: str) -> Row:
    apart = kept.phase if kept.phase in ("sample", "score") else None
    purpose = apart or purpose_of(answer.round if answer else 1)
    usable = answer is not None and answer.error is None
    text = answer.text if answer is not None and usable else None
    scored = kept.scored
    if apart == "score":
        text = None if scored is None else scored.text
    read = None if text is None or scored else extraction(way, kept.kind)(text, kept.choices)
    prompt, prompt_sha256 = _prompt(kept, agent, purpose)
    return {
        "position": kept.position,
        "benchmark": kept.benchmark,
        "seen_in_training": seen_in_training({kept.benchmark}),
        "question_id": kept.question_id,
        "topic": kept.topic,
        "template": kept.template,
        "kind": kept.kind,
        "repetition": kept.repetition,
        "purpose": purpose,
        "sample": kept.sample,
        "agent": agent,
        "text": text,
        "answer": read,
        "right_answer": kept.right,
        "correct": None if purpose in ("prediction", "score") or kept.kind == "text" else read == kept.right,
        "log_likelihood": None if scored is None else scored.log_likelihood,
        "greedy": None if scored is None else scored.greedy,
        "scored_tokens": None if scored is None else len(scored.logprobs),
        "model_sha256": None if answer is None else answer.model_sha256,
        "from_cache": kept.from_cache.get(agent),
        "prompt_name": kept.prompt_name,
        "order": kept.order,
        "system": kept.system,
        "chat_template": kept.chat_template,
        "error": _error(kept, answer),
        "seed": kept.seed,
        "temperature": kept.temperature,
        "max_tokens": kept.max_tokens,
        "stop": list(kept.stop),
        "choices": list(kept.choices),
        "prompt": prompt,
        "prompt_sha256": prompt_sha256,
        "option_probabilities": _probabilities(answer),
        "text_sha256": hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest() if text else None,
        "fingerprint": kept.fingerprint,
        "request_id": kept.request_id,
        "asked_at_s": kept.asked_at_s,
        "wall_s": kept.wall_s,
        **_measured(answer),
    }


def _prompt(kept: Exchange, agent: str, purpose: str) -> tuple[str, str]:
    """What was asked, and its digest: of a debate and a prediction, and where examples are turns, the whole
    conversation, as JSON."""
    further = purpose in ("debate", "prediction")
    if not further and not kept.turns:
        return kept.prompt, kept.prompt_sha256
    system = (ChatMessage(role="system", content=kept.system),) if kept.system else ()
    messages = (*system, *kept.turns, ChatMessage(role="user", content=kept.prompt))
    if not further:
        return _conversation(messages)
    known: Row = {"members": kept.agents, "messages": messages}
    gather = Gather.model_construct(**known)
    said = {answer.agent: answer.text.strip() for answer in kept.answers if answer.error is None}
    texts = {member: said[member] for member in kept.agents if member in said}
    texts.setdefault(agent, "")
    asked = predicting(gather) if purpose == "prediction" else debated(gather, agent, texts)
    return _conversation(asked)


def _conversation(messages: Sequence[ChatMessage]) -> tuple[str, str]:
    turns = [{"role": each.role, "content": each.content} for each in messages]
    prompt = json.dumps(turns, ensure_ascii=False)
    return prompt, hashlib.sha256(prompt.encode(errors="surrogatepass")).hexdigest()


def _probabilities(answer: Answer | None) -> dict[str, float] | None:
    """The probability of each option; None where the answer has none."""
    given = None if answer is None else answer.option_probabilities
    return None if given is None else dict(given)


def _measured(answer: Answer | None) -> Row:
    """Tokens and timings; empty where there is no answer."""
    if answer is None:
        return dict.fromkeys(
            ("instance", "round", "finish_reason", "prompt_tokens", "generated_tokens", *_TIMINGS)
        )
    durations = {name: getattr(answer.timings, field) / NS_PER_S for name, field in _TIMINGS.items()}
    return {
        "instance": answer.instance,
        "round": answer.round,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "generated_tokens": answer.generated_tokens,
        **durations,
    }


_TIMINGS = {
    "model_s": "total_duration_ns",
    "queue_s": "queue_duration_ns",
    "load_s": "load_duration_ns",
    "prompt_eval_s": "prompt_eval_duration_ns",
    "eval_s": "eval_duration_ns",
    "first_token_s": "first_token_ns",
}


def _error(kept: Exchange, answer: Answer | None) -> str | None:
    """Why there is no answer: the agent's error, the request's, or that it did not come in time."""
    if answer is not None:
        return None if answer.error is None else f"{answer.error.code}: {answer.error.message}"
    return "missing" if kept.error is None else f"{kept.error.code}: {kept.error.message}"
