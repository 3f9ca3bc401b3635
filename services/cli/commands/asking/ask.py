"""`choir ask`: one question, one answer."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Literal

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.shell import completion

Kind = Literal["auto", "choice", "number", "text"]
PriorityClass = Literal["interactive", "batch"]
EffortName = Literal["exact", "bounded"]

FROM_STDIN = "-"


def ask(
    prompt: Annotated[
        str, typer.Argument(metavar="QUESTION", help="What to ask; - reads it from standard input.")
    ],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Ask this one model.", autocompletion=completion.model)
    ] = None,
    models: Annotated[
        str, typer.Option(metavar="A,B", help="Ask these models together.", autocompletion=completion.models)
    ] = "",
    summarize_with: Annotated[
        list[str] | None,
        typer.Option(
            metavar="M",
            help="Have this model summarise what --model wrote; repeatable, one after the other.",
            autocompletion=completion.model,
        ),
    ] = None,
    summary_prompt: Annotated[
        str | None,
        typer.Option(metavar="TEMPLATE", help="What they are asked: {text} is what to summarise."),
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            "-s",
            metavar="S,S",
            help="Decide an ensemble with each of these.",
            autocompletion=completion.strategies,
        ),
    ] = "",
    choices: Annotated[
        str, typer.Option(metavar="A,B,C", help="The options of a closed question, in order.")
    ] = "",
    kind: Annotated[Kind, typer.Option(help="How answers are read before voting.")] = "auto",
    topic: Annotated[
        str | None, typer.Option(help="What the question is about; judged by its words if left out.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="How often best_single asks its agent; as many as there are.")
    ] = None,
    synthesizer: Annotated[
        str | None,
        typer.Option(
            metavar="M", help="Who writes for synthesize; the best.", autocompletion=completion.model
        ),
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            metavar="M", help="Whose vectors nearest compares; a member's.", autocompletion=completion.model
        ),
    ] = None,
    max_agents: Annotated[int | None, typer.Option(min=1, help="Ask at most so many models.")] = None,
    quorum: Annotated[int | None, typer.Option(min=1, help="Decide when so many have answered.")] = None,
    effort: Annotated[
        EffortName | None,
        typer.Option(help="Ask no more members than the decision needs: surely, or probably (--epsilon)."),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(min=0.0, max=0.5, help="How probable it may be that all together decide otherwise."),
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Rather no answer than one that is right less probably."),
    ] = None,
    receipt: Annotated[
        bool, typer.Option("--receipt", help="With a receipt in --json, for `choir verify`.")
    ] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Show the text while it is generated.")] = False,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="End an answer after so many tokens.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, max=5.0, help="0 always takes the likeliest token.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed draws the same text.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="End an answer before this text; repeatable.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds until it must be decided.")] = 60,
    priority: Annotated[PriorityClass, typer.Option(help="Which queue it waits in.")] = "interactive",
    request_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Under the same id it is the same request.")
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="All texts of a chain and where its time went; all votes of an ensemble.",
        ),
    ] = False,
    submit: Annotated[
        bool, typer.Option("--submit", help="Do not wait: print the request's id, for `choir fetch`.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Ask one model (--model), a chain (--summarize-with), or an ensemble that decides together.

    Without --model all models answer, or those of --models, and --strategy says how they decide. With --json
    and --stream there is a JSON document on each line: chunks of text, and at last the result.
    """
    from services.cli.sessions.ask_session import AskSession
    from services.cli.sessions.closed_question import closed_question
    from services.client.request_builder import AskOptions

    options: AskOptions = {
        "model": model,
        "models": listed(models),
        "summarize_with": summarize_with or (),
        "summary_prompt": summary_prompt,
        "strategies": listed(strategy),
        "choices": listed(choices),
        "answer_kind": kind,
        "topic": topic,
        "samples": samples,
        "synthesizer": synthesizer,
        "embedder": embedder,
        "max_agents": max_agents,
        "quorum": quorum,
        "effort": effort,
        "epsilon": epsilon,
        "min_confidence": min_confidence,
        "receipt": receipt,
        "timeout_s": timeout,
        "priority": priority,
        "request_id": request_id,
        "stop": stop or (),
    }
    if max_tokens is not None:
        options["max_tokens"] = max_tokens
    if temperature is not None:
        options["temperature"] = temperature
    if seed is not None:
        options["seed"] = seed
    text = sys.stdin.read() if prompt == FROM_STDIN else prompt
    question = closed_question(text, options["choices"])
    session = AskSession(question, options, stream=stream, as_json=as_json, verbose=verbose)
    if submit:
        asyncio.run(session.submit())
    elif not asyncio.run(session.run()):
        raise typer.Exit(1)


def listed(text: str) -> list[str]:
    """`A, B` as a list; nothing as an empty one."""
    return [part.strip() for part in text.split(",")] if text.strip() else []
