"""Shows a result to people: the text; of an ensemble every answer and every decision side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice

from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.ensembles.effort import Cascade
from schemas.ensembles.rounds import Purpose, purpose_of
from schemas.replies import Answer, Decision, Result
from services.cli.sessions.closed_question import option
from services.cli.views.answers.chain_view import chain_line, print_chain
from services.cli.views.tables.overview_tables import NOTHING, table
from services.cli.views.terminal import counted, plain

NS_PER_MS = 1e6
NS_PER_S = 1e9
NAME_COLUMN_WIDTH = 16
STRATEGY_COLUMN_WIDTH = 18
"""At least this wide is a strategy's column; where more do not fit, another table follows."""
LONGEST_VOTE = 32
NO_ANSWER = "(no answer could be read)"
UNDECIDED = "(undecided: no answer is as sure as was asked for)"
ROUNDS: dict[Purpose, str] = {
    "debate": "answers again",
    "prediction": "expects of others",
    "sample": "sample",
    "synthesis": "writes one",
    "comparison": "prefers",
}
"""What an answer of another round is headed with."""


class ResultView:
    """One result; `already_shown` is what has been printed of its text while it was generated.

    With `verbose` every text of a chain is shown, and where its time went; of an ensemble every vote.
    """

    def __init__(self, result: Result, already_shown: str = "", *, verbose: bool = False) -> None:
        self._result = result
        self._already_shown = already_shown
        self._verbose = verbose

    def print(self, out: Console) -> None:
        """Prints it."""
        self._print_text(out)
        match self._result.topology:
            case "ensemble":
                self._print_ensemble(out)
            case "chain":
                self._print_chain(out)
            case _ if out.is_terminal:
                for answer in self._result.answers:
                    out.print(Text(footer(answer), "dim"))
        if out.is_terminal or self._result.topology == "ensemble":
            out.print(Text(id_line(self._result), "dim"))

    def _print_ensemble(self, out: Console) -> None:
        result = self._result
        out.print()
        out.print(answers_table(result))
        if result.further_answers:
            out.print()
            out.print(further_table(result.further_answers))
        if result.decisions:
            out.print()
            out.print(decisions_table(result.decisions, result.choices))
        if self._verbose:
            fitting = max(1, (out.width - NAME_COLUMN_WIDTH) // STRATEGY_COLUMN_WIDTH)
            decisions = iter(result.decisions)
            while chunk := tuple(islice(decisions, fitting)):
                out.print()
                out.print(votes_table(chunk, result.choices))
        if result.cascade is not None:
            out.print(Text(cascade_line(result.cascade), "dim"))
        for decision in result.decisions:
            if decision.note is not None:
                out.print(Text(f"{decision.strategy}: {decision.note}", "dim"))

    def _print_chain(self, out: Console) -> None:
        if self._verbose:
            print_chain(out, self._result)
        elif out.is_terminal:
            out.print(Text(chain_line(self._result), "dim"))

    def _print_text(self, out: Console) -> None:
        style = "bold" if self._result.topology == "ensemble" else ""
        error = self._result.error
        instead = UNDECIDED if error is not None and error.code == "undecided" else NO_ANSWER
        rest = rest_of(self._result.text or instead, self._already_shown)
        out.print(Text(plain(rest), style), soft_wrap=True)


def rest_of(text: str, already_shown: str) -> str:
    """What is still to be printed of a text: all of it, on a new line, if something else was shown."""
    if text.startswith(already_shown):
        return text.removeprefix(already_shown)
    return f"\n{text}"


def cascade_line(cascade: Cascade) -> str:
    """How many were asked of how many, why no more, and what that spared."""
    asked = sum(map(len, cascade.waves))
    line = f"asked {asked} of {asked + len(cascade.spared)} in {counted(len(cascade.waves), 'wave')}"
    why = {
        "settled": "the others could change nothing",
        "likely": f"the others would change it with a probability of at most {cascade.bound or 0:.1%}",
        "all": "no answer was to come",
        "deadline": "the time was over",
    }[cascade.ended]
    spared = f"; spared about {counted(cascade.saved_tokens, 'token')}" if cascade.spared else ""
    return f"{line}: {why}{spared}"


def id_line(result: Result) -> str:
    """What `choir trace`, `choir fetch` and `choir feedback` take."""
    return f"request {result.request_id}"


def footer(answer: Answer) -> str:
    """Who answered, and how fast."""
    parts = [answer.agent, counted(answer.generated_tokens, "token"), milliseconds(answer)]
    if answer.timings.eval_duration_ns and answer.generated_tokens:
        speed = answer.generated_tokens / answer.timings.eval_duration_ns * NS_PER_S
        parts.append(f"{speed:,.0f} tokens/s")
    if answer.finish_reason == "length":
        parts.append("cut off at max_tokens")
    return " · ".join(parts)


def milliseconds(answer: Answer) -> str:
    """How long the answer took altogether."""
    return f"{answer.timings.total_duration_ns / NS_PER_MS:,.0f} ms"


def answers_table(result: Result) -> Table:
    """What each agent said."""
    rows = table("agent", "answer", "tokens", "time", right=("tokens", "time"), named=True)
    for answer in result.answers:
        rows.add_row(answer.agent, _said(answer), str(answer.generated_tokens), milliseconds(answer))
    for agent in result.missing:
        rows.add_row(agent, Text("(not in time)", "dim"), NOTHING, NOTHING)
    return rows


def further_table(answers: Sequence[Answer]) -> Table:
    """What agents said beyond the question: again in a debate, of the others, or as further samples."""
    rows = table("agent", "", "answer", "tokens", "time", right=("tokens", "time"), named=True)
    for answer in answers:
        heading = ROUNDS.get(purpose_of(answer.round), "")
        rows.add_row(answer.agent, heading, _said(answer), str(answer.generated_tokens), milliseconds(answer))
    return rows


def _said(answer: Answer) -> Text:
    """An answer's text, or the reason why there is none."""
    if answer.error is not None:
        return Text(plain(f"{answer.error.code}: {answer.error.message}"), "red")
    return Text(plain(answer.text.strip()))


def decisions_table(decisions: Sequence[Decision], choices: Sequence[str]) -> Table:
    """What each strategy made of the answers, a line for each."""
    figures = ["share", "margin"]
    if any(decision.confidence is not None for decision in decisions):
        figures.append("right with")
    rows = table("strategy", "decision", *figures, "", right=figures, named=True)
    for decision in decisions:
        sure = () if decision.confidence is None else (percent(decision.confidence),)
        rows.add_row(
            decision.strategy,
            Text(_decided(decision, choices), "bold green"),
            percent(decision.share),
            percent(decision.margin),
            *sure,
            Text("a tie" if decision.tie else "", "yellow"),
        )
    return rows


def votes_table(decisions: Sequence[Decision], choices: Sequence[str]) -> Table:
    """What each agent's answer counted as, and its weight: a column for each strategy."""
    rows = table("vote", *(decision.strategy for decision in decisions), named=True)
    for agent in dict.fromkeys(vote.agent for decision in decisions for vote in decision.votes):
        rows.add_row(agent, *(_vote(decision, agent, choices) for decision in decisions))
    return rows


def _vote(decision: Decision, agent: str, choices: Sequence[str]) -> Text:
    """`Paris (1.39)`: what an agent's answer counts as, and its weight; of several, how many of each."""
    votes = [vote for vote in decision.votes if vote.agent == agent]
    if not votes:
        return Text(NOTHING, "dim")
    given = Counter(vote.answer for vote in votes if vote.answer is not None)
    if not given:
        joined = _joins_texts(decision) and any(vote.weight for vote in votes)
        return Text("joined" if joined else "abstains", "dim")
    style = "green" if decision.answer in given else ""
    if len(votes) == 1:
        return Text(f"{_clipped(votes[0].answer, choices)} ({votes[0].weight:.2f})", style)
    counted = (f"{count}x {_clipped(answer, choices)}" for answer, count in given.most_common())
    return Text("\n".join(counted), style)


def _decided(decision: Decision, choices: Sequence[str]) -> str:
    """The answer that won; of a strategy that joins texts, that it did."""
    return "(the texts joined)" if _joins_texts(decision) else _clipped(decision.answer, choices)


def _joins_texts(decision: Decision) -> bool:
    return decision.answer is None and decision.text is not None


def _clipped(answer: str | None, choices: Sequence[str]) -> str:
    """A normalised answer, short enough for a column; an option with its text."""
    if answer is None:
        return "(none)"
    spoken = option(answer, choices)
    spoken = plain(spoken)
    return spoken if len(spoken) <= LONGEST_VOTE else f"{spoken[: LONGEST_VOTE - 1]}…"


def decision_line(decision: Decision) -> str:
    """A decision in one line: who was for it, and what the others said."""
    for_it = [vote.agent for vote in decision.votes if vote.answer == decision.answer]
    others = [
        f"{vote.agent} {_clipped(vote.answer, ())}"
        for vote in decision.votes
        if vote.answer != decision.answer
    ]
    parts = [f"{decision.strategy} {percent(decision.share)}: {', '.join(for_it)}"]
    if others:
        parts.append(f"otherwise: {', '.join(others)}")
    return " · ".join([*parts, "a tie"] if decision.tie else parts)


def percent(share: float) -> str:
    """`75 %`"""
    return f"{share * 100:.0f} %"
