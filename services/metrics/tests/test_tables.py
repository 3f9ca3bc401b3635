"""Tables follow the models: what is new is added, what is gone stays, another type begins a new database."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.metrics.ingest.position import Position
from services.metrics.settings import VIEWS_FOLDER
from services.metrics.store.tables import OtherShape, definitions, migrations
from services.metrics.tests.test_parquet import opened, stored

WANTED = (("sequence", "BIGINT"), ("model", "VARCHAR"))


def test_what_is_missing_is_added() -> None:
    assert migrations("t", WANTED, None) == ['CREATE TABLE "t" ("sequence" BIGINT, "model" VARCHAR)']
    assert migrations("t", WANTED, {"sequence": "BIGINT"}) == ['ALTER TABLE "t" ADD COLUMN "model" VARCHAR']
    assert migrations("t", WANTED, {"sequence": "BIGINT", "model": "VARCHAR", "old": "DOUBLE"}) == []
    with pytest.raises(OtherShape, match="model"):
        migrations("t", WANTED, {"sequence": "BIGINT", "model": "BIGINT"})


def test_a_database_of_an_older_version_keeps_its_rows_and_gets_the_new_columns(tmp_path: Path) -> None:
    database, writer = opened(tmp_path)
    position = writer.write(stored(1, 5), Position())
    with database.cursor() as cursor:
        cursor.execute("DROP VIEW events")
        cursor.execute("ALTER TABLE task_completed DROP COLUMN topology")
        cursor.execute("ALTER TABLE task_completed ADD COLUMN forgotten VARCHAR")
        cursor.execute("DROP TABLE stage_stepped")
    database.close()
    database, writer = opened(tmp_path)
    assert database.set_aside is None and writer.position() == position
    writer.write(stored(6, 5), position)
    with database.cursor() as cursor:
        counts = "SELECT count(*), count(topology), count(forgotten) FROM task_completed"
        assert cursor.execute(counts).fetchone() == (10, 0, 0)
        assert cursor.execute("SELECT count(*) FROM stages").fetchone() == (0,)
    database.close()


def test_a_column_of_another_type_begins_a_new_database(tmp_path: Path) -> None:
    database, writer = opened(tmp_path)
    writer.write(stored(1, 5), Position())
    with database.cursor() as cursor:
        cursor.execute("DROP VIEW tasks")
        cursor.execute("ALTER TABLE task_completed ALTER prompt_tokens TYPE VARCHAR")
    database.close()
    database, writer = opened(tmp_path)
    assert database.set_aside is not None and "prompt_tokens" in database.set_aside
    assert writer.position() == Position()
    database.close()


def test_a_second_service_on_the_same_folder_is_told_so(tmp_path: Path) -> None:
    import subprocess
    import sys

    database, _ = opened(tmp_path)
    code = (
        "import sys; from pathlib import Path; from services.metrics.store.database import Database\n"
        "from schemas.errors import ConfigurationError\n"
        "try: Database(Path(sys.argv[1]), Path(sys.argv[2]), 128).open()\n"
        "except ConfigurationError as error: sys.stdout.write(error.field)"
    )
    ran = subprocess.run([sys.executable, "-c", code, tmp_path, VIEWS_FOLDER], capture_output=True, text=True)
    assert ran.stdout == "metrics.folder", ran.stderr
    database.close()


def test_every_kind_and_every_view_can_be_described(tmp_path: Path) -> None:
    database, _ = opened(tmp_path)
    with database.cursor() as cursor:
        names = {row[0] for row in cursor.execute("SHOW TABLES").fetchall()}
    database.close()
    views = {
        "completed_requests",
        "completed_tasks",
        "requests",
        "tasks",
        "decisions",
        "stages",
        "cut_moves",
        "nodes",
        "errors",
        "events",
    }
    assert names == set(definitions()) | views
