from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import InvalidRequest
from schemas.requests.sampling import Sampling
from services.engine import Engine
from services.engine.decode.rows import RowGroup, Rows
from services.engine.decode.sampler import new_sampler
from services.engine.decode.stage_context import StageContext
from services.engine.model.model import Model

LARGEST_SEED = 2**32 - 1


def said(engine: Engine, sampling: Sampling, prompt: str = "Say something") -> str:
    return engine.generate(prompt, sampling).text


def test_greedy_decoding_says_the_same_whatever_the_seed(engine: Engine) -> None:
    assert said(engine, Sampling(max_tokens=20, seed=1)) == said(engine, Sampling(max_tokens=20, seed=2))


@pytest.mark.parametrize("seed", [0, 7, LARGEST_SEED])
def test_one_seed_says_the_same_twice(engine: Engine, seed: int) -> None:
    sampling = Sampling(max_tokens=20, temperature=1.5, seed=seed)
    assert said(engine, sampling) == said(engine, sampling)


def test_seeds_and_temperature_make_a_difference(engine: Engine) -> None:
    texts = {said(engine, Sampling(max_tokens=20, temperature=1.5, seed=seed)) for seed in range(4)}
    assert len(texts) == 4


def test_top_k_of_one_is_greedy(engine: Engine) -> None:
    hot = Sampling(max_tokens=20, temperature=2, top_k=1)
    assert said(engine, hot) == said(engine, Sampling(max_tokens=20))


def test_a_narrow_top_p_is_greedy_and_filters_can_be_off(engine: Engine) -> None:
    narrow = Sampling(max_tokens=20, temperature=2, top_p=1e-6)
    assert said(engine, narrow) == said(engine, Sampling(max_tokens=20))
    assert said(engine, Sampling(max_tokens=20, temperature=2, top_k=0, top_p=1))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_grammar_is_kept_to_and_its_end_ends_the_text(engine: Engine, temperature: float) -> None:
    sampling = Sampling(grammar='root ::= ("yes" | "no") "!"', temperature=temperature)
    finished = engine.generate("Well?", sampling)
    assert finished.text in {"yes!", "no!"}
    assert finished.finish_reason == "stop"


def test_text_after_a_schema_is_json_of_that_schema(engine: Engine) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"enum": ["A", "B"]}, "sure": {"type": "boolean"}},
        "required": ["answer", "sure"],
    }
    for seed in range(5):
        answer = json.loads(said(engine, Sampling(json_schema=schema, temperature=1, seed=seed)))
        assert answer["answer"] in {"A", "B"} and isinstance(answer["sure"], bool)


def test_a_string_of_a_schema_has_no_control_characters(engine: Engine, model_path: Path) -> None:
    breaks = {int(token): 50.0 for token in Model(model_path).tokenize("\n\t\n")}
    wanted = {"type": "string", "minLength": 4, "maxLength": 12}
    for schema in (wanted, {"type": "object", "properties": {"a": wanted}, "required": ["a"]}):
        text = said(engine, Sampling(json_schema=schema, logit_bias=breaks, max_tokens=40))
        assert json.loads(text), text


def test_a_grammar_may_ask_for_characters_of_several_bytes(engine: Engine) -> None:
    assert said(engine, Sampling(grammar='root ::= "日本"')) == "日本"


def test_a_dead_end_of_a_grammar_ends_the_text_not_the_process(engine: Engine) -> None:
    finished = engine.generate("Well?", Sampling(grammar='root ::= "a" <[99999]>'))
    assert finished.text == "a"
    assert finished.stop_detail == "grammar_end"


@pytest.mark.parametrize("grammar", ["root ::= (", 'start ::= "a"', 'root ::= root "a"', "no grammar at all"])
def test_a_grammar_that_does_not_parse_is_an_invalid_request(engine: Engine, grammar: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        engine.submit("Well?", Sampling(grammar=grammar))
    assert caught.value.field == "sampling.grammar"


def test_a_token_is_the_same_whether_llama_cpp_reads_the_logits_or_is_handed_them(model_path: Path) -> None:
    model = Model(model_path)
    options: tuple[dict[str, object], ...] = (
        {"temperature": 0.9, "top_k": 0, "top_p": 1.0},
        {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.01},
        {"temperature": 1.2, "frequency_penalty": 0.7, "repeat_penalty": 1.3, "logit_bias": {70: -100.0}},
        {"temperature": 0.0, "presence_penalty": 0.5},
    )
    with StageContext(model, slots=1, context_tokens=64, batch_tokens=8) as stage:
        for chosen in options:
            sampling = Sampling(seed=3, **chosen)
            reads, handed = new_sampler(model, sampling), new_sampler(model, sampling)
            stage.forget(0)
            token = int(model.tokenize("a")[-1])
            for position in range(12):
                stage.evaluate(Rows.of([RowGroup(0, position, np.array([token], dtype=np.int32))]), [0])
                found = reads.sample(stage.context, 0), handed.choose(stage.context.logits(0))
                assert found[0] == found[1] and reads.draws == handed.draws, (chosen, position)
                token = int(found[0] or 0)
            reads.close()
            handed.close()


@pytest.mark.parametrize("top_p", [0.2, 0.95])
@pytest.mark.parametrize("grammar", [None, 'root ::= [a-m ]+ "."'])
def test_a_sampler_that_takes_over_says_what_the_first_would_have(
    model_path: Path, top_p: float, grammar: str | None
) -> None:
    """With a narrow top_p some tokens are the only candidate; a grammar makes the sampler draw again."""
    model = Model(model_path)
    sampling = Sampling(temperature=1.2, seed=5, top_p=top_p, grammar=grammar)
    first, said = new_sampler(model, sampling), list[int]()
    with StageContext(model, slots=1, context_tokens=64, batch_tokens=8) as stage:
        token = int(model.tokenize("a")[-1])
        for position in range(24):
            stage.evaluate(Rows.of([RowGroup(0, position, np.array([token], dtype=np.int32))]), [0])
            second = new_sampler(model, sampling, said=said, draws=first.draws)
            found = [sampler.sample(stage.context, 0) for sampler in (second, first)]
            assert found[0] == found[1] and second.draws == first.draws
            second.close()
            if found[0] is None or model.ends_generation(found[0]):
                break
            said.append(found[0])
            token = found[0]
    first.close()
    assert len(said) > 3
