"""Completions: what is asked of the mesh, and the arrays that lm-evaluation-harness adds up."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from schemas.commands import Ask
from schemas.errors import InvalidRequest
from schemas.replies import Embeddings
from services.gateway.http.body import checked
from services.gateway.openai.completions.body import CompletionBody, completion_asks
from services.gateway.openai.completions.completion import text_completion
from services.gateway.openai.embeddings import EmbeddingsBody, embedding_asks, embedding_list
from services.gateway.openai.tests.results import ENSEMBLE, ONE_MODEL, result

SCORING = {"temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}


def body_of(**fields: Any) -> CompletionBody:
    return checked({"model": "small", "prompt": "Once", **fields}, CompletionBody)


def asks_of(**fields: Any) -> list[Ask]:
    return completion_asks(body_of(**fields), ONE_MODEL, "r", 30.0)


def embeddings_of(given: Any, **fields: Any) -> EmbeddingsBody:
    return checked({"model": "small", "input": given, **fields}, EmbeddingsBody)


def token(text: str, logprob: float | None, **top: float) -> dict[str, Any]:
    told = {"text": text, "top": [{"text": name, "logprob": value} for name, value in top.items()]}
    return told if logprob is None else {**told, "logprob": logprob}


@pytest.mark.parametrize(
    ("prompt", "texts", "tokens"),
    [
        ("Once", ["Once"], [None]),
        (["Once", "Twice"], ["Once", "Twice"], [None, None]),
        ([1, 2], [None], [(1, 2)]),
        ([[1, 2], [3]], [None, None], [(1, 2), (3,)]),
    ],
)
def test_a_prompt_is_a_text_or_ids_or_several(prompt: Any, texts: list[Any], tokens: list[Any]) -> None:
    asks = asks_of(prompt=prompt)

    assert [ask.raw.text for ask in asks if ask.raw] == texts
    assert [ask.raw.tokens for ask in asks if ask.raw] == tokens
    assert len({ask.request_id for ask in asks}) == len(asks)


def test_a_text_is_scored_where_echo_and_probabilities_are_asked_for() -> None:
    [scored], [plain] = asks_of(**SCORING), asks_of(echo=True)

    assert (scored.sampling.prompt_logprobs, scored.sampling.logprobs) == (True, 1)
    assert (plain.sampling.prompt_logprobs, plain.sampling.logprobs) == (False, 0)
    assert plain.sampling.max_tokens == 16


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": {"text": "x"}}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["x"] * 1000}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 4}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": 99}, "logprobs"),
        ({"n": 2, **SCORING}, "n"),
    ],
)
def test_what_cannot_be_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asks_of(**fields)

    assert (refused.value.field or "").startswith(named)


def test_an_ensemble_scores_nothing_and_has_no_vectors() -> None:
    with pytest.raises(InvalidRequest, match="one model"):
        completion_asks(body_of(**SCORING), ENSEMBLE, "r", 30.0)
    with pytest.raises(InvalidRequest, match="one model"):
        embedding_asks(embeddings_of("x"), ENSEMBLE, "r", 30.0)


def test_the_arrays_have_all_tokens_of_the_prompt_and_one_more() -> None:
    # Given a prompt of three tokens, and a generated one that ends the text
    prompt = (token("On", None), token("ce", -0.1, ce=-0.1), token(" a", -3.25, b=-0.5))
    told = result("", prompt_logprobs=prompt, logprobs=(token("</s>", -0.7, **{"</s>": -0.7}),))

    [choice] = text_completion(body_of(**SCORING), "r", [told], ["Once a"])["choices"]

    # Then the harness, which adds up all but the first of the text and the last, finds what it needs
    logprobs = choice["logprobs"]
    assert choice["text"] == "Once a"
    assert logprobs["tokens"] == ["On", "ce", " a", "</s>"]
    assert logprobs["token_logprobs"] == [None, -0.1, -3.25, -0.7]
    assert logprobs["text_offset"] == [0, 2, 4, 6]
    assert logprobs["top_logprobs"][0] is None
    greedy = [
        own == max(top.values())
        for own, top in zip(logprobs["token_logprobs"][1:], logprobs["top_logprobs"][1:], strict=True)
    ]
    assert greedy == [True, False, True]


def test_a_token_that_the_model_has_before_each_text_is_none_of_the_prompts() -> None:
    added = {**token("<s>", None), "added": True}
    prompt = (added, token("On", -2.5, On=-2.5), token("ce", -0.1, ce=-0.1))
    told = result("", prompt_logprobs=prompt, logprobs=(token(" a", -0.7, a=-0.7),))

    [choice] = text_completion(body_of(**SCORING), "r", [told], ["Once"])["choices"]

    assert choice["logprobs"]["tokens"] == ["On", "ce", " a"]
    assert choice["logprobs"]["token_logprobs"] == [None, -0.1, -0.7]
    assert choice["logprobs"]["text_offset"] == [0, 2, 4]


def test_two_tokens_of_one_text_do_not_make_a_wrong_one_greedy() -> None:
    told = result("", logprobs=(token("\ufffd", -4.0, **{"\ufffd": -0.2}),))

    [choice] = text_completion(body_of(logprobs=1), "r", [told], [""])["choices"]

    assert choice["logprobs"]["top_logprobs"] == [{"\ufffd": -0.2}]
    assert choice["logprobs"]["token_logprobs"] == [-4.0]


def test_choices_are_in_the_order_of_the_prompts() -> None:
    told = [result("one"), result("two")]

    whole = text_completion(body_of(prompt=["a", "b"], echo=True), "r", told, ["a", "b"])

    assert [(c["index"], c["text"]) for c in whole["choices"]] == [(0, "aone"), (1, "btwo")]
    assert whole["usage"] == {"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16}


@pytest.mark.parametrize("given", [[1, 2], [[1, 2], [3]]])
def test_token_ids_of_another_tokenizer_are_refused_with_the_way_out(given: Any) -> None:
    with pytest.raises(InvalidRequest, match="check_embedding_ctx_length=False") as refused:
        embedding_asks(embeddings_of(given), ONE_MODEL, "r", 30.0)

    assert refused.value.field == "input"


@pytest.mark.parametrize("given", ["", [], [""], {"a": 1}, None, ["x", 1]])
def test_an_input_that_is_no_text_is_refused(given: Any) -> None:
    with pytest.raises(InvalidRequest, match="input"):
        embedding_asks(embeddings_of(given), ONE_MODEL, "r", 30.0)


def test_vectors_keep_the_order_of_their_texts_and_are_base64_unless_numbers_are_wanted() -> None:
    texts = [f"text {number}" for number in range(40)]
    asks = embedding_asks(embeddings_of(texts), ONE_MODEL, "r", 30.0)
    told = tuple(
        result("", embeddings=Embeddings.of([[1.0, 2.0]] * len(ask.embed.inputs)))
        for ask in asks
        if ask.embed
    )

    packed = embedding_list(embeddings_of(texts), told)
    numbers = embedding_list(embeddings_of(texts, encoding_format="float"), told)

    assert [text for ask in asks if ask.embed for text in ask.embed.inputs] == texts
    assert [entry["index"] for entry in packed["data"]] == list(range(40))
    assert struct.unpack("<2f", base64.b64decode(packed["data"][0]["embedding"])) == (1.0, 2.0)
    assert numbers["data"][39]["embedding"] == (1.0, 2.0)
