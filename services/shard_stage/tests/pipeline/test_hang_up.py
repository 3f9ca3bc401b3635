"""Who hangs up while a prompt is read ends the step at hand in every stage, and costs nobody else a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.demo_models.bench_model import write_bench_model
from services.engine.decode.batch import Batch
from services.engine.decode.context import DECODED, INTERRUPTED, Context
from services.shard_stage.pipeline.sequence_state import SequenceState
from services.shard_stage.tests.helpers.line import Line, text_of
from services.shard_stage.tests.pipeline.test_line import GREEDY, QUESTIONS, engine_says

STAGES = 3
LONG = "word " * 36
MANY = 40


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bench_model(tmp_path_factory.mktemp("b") / "four.gguf", layers=4, width=64)


@dataclass
class Watched:
    """A pipeline whose steps are noted. `meanwhile` is done in the midst of the next step of `stage` that has
    a prompt; of each step since then `steps` has the stage, the rows, and how the step ended."""

    line: Line
    stage: int = 0
    meanwhile: Callable[[], None] | None = None
    steps: list[tuple[int, int, int]] = field(default_factory=list)

    def watch(self) -> None:
        """From now on steps are noted."""
        for stage, context in enumerate(reversed(self.line.contexts)):
            self._watch(stage, context.context)

    def _watch(self, stage: int, context: Context) -> None:
        decode = context.decode

        def watched(batch: Batch) -> int:
            if self.meanwhile is not None and stage == self.stage and batch.size > len(QUESTIONS):
                self.steps.clear()
                do, self.meanwhile = self.meanwhile, None
                do()
            status = decode(batch)
            self.steps.append((stage, batch.size, status))
            return status

        context.decode = watched  # type: ignore[method-assign]


@pytest.fixture
def watched(model: Path, tmp_path: Path) -> Iterator[Watched]:
    line = Line(model, tmp_path, STAGES)
    watched = Watched(line)
    watched.watch()
    yield watched
    line.close()


def is_cancelled(sequence: SequenceState) -> bool:
    return sequence.finished is not None and sequence.finished.finish_reason == "cancelled"


@pytest.mark.parametrize("partition", ["tokenwise", "layerwise"])
@pytest.mark.parametrize("stage", range(STAGES))
def test_a_prompt_that_was_given_up_is_read_no_further_in_any_stage(
    watched: Watched, model: Path, stage: int, partition: str
) -> None:
    *expected, whole = [finished.text for finished in engine_says(model, [*QUESTIONS[:2], LONG], GREEDY)]
    line = watched.line
    # Given two texts, and a third whose prompt is being read
    speakers = [line.submit(question, GREEDY) for question in QUESTIONS[:2]]
    line.pump(8)
    long = line.submit(LONG, GREEDY, partition=partition)
    watched.stage, watched.meanwhile = stage, lambda: line.hang_up(long)
    # When its client hangs up in the midst of a step
    line.pump()
    # Then that step ends, and none reads any more of it
    assert watched.meanwhile is None
    assert watched.steps[0] == (stage, watched.steps[0][1], INTERRUPTED)
    assert all(status == DECODED and rows <= len(speakers) for _, rows, status in watched.steps[1:])
    assert is_cancelled(long)
    assert [text_of(sequence) for sequence in speakers] == expected
    # And nothing is left of it: who asks the same gets the text that it would have got
    assert not any(later.cells() or later.has_work for later in line.later.values())
    again = line.submit(LONG, GREEDY)
    line.pump()
    assert text_of(again) == whole
    assert not any(later.lost for later in line.later.values())


@pytest.mark.parametrize("stage", range(STAGES))
def test_clients_that_hang_up_all_the_time_keep_nobody_from_speaking(
    watched: Watched, model: Path, stage: int
) -> None:
    (expected,) = engine_says(model, QUESTIONS[:1], GREEDY)
    line = watched.line
    speaker = line.submit(QUESTIONS[0], GREEDY)
    line.pump(2)
    for number in range(MANY):
        long = line.submit(f"{number} {LONG}", GREEDY, partition="tokenwise")
        watched.stage, watched.meanwhile = stage, lambda long=long: line.hang_up(long)
        line.pump(until=lambda: watched.meanwhile is None)
        assert watched.meanwhile is None
    assert text_of(speaker) == expected.text


@pytest.mark.parametrize("moment", ["before it begins", "while it is read"])
def test_a_text_that_stage_0_wants_all_the_same_is_fed_again(
    watched: Watched, model: Path, moment: str
) -> None:
    """As when stage 0 was not connected, and did not hear who hung up."""
    (expected,) = engine_says(model, [LONG], GREEDY)
    line = watched.line
    long = line.submit(LONG, GREEDY, partition="tokenwise")
    last = line.later[STAGES - 1]
    if moment == "before it begins":
        last.hang_up(long.command.request_id)
    else:
        watched.stage = STAGES - 1
        watched.meanwhile = lambda: last.hang_up(long.command.request_id)
    line.pump()
    read = [rows for stage, rows, status in watched.steps if stage == STAGES - 1 and status == DECODED]
    assert not read and not long.finished
    line.next_epoch()
    line.open()
    line.pump()
    assert text_of(long) == expected.text
