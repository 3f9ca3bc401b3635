"""`choir shard`: run a model as a pipeline of stages."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import typer

from services.cli.commands.asking.ask import listed
from services.cli.commands.looking.overview import JsonFlag
from services.cli.shell import completion
from services.cli.views.terminal import console, print_json

Dtype = Literal["f32", "f16", "q8_0"]
PartitionKind = Literal["layerwise", "tokenwise", "adaptive"]


def shard(
    model: Annotated[
        str,
        typer.Argument(help="A model that stage services offer.", autocompletion=completion.model),
    ],
    stages: Annotated[
        int | None, typer.Option("--stages", "-n", min=1, help="How many; without it as many as pay off.")
    ] = None,
    assign: Annotated[
        str, typer.Option(metavar="NODE,NODE", help="Which instances or hosts hold the stages, in order.")
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Also a split that only slows the model down.")
    ] = False,
    dtype: Annotated[Dtype, typer.Option(help="How numbers travel; only f32 is exact.")] = "f32",
    partition: Annotated[
        PartitionKind, typer.Option(help="How a long prompt is worked on, unless a request says so itself.")
    ] = "adaptive",
    slots: Annotated[int, typer.Option(min=1, max=256, help="How many sequences at once.")] = 8,
    context: Annotated[
        int | None, typer.Option(min=32, help="Tokens of a sequence; without it what the model was made for.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="End the model's pipeline instead.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait until all stages are ready.")] = 120,
    as_json: JsonFlag = False,
) -> None:
    """Place a model as a pipeline of stages over nodes that offer it, and wait until it can be asked."""
    from schemas.pipelines.plan import Shard
    from services.cli.sessions.shard_session import until_ready
    from services.cli.views.tables.pipeline_tables import pipelines_table
    from services.client.client import Choir
    from services.client.request_builder import build

    spec = build(
        Shard,
        {
            "model": model,
            "stages": stages,
            "assign": listed(assign),
            "force": force,
            "dtype": dtype,
            "partition": partition,
            "slots": slots,
            "context_tokens": context,
            "remove": remove,
        },
    )
    out = console()

    def say(line: str) -> None:
        if not as_json:
            out.print(line)

    async def place() -> None:
        async with Choir() as mesh:
            reply = await mesh.shard(spec)
            say(reply.summary)
            if reply.plan is not None and timeout > 0:
                pipeline = await until_ready(mesh, reply.plan, timeout, say)
                if not as_json:
                    out.print(pipelines_table([pipeline]))
            if as_json:
                print_json(reply)

    asyncio.run(place())
