"""`choir eval`, once its options are read: a new run, one that goes on, or kept answers decided again."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.evaluation.asking.journal import read_journal
from analysis.evaluation.asking.run_folder import CONFIG_FILE, RunFolder, run_id
from analysis.evaluation.asking.session import ask_all, new_folder, resumed
from analysis.evaluation.benchmarks.benchmark import SCORED
from analysis.evaluation.options import EvalOptions, build_options
from analysis.evaluation.provenance.cache import AnswerCache
from analysis.evaluation.reporting.outputs import write_outputs
from schemas.errors import InvalidRequest
from services.client.bulk.progress import Reporter

REPLAYABLE = ("strategies", "seed", "name", "extraction", "effort", "orders")
"""What a replay may say differently from the run that it decides again."""


def evaluate(
    said: Mapping[str, Any],
    *,
    results: Path,
    out: Reporter,
    resume: str | None = None,
    replay: str | None = None,
    url: str | None = None,
    concurrency: int | None = None,
) -> RunFolder:
    """Asks what is to be asked, writes all files of the run, and returns its folder.

    `said` has the options that were given, and no others. ChoirError says what cannot be done; answers that
    came before that are in the folder, and `resume` goes on with it.
    """
    if replay is not None:
        folder = _replayed(find_run(replay, results, "replay"), said, results)
    elif resume is not None:
        folder = find_run(resume, results, "resume")
        folder.check_same(build_options(folder.config.options.model_dump() | dict(said)), said)
        asking = ask_all(
            resumed(folder),
            folder.config.options,
            out,
            agents=folder.config.agents,
            url=url,
            concurrency=concurrency,
            cache=_cache(folder.config.options),
        )
        asyncio.run(asking)
    else:
        options = build_options(said)
        asking = ask_all(
            new_folder(results, options),
            options,
            out,
            url=url,
            concurrency=concurrency,
            cache=_cache(options),
        )
        folder = asyncio.run(asking)
    out.say("counting and writing ...")
    write_outputs(folder)
    return folder


def _cache(options: EvalOptions) -> AnswerCache | None:
    """The answers of earlier runs. A mesh that is taught has to be asked: else it learns nothing."""
    return AnswerCache() if options.cache and not options.teach else None


def find_run(said: str, results: Path, field: str) -> RunFolder:
    """A run by its folder, or by its name within the folder of results."""
    here, there = Path(said), results / said
    return RunFolder.open(here if (here / CONFIG_FILE).is_file() else there, field)


def _replayed(before: RunFolder, said: Mapping[str, Any], results: Path) -> RunFolder:
    """A new folder with the answers of another, to be decided as is said now."""
    if fixed := [name for name in said if name not in REPLAYABLE]:
        raise InvalidRequest(
            f"replay: {', '.join(fixed)} cannot be changed: the answers are there already; "
            f"what can is {', '.join(REPLAYABLE)}",
            field=fixed[0],
        )
    if not read_journal(before.journal):
        raise InvalidRequest(f"replay: {before.path} holds no answers", field="replay")
    now = {"name": f"{before.config.options.name}-replay", **said}
    options = build_options(before.config.options.model_dump() | now)
    if options.extraction is not None:
        _check_way(before, options.extraction)
    identity, created_at = run_id(options.name)
    benchmarks = {
        name: described | ({"extraction": options.extraction} if options.extraction else {})
        for name, described in before.config.benchmarks.items()
    }
    config = before.config.model_copy(
        update={
            "run_id": identity,
            "created_at": created_at,
            "options": options,
            "benchmarks": benchmarks,
            "replay_of": before.config.run_id,
        }
    )
    folder = RunFolder.create(results, config)
    shutil.copyfile(before.journal, folder.journal)
    if before.usage.is_file():
        shutil.copyfile(before.usage, folder.usage)
    return folder


def _check_way(before: RunFolder, way: str) -> None:
    """InvalidRequest if kept answers cannot be read so: what was scored has no texts, and what was written no
    scores."""
    for name, described in before.config.benchmarks.items():
        if (described["extraction"] in SCORED) != (way in SCORED):
            raise InvalidRequest(
                f"extraction: {name} was read as {described['extraction']!r}, and its answers cannot be read "
                f"as {way!r}: ask it again",
                field="extraction",
            )
