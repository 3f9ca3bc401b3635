from __future__ import annotations

import numpy as np
import pytest

from schemas.requests.sampling import Sampling
from services.engine.decode.sampler import TokenSampler
from services.engine.sequence.generation import Finished, Generation, TokenEvent
from services.engine.sequence.sequence import Sequence

Events = list[TokenEvent | Finished]


def sequence(events: Events, sampling: Sampling) -> Sequence:
    prompt = np.array([1, 2, 3], dtype=np.int32)
    generation = Generation(wake=lambda: None)
    return Sequence(prompt, sampling, TokenSampler(sampling), generation, events.append)


def test_tokens_without_text_to_show_share_the_next_event() -> None:
    events: Events = []
    one = sequence(events, Sampling())
    one.append_token(7, "é".encode()[:1], None)
    assert events == []
    one.append_token(8, "é".encode()[1:], None)
    assert events == [TokenEvent("é", generated_tokens=2)]
    one.finish("length", detail="max_tokens")


def test_what_was_held_back_is_told_before_the_end() -> None:
    events: Events = []
    one = sequence(events, Sampling(stop=("END",)))
    assert one.append_token(7, b"the EN", None) is None
    one.finish("length", detail="max_tokens")
    assert [event.text for event in events] == ["the ", "EN", "the EN"]
    assert isinstance(events[-1], Finished) and events[-1] is one.generation.finished


def test_a_stop_string_is_not_told() -> None:
    events: Events = []
    one = sequence(events, Sampling(stop=("END",)))
    assert one.append_token(7, b"the END of", None) == "END"
    one.finish("stop", detail="stop_string", stop_string="END")
    finished = one.generation.wait()
    assert (finished.text, finished.stop_string, finished.generated_tokens) == ("the ", "END", 1)


def test_times_add_up_and_are_zero_for_what_did_not_happen() -> None:
    waiting = sequence([], Sampling())
    waiting.finish("cancelled")
    finished = waiting.generation.wait()
    assert finished.queue_ns > 0
    assert (finished.prompt_eval_ns, finished.eval_ns, finished.first_token_ns) == (0, 0, 0)
    assert finished.prompt_tokens == 3


def test_a_listener_that_fails_is_not_called_again(caplog: pytest.LogCaptureFixture) -> None:
    calls: Events = []

    def fails(event: TokenEvent | Finished) -> None:
        calls.append(event)
        raise RuntimeError("the loop is closed")

    one = sequence([], Sampling())
    one._on_event = fails
    one.append_token(7, b"a", None)
    one.finish("cancelled")
    assert len(calls) == 1 and one.cancelled
    assert "the listener of a generation failed" in caplog.text
