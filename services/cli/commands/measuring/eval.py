"""`choir eval`: the questions of a benchmark to the mesh, and what can be said of the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.shell import completion

RESULTS = Path("results")


def evaluate(
    benchmarks: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="mmlu, arc-easy, hellaswag, and more; of Choir's own: choir-mmlu, and more."
        ),
    ] = None,
    strategies: Annotated[
        str | None,
        typer.Option(
            "--strategies",
            "-s",
            metavar="S,S",
            help="How ensembles decide.",
            autocompletion=completion.strategies,
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="So many questions of each benchmark; all if left out.")
    ] = None,
    repetitions: Annotated[
        int | None, typer.Option(help="Ask each question so often, its options in another order.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides what is drawn and in which order.")] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Agents always take the likeliest token.")
    ] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="BENCHMARK=FILE", help="Its questions: Parquet, JSON lines, CSV, or a URL."),
    ] = None,
    dev: Annotated[
        list[str] | None, typer.Option(metavar="BENCHMARK=FILE", help="Where its examples come from.")
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Ask these; all if left out.", autocompletion=completion.models),
    ] = None,
    max_agents: Annotated[int | None, typer.Option(help="Ask at most so many models.")] = None,
    few_shot: Annotated[int | None, typer.Option(help="So many examples before each question.")] = None,
    few_shot_turns: Annotated[
        bool, typer.Option("--few-shot-turns", help="Examples as turns of a conversation, not as one text.")
    ] = False,
    prompt: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|TEXT", help="A template's name, or a text with {question}; repeatable."),
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="Say this before each prompt.")] = None,
    chat_template: Annotated[
        bool | None,
        typer.Option(
            "--chat-template/--no-chat-template",
            help="Put prompts in the model's template, or have it go on with them as they stand.",
        ),
    ] = None,
    extraction: Annotated[
        str | None,
        typer.Option(
            metavar="WAY",
            help="How answers are read: strict, flexible, numeric; or options scored: likelihood, "
            "likelihood-per-character.",
        ),
    ] = None,
    no_shuffle: Annotated[
        bool, typer.Option("--no-shuffle", help="Leave options in the file's order, where it is no hint.")
    ] = False,
    temperature: Annotated[
        float | None, typer.Option(help="What agents sample at, unless --deterministic.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="End an answer after so many tokens.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="End an answer before this text; repeatable.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds until a question must be decided.")] = None,
    self_consistency: Annotated[
        int | None,
        typer.Option(help="Samples of the best agent for the baseline; 0 leaves it out."),
    ] = None,
    teach: Annotated[
        bool, typer.Option("--teach", help="Tell the mesh what was right, so that its weights learn.")
    ] = False,
    effort: Annotated[
        bool, typer.Option("--effort", help="Try cascades on the answers: what they would have spared.")
    ] = False,
    orders: Annotated[
        int | None, typer.Option(help="Learn from the questions in so many orders; nobody is asked again.")
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Ask also what an earlier run has the greedy answer of.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Part of the folder's name.")] = None,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where runs are kept.")] = RESULTS,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run that was interrupted.")
    ] = None,
    replay: Annotated[
        str | None, typer.Option(metavar="RUN", help="Decide a run's answers again; nobody is asked.")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="So many questions at a time; enough to fill all slots if left out."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Where the broker is.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask the mesh the questions of benchmarks, keep every answer, and compare strategies.

    Without a mesh it starts the demo's and stops it at the end. Each run has a folder of its own, with all
    raw answers, tables, tests, charts and a report. --resume goes on after Ctrl-C or a crash and asks nothing
    twice.
    """
    # The one place where the command line reaches into `analysis`, which is a client of the mesh itself.
    from analysis.evaluation.command import evaluate as run
    from analysis.evaluation.reporting.shown import show
    from schemas.errors import InvalidRequest
    from services.client.bulk.progress import reporter

    if resume is not None and replay is not None:
        raise InvalidRequest("replay: a run is either resumed or replayed", field="replay")
    said: dict[str, Any] = {
        "benchmarks": _listed(benchmarks),
        "strategies": _listed(strategies),
        "samples": samples,
        "repetitions": repetitions,
        "seed": seed,
        "deterministic": deterministic or None,
        "data": _named(data, "data"),
        "dev": _named(dev, "dev"),
        "models": _listed(models),
        "max_agents": max_agents,
        "few_shot": few_shot,
        "few_shot_turns": few_shot_turns or None,
        "prompts": tuple(prompt) if prompt else None,
        "system": system,
        "chat_template": chat_template,
        "extraction": extraction,
        "shuffle": False if no_shuffle else None,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "stop": tuple(stop) if stop else None,
        "timeout_s": timeout,
        "self_consistency": self_consistency,
        "teach": teach or None,
        "effort": effort or None,
        "orders": orders,
        "cache": False if no_cache else None,
        "name": name,
    }
    folder = run(
        {option: value for option, value in said.items() if value is not None},
        results=output,
        out=reporter(),
        resume=resume,
        replay=replay,
        url=url,
        concurrency=concurrency,
    )
    show(folder, as_json=as_json)


def _listed(text: str | None) -> tuple[str, ...] | None:
    """`A, B` as a tuple; what was not said stays unsaid."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def _named(pairs: list[str] | None, option: str) -> dict[str, str] | None:
    """`mmlu=FILE` as a mapping."""
    if not pairs:
        return None

    from schemas.errors import InvalidRequest

    split = [pair.partition("=") for pair in pairs]
    for pair, (benchmark, _, place) in zip(pairs, split, strict=True):
        if not benchmark or not place:
            raise InvalidRequest(f"{option}: {pair!r} is not BENCHMARK=FILE", field=option)
    return {benchmark: place for benchmark, _, place in split}
