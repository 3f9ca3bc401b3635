"""What was learnt of agents, as tables for people and as a file."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.errors import InvalidRequest
from schemas.replies import ScoresReply
from services.cli.views.answers.answer_view import percent
from services.cli.views.tables.overview_tables import NOTHING, table

ALL_TOPICS = "(all)"


def print_scores(out: Console, known: ScoresReply) -> None:
    """Prints what there is of it."""
    if not (known.accuracy or known.agreement):
        out.print(
            Text("nothing has been learnt yet: tell what was right with choir.feedback, or run choir eval")
        )
    if known.accuracy:
        out.print(accuracy_table(known))
    if known.agreement:
        out.print()
        out.print(agreement_table(known))
        out.print()
        out.print(unlabelled_table(known))
    if known.reset:
        out.print(Text("all of this is forgotten now", "yellow"))


def accuracy_table(known: ScoresReply) -> Table:
    """How often each agent was right, over all and on each topic."""
    rows = table("agent", "topic", "right", "of", "accuracy", right=("right", "of", "accuracy"), named=True)
    for score in known.accuracy:
        rate = percent(score.correct / score.asked) if score.asked else NOTHING
        rows.add_row(score.agent, score.topic or ALL_TOPICS, str(score.correct), str(score.asked), rate)
    return rows


def agreement_table(known: ScoresReply) -> Table:
    """How often two agents answered alike, for each number of options that questions had."""
    rows = table("agents", "", "options", "alike", "of", "rate", right=("options", "alike", "of", "rate"))
    for pair in known.agreement:
        rate = percent(pair.agreed / pair.both) if pair.both else NOTHING
        rows.add_row(pair.one, pair.other, str(pair.options), str(pair.agreed), str(pair.both), rate)
    return rows


def unlabelled_table(known: ScoresReply) -> Table:
    """How often each agent answered as isp decided."""
    rows = table(
        "agent", "options", "with isp", "of", "rate", right=("options", "with isp", "of", "rate"), named=True
    )
    for score in known.unlabelled:
        rate = percent(score.with_isp / score.asked) if score.asked else NOTHING
        rows.add_row(score.agent, str(score.options), str(score.with_isp), str(score.asked), rate)
    return rows


def write_scores(path: Path, known: ScoresReply) -> None:
    """Writes all of it as one JSON document. InvalidRequest if the file cannot be written."""
    try:
        path.write_text(known.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"export: {path}: {error.strerror}", field="export") from error
