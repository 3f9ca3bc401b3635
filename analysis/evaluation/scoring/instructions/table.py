"""How well texts follow the instructions of their prompts, in the four figures that are published of IFEval.

| column | the part of | interval |
|---|---|---|
| `prompt_strict`, `prompt_loose` | the prompts: every instruction is followed | Wilson's, over prompts |
| `instruction_strict`, `instruction_loose` | the instructions | prompts as clusters |

Nobody votes here. A contestant is an agent alone, or a strategy that gives a whole text; the text of an agent
that failed follows nothing, and is counted as `missing`. `fell_back` counts texts that a
strategy chose as the majority does, since it had nothing better to go by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.reporting.tables import Row
from analysis.evaluation.scoring.instructions.checks import Checked, check
from analysis.statistics.intervals import clustered_mean, wilson
from analysis.statistics.questions import fold

EVERY_REPETITION = "all"
FELL_BACK = "decided as majority"
"""What a note says where a strategy had not what it puts a text together from."""


class Marked(NamedTuple):
    """One text of a contestant, and what was checked of it. `note` is what a strategy says of it."""

    exchange: Exchange
    contestant: str
    is_agent: bool
    text: str | None
    checked: Checked
    note: str | None


def marked(exchanges: Iterable[Exchange], strategies: Sequence[str]) -> list[Marked]:
    """Every text of a run, checked: of each prompt those of the agents, then those of the strategies."""
    ordered = sorted(exchanges, key=lambda kept: kept.position)
    return [each for kept in ordered for each in _marked(kept, strategies)]


def _marked(kept: Exchange, strategies: Sequence[str]) -> Iterator[Marked]:
    said = {answer.agent: answer.text for answer in kept.answers if answer.error is None}
    for agent in kept.agents:
        yield Marked(kept, agent, True, said.get(agent), _checked(kept, said.get(agent)), None)
    made = {each.strategy: each for each in (kept.result.decisions if kept.result is not None else ())}
    for name in strategies:
        text = made[name].text if name in made else None
        note = made[name].note if name in made else None
        yield Marked(kept, name, False, text, _checked(kept, text), note)


def _checked(kept: Exchange, text: str | None) -> Checked:
    return check(kept.prompt, kept.instructions, text or "")


def text_rows(texts: Sequence[Marked]) -> list[Row]:
    """A row for each text and instruction of its prompt."""
    return [
        {
            "benchmark": each.exchange.benchmark,
            "question_id": each.exchange.question_id,
            "repetition": each.exchange.repetition,
            "contestant": each.contestant,
            "instruction": instruction.kind,
            "strict": strict,
            "loose": loose,
            "missing": each.text is None,
            "note": each.note,
        }
        for each in texts
        for instruction, strict, loose in zip(each.exchange.instructions, *each.checked, strict=True)
    ]


def instruction_rows(texts: Sequence[Marked]) -> list[Row]:
    """A row for each contestant: of each repetition, and of all of them together where there are several."""
    repetitions = sorted({each.exchange.repetition for each in texts})
    rows = []
    for contestant in dict.fromkeys(each.contestant for each in texts):
        own = [each for each in texts if each.contestant == contestant]
        if len(repetitions) > 1:
            rows.append(_row(own, EVERY_REPETITION))
        rows += [
            _row([each for each in own if each.exchange.repetition == number], number)
            for number in repetitions
        ]
    return rows


def _row(texts: Sequence[Marked], repetition: int | str) -> Row:
    first = texts[0]
    return {
        "benchmark": first.exchange.benchmark,
        "contestant": first.contestant,
        "is_agent": first.is_agent,
        "repetition": repetition,
        "n_prompts": len({each.exchange.question_id for each in texts}),
        "n_instructions": sum(len(each.exchange.instructions) for each in texts),
        **_prompts("prompt_strict", [(each, each.checked.strict) for each in texts]),
        **_instructions("instruction_strict", [(each, each.checked.strict) for each in texts]),
        **_prompts("prompt_loose", [(each, each.checked.loose) for each in texts]),
        **_instructions("instruction_loose", [(each, each.checked.loose) for each in texts]),
        "missing": sum(each.text is None for each in texts),
        "fell_back": sum(FELL_BACK in (each.note or "") for each in texts),
    }


def _prompts(name: str, followed: Sequence[tuple[Marked, Sequence[bool]]]) -> Row:
    questions = fold((each.exchange.question_id, float(all(of_one))) for each, of_one in followed)
    low, high = wilson(float(questions.means().sum()), questions.n).interval or (None, None)
    return {name: float(questions.samples.mean()), f"{name}_low": low, f"{name}_high": high}


def _instructions(name: str, followed: Sequence[tuple[Marked, Sequence[bool]]]) -> Row:
    questions = fold((each.exchange.question_id, float(one)) for each, of_one in followed for one in of_one)
    low, high = clustered_mean(questions).interval or (None, None)
    return {name: float(questions.samples.mean()), f"{name}_low": low, f"{name}_high": high}
