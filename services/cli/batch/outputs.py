"""The results of a batch as files: JSON, CSV, Markdown. Written record by record, whatever their number."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from schemas.errors import InvalidRequest
from schemas.message import Struct
from services.cli.batch.records import TaskRecord

Records = Callable[[], Iterator[tuple[TaskRecord, str]]]
"""All records, with the templates of their prompts; may be called again and again."""


class Totals(Struct):
    """What a batch came to. `success_rate` is in percent; times are of all its runs together."""

    timestamp: datetime
    files_processed: int
    total_tasks: int
    successful: int
    failed: int
    unfinished: int
    success_rate: float
    total_time_seconds: float
    tasks_per_second: float

    @classmethod
    def of(cls, records: Iterator[TaskRecord], tasks: int, seconds: float) -> Totals:
        """Counts records; `tasks` is how many there are to be."""
        files: set[str] = set()
        successful = failed = 0
        for record in records:
            files.add(record.file)
            successful += record.success
            failed += not record.success
        return cls(
            timestamp=datetime.now(UTC),
            files_processed=len(files),
            total_tasks=tasks,
            successful=successful,
            failed=failed,
            unfinished=tasks - successful - failed,
            success_rate=round(100 * successful / tasks, 2) if tasks else 0.0,
            total_time_seconds=round(seconds, 3),
            tasks_per_second=round((successful + failed) / seconds, 3) if seconds else 0.0,
        )


def result_of(record: TaskRecord, template: str) -> dict[str, Any]:
    """One entry of `results`: file, prompt_template, success, response, and what else is known."""
    entry = record.model_dump(mode="json", exclude_none=True)
    entry["prompt_template"] = template
    if (speed := record.timings.tokens_per_s) is not None:
        entry["timings"]["tokens_per_s"] = round(speed, 3)
    return entry


def write_json(file: IO[str], totals: Totals, records: Records) -> None:
    """One document: the totals, then `results`."""
    head = totals.model_dump_json(indent=2).rstrip("}").rstrip()
    file.write(f'{head},\n  "results": [')
    between = "\n"
    for record, template in records():
        file.write(between + "    " + json.dumps(result_of(record, template), ensure_ascii=False))
        between = ",\n"
    file.write("\n  ]\n}\n")


CSV_COLUMNS = (
    "file", "prompt", "success", "model", "instance", "response", "error_code", "error", "parts", "attempt",
    "total_s", "queue_s", "generation_s", "prompt_tokens", "generated_tokens", "tokens_per_s",
)  # fmt: skip


def write_csv(file: IO[str], _totals: Totals, records: Records) -> None:
    """One row for each task."""
    rows = csv.writer(file)
    rows.writerow(CSV_COLUMNS)
    for record, _ in records():
        reply, error, timings = record.response, record.error, record.timings
        said = (reply.model, reply.instance, reply.response) if reply else ("", "", "")
        fault = (error.code, error.message) if error else ("", "")
        speed = timings.tokens_per_s
        rows.writerow(
            (
                *(record.file, record.prompt, record.success, *said, *fault, record.parts, record.attempt),
                *(timings.total_s, timings.queue_s, timings.generation_s),
                *(timings.prompt_tokens, timings.generated_tokens, "" if speed is None else round(speed, 3)),
            )
        )


def write_markdown(file: IO[str], totals: Totals, records: Records) -> None:
    """A chapter for each document, a section for each prompt, and the failures in a list at the top."""
    file.write(
        f"# {totals.files_processed} documents, {totals.total_tasks} questions\n\n"
        f"{totals.timestamp:%Y-%m-%d %H:%M} UTC: {totals.successful} answered, {totals.failed} failed, "
        f"{totals.unfinished} not asked yet, in {totals.total_time_seconds:.0f} s.\n"
    )
    for record, _ in records():
        if record.error is not None:
            file.write(f"\n- {record.file}, {record.prompt}: {record.error.code}: {record.error.message}")
    chapter = None
    for record, _ in records():
        if record.response is None:
            continue
        if record.file != chapter:
            chapter = record.file
            file.write(f"\n\n## {chapter}\n")
        file.write(f"\n### {record.prompt}\n\n{record.response.response.strip()}\n")
        file.write(f"\n*{record.response.model}, {record.timings.total_s:.1f} s*\n")


WRITERS: dict[str, Callable[[IO[str], Totals, Records], None]] = {
    ".json": write_json,
    ".csv": write_csv,
    ".md": write_markdown,
}
"""What is written into a file with a given suffix."""


def check_outputs(paths: tuple[Path, ...]) -> None:
    """Raises InvalidRequest for a file that could not be written when all is done."""
    for path in paths:
        if path.suffix.lower() not in WRITERS:
            raise InvalidRequest(f"{path}: results are written as {', '.join(WRITERS)}", field="output")
        if not path.absolute().parent.is_dir():
            raise InvalidRequest(f"{path}: there is no folder {path.absolute().parent}", field="output")


def write_outputs(paths: tuple[Path, ...], totals: Totals, records: Records) -> None:
    """Writes all files; each appears under its name only when it is whole."""
    for path in paths:
        unfinished = path.with_name(f".{path.name}.part")
        with unfinished.open("w", encoding="utf-8", newline="" if path.suffix == ".csv" else None) as file:
            WRITERS[path.suffix.lower()](file, totals, records)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
