"""The tasks of each round: a `Gather` and the answers so far give commands. Pure.

Whatever is asked depends only on what is stored, so an aggregator that takes over asks the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from schemas.commands import ChatMessage, Embed, Gather, Generate
from schemas.ensembles.rounds import (
    DEBATE,
    PREDICTION,
    QUESTION,
    SAMPLES_FROM,
    WITHOUT_LOGPROBS,
    comparison_round,
    vector_round,
)
from schemas.ensembles.strategies import asked_for
from schemas.replies import Answer
from schemas.requests.sampling import Sampling
from services.aggregator.reading.ballots import as_shown
from services.aggregator.strategies.ballot import Ballot
from services.aggregator.strategies.texts.synthesize import texts_of

OPTION_LOGPROBS = 20
"""How many alternatives to each token are asked for: with fewer an option may not be among them."""
SAMPLE_TEMPERATURE = 0.7
"""For samples of a request that asks for greedy decoding, where all would be the same (Wang et al. 2022)."""
SEEDS = 2**32

PREDICT = (
    "Many others are asked the question below. Which answer will most of them give? "
    "Reply with that answer alone, in the form in which the question wants it.\n\n{question}"
)
ANSWER_AGAIN = (
    "Others were asked the same question and answered:\n\n{answers}\n\n"
    "Consider their answers, then answer the question again, in the same form as before.\n\n{question}"
)
"""As Du et al. do, the question comes once more, and last."""
WRITE_ONE = (
    "Others were asked the question below and answered:\n\n{answers}\n\n"
    "Some of this may be wrong. Write one answer from them, better than each, in the form in which the "
    "question wants it, and nothing beside it.\n\n{question}"
)
COMPARE = (
    "Two answers to the same question are compared.\n\nQuestion: {question}\n\nAnswer A: {one}\n\n"
    "Answer B: {other}\n\nWhich is the better answer? Reply with A or B alone."
)
VERDICT_TOKENS = 16


def opening_tasks(gather: Gather, best: str | None) -> list[Generate]:
    """All that can be asked at once: the question, and what needs no answers to it.

    `best` is the agent that `best_single` samples, None if it is not known; its answer to the question is the
    first sample.
    """
    asks = asked_for(gather.strategies)
    sampling = with_logprobs(gather.sampling) if "probabilities" in asks else gather.sampling
    tasks = [_task(gather, member, QUESTION, sampling=sampling) for member in gather.members]
    if "predictions" in asks:
        messages = predicting(gather)
        plain = gather.model_copy(update={"tools": (), "tool_choice": "auto"})
        tasks += [_task(plain, member, PREDICTION, messages=messages) for member in gather.members]
    if "samples" in asks and best is not None:
        further = range((gather.samples or len(gather.members)) - 1)
        tasks += [
            _task(gather, best, SAMPLES_FROM + i, sampling=sample_of(gather.sampling, i + 1)) for i in further
        ]
    return tasks


def tasks_without_logprobs(gather: Gather, first: Mapping[str, Answer]) -> list[Generate]:
    """The question once more for agents that refused it because they can say no logprobs.

    Where the client itself asked for them a refusal stands.
    """
    if gather.sampling.logprobs:
        return []
    return [
        _task(gather, m, WITHOUT_LOGPROBS)
        for m in gather.members
        if m in first and refuses_logprobs(first[m])
    ]


def refuses_logprobs(answer: Answer) -> bool:
    """Whether logprobs alone are what an agent could not do."""
    return answer.error is not None and answer.error.field == "sampling.logprobs"


def debate_tasks(gather: Gather, first: Mapping[str, Answer]) -> list[Generate]:
    """A second question to each agent whose answer is there, with the others' full answers."""
    texts = {m: first[m].text.strip() for m in gather.members if m in first and first[m].error is None}
    return [_task(gather, member, DEBATE, messages=debated(gather, member, texts)) for member in texts]


def debated(gather: Gather, member: str, texts: Mapping[str, str]) -> tuple[ChatMessage, ...]:
    """The conversation of a member's second question; `texts` is what each member said first."""
    said = texts[member]
    own = said_next(gather.messages, "assistant", said) if said else gather.messages
    others = (text for agent, text in texts.items() if agent != member and text)
    again = ANSWER_AGAIN.format(answers=_listed(others), question=gather.question)
    return said_next(own, "user", again)


def synthesis_task(gather: Gather, writer: str, round_: int, sources: Sequence[Ballot]) -> list[Generate]:
    """One agent is to write one answer from these; nobody where there are no two different texts."""
    texts = texts_of(sources)
    if len(texts) < 2:
        return []
    messages = gather.messages
    rest = messages[:-1] if messages[-1].role == "user" else messages
    asked = WRITE_ONE.format(answers=_listed(texts), question=gather.question)
    plain = gather.model_copy(update={"tools": (), "tool_choice": "auto"})
    return [_task(plain, writer, round_, messages=said_next(rest, "user", asked) if rest else _only(asked))]


def comparison_tasks(gather: Gather, ballots: Sequence[Ballot]) -> list[Generate]:
    """Each member whose answer is there compares those of each two others that differ; of two alone each
    compares both."""
    plain = gather.model_copy(update={"tools": (), "tool_choice": "auto"})
    texts = {ballot.agent: ballot.text.strip() for ballot in ballots}
    answers = {ballot.agent: ballot.answer for ballot in ballots}
    verdict = gather.sampling.model_copy(
        update={"max_tokens": VERDICT_TOKENS, "temperature": 0.0, "json_schema": None, "grammar": None}
    )
    tasks = []
    for one, other in combinations(texts, 2):
        if None in (answers[one], answers[other]) or answers[one] == answers[other]:
            continue
        judges = [agent for agent in texts if len(texts) == 2 or agent not in (one, other)]
        for judge in judges:
            shown = as_shown(judge, one, other)
            asked = COMPARE.format(question=gather.question, one=texts[shown[0]], other=texts[shown[1]])
            round_ = comparison_round(one, other)
            tasks.append(_task(plain, judge, round_, messages=_only(asked), sampling=verdict))
    return tasks


def vector_tasks(gather: Gather, embedder: str, ballots: Sequence[Ballot]) -> list[Generate]:
    """One model makes the vector of what each member said; none where there are no two different texts."""
    texts = {ballot.agent: text for ballot in ballots if (text := ballot.text.strip())}
    if len(set(texts.values())) < 2:
        return []
    plain: dict[str, object] = {
        "messages": (),
        "tools": (),
        "tool_choice": "auto",
        "sampling": Sampling(),
        "stream": False,
    }
    return [
        gather.generate(embedder, vector_round(agent)).model_copy(
            update=plain | {"embed": Embed(inputs=(text,), truncate=True)}
        )
        for agent, text in texts.items()
    ]


def _only(asked: str) -> tuple[ChatMessage, ...]:
    return (ChatMessage(role="user", content=asked),)


def predicting(gather: Gather) -> tuple[ChatMessage, ...]:
    """The conversation with its question put as one about the others."""
    messages = gather.messages
    rest = messages[:-1] if messages[-1].role == "user" else messages
    asked = PREDICT.format(question=gather.question)
    return (*rest, ChatMessage(role="user", content=asked))


def _listed(texts: Iterable[str]) -> str:
    return "\n\n".join(f"Answer {number}: {text}" for number, text in enumerate(texts, 1))


def said_next(messages: tuple[ChatMessage, ...], role: str, text: str) -> tuple[ChatMessage, ...]:
    """The conversation gone on: with a new turn, or, as turns must alternate, at the end of the last one."""
    last = messages[-1]
    if last.role == role:
        return (*messages[:-1], ChatMessage(role=last.role, content=f"{last.content}\n\n{text}"))
    return (*messages, ChatMessage.model_validate({"role": role, "content": text}))


def with_logprobs(sampling: Sampling) -> Sampling:
    """The same, with as many alternatives to each token as option probabilities need."""
    return sampling.model_copy(update={"logprobs": max(sampling.logprobs, OPTION_LOGPROBS)})


def sample_of(sampling: Sampling, index: int) -> Sampling:
    """How the sample of that index is drawn: under a seed of its own, and not greedily."""
    seed = (sampling.seed + index) % SEEDS
    return sampling.model_copy(
        update={"seed": seed, "temperature": sampling.temperature or SAMPLE_TEMPERATURE, "logprobs": 0}
    )


def _task(
    gather: Gather,
    member: str,
    round_: int,
    *,
    messages: tuple[ChatMessage, ...] | None = None,
    sampling: Sampling | None = None,
) -> Generate:
    """A command of one round. Only the answers to the question itself are streamed."""
    return gather.generate(member, round_).model_copy(
        update={
            "messages": messages or gather.messages,
            "sampling": sampling or gather.sampling,
            "stream": gather.stream and round_ == QUESTION,
        }
    )
