"""Settings of the metrics service: section `[metrics]`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from services.chassis.settings import Section, ServiceSettings

DEFAULT_FOLDER = Path(".choir/metrics")
VIEWS_FOLDER = Path(__file__).resolve().parent / "sql" / "views"


class MetricsSection(Section):
    """`enabled` says whether this host keeps the event database of its mesh.

    `folder` holds the database and its Parquet files; `choir up` puts it into its state folder, and a
    relative path starts at the working directory. A batch is committed when it has `batch_rows` events or
    `batch_wait_s` is over. Every `export_interval_s` what is new is written to Parquet (0 writes none).
    Rows and files older than `keep_days` go, and the oldest hours before that if the database, or the
    Parquet files, would hold more than `keep_bytes` each. With less than `min_free_bytes` free on its disk
    nothing more is stored until there is room: events wait in their stream.

    A statement gets at most `query_timeout_s` and `query_rows`, and all statements together, with the
    ingest, get `memory_mb`; `queries_at_once` of one tenant run at the same time, four times as many wait,
    and one more thread is left to other tenants. Beside the
    thread of each statement `threads` less one help all of them, and what does not fit into the memory takes
    at most `spill_mb` of the disk: of all statements of those who see all rows, and once more of all others.
    """

    enabled: bool = True
    folder: Path = DEFAULT_FOLDER
    views: Path = VIEWS_FOLDER
    batch_rows: int = Field(default=8_192, ge=1, le=100_000)
    batch_wait_s: float = Field(default=0.2, ge=0.0, le=10.0)
    export_interval_s: float = Field(default=60.0, ge=0.0)
    keep_days: float = Field(default=30.0, gt=0.0)
    keep_bytes: int = Field(default=8 * 1024**3, ge=1024**2)
    min_free_bytes: int = Field(default=256 * 1024**2, ge=0)
    query_timeout_s: float = Field(default=30.0, gt=0.0, le=600.0)
    query_rows: int = Field(default=100_000, ge=1, le=100_000)
    queries_at_once: int = Field(default=4, ge=1, le=64)
    memory_mb: int = Field(default=192, ge=64)
    threads: int = Field(default=2, ge=1, le=256)
    spill_mb: int = Field(default=1024, ge=0)

    @property
    def threads_of_statements(self) -> int:
        """How many statements run at the same time, whoever asks."""
        return self.queries_at_once + 1

    @property
    def spill_mb_of_a_tenants(self) -> int:
        """How much of the disk one statement takes that has a process of its own."""
        return self.spill_mb // self.threads_of_statements


class MetricsSettings(ServiceSettings):
    """Settings of the metrics service."""

    metrics: MetricsSection = MetricsSection()
