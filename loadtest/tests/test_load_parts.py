"""Arrivals, prompts, workloads, objectives, figures and comparisons: what can be checked by arithmetic."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import islice, takewhile
from pathlib import Path

import numpy as np
import pytest

from analysis.charts.load.histogram import bins_for, ticks
from analysis.charts.load.latency_over_time import bin_width_s, percentiles
from loadtest.chaos import Fault, parse_faults
from loadtest.faults import LoadtestError, WrongOption
from loadtest.generate.arrivals import ARRIVALS, Rate, arrivals
from loadtest.generate.plan import LoadPlan
from loadtest.generate.prompts import PROMPTS, PromptOptions, prompts
from loadtest.generate.request_record import LOST, RequestRecord
from loadtest.generate.workloads import AskOptions, ask_fields, parse_mix, workloads
from loadtest.outcome.charts import per_second
from loadtest.outcome.compare import compare
from loadtest.outcome.measurements import Measurements, read_records, write_records
from loadtest.outcome.metrics import METRICS, e2e, itl, milliseconds, tpot, ttft, ttft_intended
from loadtest.outcome.objectives import Condition, Objective, meets, parse_conditions, parse_objectives
from loadtest.outcome.summary import Distribution, summarise
from loadtest.sweep.search import knee, saturated, sweep

ASK = AskOptions(models=("a", "b"))


def record(
    number: int, start_s: float, e2e_ms: float, *, late_ms: float = 0.0, error: str = ""
) -> RequestRecord:
    """An answered request of three tokens, the first after a quarter of its time."""
    made = RequestRecord(number, "single", start_s)
    made.sent_s = start_s + late_ms / 1000
    for part in (0.25, 0.5, 1.0):
        made.chunk("a", made.sent_s + part * e2e_ms / 1000)
    made.results = 1
    made.end(made.sent_s + e2e_ms / 1000, error, tokens=3)
    return made


Columns = Callable[..., Measurements]


@pytest.fixture
def columns(tmp_path: Path) -> Columns:
    """Turns records into columns as a run does: through a file."""

    def make(*records: RequestRecord) -> Measurements:
        write_records(tmp_path / "f.parquet", records, 0, 0.5)
        return read_records([tmp_path / "f.parquet"])

    return make


# --- arrivals -----------------------------------------------------------------------------


def gaps(name: str, rate: Rate, count: int = 20_000) -> np.ndarray:
    return np.diff(list(islice(arrivals(name, rate, seed=3), count)))


@pytest.mark.parametrize(
    ("name", "burstiness", "variation"), [("constant", 1, 0.0), ("poisson", 1, 1.0), ("gamma", 0.25, 2.0)]
)
def test_arrivals_keep_their_rate_and_vary_as_they_should(
    name: str, burstiness: float, variation: float
) -> None:
    """The coefficient of variation of gamma gaps is 1/sqrt(shape)."""
    found = gaps(name, Rate(50.0, burstiness))
    assert found.mean() == pytest.approx(1 / 50, rel=0.05)
    assert found.std() / found.mean() == pytest.approx(variation, rel=0.05, abs=1e-6)


def test_a_ramp_goes_in_a_straight_line_from_one_rate_to_the_other() -> None:
    rate = Rate(20.0, ramp_to=100.0, ramp_s=100.0)
    starts = np.array(list(takewhile(lambda start: start < 150, arrivals("ramp", rate, seed=1))))
    counted = [int(((starts >= low) & (starts < low + 10)).sum()) for low in (0, 45, 90, 140)]
    # rate t + slope t^2 / 2 over these ten seconds each
    assert counted == pytest.approx([240, 600, 960, 1000], rel=0.12)


def test_a_ramp_that_does_not_climb_is_poisson_and_one_that_falls_falls() -> None:
    flat = gaps("ramp", Rate(50.0, ramp_to=50.0, ramp_s=10.0))
    assert flat.mean() == pytest.approx(1 / 50, rel=0.05)
    falling = arrivals("ramp", Rate(100.0, ramp_to=10.0, ramp_s=100.0), 1)
    starts = np.array(list(takewhile(lambda start: start < 100, falling)))
    assert (starts < 50).sum() > 1.5 * (starts >= 50).sum()


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    for options in ({"per_s": rate}, {"per_s": 1.0, "burstiness": rate}, {"per_s": 1.0, "ramp_to": rate}):
        with pytest.raises(WrongOption, match="above 0"):
            Rate(**options)


def test_an_arrival_process_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(WrongOption, match="poisson"):
        arrivals("tidal", Rate(1.0), 0)
    assert set(ARRIVALS) == {"constant", "poisson", "gamma", "ramp"}


# --- prompts and workloads ------------------------------------------------------------------


def test_random_prompts_have_as_many_words_as_they_may() -> None:
    found = list(islice(prompts(PromptOptions(min_words=3, max_words=6), seed=1), 200))
    assert {len(prompt.split()) for prompt in found} == {3, 4, 5, 6}
    assert found == list(islice(prompts(PromptOptions(min_words=3, max_words=6), seed=1), 200))


def test_shared_prompts_begin_alike() -> None:
    first, second = islice(prompts(PromptOptions("shared"), seed=1), 2)
    assert first.split()[:64] == second.split()[:64]
    assert first != second


def test_questions_and_conversations_are_read_from_files(tmp_path: Path) -> None:
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"question": "How many?", "answer": "2"}\n{"question": "Who?"}\n')
    drawn = set(islice(prompts(PromptOptions("questions", file=questions), seed=1), 50))
    assert drawn == {"How many?", "Who?"}
    talks = tmp_path / "s.json"
    human = {"from": "human", "value": "Tell me."}
    talks.write_text(json.dumps([{"conversations": [{"from": "gpt", "value": "Hm."}, human]}, {"id": 1}]))
    assert set(islice(prompts(PromptOptions("sharegpt", file=talks), seed=1), 9)) == {"Tell me."}


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("questions", None, "needs --prompt-file"),
        ("questions", "not json\n", "line 1 is not JSON"),
        ("questions", "{}\n", "no prompt in it"),
        ("sharegpt", "{}", "not a list"),
        ("sharegpt", "[", "not JSON"),
        ("sharegpt", "[]", "no prompt in it"),
        ("psalms", None, ", ".join(PROMPTS)),
    ],
)
def test_prompts_that_cannot_be_read_say_why(
    kind: str, content: str | None, said: str, tmp_path: Path
) -> None:
    file = None
    if content is not None:
        file = tmp_path / "file"
        file.write_text(content)
    with pytest.raises(WrongOption, match=said):
        next(prompts(PromptOptions(kind, file=file), seed=0))
    with pytest.raises(WrongOption, match="cannot be read"):
        next(prompts(PromptOptions("questions", file=tmp_path / "gone"), seed=0))


def test_a_mix_is_drawn_with_its_shares() -> None:
    mix = parse_mix("single:3, ensemble:1")
    assert mix == {"single": 0.75, "ensemble": 0.25}
    drawn = list(islice(workloads(mix, seed=2), 4_000))
    assert drawn.count("single") / 4_000 == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("text", ["duet", "single:x", "single:0", "single:-1", "single:nan", ""])
def test_a_mix_that_cannot_be_drawn_is_refused(text: str) -> None:
    with pytest.raises(WrongOption, match="--workload"):
        parse_mix(text)


def test_every_workload_asks_in_its_own_way() -> None:
    fields = {name: ask_fields(name, ASK, 1, "Hi") for name in ("single", "ensemble", "chain", "pipeline")}
    assert fields["single"]["model"] == "b"
    assert fields["ensemble"]["models"] == ("a", "b")
    assert (fields["chain"]["model"], fields["chain"]["summarize_with"]) == ("a", ("b",))
    assert all(found["prompt"] == "Hi" and found["stream"] for found in fields.values())
    with pytest.raises(WrongOption, match="GENERATOR,SUMMARIZER"):
        ask_fields("chain", AskOptions(models=("a",)), 0, "Hi")


@pytest.mark.parametrize(
    "wrong",
    [
        {"duration_s": 0.0},
        {"duration_s": math.nan},
        {"warm_up_s": -1.0},
        {"warm_up_s": 60.0},
        {"concurrency": 0},
        {"requests": 0},
        {"processes": 0},
        {"max_in_flight": 0},
    ],
)
def test_a_plan_that_cannot_be_run_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(WrongOption, match="--"):
        LoadPlan("run", ASK, **wrong)  # type: ignore[arg-type]


# --- figures ------------------------------------------------------------------------------


def test_the_figures_are_what_their_formulas_say(columns: Columns) -> None:
    found = columns(record(0, 1.0, 100.0, late_ms=20.0))
    assert e2e(found) == pytest.approx([100.0])
    assert ttft(found) == pytest.approx([25.0])
    assert ttft_intended(found) == pytest.approx([45.0])
    assert tpot(found) == pytest.approx([37.5])
    assert sorted(itl(found)) == pytest.approx([25.0, 50.0])
    assert all(len(metric.values(found)) for metric in METRICS.values())


def test_a_summary_counts_answers_errors_and_what_came_twice(columns: Columns) -> None:
    twice = record(3, 3.0, 50.0)
    twice.results = 2
    found = columns(
        record(0, 0.5, 400.0),
        record(1, 1.0, 100.0),
        record(2, 2.0, 200.0, error="overloaded"),
        twice,
        record(4, 4.0, 1000.0, error=LOST),
    )
    met = meets(found, parse_objectives(["e2e:80"]))
    summary = summarise(found, met, warm_up_s=1.0)
    assert (summary.requests, summary.answered, summary.failed) == (4, 2, 2)
    assert (summary.lost, summary.doubled, summary.errors) == (1, 1, {"overloaded": 1, LOST: 1})
    assert summary.seconds == pytest.approx(4.0), "from the end of the warm-up to the last answer"
    assert (summary.rate, summary.tokens_per_s) == pytest.approx((0.5, 1.5))
    assert (summary.goodput, summary.goodput_share) == pytest.approx((0.25, 0.25))
    assert summary.metrics["e2e"].n == 2
    assert summary.figure("e2e.max") == pytest.approx(100.0)
    assert summary.generator_cpu == (0.5,)


def test_a_summary_of_nothing_has_no_figures(columns: Columns) -> None:
    summary = summarise(columns(), np.array([], dtype=bool))
    assert (summary.requests, summary.rate, summary.metrics) == (0, 0.0, {})
    assert Condition("e2e.p99", ">", 1.0).holds(summary), "what was not measured counts as missed"


def test_a_mesh_that_has_gone_is_noticed(columns: Columns) -> None:
    gone = columns(*(record(n, float(n), 5.0, error="" if n < 5 else "no_reply") for n in range(10)))
    summary = summarise(gone, gone.good)
    assert summary.silent_after_s == pytest.approx(4.005)
    assert "the mesh has gone" in summary.warnings[0]


def test_a_late_generator_is_not_believed(columns: Columns) -> None:
    late = columns(*(record(n, n / 10, 5.0, late_ms=50.0) for n in range(20)))
    (warning,) = summarise(late, late.good).warnings
    assert "the generator was late" in warning
    prompt = columns(*(record(n, n / 10, 5.0) for n in range(20)))
    assert summarise(prompt, prompt.good).warnings == ()


def test_objectives_are_met_by_requests_and_conditions_by_runs(columns: Columns) -> None:
    assert parse_objectives(["ttft:300", "e2e:2000,tpot:50"]) == (
        Objective("ttft", 300.0),
        Objective("e2e", 2000.0),
        Objective("tpot", 50.0),
    )
    found = columns(
        record(0, 0.0, 100.0), record(1, 1.0, 10.0, late_ms=500.0), record(2, 2.0, 1.0, error="x")
    )
    assert list(meets(found, parse_objectives(["e2e:50"]))) == [False, True, False]
    assert list(meets(found, parse_objectives(["e2e_intended:50"]))) == [False, False, False]
    assert list(meets(found, parse_objectives(["tpot:10"]))) == [False, True, False]
    assert list(meets(found, ())) == [True, True, False]
    summary = summarise(found, meets(found, ()))
    held = [condition.holds(summary) for condition in parse_conditions(["failed>0", "e2e.p99<5", "rate>=0"])]
    assert held == [True, False, True]


@pytest.mark.parametrize("text", ["ttft", "ttft:", "ttft:x", "ttft:-1", "speed:3", "itl:3", "ttft:nan"])
def test_an_objective_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(WrongOption, match="--goodput"):
        parse_objectives([text])


@pytest.mark.parametrize(
    "text", ["e2e", "e2e>1", "e2e.p12>1", "joy.p99>1", "failed=0", "failed>x", "lost>nan"]
)
def test_a_condition_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(WrongOption, match="--fail-if"):
        parse_conditions([text])


def test_percentiles_are_those_of_numpy_and_one_value_has_no_spread() -> None:
    found = Distribution.of(np.arange(1.0, 102.0))
    assert found is not None
    assert (found.p50, found.p95, found.max) == (51.0, 96.0, 101.0)
    one = Distribution.of(np.array([7.0]))
    assert one is not None
    assert (one.mean, one.sd, one.p99) == (7.0, 0.0, 7.0)


# --- faults -------------------------------------------------------------------------------


def test_faults_have_a_time_or_are_spread_over_the_run() -> None:
    assert parse_faults("kill-agent@30,pause-agent@45:2, restart-broker@60", 120) == (
        Fault("kill", "agent", 30.0),
        Fault("pause", "agent", 45.0, 2.0),
        Fault("restart", "broker", 60.0),
    )
    assert [fault.at_s for fault in parse_faults("kill-agent,kill-aggregator,restart-broker", 120)] == [
        30,
        60,
        90,
    ]
    assert parse_faults("", 120) == ()


@pytest.mark.parametrize(
    "text", ["kill", "kill-queen@3", "hug-agent@3", "kill-broker@3", "kill-agent@200", "kill-agent@1.2.3"]
)
def test_a_fault_that_cannot_be_done_is_refused(text: str) -> None:
    with pytest.raises(WrongOption, match="--chaos"):
        parse_faults(text, 120)


# --- sweeps and comparisons -----------------------------------------------------------------


def run_at(rate: float, capacity: float, seconds: float = 10.0) -> list[RequestRecord]:
    """Requests at a rate to a server that can do `capacity` a second, 10 ms each if it is idle."""
    free_s, records = 0.0, []
    for number in range(int(rate * seconds)):
        start_s = number / rate
        free_s = max(start_s, free_s) + 1 / capacity
        records.append(record(number, start_s, (free_s - start_s) * 1000 + 10))
    return records


def test_a_run_beyond_saturation_is_seen_by_its_growth(columns: Columns) -> None:
    assert saturated(columns(*run_at(120, capacity=100)))
    assert not saturated(columns(*run_at(80, capacity=100)))
    assert not saturated(columns(*run_at(2, capacity=100))), "too few to say"


async def test_a_sweep_stops_beyond_saturation_and_marks_the_knee(columns: Columns) -> None:
    capacity = 90.0

    async def run(plan: LoadPlan, name: str) -> tuple[Measurements, object]:
        closed = {1: 50.0, 8: 100.0}
        rate = plan.rate.per_s if plan.concurrency is None else closed[plan.concurrency]
        measured = columns(*run_at(rate, capacity if plan.concurrency is None else 1e6))
        return measured, summarise(measured, measured.good)

    steps = await sweep(LoadPlan("run", ASK), 8, run)  # type: ignore[arg-type]
    assert [step.name for step in steps[:2]] == ["one at a time", "8 at a time"]
    assert [step.saturated for step in steps] == [False] * (len(steps) - 1) + [True]
    assert steps[-1].offered == pytest.approx(100.0, rel=0.05)
    found = knee(steps)
    assert found is not None
    assert found.offered == pytest.approx(90.0, rel=0.05)


async def test_a_sweep_of_a_mesh_that_answers_nothing_says_so(columns: Columns) -> None:
    async def run(_plan: LoadPlan, _name: str) -> tuple[Measurements, object]:
        measured = columns(record(0, 0.0, 1.0, error="overloaded"))
        return measured, summarise(measured, measured.good)

    with pytest.raises(LoadtestError, match="overloaded"):
        await sweep(LoadPlan("run", ASK), 8, run)  # type: ignore[arg-type]


def test_there_is_no_knee_without_steps() -> None:
    assert knee([]) is None


def noisy(seed: int, slower_ms: float, seconds: int = 40) -> list[RequestRecord]:
    rng = np.random.default_rng(seed)
    return [
        record(20 * second + n, second + n / 20, 50 + slower_ms + load + float(rng.exponential(10)))
        for second, load in enumerate(rng.exponential(15, seconds))
        for n in range(20)
    ]


def test_a_difference_between_runs_is_found_and_none_is_called_tied(columns: Columns) -> None:
    base = columns(*noisy(1, 0.0))
    same = {one.name: one for one in compare(base, columns(*noisy(2, 0.0)))}
    slower = {one.name: one for one in compare(base, columns(*noisy(3, 30.0)))}
    assert same["e2e_intended.p50"].tied
    assert not slower["e2e_intended.p50"].tied
    assert slower["e2e_intended.mean"].low < 30 < slower["e2e_intended.mean"].high + 10
    assert slower["e2e_intended.mean"].a == pytest.approx(float(e2e(base).mean()))


def test_runs_of_a_few_seconds_are_not_compared(columns: Columns) -> None:
    short = columns(*noisy(1, 0.0, seconds=3))
    with pytest.raises(WrongOption, match="different seconds"):
        compare(short, short)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1_234.5, "1,234"), (99.97, "100"), (12.34, "12.3"), (0.0412, "0.0412"), (0.00004, "4e-05"), (0.0, "0")],
)
def test_no_time_is_shown_as_nothing(value: float, text: str) -> None:
    assert milliseconds(value) == text


def test_a_bin_has_values_enough_and_only_percentiles_that_are_no_maximum() -> None:
    assert bin_width_s(np.linspace(0, 15, 87), 15.0) == 4.0
    assert bin_width_s(np.linspace(0, 600, 60_000), 600.0) == 5.0
    assert [share for share, _ in percentiles(np.arange(20.0))] == [50, 95]
    assert [share for share, _ in percentiles(np.arange(100.0))] == [50, 95, 99]
    assert [share for share, _ in percentiles(np.arange(5.0))] == [50]


def test_a_histogram_has_bins_for_its_values_and_names_on_its_whole_axis() -> None:
    assert (bins_for(87), bins_for(10**6), bins_for(2)) == (9, 50, 6)
    assert ticks(3.1, 190.0) == [2, 5, 10, 20, 50, 100, 200]
    named = ticks(0.004, 9_000.0)
    assert named[0] <= 0.004 and named[-1] >= 9_000 and len(named) < 9


def test_where_no_objective_was_given_none_was_met(columns: Columns) -> None:
    m = columns(record(0, 0.0, 5.0), record(1, 0.1, 5.0, error="overloaded"))
    without, judged = per_second(m, None, ()), per_second(m, m.good, ())
    assert without is not None and judged is not None
    assert "objectives" not in without.to_json() and "answered" in without.to_json()
    assert "met the objectives" in judged.to_json()
