"""The DuckDB file: opened with no access to other files, its tables those of the models.

One process writes the file, and while it is open no other can even read it: whoever wants to ask, asks
`choir.sql` or opens the Parquet files.
"""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from schemas.errors import ConfigurationError
from services.chassis.logs import get_logger
from services.metrics.low_priority import lower_priority
from services.metrics.store.lending import Lending
from services.metrics.store.tables import OtherShape, definitions, literal, migrations, quoted
from services.metrics.store.views import install

FILE_NAME = "events.duckdb"
PARQUET_FOLDER = "parquet"
SPILL_FOLDER = "spill"
WAL_SUFFIX = ".wal"
DAMAGED = (
    duckdb.IOException,
    duckdb.SerializationException,
    duckdb.InternalException,
    duckdb.FatalException,
    duckdb.CatalogException,
)
CUT_OFF_PATIENCE_S = 10.0
"""How long whoever works with the database may take to notice that it is closed."""
STAND_BACK_PATIENCE_S = 1.0
"""How long a batch that found no memory waits for statements to notice that they are cut off."""
HELD_BY_ANOTHER = "conflicting lock"

log = get_logger("metrics.database")


def limit_spill(connection: DuckDBPyConnection, spill_mb: int) -> None:
    """What does not fit into the memory may take `spill_mb` of the disk (MiB). Given to DuckDB 2.0 as it
    connects, the limit is shown and not kept."""
    connection.execute(f"SET max_temp_directory_size = '{spill_mb}MiB'")


class Database:
    """The event database of one folder. Open it once; every query gets a cursor of its own.

    It is opened, closed and written in one thread, and read in any.
    """

    def __init__(
        self, folder: Path, views: Path, memory_mb: int, *, threads: int = 2, spill_mb: int = 1024
    ) -> None:
        self.folder = folder.absolute()
        self.views = views
        self.memory_mb = memory_mb
        self._threads = threads
        self._spill_mb = spill_mb
        self._lending = Lending()
        self.set_aside: str | None = None

    @property
    def path(self) -> Path:
        """The database file."""
        return self.folder / FILE_NAME

    @property
    def parquet(self) -> Path:
        """Where the Parquet files are."""
        return self.folder / PARQUET_FOLDER

    def open(self) -> None:
        """Opens or makes the database. One that cannot be read is set aside, and a new one begun.

        Raises ConfigurationError if the folder cannot be written or another process holds the file.
        """
        self._make_folders()
        began_s = time.time()
        try:
            self._open()
        except OtherShape as error:
            self._begin_anew(str(error))
        except duckdb.Error as error:
            if HELD_BY_ANOTHER in str(error).lower():
                raise ConfigurationError(
                    f"another process has {self.path} open: one metrics service keeps one folder; "
                    "set another folder in section [metrics]",
                    field="metrics.folder",
                ) from error
            if no_room(error):
                raise
            self._begin_anew(first_line(error))
        self._clear_spill(began_s)

    def begin_anew(self, why: str) -> None:
        """Sets the file aside that turned out to be damaged while it was used, and begins a new one."""
        self.close()
        self._begin_anew(why)

    def verify(self, table: str) -> None:
        """Reads every block of a table once; DuckDB raises an error for one that is damaged."""
        with self.cursor() as cursor:
            cursor.execute(f"SELECT max(hash(t)) FROM {quoted(table)} AS t").fetchall()

    def cursor(self) -> AbstractContextManager[DuckDBPyConnection]:
        """A connection of one's own to the same database, for use in one thread while the context lasts.

        Raises NotReady while the database is closed, because it is opened again; who works with it by then
        gets duckdb.InterruptException.
        """
        return self._lending.cursor()

    def statement_cursor(self) -> AbstractContextManager[DuckDBPyConnection]:
        """The same for a user's statement, which is cut off where a batch finds no memory: StoodBack is then
        raised where it works. Raises NotReady also while such a batch is stored."""
        return self._lending.statement_cursor()

    def undisturbed(self) -> AbstractContextManager[None]:
        """For the thread that writes, where it found no memory: no statement of a user has any until the
        context ends, but those that do not notice in time that they are cut off."""
        return self._lending.undisturbed(STAND_BACK_PATIENCE_S)

    def writing_cursor(self) -> DuckDBPyConnection:
        """A cursor for as long as the database is open, for the thread that writes and closes it."""
        return self._lending.kept_cursor()

    def close(self) -> None:
        """Cuts off who works with it, writes what is still in the log into the file, and lets go of it.

        Raises InternalError if somebody cannot be cut off in time: a process that ends is the only way out.
        """
        self._lending.close(CUT_OFF_PATIENCE_S)

    def note(self, text: str) -> None:
        """Writes into `database_notes` what happened to the database."""
        with self.cursor() as cursor:
            cursor.execute("INSERT INTO database_notes VALUES (now()::TIMESTAMP, ?)", [text])

    def _make_folders(self) -> None:
        try:
            for folder in (self.folder, self.parquet, self.folder / SPILL_FOLDER):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"metrics.folder: {self.folder} cannot be made: {error.strerror}", field="metrics.folder"
            ) from error

    def _open(self) -> None:
        config: dict[str, str | bool | int | float | list[str]] = {
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
            "python_scan_all_frames": "false",
            "memory_limit": f"{self.memory_mb}MB",
            "threads": str(self._threads),
            "temp_directory": str(self.folder / SPILL_FOLDER),
        }
        # DuckDB's own threads, which help statements, have the priority of the thread that starts them.
        with ThreadPoolExecutor(1, initializer=lower_priority) as low:
            connection = low.submit(duckdb.connect, str(self.path), config=config).result()
        try:
            limit_spill(connection, self._spill_mb)
            connection.execute("SET TimeZone = 'UTC'")
            migrate(connection)
            install(connection, self.views)
            # Blocks are read when they are asked for: this one has to be right before anything is stored.
            connection.execute("SELECT max(hash(p)) FROM stream_position AS p").fetchall()
            connection.execute(f"SET allowed_directories = [{literal(str(self.parquet))}]")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
        except BaseException:
            connection.close()
            raise
        self._lending.open(connection)

    def _clear_spill(self, before_s: float) -> None:
        """Removes what is older: whoever left it was killed, for the file is this process's alone by now."""
        for left in (self.folder / SPILL_FOLDER).iterdir():
            if left.stat().st_mtime >= before_s:
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)

    def _begin_anew(self, why: str) -> None:
        kept = self.path.with_name(f"{FILE_NAME}.set-aside-{time.strftime('%Y%m%dT%H%M%S')}-{time.time_ns()}")
        for suffix in ("", WAL_SUFFIX):
            found = Path(f"{self.path}{suffix}")
            if found.exists():
                found.rename(f"{kept}{suffix}")
        self.set_aside = f"the event database could not be read ({why}); it lies in {kept.name}"
        log.error("database set aside, a new one is filled from the stream", why=why, kept=str(kept))
        self._open()
        self.note(f"a new database was begun: {self.set_aside}")


def migrate(connection: DuckDBPyConnection) -> None:
    """Makes missing tables and adds missing columns, in one transaction. Raises OtherShape."""
    found: dict[str, dict[str, str]] = {}
    columns = "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal"
    tables = {row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    for table, column, data_type in connection.execute(columns).fetchall():
        if table in tables:
            found.setdefault(table, {})[column] = data_type
    connection.execute("BEGIN")
    for name, wanted in definitions().items():
        for statement in migrations(name, wanted, found.get(name)):
            connection.execute(statement)
    connection.execute("COMMIT")


def damaged(error: Exception) -> bool:
    """Whether a failure is the file's, not a statement's; a wrong checksum has no class of its own."""
    return isinstance(error, DAMAGED) or type(error) is duckdb.Error


def no_room(error: Exception) -> bool:
    """Whether a failure says that the disk is full (or that a limit on file sizes acts like one)."""
    said = str(error).lower()
    return any(words in said for words in ("no space left", "file too large", "disk quota", "disk full"))


def first_line(error: Exception) -> str:
    """The text of a DuckDB error, without the statement and the stack that follow."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
