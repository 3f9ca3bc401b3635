"""`choir sql` alone: a prompt with history, and completion of tables, columns and words of SQL."""

from __future__ import annotations

from collections.abc import Iterable

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, WordCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory

from schemas.errors import ChoirError
from services.cli.shell.outcome import error_line
from services.cli.views.tables.rows_view import as_table
from services.cli.views.terminal import console
from services.client.client import Choir
from services.client.finding.local_mesh import state_folder

PROMPT = "choir sql> "
WELCOME = "SHOW TABLES lists tables and views, DESCRIBE one its columns; exit or Ctrl-D ends"
ENDS = ("exit", "quit", "exit;", "quit;")
HISTORY_FILE = "sql_history"
NAMES = (
    "SELECT DISTINCT table_name FROM duckdb_columns() WHERE NOT internal "
    "UNION SELECT DISTINCT column_name FROM duckdb_columns() WHERE NOT internal ORDER BY ALL"
)
WORDS = tuple(
    [
        "SELECT",
        "FROM",
        "WHERE",
        "GROUP",
        "BY",
        "ORDER",
        "LIMIT",
        "HAVING",
        "QUALIFY",
        "JOIN",
        "LEFT",
        "ON",
        "USING",
        "WITH",
        "AS",
        "AND",
        "OR",
        "NOT",
        "NULL",
        "IS",
        "IN",
        "BETWEEN",
        "LIKE",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
        "END",
        "DESC",
        "ASC",
        "COUNT",
        "SUM",
        "AVG",
        "MIN",
        "MAX",
        "QUANTILE_CONT",
        "DATE_TRUNC",
        "INTERVAL",
        "DESCRIBE",
        "SHOW",
        "TABLES",
        "SUMMARIZE",
        "UNION",
        "ALL",
        "DISTINCT",
        "FILTER",
        "OVER",
        "PARTITION",
        "NOW",
    ]
)


class SqlCompleter(Completer):
    """Completes the word before the cursor."""

    def __init__(self, names: Iterable[str]) -> None:
        self._words = WordCompleter([*names, *WORDS], ignore_case=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What the word may become; nothing for an empty one."""
        if document.get_word_before_cursor():
            yield from self._words.get_completions(document, complete_event)


async def run_prompt(max_rows: int, timeout_s: float) -> None:
    """Asks and answers until the end of input. Raises MeshUnreachable if there is no mesh to begin with."""
    out = console()
    async with Choir() as mesh:
        names = await mesh.sql(NAMES)
        folder = state_folder()
        folder.mkdir(parents=True, exist_ok=True)
        session: PromptSession[str] = PromptSession(
            PROMPT,
            completer=SqlCompleter(str(row[0]) for row in names.rows),
            history=FileHistory(str(folder / HISTORY_FILE)),
            complete_while_typing=False,
        )
        out.print(WELCOME, style="dim")
        while (statement := await _next(session)) is not None:
            if not statement:
                continue
            try:
                as_table(await mesh.sql(statement, max_rows=max_rows, timeout_s=timeout_s), out)
            except ChoirError as error:
                out.print(error_line(error.body()), style="red")


async def _next(session: PromptSession[str]) -> str | None:
    """The next line; empty after Ctrl-C, None at the end."""
    try:
        line = (await session.prompt_async()).strip()
    except KeyboardInterrupt:
        return ""
    except EOFError:
        return None
    return None if line.lower() in ENDS else line
