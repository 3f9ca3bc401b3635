"""Texts while they are generated: one runs through, several grow side by side in a live table."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from schemas.replies import TokenChunk
from services.cli.views.tables.overview_tables import table
from services.cli.views.terminal import plain

REFRESH_PER_S = 12
BEGUN_AGAIN = "\n[generated anew, because the agent that had begun was lost:]"


class LiveAnswers:
    """Shows token chunks, and until there are any a sign of life.

    Without a terminal there is no such sign, and an ensemble's texts are not shown before they are
    complete. `quiet` shows nothing at all.
    """

    def __init__(self, out: Console, *, quiet: bool, single: bool) -> None:
        self._out = out
        self._quiet = quiet
        self._single = single
        self._texts: dict[str, str] = {}
        waiting = Spinner("dots", "asking ...")
        self._live = Live(waiting, console=out, refresh_per_second=REFRESH_PER_S, transient=True)

    @property
    def text(self) -> str:
        """What has been printed of the one answer, if it is one."""
        return "".join(self._texts.values()) if self._single and not self._quiet else ""

    def __enter__(self) -> LiveAnswers:
        if self._out.is_terminal and not self._quiet:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if error is not None and self.text:
            self._out.print()

    def add(self, chunk: TokenChunk) -> None:
        """Shows one more piece. A text that is begun again is shown anew, below what is void now."""
        before = "" if chunk.restarted else self._texts.get(chunk.agent, "")
        self._texts[chunk.agent] = before + chunk.text
        if self._quiet:
            return
        if self._single:
            self._live.stop()
            if chunk.restarted:
                self._out.print(Text(BEGUN_AGAIN, "dim"))
            self._out.print(Text(plain(chunk.text)), end="", soft_wrap=True)
            self._out.file.flush()
        elif self._out.is_terminal:
            self._live.update(self._side_by_side())

    def _side_by_side(self) -> Table:
        rows = table("agent", "answer", named=True)
        for agent, text in sorted(self._texts.items()):
            rows.add_row(agent, Text(plain(text)))
        return rows
