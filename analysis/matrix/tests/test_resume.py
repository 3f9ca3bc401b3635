"""A matrix that an earlier version of Choir began, and in which it was killed, goes on."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

from analysis.matrix.options import MatrixOptions
from analysis.matrix.session import measure
from services.client.bulk.progress import PlainReporter

KEPT = Path(__file__).parent / "kept"
OPTIONS = MatrixOptions(
    generators=("choir-one", "choir-four"),
    summarizers=("choir-two", "choir-four"),
    prompts=("Where?",),
    repetitions=3,
)


async def test_a_matrix_of_an_earlier_version_goes_on_with_its_folder(live_mesh: str, tmp_path: Path) -> None:
    shutil.copytree(KEPT, tmp_path / "out")
    whole, torn = (KEPT / "results.jsonl").read_bytes().rsplit(b"\n", 1)
    assert torn

    report = await measure(OPTIONS, tmp_path / "out", 2, PlainReporter(sys.stderr), url=live_mesh)
    assert [(pair.cells, pair.failed) for pair in report.pairs] == [(3, 0)] * 4
    kept = (tmp_path / "out" / "results.jsonl").read_bytes()
    assert kept.startswith(whole + b"\n{")
    assert kept.count(b"\n") == 12, "what was there has not been asked again"
    with (tmp_path / "out" / "matrix.csv").open(newline="", encoding="utf-8") as file:
        assert len({row["request_id"] for row in csv.DictReader(file)}) == 12
