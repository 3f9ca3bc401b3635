"""The runs in a folder: evaluations (`run_...`) and load tests (`loadtest_...`), as they were written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

NAME = re.compile(r"^(run|loadtest)_[A-Za-z0-9][A-Za-z0-9_.-]{0,120}$")
CHART = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,120}\.svg$")
LARGEST = 32 * 1024 * 1024

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One run. `config` and `summary` are as its files have them; empty where there is none that is whole."""

    name: str
    path: Path
    config: Mapping[str, Any]
    summary: Any

    @property
    def kind(self) -> Literal["evaluation", "load test"]:
        """What was run."""
        return "evaluation" if self.name.startswith("run_") else "load test"

    @property
    def started_at(self) -> str:
        """When it began, as it says itself."""
        return str(self.config.get("created_at") or self.config.get("started_at") or "")[:19].replace(
            "T", " "
        )

    @property
    def of(self) -> str:
        """What of: benchmarks or workloads."""
        if self.kind == "evaluation":
            return ", ".join(self.config.get("benchmarks") or ())
        return (
            ", ".join((self.summary or {}).get("workloads") or ()) if isinstance(self.summary, dict) else ""
        )

    @property
    def charts(self) -> tuple[str, ...]:
        """The names of its charts."""
        folder = self.path / "charts"
        found = sorted(each.name for each in folder.glob("*.svg")) if folder.is_dir() else []
        return tuple(name for name in found if CHART.match(name))

    @property
    def has_questions(self) -> bool:
        """Whether it says what was made of each question."""
        return (self.path / "raw_records.parquet").is_file() and (self.path / "decisions.parquet").is_file()

    @property
    def rows(self) -> Sequence[Row]:
        """The rows of its table: a contestant on a benchmark, or a metric of a workload."""
        if self.kind == "evaluation":
            return [row for row in self.summary or () if isinstance(row, dict)]
        if not isinstance(self.summary, dict):
            return ()
        parts = {"all": self.summary, **(self.summary.get("workloads") or {})}
        return [
            {"workload": workload, "metric": metric, **figures}
            for workload, part in parts.items()
            for metric, figures in (part.get("metrics") or {}).items()
            if isinstance(figures, dict)
        ]


def runs(folder: Path) -> tuple[Run, ...]:
    """All runs, the latest first; none where there is no such folder."""
    if not folder.is_dir():
        return ()
    found = [_read(each) for each in folder.iterdir() if NAME.match(each.name) and each.is_dir()]
    return tuple(sorted(found, key=lambda run: (run.started_at, run.name), reverse=True))


def run_named(folder: Path, name: str) -> Run | None:
    """One run; None if there is none of that name."""
    path = folder / name
    return _read(path) if NAME.match(name) and path.is_dir() else None


def _read(path: Path) -> Run:
    config, summary = _document(path / "config.json"), _document(path / "summary.json")
    return Run(path.name, path, config if isinstance(config, dict) else {}, summary)


def _document(path: Path) -> Any:
    """What a file says; None for one that is not there, too large, or not whole yet."""
    try:
        if path.stat().st_size > LARGEST:
            return None
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
