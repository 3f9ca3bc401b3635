"""A run goes on only as what it was."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from analysis.evaluation.asking import plan
from analysis.evaluation.asking.journal import read_journal
from analysis.evaluation.asking.protocol import open_protocol
from analysis.evaluation.asking.run_folder import RunConfig, RunFolder, run_id
from analysis.evaluation.asking.session import Members, ask_all, new_folder
from analysis.evaluation.options import build_options
from schemas.errors import InvalidRequest
from services.client.bulk.progress import PlainReporter


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run of a file of the test's own, that has not asked anything yet."""
    own = Path(__file__).parents[2] / "datasets" / "choir-truthfulqa" / "multiple_choice.jsonl"
    file = tmp_path / "questions.jsonl"
    shutil.copyfile(own, file)
    options = build_options({"benchmarks": ("truthfulqa",), "data": {"truthfulqa": str(file)}})
    identity, created_at = run_id("test", now_s=0)
    config = RunConfig(
        run_id=identity,
        created_at=created_at,
        options=options,
        agents=("alpha",),
        slots={"alpha": 4},
        benchmarks={"truthfulqa": open_protocol("truthfulqa", options).described()},
        versions={},
        machine={},
    )
    return RunFolder.create(tmp_path / "results", config)


def described(folder: RunFolder) -> dict[str, object]:
    """What would be asked now."""
    return open_protocol("truthfulqa", folder.config.options).described()


def test_a_folder_is_named_after_its_time_and_read_as_it_was_written(folder: RunFolder) -> None:
    assert folder.path.name == "run_19700101-000000_test"
    assert RunFolder.open(folder.path, "resume").config == folder.config
    folder.check_files({"truthfulqa": described(folder)})


def test_two_runs_never_share_a_folder(folder: RunFolder) -> None:
    with pytest.raises(InvalidRequest, match="cannot be made: File exists"):
        RunFolder.create(folder.path.parent, folder.config)


def test_two_runs_of_one_name_and_second_ask_under_ids_of_their_own(
    folder: RunFolder, tmp_path: Path
) -> None:
    protocols, members = (
        {"truthfulqa": open_protocol("truthfulqa", folder.config.options)},
        Members({"a": 1}, {}),
    )
    made = [new_folder(tmp_path / where, folder.config.options)(protocols, members) for where in ("x", "y")]
    first = next(iter(plan.items(folder.config.options, protocols)))
    one, other = (
        {call.request_id for call in plan.questions(run.config.ids_of, first, ("a",), run.config.options)}
        for run in made
    )
    assert one and other and not one & other
    # A run of an earlier version goes on under the ids that it had
    assert folder.config.ids_of == folder.config.run_id


def test_a_file_that_has_changed_since_is_an_error_that_names_the_benchmark(
    folder: RunFolder, tmp_path: Path
) -> None:
    lines = (tmp_path / "questions.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "questions.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(InvalidRequest, match=r"truthfulqa is not what .* was started with"):
        folder.check_files({"truthfulqa": described(folder)})


@pytest.mark.parametrize(
    ("name", "value"), [("samples", 3), ("strategies", ("majority",)), ("benchmarks", ("choir-mmlu",))]
)
def test_another_option_than_that_of_the_start_is_an_error_that_names_it(
    folder: RunFolder, name: str, value: object
) -> None:
    now = folder.config.options.model_copy(update={name: value})
    folder.check_same(folder.config.options, [name])
    with pytest.raises(InvalidRequest, match=f"was started with {name}") as caught:
        folder.check_same(now, [name])
    assert caught.value.field == name


@pytest.mark.parametrize("content", ["", "{}", "[1, 2]", '{"run_id": 7}'])
def test_a_folder_with_another_config_is_no_run(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InvalidRequest, match="not the configuration of a run"):
        RunFolder.open(tmp_path, "resume")


async def test_a_run_of_an_earlier_version_goes_on_with_its_journal(live_mesh: str, tmp_path: Path) -> None:
    """It was killed after four answers and within the line of a fifth."""
    kept = Path(__file__).parent / "kept_run" / "journal.jsonl"
    whole, torn = kept.read_bytes().rsplit(b"\n", 1)
    assert torn
    models = ("choir-one", "choir-four")
    options = build_options(
        {
            "benchmarks": ("choir-mmlu",),
            "strategies": ("majority",),
            "samples": 24,
            "models": models,
            "self_consistency": 0,
        }
    )
    config = RunConfig(
        run_id="run_20261121-210056_eval",
        created_at="2026-11-21T21:00:56Z",
        options=options,
        agents=models,
        slots=dict.fromkeys(models, 4),
        benchmarks={},
        versions={},
        machine={},
    )
    folder = RunFolder.create(tmp_path, config)
    shutil.copyfile(kept, folder.journal)
    before = read_journal(folder.journal)

    await ask_all(lambda *_: folder, options, PlainReporter(sys.stderr), agents=models, url=live_mesh)
    after = read_journal(folder.journal)
    assert folder.journal.read_bytes().startswith(whole + b"\n{")
    assert after[: len(before)] == before
    assert len(after) == len({each.request_id for each in after}) == 24
