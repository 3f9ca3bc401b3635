"""`choir/auto` in a running mesh of the four demo models: it learns whom to ask from feedback alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import pytest

from analysis.evaluation.asking.plan import Item, items
from analysis.evaluation.asking.protocol import open_protocol
from analysis.evaluation.options import build_options
from infra.host.demo_mesh import demo_mesh
from infra.testing.mesh import eventually
from schemas.replies import Result
from services.client.client import Choir

AUTO = "choir/auto"
TAUGHT, HELD_OUT = 16, 24
"""Questions of each topic."""
TOPICS = 2
FEWEST_JUDGED = 10
PATIENCE_S = 120.0


@pytest.mark.soak
async def test_auto_learns_from_feedback_says_why_and_is_no_worse_than_the_best_model() -> None:
    """Of each topic some questions are asked and judged; the others `auto` is asked, and every model."""
    taught, held_out = by_topic(TAUGHT), by_topic(TAUGHT + HELD_OUT)
    async with demo_mesh(None) as supervisor, Choir(supervisor.url) as client:
        first = [await judged(client, item) for of_topic in taught.values() for item in of_topic]
        await learnt(client, tuple(taught))
        later: list[tuple[Item, Result, Result]] = []
        for topic, of_topic in held_out.items():
            for item in of_topic[len(taught[topic]) :]:
                later.append((item, await ask(client, item, model=AUTO), await ask(client, item)))
    assert first[0].auto is not None and first[0].auto.way == "full"
    assert "were judged yet: all are asked" in first[0].auto.why
    for item, automatic, everybody in later:
        chosen = automatic.auto
        assert chosen is not None and chosen.topic == item.question.topic
        assert chosen.why and automatic.decisions[0].note == chosen.why
        assert chosen.way in ("single", "cascade") or "gave no answer" in chosen.why, chosen
        if chosen.way == "single":
            assert [answer.agent for answer in automatic.answers] == [chosen.best]
        assert len(everybody.answers) == len(everybody.decisions[0].votes)
    assert any(result.auto is not None and result.auto.way != "full" for _, result, _ in later)
    no_worse_than_the_best(later)


def no_worse_than_the_best(later: Sequence[tuple[Item, Result, Result]]) -> None:
    """Against the model that is right most often on these very questions, whoever that is: if they are as
    good, so few wins among the questions on which they differ are not less probable than 5 %."""
    right: dict[str, list[bool]] = defaultdict(list)
    own = []
    for item, automatic, everybody in later:
        own.append(automatic.decisions[0].answer == item.question.right)
        for vote in everybody.decisions[0].votes:
            right[vote.agent].append(vote.answer == item.question.right)
    best = max(right.values(), key=sum)
    wins = sum(mine and not its for mine, its in zip(own, best, strict=True))
    losses = sum(its and not mine for mine, its in zip(own, best, strict=True))
    differing = wins + losses
    chance = sum(math.comb(differing, k) for k in range(wins + 1)) / 2**differing
    assert chance > 0.05, (wins, losses, sum(own), {agent: sum(of_one) for agent, of_one in right.items()})


def by_topic(count: int) -> dict[str, list[Item]]:
    """The first questions of the topics that have most of them."""
    options = build_options({"benchmarks": ("choir-mmlu",), "deterministic": True})
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items(options, {"choir-mmlu": open_protocol("choir-mmlu", options)}):
        groups[item.question.topic].append(item)
    largest = sorted(groups, key=lambda topic: (-len(groups[topic]), topic))[:TOPICS]
    return {topic: groups[topic][:count] for topic in largest}


async def ask(client: Choir, item: Item, model: str | None = None) -> Result:
    return await client.ask(
        item.prompt,
        model=model,
        choices=item.question.choices,
        answer_kind=item.question.kind,
        topic=item.question.topic,
        max_tokens=item.max_tokens,
        stop=item.stop,
        temperature=0.0,
        timeout_s=PATIENCE_S,
    )


async def judged(client: Choir, item: Item) -> Result:
    """What `auto` answers, and what is right told afterwards."""
    result = await ask(client, item, AUTO)
    await client.feedback(result.request_id, item.question.right)
    return result


async def learnt(client: Choir, topics: Sequence[str]) -> None:
    """Returns when enough is known on each topic."""

    async def known() -> bool:
        scores = (await client.scores()).accuracy
        return all(
            any(score.topic == topic and score.asked >= FEWEST_JUDGED for score in scores) for topic in topics
        )

    await eventually(known, PATIENCE_S)
