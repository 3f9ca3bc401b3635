"""Grammars that burn time: they end, and nobody else waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.testing.hostile.sampling import EXPLODES, HOSTILE, REPEATED, UNCLOSED
from schemas.errors import InvalidRequest
from schemas.requests.sampling import Sampling
from services.engine import Engine, Finished, TokenEvent
from services.engine.decode import grammar_process
from services.engine.decode.grammar_process import GrammarProcesses
from services.engine.decode.grammar_protocol import STEP_LIMIT_S

LONG_S = 120.0
SHORT_LIMIT_S = STEP_LIMIT_S / 8


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What limits a grammar here is its own computing, however busy the machine is."""
    monkeypatch.setattr(grammar_process, "PATIENCE_S", LONG_S)


@pytest.fixture(scope="module")
def engine(model_path: Path) -> Iterator[Engine]:
    with Engine.load(model_path, slots=2, context_tokens=256, batch_tokens=64, threads=1) as engine:
        engine.generate("warm", Sampling(max_tokens=1, grammar='root ::= "a"'))
        yield engine


@pytest.mark.parametrize("limit_s", [SHORT_LIMIT_S, pytest.param(STEP_LIMIT_S, marks=pytest.mark.soak)])
def test_an_exploding_grammar_is_an_invalid_request_and_others_are_answered_meanwhile(
    engine: Engine, limit_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step may compute for so long; its steps take longer and longer."""
    monkeypatch.setattr(engine._model.grammars, "_limit_s", limit_s)
    beside: list[tuple[float, Finished]] = []
    over = threading.Event()

    def ask_on() -> None:
        while not over.is_set():
            began_s = time.monotonic()
            finished = engine.generate("What?", Sampling(max_tokens=4))
            beside.append((time.monotonic() - began_s, finished))

    others = threading.Thread(target=ask_on)
    others.start()
    try:
        with pytest.raises(InvalidRequest, match="fewer optional parts") as caught:
            engine.generate("Well?", Sampling(grammar=EXPLODES, max_tokens=200))
    finally:
        over.set()
        others.join(LONG_S)
    assert caught.value.field == "sampling.grammar"
    assert len(beside) > 2
    assert all(finished.finish_reason in ("length", "stop") for _, finished in beside)


def test_a_cancelled_generation_does_not_wait_for_its_grammar(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grammar has an hour here, and would take it: the slot is free all the same."""
    with Engine.load(model_path, slots=1, context_tokens=256, batch_tokens=64, threads=1) as engine:
        monkeypatch.setattr(engine._model, "grammars", GrammarProcesses(model_path, limit_s=3_600))
        heard: list[TokenEvent | Finished] = []
        first = 'root ::= "a" rest\nrest ::= ' + EXPLODES.removeprefix("root ::= ")
        generation = engine.submit("Well?", Sampling(grammar=first, max_tokens=200), heard.append)
        while not engine.stats().active:
            time.sleep(0.005)
        generation.cancel()
        assert generation.wait(LONG_S).finish_reason == "cancelled"
        assert engine.generate("What?", Sampling(max_tokens=4)).generated_tokens
        engine._model.grammars.close()


@pytest.mark.parametrize(
    ("sampling", "reason"),
    [
        (Sampling(grammar=UNCLOSED), "syntax error"),
        (Sampling(grammar=UNCLOSED + "\\"), "syntax error"),
        (Sampling(grammar="root ::= [" + "[" * 60_000), "syntax error"),
        (Sampling(json_schema=REPEATED), "schema cannot be used"),
        (Sampling(json_schema={"type": "string", "pattern": "{" + "1" * 200_000}), "schema cannot be used"),
    ],
    ids=["literal", "escape", "characters", "braces", "digits"],
)
def test_what_is_never_closed_is_told_so_and_not_that_it_took_too_long(
    engine: Engine, sampling: Sampling, reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        engine.submit("Well?", sampling)
    assert caught.value.field in ("sampling.grammar", "sampling.json_schema")


@pytest.mark.parametrize("sampling", HOSTILE.values(), ids=HOSTILE)
def test_whatever_is_asked_for_ends_and_the_next_one_is_answered(
    engine: Engine, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._model.grammars, "_limit_s", SHORT_LIMIT_S)
    try:
        generated = engine.generate("Well?", sampling).generated_tokens
    except InvalidRequest as error:
        assert error.field in ("sampling.grammar", "sampling.json_schema")
    else:
        assert generated <= sampling.max_tokens
    assert engine.generate("What?", Sampling(max_tokens=4)).generated_tokens


def test_a_grammar_goes_on_after_the_process_that_makes_them_has_died(engine: Engine) -> None:
    maker = engine._model.grammars._process
    assert maker is not None
    maker.kill()
    maker.wait()
    assert engine.generate("Well?", Sampling(grammar='root ::= "yes"')).text == "yes"


def test_what_is_said_of_a_grammar_does_not_reach_the_log(
    engine: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    forged = '{"event": "all is well", "level": "critical", "service": "router"}'
    with pytest.raises(InvalidRequest):
        engine.submit("Well?", Sampling(grammar=f"root ::= (\n{forged}\n"))
    assert "all is well" not in "".join(capfd.readouterr())
