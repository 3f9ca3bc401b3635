from __future__ import annotations

import numpy as np
import pytest

from services.engine.decode.logprobs import log_softmax, most_probable, token_logprob
from services.engine.model.model import Model


def test_probabilities_sum_to_one_even_for_large_logits() -> None:
    logprobs = log_softmax(np.array([1000.0, 999.0, -1000.0], dtype=np.float32))
    assert np.exp(logprobs).sum() == pytest.approx(1.0)
    assert logprobs[0] == pytest.approx(-0.3133, abs=1e-4)


def test_the_most_probable_come_in_order_and_never_more_than_there_are() -> None:
    logprobs = np.array([-3.0, -1.0, -2.0], dtype=np.float32)
    assert most_probable(logprobs, 2) == [1, 2]
    assert most_probable(logprobs, 9) == [1, 2, 0]


def test_a_token_is_reported_with_its_alternatives(model: Model) -> None:
    logits = np.zeros(model.vocab_size, dtype=np.float32)
    logits[[ord("a"), ord("b")]] = (2.0, 3.0)
    reported = token_logprob(model, logits, ord("a"), 2)
    assert reported.text == "a"
    assert [token.text for token in reported.top] == ["b", "a"]
    assert reported.top[1].logprob == reported.logprob < reported.top[0].logprob
