"""Answers of earlier runs: what was asked of the same file of weights in the same words is not asked again.

Only greedy answers of models whose file is known are kept, and only those that came without an error. What an
answer depends on is its key: the file's hash, the prompt or the text that is scored, and how it is sampled.
Not the model's name, nor its host: other processors may differ in the last digits.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.evaluation.asking.machine import version_of
from analysis.evaluation.asking.plan import Call
from analysis.evaluation.likelihood.texts import Scored
from schemas.ensembles.strategies import asked_for
from schemas.errors import InvalidRequest
from schemas.message import Struct
from schemas.replies import Result

TABLE = "answers_1"
"""Its number rises when what is kept takes another form: older answers are then none."""
PATIENCE_S = 30.0


class Kept(Struct):
    """What came of a request: a result with one answer, or with all of an ensemble that was asked more than
    the question; the `scored` text, if it was one."""

    request_id: str
    asked_at_s: float
    wall_s: float
    result: Result
    scored: Scored | None = None


class AnswerCache:
    """Kept answers in one file, which several runs may use at a time. InvalidRequest, naming `cache`, if it
    cannot be used."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or default_path()
        self._connection: sqlite3.Connection | None = None

    def get(self, key: str) -> Kept | None:
        """What is kept under a key."""
        rows = self._run(f"SELECT body FROM {TABLE} WHERE key = ?", (key,))
        return Kept.model_validate_json(rows[0][0]) if rows else None

    def put(self, key: str, kept: Kept) -> None:
        """Keeps what came, unless something is there."""
        self._run(f"INSERT OR IGNORE INTO {TABLE} VALUES (?, ?)", (key, kept.model_dump_json()))

    def close(self) -> None:
        """Lets the file go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run(self, statement: str, values: Sequence[str]) -> list[tuple[str, ...]]:
        try:
            if self._connection is None:
                self._connection = self._opened()
            return self._connection.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise InvalidRequest(
                f"cache: {self._path} cannot be used: {error}; remove it, or do without it (--no-cache)",
                field="cache",
            ) from error

    def _opened(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=PATIENCE_S, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")  # what a crash of the machine loses is asked again
        connection.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (key TEXT PRIMARY KEY, body TEXT NOT NULL)")
        return connection


def default_path() -> Path:
    """`$XDG_CACHE_HOME/choir/answers.sqlite`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "choir" / "answers.sqlite"


def key_of(call: Call, agents: Sequence[str], identities: Mapping[str, str | None]) -> str | None:
    """What the answers of these agents to a call are kept under; None if they are not: they are not greedy,
    nobody knows their file, or the mesh makes a text of theirs, which is no agent's answer."""
    hashes = [identities.get(agent) for agent in agents]
    if call.ask.sampling.temperature > 0 or None in hashes or call.item.question.kind == "text":
        return None
    ask = call.ask
    said: dict[str, object] = {
        "choir": version_of("choir"),
        "files": hashes,
        "messages": [each.model_dump(mode="json") for each in ask.conversation],
        "raw": None if ask.raw is None else ask.raw.model_dump(mode="json"),
        "sampling": ask.sampling.model_copy(update={"seed": 0}).model_dump(mode="json"),
    }
    if call.continuation is not None and call.item.chat_template:
        said["template"] = [each.model_dump(mode="json") for each in call.item.conversation]
        said["scored"] = call.item.following(call.continuation)
    if asked_for(ask.strategies):
        said |= {"strategies": sorted(ask.strategies), "choices": ask.choices, "kind": ask.answer_kind}
        said["agents"] = list(agents)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
