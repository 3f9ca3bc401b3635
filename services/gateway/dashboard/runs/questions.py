"""What was made of each question of an evaluation: what each agent said, what each strategy decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from schemas.errors import QueryFailed

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Show = Literal["all", "agents disagree", "strategies disagree", "all agents wrong", "a strategy wrong"]
SHOWS: Mapping[Show, str] = {
    "all": "true",
    "agents disagree": "agent_answers > 1",
    "strategies disagree": "strategy_answers > 1",
    "all agents wrong": "agents_right = 0",
    "a strategy wrong": "strategies_wrong > 0",
}
A_PAGE = 20
LONGEST_PROMPT = 600
LONGEST_ANSWER = 300
QUESTIONS = """
WITH said AS (
    SELECT benchmark, question_id, repetition, any_value(prompt) AS prompt,
        any_value(right_answer) AS right_answer, any_value(topic) AS topic, min(position) AS position,
        count(DISTINCT coalesce(answer, '')) AS agent_answers, count(*) FILTER (correct) AS agents_right
    FROM read_parquet($raw) WHERE purpose = 'question' GROUP BY ALL
),
decided AS (
    SELECT benchmark, question_id, repetition,
        count(DISTINCT coalesce(answer, '')) AS strategy_answers,
        count(*) FILTER (NOT "right") AS strategies_wrong
    FROM read_parquet($decisions) WHERE "group" = 'strategy' GROUP BY ALL
)
SELECT said.*, coalesce(strategy_answers, 0) AS strategy_answers,
    coalesce(strategies_wrong, 0) AS strategies_wrong, count(*) OVER () AS found
FROM said LEFT JOIN decided USING (benchmark, question_id, repetition)
WHERE ($benchmark = '' OR said.benchmark = $benchmark) AND {condition}
ORDER BY position, repetition LIMIT {most} OFFSET $skip
"""
ANSWERS = """
SELECT benchmark, question_id, repetition, agent AS who, answer, text, correct AS is_right, error,
    'agent' AS kind
FROM read_parquet($raw) WHERE purpose = 'question' AND question_id IN (SELECT unnest($ids::VARCHAR[]))
UNION ALL
SELECT benchmark, question_id, repetition, contestant, answer, NULL, "right", note, "group"
FROM read_parquet($decisions)
WHERE "group" = 'strategy' AND question_id IN (SELECT unnest($ids::VARCHAR[]))
ORDER BY kind, who
"""


@dataclass(frozen=True)
class Asked:
    """One question of one repetition; `agents` and `strategies` are what they said, and how right it is."""

    fields: Mapping[str, Any]
    agents: Sequence[Mapping[str, Any]]
    strategies: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Page:
    """A page of questions, of so many that were `found`."""

    questions: tuple[Asked, ...]
    found: int


def questions(folder: Path, show: Show, benchmark: str, skip: int) -> Page:
    """A page of the questions of the run in a folder. Raises QueryFailed where its files cannot be read."""
    import duckdb

    files = {"raw": str(folder / "raw_records.parquet"), "decisions": str(folder / "decisions.parquet")}
    try:
        with duckdb.connect() as database:
            database.execute("SET threads = 1")
            statement = QUESTIONS.format(condition=SHOWS[show], most=A_PAGE)
            found = _rows(database, statement, {**files, "benchmark": benchmark, "skip": skip})
            ids = [row["question_id"] for row in found]
            answers = _rows(database, ANSWERS, {**files, "ids": ids}) if ids else []
    except duckdb.Error as error:
        raise QueryFailed(str(error).splitlines()[0]) from error
    by_question: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for answer in answers:
        by_question.setdefault(_key(answer), []).append(answer)
    asked = tuple(
        Asked(
            row,
            [one for one in by_question.get(_key(row), ()) if one["kind"] == "agent"],
            [one for one in by_question.get(_key(row), ()) if one["kind"] == "strategy"],
        )
        for row in found
    )
    return Page(asked, int(found[0]["found"]) if found else 0)


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["benchmark"], row["question_id"], row["repetition"]


def _rows(
    database: DuckDBPyConnection, statement: str, parameters: Mapping[str, Any]
) -> list[dict[str, Any]]:
    result = database.execute(statement, dict(parameters))
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
