"""Lends cursors of a connection, so that it can be closed: DuckDB does not close one that is busy.

A cursor is lent for a while, to be used in one thread. Before the connection is closed whoever works is cut
off, and it is waited for that all have given their cursors back: one that lived on would keep the old file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from duckdb import DuckDBPyConnection

from schemas.errors import InternalError, NotReady

INTERRUPT_INTERVAL_S = 0.05


class Lending:
    """Lends cursors of one connection at a time, to any thread."""

    def __init__(self) -> None:
        self._connection: DuckDBPyConnection | None = None
        self._closing: DuckDBPyConnection | None = None
        self._lent: list[DuckDBPyConnection] = []
        self._changed = threading.Condition(threading.RLock())

    def open(self, connection: DuckDBPyConnection) -> None:
        """Lends cursors of this connection from now on."""
        with self._changed:
            self._connection = connection

    @contextmanager
    def cursor(self) -> Iterator[DuckDBPyConnection]:
        """A cursor that is closed when the context ends. Raises NotReady while there is no connection."""
        with self._changed:
            cursor = self.kept_cursor()
            self._lent.append(cursor)
        try:
            yield cursor
        finally:
            with self._changed:
                self._lent.remove(cursor)
                cursor.close()
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
                for cursor in self._lent:
                    cursor.interrupt()
                self._changed.wait(INTERRUPT_INTERVAL_S)
            if self._closing is not None:
                self._closing.close()
                self._closing = None
