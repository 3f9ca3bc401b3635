"""Lends cursors of a connection, so that it can be closed: DuckDB does not close one that is busy.

A cursor is lent for a while, to be used in one thread. Before the connection is closed whoever works is cut
off, and it is waited for that all have given their cursors back: one that lived on would keep the old file.
Statements of users are cut off too where they have the memory that whoever writes does not find.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
from duckdb import DuckDBPyConnection

from schemas.errors import InternalError, NotReady

INTERRUPT_INTERVAL_S = 0.05
STAND_BACK_S = 1.0
"""So long a statement waits for its cursor, where somebody writes who has found no memory."""


class StoodBack(Exception):
    """Raised in the thread of a statement that was cut off for whoever writes."""


@dataclass(eq=False)
class Lent:
    """A cursor that somebody works with. That of a statement `stands_back` for whoever writes; `stood_back`
    says that it was told to."""

    cursor: DuckDBPyConnection
    stands_back: bool = False
    stood_back: bool = False


class Lending:
    """Lends cursors of one connection at a time, to any thread."""

    def __init__(self) -> None:
        self._connection: DuckDBPyConnection | None = None
        self._closing: DuckDBPyConnection | None = None
        self._lent: list[Lent] = []
        self._undisturbed = False
        self._changed = threading.Condition(threading.RLock())

    def open(self, connection: DuckDBPyConnection) -> None:
        """Lends cursors of this connection from now on."""
        with self._changed:
            self._connection = connection

    @contextmanager
    def cursor(self) -> Iterator[DuckDBPyConnection]:
        """A cursor that is closed when the context ends. Raises NotReady while there is no connection."""
        with self._changed:
            lent = self._lend(stands_back=False)
        try:
            yield lent.cursor
        finally:
            self._give_back(lent)

    @contextmanager
    def statement_cursor(self) -> Iterator[DuckDBPyConnection]:
        """The same for a user's statement, which stands back for whoever writes and finds no memory.

        Raises StoodBack if it was cut off for that, NotReady if it may not begin within STAND_BACK_S.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._undisturbed, STAND_BACK_S):
                raise NotReady("events are being stored that need all memory, try again", retry_after_s=0.5)
            lent = self._lend(stands_back=True)
        try:
            yield lent.cursor
        except duckdb.InterruptException as error:
            if lent.stood_back:
                raise StoodBack from error
            raise
        finally:
            self._give_back(lent)

    @contextmanager
    def undisturbed(self, patience_s: float) -> Iterator[None]:
        """For one thread: cuts off all statements of users, and lets none begin until the context ends.

        One that has not noticed after `patience_s` is no longer waited for, and keeps what it has.
        """
        with self._changed:
            self._undisturbed = True
            self._cut_off_statements(time.monotonic() + patience_s)
        try:
            yield
        finally:
            with self._changed:
                self._undisturbed = False
                self._changed.notify_all()

    def kept_cursor(self) -> DuckDBPyConnection:
        """A cursor for as long as the connection is open; only for the thread that closes it."""
        with self._changed:
            if self._connection is None:
                raise NotReady("the event database is being opened, try again", retry_after_s=0.5)
            return self._connection.cursor()

    def close(self, patience_s: float) -> None:
        """Cuts off who works with a cursor, and closes the connection. It may be closed already.

        Raises InternalError if somebody still works after `patience_s`. Nothing more is lent then, and
        closing can be tried again.
        """
        end_s = time.monotonic() + patience_s
        with self._changed:
            self._closing, self._connection = self._connection or self._closing, None
            while self._lent:
                if time.monotonic() >= end_s:
                    raise InternalError(
                        f"the event database could not be closed: {len(self._lent)} who read it did not end "
                        f"within {patience_s:g} s, though they were cut off"
                    )
                for lent in self._lent:
                    lent.cursor.interrupt()
                self._changed.wait(INTERRUPT_INTERVAL_S)
            if self._closing is not None:
                self._closing.close()
                self._closing = None

    def _lend(self, *, stands_back: bool) -> Lent:
        lent = Lent(self.kept_cursor(), stands_back)
        self._lent.append(lent)
        return lent

    def _give_back(self, lent: Lent) -> None:
        with self._changed:
            self._lent.remove(lent)
            lent.cursor.close()
            self._changed.notify_all()

    def _cut_off_statements(self, end_s: float) -> None:
        while statements := [lent for lent in self._lent if lent.stands_back]:
            if time.monotonic() >= end_s:
                return
            for lent in statements:
                lent.stood_back = True
                lent.cursor.interrupt()
            self._changed.wait(INTERRUPT_INTERVAL_S)
