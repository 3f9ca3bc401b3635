"""`choir matrix`: every generator with every summarizer, measured."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from services.cli.commands.asking.ask import listed
from services.cli.commands.looking.overview import JsonFlag
from services.cli.shell import completion
from services.cli.views.terminal import console, print_json


def matrix(
    generators: Annotated[
        str,
        typer.Option(
            "--generators", "-g", metavar="A,B", help="Who answers.", autocompletion=completion.models
        ),
    ],
    summarizers: Annotated[
        str,
        typer.Option(
            "--summarizers", "-s", metavar="C,D", help="Who summarises.", autocompletion=completion.models
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="PATH", help="The folder for the CSV and the charts.")
    ],
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="Prompts, one a line.")] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", metavar="TEXT", help="A prompt; repeatable.")
    ] = None,
    repetitions: Annotated[int, typer.Option("--repetitions", "-n", min=1, help="How often each.")] = 1,
    summary_prompt: Annotated[
        str | None,
        typer.Option(metavar="TEMPLATE", help="What summarizers are asked: {text} is what to summarise."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="End a text after so many tokens.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, max=5.0, help="0 takes the likeliest token.")] = 0.0,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the first repetition; each further one takes 1 more.")
    ] = 0,
    timeout: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds for each chain.")] = 600,
    max_concurrent: Annotated[
        int, typer.Option(min=1, help="Chains at once; with more than one they share the machines.")
    ] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Measure every generator with every summarizer: a CSV of all metrics, two heatmaps and a table.

    The same command goes on where it was interrupted, and measures nothing twice.
    """
    from analysis.matrix.options import matrix_options, read_prompts
    from analysis.matrix.session import measure
    from services.cli.shell.written_file import named_folder
    from services.cli.views.tables.matrix_table import pairs_table
    from services.client.bulk.progress import reporter

    template = {} if summary_prompt is None else {"summary_prompt": summary_prompt}
    options = matrix_options(
        {
            "generators": listed(generators),
            "summarizers": listed(summarizers),
            "prompts": read_prompts(prompts, prompt or ()),
            "repetitions": repetitions,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            "timeout_s": timeout,
            **template,
        }
    )
    try:
        report = asyncio.run(measure(options, named_folder(out, "out"), max_concurrent, reporter()))
    except KeyboardInterrupt:
        typer.echo(f"to go on: {shlex.join(['choir', *sys.argv[1:]])}", err=True)
        raise
    if as_json:
        print_json(report)
    else:
        console().print(pairs_table(report.pairs))
    if any(pair.failed for pair in report.pairs):
        raise typer.Exit(1)
