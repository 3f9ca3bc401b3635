"""The board of the demo: who answered what, and what the strategies made of it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.replies import Decision
from services.cli.demo.questions import STRATEGIES
from services.cli.demo.tour import Turn
from services.cli.sessions.closed_question import option
from services.cli.views.answers.answer_view import percent
from services.cli.views.tables.overview_tables import NOTHING, table
from services.cli.views.terminal import plain

WEIGHTED = "weighted"
LONGEST_ANSWER = 24
LEAST_QUESTION_WIDTH = 18
WIDTH_OF_THE_OTHERS = 82
NEXT = """\
Try next:
  choir up                      keep a mesh running; then, elsewhere:
  choir ask "What is the capital of Japan?" --strategy majority,weighted
  choir ask "What is 3 + 4?" --model choir-qwen --stream
  choir chat                    talk to one model or to all
  choir nodes; choir models     see who is there
Your own models: a few lines of choir.toml, see infra/choir.toml.
"""


def board(agents: Sequence[str], turns: Sequence[Turn], width: int) -> Table:
    """A line for each question, and under them what each agent's vote weighs by now, at most `width` wide."""
    rows = table("question", *_short(agents), *STRATEGIES, "ms", right=("ms",))
    longest = max((len(turn.question.text) for turn in turns), default=0)
    rows.columns[0].width = min(longest, max(LEAST_QUESTION_WIDTH, width - WIDTH_OF_THE_OTHERS))
    for turn in turns:
        rows.add_row(
            turn.question.text,
            *(_cell(turn, agent) for agent in agents),
            *(_decision(turn, strategy) for strategy in STRATEGIES),
            NOTHING if turn.latency_ms is None else f"{turn.latency_ms:.0f}",
        )
    weights = _weights(turns)
    if weights:
        cells = [Text(f"{weights[agent]:.2f}" if agent in weights else NOTHING, "dim") for agent in agents]
        rows.add_row(Text("weight of its vote by now", "dim"), *cells, *("" for _ in STRATEGIES), "")
    return rows


def print_turn(out: Console, turn: Turn) -> None:
    """The same for a file or a pipe: a few plain lines for each question."""
    out.print(turn.question.text)
    for agent, text in turn.answers.items():
        out.print(f"  {agent:<14} {plain(text)}", soft_wrap=True)
    for strategy, decision in turn.decisions.items():
        out.print(f"  {strategy + ':':<14} {_said(turn, decision)}, share {percent(decision.share)}")
    out.print(f"  {'took:':<14} {turn.latency_ms:.0f} ms")


def _short(agents: Sequence[str]) -> list[str]:
    """The names without what all of them begin with."""
    families = {agent.partition("-")[0] for agent in agents}
    return [agent.partition("-")[2] or agent for agent in agents] if len(families) == 1 else list(agents)


def _cell(turn: Turn, agent: str) -> Text:
    """An agent's text: green if the (first) strategy decided for it."""
    text = Text(plain(" ".join(turn.answers.get(agent, "").split())))
    text.truncate(LONGEST_ANSWER, overflow="ellipsis")
    for decision in turn.decisions.values():
        for vote in decision.votes:
            if vote.agent == agent and vote.answer is not None and vote.answer == decision.answer:
                text.stylize("green")
    return text


def _decision(turn: Turn, strategy: str) -> Text:
    decision = turn.decisions.get(strategy)
    if decision is None:
        return Text("...", "dim")
    share = percent(decision.share).replace(" ", "")  # stays in one piece where the column is narrow
    return Text.assemble((_said(turn, decision), "bold"), (f" {share}", "dim"))


def _said(turn: Turn, decision: Decision) -> str:
    """The decision in a person's words: an option by its text, else a voter's own."""
    if decision.answer is None:
        return "(none)"
    if turn.question.choices:
        return option(decision.answer, turn.question.choices)
    return plain(decision.text or decision.answer).strip()


def _weights(turns: Sequence[Turn]) -> dict[str, float]:
    for turn in reversed(turns):
        if WEIGHTED in turn.decisions:
            return {vote.agent: vote.weight for vote in turn.decisions[WEIGHTED].votes}
    return {}
