"""A batch that an earlier version of Choir began, and in which it was killed, goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from services.cli.tests.conftest import Cli

KEPT = Path(__file__).parent / "kept" / "batch.journal"


def test_a_batch_of_an_earlier_version_goes_on_with_its_journal(cli: Cli, tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.txt").write_text(f"Text {number}.")
    journal = tmp_path / ".r.json.journal"
    shutil.copyfile(KEPT, journal)
    whole, torn = KEPT.read_bytes().rsplit(b"\n", 1)
    assert torn

    outcome = cli(
        *("batch", "-i", ".", "--glob", "*.txt", "-p", "Who wrote {filename}? {content}"),
        *("-o", "r.json", "-m", "choir-four", "--max-concurrent", "2"),
    )
    assert outcome.code == 0, outcome.err
    assert "8 tasks, 4 of them done before" in outcome.err
    assert journal.read_bytes().startswith(whole + b"\n{")
    results = {entry["file"]: entry for entry in json.loads((tmp_path / "r.json").read_text())["results"]}
    assert {entry["success"] for entry in results.values()} == {True}
    before = [json.loads(line) for line in whole.splitlines()]
    for kept in (line["record"] for line in before if line["line"] == "done" and line["record"]["success"]):
        assert results[kept["file"]]["timings"]["total_s"] == kept["timings"]["total_s"]
    asked = [json.loads(line) for line in journal.read_bytes().splitlines()[len(before) :]]
    assert sorted(line["task"] for line in asked if line["line"] == "asked") == [
        "prompt-1:1.txt",
        "prompt-1:7.txt",
    ], "those that were on their way go on under their ids"
