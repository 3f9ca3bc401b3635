"""The store of models on a terminal."""

from __future__ import annotations

from schemas.errors import ErrorBody
from schemas.nodes.model_store import (
    CopyPlace,
    ModelCopy,
    ModelFile,
    Origin,
    StoredModel,
    StoreEntry,
    StoreJob,
    StoreSpace,
)
from services.cli.tests.views.shown import lines_of
from services.cli.views.tables.store_view import (
    jobs_table,
    missing_lines,
    model_lines,
    models_table,
    progress_line,
    spaces_table,
)

GB = 10**9
MODEL = StoredModel(
    name="llama3.2:3b",
    files=(ModelFile(name="llama-3.2-3b.gguf", size_bytes=8 * GB, sha256="ab" * 32),),
    architecture="llama",
    licence="llama3.2",
    licence_text="LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\n\nYou may [red]not[/red] \x1b[31mpaint\n",
    origin=Origin(kind="local", place="/srv/llama-3.2-3b.gguf"),
    added_at_s=0.0,
    min_copies=2,
)
ATTIC = ModelCopy(instance="attic-store", host="attic", whole=True, live=True)


def test_a_model_of_the_store_says_why_a_copy_is_missing() -> None:
    places = (
        CopyPlace(instance="barn-store", host="barn"),
        CopyPlace(instance="cellar-store", host="cellar", lacks="memory", has_bytes=4 * GB),
        CopyPlace(instance="dock-store", host="dock", lacks="server"),
        CopyPlace(instance="loft-store", host="loft", lacks="disk", has_bytes=1 * GB),
    )
    entry = StoreEntry(model=MODEL, copies=(ATTIC,), places=places)
    told = [
        "llama3.2:3b: 1 copy is missing",
        "  barn makes one as soon as it is its turn",
        "  cellar is a last choice: agents there have 4.0 GB of memory, and the weights take 8.0 GB",
        "  dock is a last choice: no agent there loads the model, and no stage offers it",
        "  loft makes none: its store has room for 1.0 GB, and the model takes 8.0 GB",
    ]
    assert list(missing_lines(entry)) == told
    assert set(told) < set(model_lines(entry))
    away = StoreEntry(model=MODEL, copies=(ATTIC.model_copy(update={"live": False}),))
    assert list(missing_lines(away)) == [
        "llama3.2:3b: 2 copies are missing",
        "  no host that is there now holds all of it",
        "  there is no other host with a store",
    ]
    enough = MODEL.model_copy(update={"min_copies": 1})
    assert list(missing_lines(StoreEntry(model=enough, copies=(ATTIC,)))) == []


def test_a_model_in_several_files_is_shown_with_the_hash_of_each_and_of_all() -> None:
    files = tuple(MODEL.files[0].model_copy(update={"sha256": sha256}) for sha256 in ("ab" * 32, "cd" * 32))
    split = MODEL.model_copy(update={"files": files, "joined_sha256": "ef" * 32})
    told = list(model_lines(StoreEntry(model=split, copies=(ATTIC,))))
    assert told[2:5] == [
        f"  llama-3.2-3b.gguf  8.0 GB  sha256 {'ab' * 32}",
        f"  llama-3.2-3b.gguf  8.0 GB  sha256 {'cd' * 32}",
        f"  all files, one after another: sha256 {'ef' * 32}",
    ]
    assert not any("one after another" in line for line in model_lines(StoreEntry(model=MODEL)))


def test_the_text_of_a_licence_is_shown_as_it_stands() -> None:
    lines = lines_of(*model_lines(StoreEntry(model=MODEL, copies=(ATTIC,))))
    assert "licence: llama3.2" in lines
    begins = lines.index("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT")
    assert lines[begins + 1] == "" and lines[begins + 2].startswith("You may [red]not[/red]")
    assert not any("\x1b" in line for line in lines)


def test_models_of_the_store_are_a_table_with_copies_and_who_has_them() -> None:
    barn = ATTIC.model_copy(update={"instance": "barn-store", "host": "barn", "live": False})
    part = ATTIC.model_copy(update={"instance": "dock-store", "host": "dock", "whole": False})
    split = MODEL.model_copy(
        update={"name": "big", "files": MODEL.files * 2, "quantisation": "Q4_K_M", "min_copies": 1}
    )
    entries = [StoreEntry(model=MODEL, copies=(ATTIC, barn, part)), StoreEntry(model=split)]
    assert lines_of(models_table(entries)) == [
        "model        architecture  size     weights  files  copies  on",
        "llama3.2:3b  llama         8.0 GB   -        1      1 of 2  attic, barn (away)",
        "big          llama         16.0 GB  Q4_K_M   2      0 of 1  nobody",
    ]


def test_jobs_and_the_room_of_stores_are_tables() -> None:
    running = StoreJob(
        id="j-1", kind="pull", model="big", instance="attic-store", host="attic", state="running",
        done_bytes=3 * GB, total_bytes=12 * GB, bytes_per_s=112_000_000,
    )  # fmt: skip
    problem = ErrorBody(code="no_room", message="no room \x1b[31mhere")
    failed = running.model_copy(update={"id": "j-2", "kind": "add", "state": "failed", "problem": problem})
    assert lines_of(jobs_table([running, failed])) == [
        "job  what  model  host   state    so far",
        "j-1  pull  big    attic  running  3.0 GB of 12.0 GB  112.0 MB/s, 80 s left",
        "j-2  add   big    attic  failed   3.0 GB of 12.0 GB  no room [31mhere",
    ]
    space = StoreSpace(instance="attic-store", host="attic", used_bytes=170_000, free_bytes=2 * GB)
    assert lines_of(spaces_table([space])) == [
        "store        host   pulled    room",
        "attic-store  attic  170.0 kB  2.0 GB",
    ]


def test_how_far_a_job_is_stands_in_one_line_of_80_columns() -> None:
    job = StoreJob(
        id="j-1", kind="pull", model="little", instance="attic-store", host="attic", state="running",
        done_bytes=3 * GB, total_bytes=12 * GB, bytes_per_s=112_000_000,
    )  # fmt: skip
    assert progress_line(job, 80) == "pull little: 3.0 GB of 12.0 GB (25 %), 112.0 MB/s, 80 s left"

    def at(bytes_per_s: float, **fields: object) -> str:
        return progress_line(job.model_copy(update={"bytes_per_s": bytes_per_s, **fields}), 80)

    assert at(30_000_000).endswith(", 30.0 MB/s, 5 min left")
    assert at(500_000).endswith(", 500.0 kB/s, 5.0 h left")
    assert at(0) == "pull little: 3.0 GB of 12.0 GB (25 %), nothing comes now"
    assert at(0, state="waiting") == "pull little: waits for others to end"
    assert at(0, total_bytes=0, done_bytes=0) == "pull little: begins"
    long = at(999_900_000, model="hf:organisation-of-many/a-very-long-name-of-a-model-GGUF:Q4_K_M")
    assert len(long) == 80 and long.startswith("pull hf:organ") and "GGUF:Q4_K_M: 3.0 GB of" in long
