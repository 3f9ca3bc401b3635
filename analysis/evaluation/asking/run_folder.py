"""The folder of a run: its configuration, its journal, and what is written from them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from analysis.evaluation.options import EvalOptions
from analysis.evaluation.provenance.models import ModelFile
from schemas.errors import InvalidRequest
from schemas.message import Struct

CONFIG_FILE = "config.json"
JOURNAL_FILE = "journal.jsonl"
USAGE_FILE = "usage.jsonl"
RUN_PREFIX = "run_"


class RunConfig(Struct):
    """What config.json says: the options, whom they were asked of, with which files, on what machine, with
    which commit of Choir. `models` are the files behind the agents."""

    run_id: str
    created_at: str
    options: EvalOptions
    agents: tuple[str, ...]
    slots: dict[str, int]
    benchmarks: dict[str, dict[str, Any]]
    versions: dict[str, str]
    machine: dict[str, Any]
    replay_of: str | None = None
    models: dict[str, ModelFile] = Field(default_factory=dict)
    commit: str | None = None
    asked_as: str = ""
    """What the ids of its requests begin with: its own, for two runs may begin in one second under one name.
    Empty in older runs, whose ids were made of `run_id`."""

    @property
    def ids_of(self) -> str:
        """What sets its requests apart from every other run's."""
        return self.asked_as or self.run_id


class RunFolder:
    """One run on disk."""

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path = path
        self.config = config

    @property
    def journal(self) -> Path:
        """Where the answers are."""
        return self.path / JOURNAL_FILE

    @property
    def usage(self) -> Path:
        """Where the samples of processors' use are."""
        return self.path / USAGE_FILE

    @classmethod
    def create(cls, results: Path, config: RunConfig) -> RunFolder:
        """A new folder `run_<time>_<name>` that nobody else has."""
        path = results / config.run_id
        try:
            path.mkdir(parents=True, exist_ok=False)
            (path / CONFIG_FILE).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise InvalidRequest(
                f"output: {path} cannot be made: {error.strerror}", field="output"
            ) from error
        return cls(path, config)

    @classmethod
    def open(cls, path: Path, field: str) -> RunFolder:
        """A folder that is there; InvalidRequest, naming `field`, if it holds no run."""
        file = path / CONFIG_FILE
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            return cls(path, RunConfig.model_validate(document))
        except OSError as error:
            raise InvalidRequest(f"{field}: {path} is no run: {file} cannot be read", field=field) from error
        except ValueError as error:
            raise InvalidRequest(f"{field}: {file} is not the configuration of a run", field=field) from error

    def check_same(self, options: EvalOptions, said: Iterable[str]) -> None:
        """InvalidRequest, naming the option, if one said now is not what the run was started with."""
        for name in said:
            before, now = getattr(self.config.options, name), getattr(options, name)
            if before != now:
                raise InvalidRequest(
                    f"resume: {self.path} was started with {name} {before!r}, not {now!r}; "
                    "leave it out, or start a run of its own",
                    field=name,
                )

    def check_models(self, models: Mapping[str, ModelFile]) -> None:
        """InvalidRequest, naming the model, if one is served from another file than at the start."""
        for name, now in models.items():
            before = self.config.models.get(name, now)
            if before.sha256_of_samples != now.sha256_of_samples:
                raise InvalidRequest(
                    f"resume: {name} is served from another file ({now.file}) than when {self.path} was "
                    f"started ({before.file}); start a run of its own",
                    field="resume",
                )

    def check_files(self, benchmarks: Mapping[str, Mapping[str, Any]]) -> None:
        """InvalidRequest, naming the benchmark, if its files or its protocol are not those of the start."""
        for name, described in benchmarks.items():
            if self.config.benchmarks.get(name) != json.loads(json.dumps(described)):
                raise InvalidRequest(
                    f"resume: {name} is not what {self.path} was started with: its file or protocol differs",
                    field="resume",
                )


def run_id(name: str, now_s: float | None = None) -> tuple[str, str]:
    """`run_20261121-014500_eval` and `2026-11-21T01:45:00Z`: the time in UTC."""
    moment = time.gmtime(now_s)
    return (
        f"{RUN_PREFIX}{time.strftime('%Y%m%d-%H%M%S', moment)}_{name}",
        time.strftime("%Y-%m-%dT%H:%M:%SZ", moment),
    )
