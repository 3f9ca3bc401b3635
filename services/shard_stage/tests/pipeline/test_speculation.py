"""Guessed tokens change no text, however right they are, in whatever order stages get on, whoever dies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from scipy.stats import chi2_contingency

from infra.demo_models.bench_model import write_bench_model
from infra.testing.made_models.variants import demo_model
from infra.testing.stand_ins.knowing import Knowing
from schemas.pipelines.activations import Frame
from schemas.pipelines.stage_wire import unpack
from schemas.requests.sampling import Sampling
from services.engine import ChatMessage, Engine, Finished
from services.shard_stage.pipeline.drafts import Lookup
from services.shard_stage.pipeline.sequence_state import SequenceState
from services.shard_stage.tests.helpers.line import CONTEXT_TOKENS, Line
from services.shard_stage.tests.pipeline.test_line import CONSTRAINED, QUESTIONS, line

LONG = Sampling(max_tokens=40)
LONG_RANDOM = Sampling(max_tokens=40, temperature=1.1, seed=3)
RIGHT = [0.0, 0.6, 0.8, 1.0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four narrow layers of random weights, that generate until they are told to stop."""
    return write_bench_model(tmp_path_factory.mktemp("b") / "four.gguf", layers=4, width=64)


def undisturbed(model: Path, folder: Path, samplings: list[Sampling]) -> list[SequenceState]:
    """What the same stages say to the first questions, a sampling for each, without a guess."""
    with line(model, folder, 2) as pipeline:
        found = []
        for question, sampling in zip(QUESTIONS, samplings, strict=False):
            found.append(pipeline.submit(question, sampling))
            pipeline.pump()
    return found


def knowing(known: list[SequenceState], probability: float) -> partial[Knowing]:
    return partial(Knowing, [sequence.tokens for sequence in known], probability)


def assert_same(found: list[SequenceState], wanted: list[SequenceState]) -> None:
    for mine, other in zip(found, wanted, strict=True):
        assert mine.tokens == other.tokens
        assert outcome(mine) == outcome(other)


def outcome(sequence: SequenceState) -> tuple[object, ...]:
    finished: Finished | None = sequence.finished
    assert finished is not None and finished.error is None, finished
    logprobs = [(token.token_id, token.logprob, token.top) for token in finished.logprobs]
    return finished.text, finished.finish_reason, finished.stop_detail, finished.stop_string, logprobs


def guesses(pipeline: Line, stage: int = 1) -> int:
    """How many guessed tokens a stage was sent."""
    frames = [i for message in pipeline.sent[stage] for i in unpack(message) if isinstance(i, Frame)]
    return sum(frame.speculation is not None and frame.speculation.token is not None for frame in frames)


def assert_sound(pipeline: Line) -> None:
    assert not any(stage.lost or stage.drops for stage in pipeline.later.values())


@pytest.mark.parametrize("stages", [2, 3, pytest.param(4, marks=pytest.mark.soak)])
@pytest.mark.parametrize("probability", RIGHT)
@pytest.mark.parametrize("sampling", [LONG, LONG_RANDOM], ids=["greedy", "random"])
def test_texts_are_the_same_however_often_guesses_are_right(
    model: Path, stages: int, probability: float, sampling: Sampling, tmp_path: Path
) -> None:
    known = undisturbed(model, tmp_path, [sampling] * 3)
    for seed in range(2):
        with line(model, tmp_path, stages, proposer=knowing(known, probability)) as pipeline:
            found = []
            for question in QUESTIONS[:3]:
                found.append(pipeline.submit(question, sampling))
                pipeline.wander(Random(seed))
            assert_same(found, known)
            assert_sound(pipeline)
            assert bool(guesses(pipeline)) == (probability > 0)


@pytest.mark.parametrize("sampling", CONSTRAINED, ids=range(len(CONSTRAINED)))
@pytest.mark.parametrize("probability", [0.7, pytest.param(1.0, marks=pytest.mark.soak)])
def test_grammars_stop_strings_limits_penalties_and_logprobs_are_kept(
    model: Path, sampling: Sampling, probability: float, tmp_path: Path
) -> None:
    known = undisturbed(model, tmp_path, [sampling] * 4)
    with line(model, tmp_path, 3, proposer=knowing(known, probability)) as pipeline:
        found = []
        for number, question in enumerate(QUESTIONS[:4]):
            found.append(pipeline.submit(question, sampling))
            pipeline.wander(Random(number))
        assert_same(found, known)
        assert_sound(pipeline)


@pytest.mark.parametrize("streams", [2, 3, pytest.param(8, marks=pytest.mark.soak)])
def test_several_streams_at_once_and_some_cancelled_keep_their_texts(
    model: Path, streams: int, tmp_path: Path
) -> None:
    samplings = [LONG, LONG_RANDOM] * 4
    known = undisturbed(model, tmp_path, samplings)
    with line(model, tmp_path, 4, proposer=knowing(known, 0.8)) as pipeline:
        chance, pairs = Random(streams), []
        for _ in range(6):
            begun = [chance.randrange(len(known)) for _ in range(streams)]
            pairs += [(pipeline.submit(QUESTIONS[n], samplings[n]), known[n]) for n in begun]
            pipeline.wander(chance, chance.randrange(400))
            pipeline.first.cancel(chance.choice(pairs)[0].id)
        pipeline.wander(chance)
        whole = [(s, k) for s, k in pairs if s.finished and s.finished.finish_reason != "cancelled"]
        assert len(whole) >= len(pairs) - 6
        assert_same([mine for mine, _ in whole], [other for _, other in whole])
        assert_sound(pipeline)


def test_streams_that_keep_all_stages_busy_leave_nothing_to_guess(model: Path, tmp_path: Path) -> None:
    known = undisturbed(model, tmp_path, [LONG] * 2)
    with line(model, tmp_path, 2, proposer=knowing(known, 1.0)) as pipeline:
        found = [pipeline.submit(question, LONG) for question in QUESTIONS[:2]]
        pipeline.wander(Random(1), 700)
        while all(sequence.finished is None for sequence in found):
            before = guesses(pipeline)
            pipeline.wander(Random(1), 1)
            assert guesses(pipeline) == before or not all(s.has_decoded for s in found)
        pipeline.wander(Random(2))
        assert_same(found, known)


@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize("probability", RIGHT)
def test_with_equally_fast_stages_turns_are_spared_as_often_as_guesses_are_right(
    model: Path, stages: int, probability: float, tmp_path: Path
) -> None:
    """The limit is S / (a + (1 - a) S)."""
    sampling = Sampling(max_tokens=160)
    turns = []
    with line(model, tmp_path, stages) as pipeline:
        known = [pipeline.submit(QUESTIONS[0], sampling)]
        turns.append(pipeline.march())
    with line(model, tmp_path, stages, proposer=knowing(known, probability)) as pipeline:
        found = [pipeline.submit(QUESTIONS[0], sampling)]
        turns.append(pipeline.march())
    assert_same(found, known)
    limit = stages / (probability + (1 - probability) * stages)
    assert turns[0] / turns[1] >= (1.0 if probability == 0 else 0.88 * limit)


@pytest.mark.parametrize("victim", [1, 2])
@pytest.mark.parametrize("seeds", [range(4), pytest.param(range(4, 64), marks=pytest.mark.soak)], ids=str)
@pytest.mark.parametrize("sampling", [LONG, LONG_RANDOM], ids=["greedy", "random"])
def test_a_stage_that_is_lost_at_any_moment_is_rebuilt_without_a_wrong_guess(
    model: Path, victim: int, seeds: range, sampling: Sampling, tmp_path: Path
) -> None:
    known = undisturbed(model, tmp_path, [sampling] * 2)
    for seed in seeds:
        chance = Random(seed)
        with line(model, tmp_path, 3, proposer=knowing(known, 0.6)) as pipeline:
            found = [pipeline.submit(question, sampling) for question in QUESTIONS[: 1 + seed % 2]]
            for _ in range(3):
                pipeline.wander(chance, chance.randrange(20, 160))
                pipeline.wires[victim].clear()
                pipeline.renew(victim)
                if seed % 3 == 2:  # a message that was never stored
                    del pipeline.sent[victim][chance.randrange(1, len(pipeline.sent[victim]))]
                pipeline.replay(victim)
                certain = {sequence.id: len(sequence.tokens) for sequence in pipeline.first.live}
                held = pipeline.later[victim].cells()
                assert all(held[number] <= certain.get(number, 0) for number in held)
                pipeline.next_epoch()
                pipeline.open()
            pipeline.wander(chance)
            assert_same(found, known[: len(found)])
            assert not any(stage.lost for stage in pipeline.later.values())


def test_a_guess_that_is_lost_on_the_way_is_noticed_and_computed_again(model: Path, tmp_path: Path) -> None:
    known = undisturbed(model, tmp_path, [LONG])
    for seed in range(6):
        chance = Random(seed)
        with line(model, tmp_path, 3, proposer=knowing(known, 0.8)) as pipeline:
            (sequence,) = found = [pipeline.submit(QUESTIONS[0], LONG)]
            while sequence.finished is None:
                pipeline.wander(chance, chance.randrange(120))
                wire = chance.choice(pipeline.wires)
                if wire and sequence.has_decoded and pipeline.plan.epoch < 6:
                    wire.popleft()
                pipeline.wander(chance)
                if sequence.finished is None:  # lost, or all stages rest and wait
                    pipeline.next_epoch()
                    pipeline.open()
            assert_same(found, known)


def test_beside_an_older_stage_nothing_is_guessed(model: Path, tmp_path: Path) -> None:
    known = undisturbed(model, tmp_path, [LONG])
    with line(model, tmp_path, 2, proposer=knowing(known, 1.0)) as pipeline:
        pipeline.open(speculates=False)
        found = [pipeline.submit(QUESTIONS[0], LONG)]
        pipeline.wander(Random(1))
        assert_same(found, known)
        assert not guesses(pipeline)


def test_lookup_guesses_what_followed_before() -> None:
    lookup = Lookup()
    assert lookup.propose([1, 2, 3, 4, 5], ()) is None
    assert lookup.propose([1, 2, 3, 4, 5, 1, 2], ()) == 3
    assert lookup.propose([1, 2, 3, 4, 5, 1, 2], (3,)) == 4
    assert lookup.propose([1, 2, 3, 4, 5, 1, 2, 3, 9], (2, 3)) == 9


def test_a_text_that_repeats_itself_is_guessed_by_lookup(model: Path, tmp_path: Path) -> None:
    sampling = Sampling(max_tokens=60, logit_bias={97: 100.0})
    known = undisturbed(model, tmp_path, [sampling])
    with line(model, tmp_path, 2, proposer=Lookup) as pipeline:
        found = [pipeline.submit(QUESTIONS[0], sampling)]
        pipeline.wander(Random(1))
        assert_same(found, known)
        assert guesses(pipeline) > 10


class Usual:
    """Guesses what most often followed the last token in some texts."""

    def __init__(self, texts: Sequence[Sequence[int]]) -> None:
        followed: dict[int, Counter[int]] = defaultdict(Counter)
        for text in texts:
            for token, following in pairwise(text):
                followed[token][following] += 1
        self._usual = {token: found.most_common(1)[0][0] for token, found in followed.items()}

    def propose(self, tokens: Sequence[int], guessed: Sequence[int]) -> int | None:
        """As Proposer.propose()."""
        return self._usual.get([*tokens[-1:], *guessed][-1])


@pytest.mark.soak
@pytest.mark.parametrize("name", ["llama", "qwen"])
def test_sampled_texts_with_guesses_are_distributed_as_those_of_the_engine(name: str, tmp_path: Path) -> None:
    """A chi-squared test of what stands at each of four places. The engine's texts have other seeds."""
    count, places, model = 250, (0, 1, 6, 12), demo_model(name)
    with line(model, tmp_path, 2) as pipeline:  # the model's answers are short
        ends = [
            n for n in range(pipeline.first._model.vocab_size) if pipeline.first._model.ends_generation(n)
        ]
    drawn = Sampling(
        max_tokens=14, temperature=1.2, top_k=12, logprobs=1, logit_bias=dict.fromkeys(ends, -100.0)
    )
    samplings = [drawn.model_copy(update={"seed": seed}) for seed in range(2 * count)]
    with Engine.load(model, slots=1, context_tokens=CONTEXT_TOKENS, threads=1) as engine:
        question = [ChatMessage("user", QUESTIONS[0])]
        finished = [engine.generate(question, sampling) for sampling in samplings[:count]]
    theirs = [[token.token_id for token in one.logprobs] for one in finished]
    usual = Usual(theirs)
    with line(model, tmp_path, 2, proposer=lambda: usual) as pipeline:
        sequences = []
        for sampling in samplings[count:]:
            sequences.append(pipeline.submit(QUESTIONS[0], sampling))
            pipeline.wander(Random(sampling.seed))
        assert guesses(pipeline) > count
    mine = [sequence.tokens[len(sequence.prompt) :] for sequence in sequences]
    for place in places:
        assert chi_squared([at(text, place) for text in mine], [at(text, place) for text in theirs]) > 0.001


def at(text: Sequence[int], place: int) -> int | None:
    """The token there, None after the end."""
    return text[place] if place < len(text) else None


def chi_squared(mine: Sequence[object], theirs: Sequence[object]) -> float:
    """How likely two samples of one distribution differ as much; what is rare is counted together."""
    total = Counter(mine) + Counter(theirs)
    kinds = [kind for kind, number in total.items() if number >= 10]
    columns = [[sample.count(kind) for kind in kinds] for sample in (mine, theirs)]
    table = [[*column, len(mine) - sum(column)] for column in columns]
    whole = [cells for cells in zip(*table, strict=True) if sum(cells)]
    return float(chi2_contingency(whole).pvalue) if len(whole) > 1 else 1.0
