"""What a new stage 0 learns of its predecessor's sequences."""

from __future__ import annotations

from dataclasses import replace

from schemas.pipelines.activations import Dtype, Flags, Frame
from schemas.pipelines.stage_wire import Outcome, Start, Token
from schemas.tests.golden.stage_samples import STAGE_SAMPLES
from services.shard_stage.handover.journal import Journal

PIPELINE = 7
BODY = STAGE_SAMPLES["sequence_start"].to_bytes()
START = Start(1, PIPELINE, 5, 0, BODY)
FIRST = Token(1, PIPELINE, 5, 21, 100, 1)


def journal(*items: Start | Token | Frame) -> Journal:
    made = Journal(PIPELINE)
    for item in items:
        made.take(item)
    return made


def test_a_sequence_that_began_is_left_with_its_tokens_in_order() -> None:
    second = replace(FIRST, position=22, token=101)
    (left,) = journal(START, second, FIRST).left
    assert [token.token for token in left.generated] == [100, 101]


def test_tokens_after_a_missing_one_are_not_known() -> None:
    (left,) = journal(START, FIRST, replace(FIRST, position=23)).left
    assert len(left.generated) == 1


def test_a_token_that_was_sampled_again_in_a_later_epoch_counts_once() -> None:
    (left,) = journal(START, FIRST, replace(START, epoch=2), replace(FIRST, epoch=2)).left
    assert len(left.generated) == 1


def test_it_is_known_whether_a_sequence_has_decoded_since_its_last_start() -> None:
    again = replace(START, epoch=2)
    assert journal(START, FIRST).left[0].has_decoded
    assert not journal(START, FIRST, again, replace(FIRST, epoch=2)).left[0].has_decoded
    assert journal(START, FIRST, again, replace(FIRST, position=22)).left[0].has_decoded


def test_what_has_ended_is_not_left() -> None:
    end = Frame(1, PIPELINE, 0, 5, 22, 0, 32, Dtype.F32, b"", Flags.ENDS_SEQUENCE)
    assert journal(START, FIRST, end).left == ()


def test_what_is_no_token_and_what_is_of_another_pipeline_does_not_count() -> None:
    failed = replace(FIRST, outcome=Outcome.FAILED)
    (left,) = journal(START, failed, replace(START, sequence=6, pipeline=8)).left
    assert left.generated == []


def test_a_start_that_cannot_be_read_is_passed_over() -> None:
    assert journal(replace(START, body=b"{}")).left == ()
