"""Workers and trials of them, for people."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from schemas.nodes.workers import Worker, WorkerStatus
from services.cli.views.tables.overview_tables import number, table
from services.cli.views.terminal import counted, plain
from services.cli.workers.trial import Trial

STYLES = {"works": "green", "cordoned": "yellow", "unused": "yellow"}


def workers_table(workers: Iterable[WorkerStatus]) -> Table:
    """One line for each registered worker."""
    rows = table(
        "worker", "type", "address", "model", "slots", "weight", "state", "agent", "tokens/s", "last error",
        right=("slots", "weight", "tokens/s"),
    )  # fmt: skip
    for status in workers:
        worker, word = status.worker, state_word(status)
        rows.add_row(
            worker.id,
            worker.type,
            worker.url,
            worker.name,
            f"{status.busy}/{worker.slots}",
            str(worker.weight),
            Text(word, STYLES.get(word, "bold red")),
            status.held_by or "-",
            number(status.tokens_per_s),
            _trouble(status, word),
        )
    return rows


def _trouble(status: WorkerStatus, word: str) -> str:
    """What is wrong now; of a worker that works again what was, and when."""
    if word == "cordoned":
        return "-"
    if status.problem is not None:
        return plain(status.problem.message)
    state = status.state
    if state is None or state.last_error is None:
        return "-"
    when = "" if state.last_error_at_s is None else f"{ago(time.time() - state.last_error_at_s)} ago: "
    return f"{when}{plain(state.last_error.message)}"


def ago(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h`, `2 d`."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def state_word(status: WorkerStatus) -> str:
    """How a worker does, in a word."""
    if status.worker.cordoned:
        return "cordoned"
    if status.state is None:
        return "unused"
    if status.state.circuit == "closed":
        return "works" if status.problem is None else "waits"
    return "out" if status.state.circuit == "open" else "on trial"


def trial_line(trial: Trial) -> Text:
    """One line: it works and how fast, or why it does not."""
    who = (f"{trial.id}: ", "bold")
    if trial.problem is not None:
        return Text.assemble(who, ("fails: ", "bold red"), plain(trial.problem.message))
    said = " ".join(plain(trial.text or "").split())
    told = [f"{trial.model} at {trial.url} answers after {trial.answered_ms or 0:.0f} ms"]
    if trial.total_ms is not None:
        told.append(f"first token after {trial.first_token_ms or 0:.0f} ms")
        speed = f", {trial.tokens_per_s:.0f} tokens/s" if trial.tokens_per_s else ""
        told.append(f"{trial.generated_tokens} tokens in {trial.total_ms:.0f} ms{speed}")
    if trial.embedding_dimensions:
        told.append(f"embeddings of {trial.embedding_dimensions} numbers")
    return Text.assemble(who, ("works: ", "green"), "; ".join(told), f' "{said}"' if said else "")


def added_line(worker: Worker) -> str:
    """What was registered."""
    where = f", for agents on {worker.only_on}" if worker.only_on else ""
    return f"{worker.id}: {counted(worker.slots, 'slot')} of {worker.name} at {worker.url}{where}"
