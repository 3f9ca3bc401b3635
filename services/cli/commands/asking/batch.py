"""`choir batch`: documents times prompts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.shell import completion


def batch(
    source: Annotated[Path, typer.Option("--input", "-i", help="A directory of documents, or one document.")],
    output: Annotated[
        list[Path], typer.Option("--output", "-o", help="Results, as .json, .csv or .md; repeatable.")
    ],
    preset: Annotated[
        list[str] | None, typer.Option(help="research, summary or critical; repeatable.")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="A prompt with {content} and maybe {filename}; repeatable."),
    ] = None,
    glob: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Which files, such as '*.pdf'; repeatable.")
    ] = None,
    recursive: Annotated[bool, typer.Option(help="Look into folders of the directory, too.")] = True,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="Who may answer; repeatable. Without it, all models share the work.",
            autocompletion=completion.model,
        ),
    ] = None,
    max_concurrent: Annotated[
        int | None, typer.Option(min=1, help="Questions at once; without it, what keeps all slots busy.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="End an answer after so many tokens.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, max=5.0, help="0 takes the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same text.")] = 0,
    timeout: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds for each question.")] = 600,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what an earlier run has done.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Ask every prompt about every document, with all models at work.

    The same command goes on where it was interrupted, asks nothing twice, and tries again what failed.
    """
    from services.cli.batch.documents.files import DEFAULT_GLOBS, find_documents
    from services.cli.batch.outputs import check_outputs
    from services.cli.batch.plan import Plan
    from services.cli.batch.prompts import chosen_prompts
    from services.cli.batch.session import BatchSession
    from services.client.request_builder import AskOptions

    options: AskOptions = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "timeout_s": timeout,
    }
    outputs = tuple(dict.fromkeys(output))
    check_outputs(outputs)
    plan = Plan(
        documents=tuple(find_documents(source, tuple(glob or DEFAULT_GLOBS), recursive)),
        prompts=chosen_prompts(preset or (), prompt or ()),
        models=tuple(dict.fromkeys(model or ())),
        outputs=outputs,
        options=options,
        max_concurrent=max_concurrent,
    )
    session = BatchSession(plan, restart=restart, as_json=as_json)
    if not asyncio.run(session.run()):
        raise typer.Exit(1)
