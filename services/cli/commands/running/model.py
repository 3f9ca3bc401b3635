"""`choir model` and `choir pull`: the models that the mesh keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.shell import completion
from services.cli.shell.command_group import command_group
from services.cli.views.terminal import console, print_json, print_outcome

if TYPE_CHECKING:
    from schemas.nodes.model_store import StoreReply

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The model; `choir model list` has them.", autocompletion=completion.model
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="HOST", help="Which host's store; without it that of this host."),
]
DemandArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The model; `choir ps` has them.", autocompletion=completion.model),
]
AgentOption = Annotated[
    str | None, typer.Option("--on", metavar="AGENT", help="Which agent; `choir ps` has them.")
]
DetachOption = Annotated[
    bool, typer.Option("--detach", help="Do not wait: `choir model jobs` shows how far it is.")
]


def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A model of the store, or hf:ORGANISATION/REPOSITORY[:QUANTISATION] of a hub.",
        ),
    ],
    store: StoreOption = None,
    detach: DetachOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Fetch a model to this host, from the hosts that have it or from a hub. Pulled again it goes on."""
    _job("pull", as_json, detach, store=_here(store), name=name)


def add(
    path: Annotated[
        Path,
        typer.Argument(help="A GGUF file, a folder of them, an Ollama folder, or a cache of Hugging Face."),
    ],
    name: Annotated[str | None, typer.Option("--name", help="What to call it, if it is one model.")] = None,
    store: StoreOption = None,
    detach: DetachOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Add models that lie on this host. Nothing is copied."""
    where = str(path if store is not None else path.absolute())
    _job("add", as_json, detach, store=_here(store), path=where, name=name)


def list_models(as_json: JsonFlag = False) -> None:
    """Show all models of the store, and which hosts have them."""
    from services.cli.views.tables.store_view import models_table

    reply = _manage(action="list")
    if as_json:
        print_json(reply)
    elif reply.models:
        out = console()
        out.print(models_table(reply.models))
        if reply.left_out:
            out.print(f"and {reply.left_out} more, for which one reply has no room")
    else:
        console().print("no models; `choir model add` and `choir pull` add some")


def show(name: NameArgument, as_json: JsonFlag = False) -> None:
    """Show one model: its files, origin, licence and copies."""
    from services.cli.views.tables.store_view import model_lines

    reply = _manage(action="show", name=name)
    if as_json:
        print_json(reply)
        return
    for line in model_lines(reply.models[0]):
        console().print(line)


def remove(
    name: NameArgument,
    store: StoreOption = None,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Give the model up: also its last copy.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove a host's copy of a model, never the last one. Files that were added stay where they lie."""
    where = None if everywhere else _here(store)
    reply = _manage(action="remove", name=name, store=where, everywhere=everywhere)
    print_outcome(reply, f"{name} is removed {'everywhere' if everywhere else 'here'}", as_json)


def copy(
    name: NameArgument,
    to: Annotated[str, typer.Option("--to", metavar="HOST", help="The host that is to have it too.")],
    detach: DetachOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Have another host fetch a model."""
    _job("pull", as_json, detach, store=to, name=name)


def copies(
    name: NameArgument,
    least: Annotated[int | None, typer.Option("--min", help="On so many hosts at least.")] = None,
    most: Annotated[int | None, typer.Option("--max", help="On so many hosts at most.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say on how many hosts a model ought to be. If one goes, another makes a copy."""
    from services.cli.views.tables.store_view import model_lines

    reply = _manage(action="copies", name=name, min_copies=least, max_copies=most)
    print_outcome(reply, "\n".join(model_lines(reply.models[0])), as_json)


def jobs(as_json: JsonFlag = False) -> None:
    """Show what the stores fetch, and the room they have."""
    from services.cli.views.tables.store_view import jobs_table, spaces_table

    reply = _manage(action="jobs")
    if as_json:
        print_json(reply)
        return
    out = console()
    if reply.jobs:
        out.print(jobs_table(reply.jobs))
    out.print(spaces_table(reply.spaces))


def cancel(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Its id; `choir model jobs` has them.")],
    store: StoreOption = None,
    as_json: JsonFlag = False,
) -> None:
    """End a job. What it has fetched stays for the next time."""
    print_outcome(_manage(action="cancel", job=job, store=_here(store)), f"{job} is cancelled", as_json)


def load(
    name: DemandArgument,
    on: AgentOption = None,
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="TIME", help="How long it stays when nobody asks for it: 30m, 12h."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Load a model on demand before anybody asks for it."""
    from services.client.moment import span_s

    kept_s = None if keep is None else span_s(keep, "keep")
    _order(as_json, action="load", model=name, instance=on, keep_alive_s=kept_s)


def unload(name: DemandArgument, on: AgentOption = None, as_json: JsonFlag = False) -> None:
    """Unload a model on demand, as soon as what is in work is finished. It is loaded again when it is asked
    for."""
    _order(as_json, action="unload", model=name, instance=on)


COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("add", add),
    ("list", list_models),
    ("show", show),
    ("rm", remove),
    ("copy", copy),
    ("copies", copies),
    ("jobs", jobs),
    ("cancel", cancel),
    ("load", load),
    ("unload", unload),
)


def build_model_app() -> typer.Typer:
    """`choir model` with its commands."""
    return command_group(COMMANDS, "The models that the mesh keeps.")


def _here(store: str | None) -> str:
    """The store that is meant; without a word that of the mesh of this host."""
    from infra.host.parts.instances import host_name, store_instance
    from schemas.errors import InvalidRequest
    from services.client.finding.local_mesh import running_mesh, state_folder

    if store is not None:
        return store
    if running_mesh() is None:
        raise InvalidRequest(
            "store: no mesh runs on this host. `choir up` starts its part, with a store; or say with --store "
            "which host is meant",
            field="store",
        )
    return store_instance(host_name(state_folder()))


def _manage(**fields: Any) -> StoreReply:
    from schemas.nodes.model_store import ManageStore
    from services.client.client import Choir
    from services.client.request_builder import build

    request = build(ManageStore, fields)

    async def ask() -> StoreReply:
        async with Choir() as mesh:
            return await mesh.store(request)

    return asyncio.run(ask())


def _order(as_json: bool, **fields: Any) -> None:
    from schemas.nodes.loading import LoadedAt, LoadedReply, ManageLoaded
    from services.client.client import Choir
    from services.client.request_builder import build

    request = build(ManageLoaded, fields)

    async def ask() -> tuple[LoadedAt, ...]:
        async with Choir() as mesh:
            return await mesh.load(request)

    agents = asyncio.run(ask())
    if as_json:
        print_json(LoadedReply(model=request.model, agents=agents))
        return
    for line in [one.words for one in agents] or ["loaded nowhere"]:
        console().print(f"{request.model} is {line}")


def _job(action: str, as_json: bool, detach: bool, **fields: Any) -> None:
    from schemas.nodes.model_store import ManageStore, StoreReply
    from services.cli.sessions.store_session import followed
    from services.cli.views.tables.store_view import ending_line
    from services.client.request_builder import build

    job = asyncio.run(followed(build(ManageStore, {"action": action, **fields}), detach, quiet=as_json))
    print_outcome(StoreReply(jobs=(job,)), ending_line(job), as_json)
