"""`choir worker`: external HTTP workers, registered while the mesh runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.shell.command_group import command_group
from services.cli.views.terminal import console, print_json, print_outcome

if TYPE_CHECKING:
    from schemas.nodes.workers import ManageWorkers, Worker, WorkerStatus
    from services.cli.workers.trial import Trial

IdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The worker's id; `choir worker list` has them.")
]
TypeOption = Annotated[
    str,
    typer.Option(
        "--type",
        metavar="TYPE",
        help="ollama, lm_studio, exo, llama_server, llama_cpp_python, vllm, or openai for others.",
    ),
]
HostOption = Annotated[str, typer.Option(metavar="HOST", help="Where the server is: a name or an address.")]
PortOption = Annotated[int | None, typer.Option(help="Its port; without it the usual one of its type.")]
ModelOption = Annotated[str, typer.Option(metavar="MODEL", help="What the server calls the model.")]
AsOption = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="The model's name in the mesh, if it is another one."),
]
SlotsOption = Annotated[int, typer.Option(help="How many requests it takes at once.")]
WeightOption = Annotated[int, typer.Option(help="1 to 10: how often it is next when several are free.")]
ContextOption = Annotated[int | None, typer.Option(help="How many tokens its context holds, if you know.")]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key-variable", metavar="NAME", help="Its API key: a name of [workers.keys] in choir.toml."
    ),
]


def add(
    kind: TypeOption,
    host: HostOption,
    model: ModelOption,
    port: PortOption = None,
    worker_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="A name of its own.")] = None,
    slots: SlotsOption = 1,
    weight: WeightOption = 1,
    served_as: AsOption = None,
    context: ContextOption = None,
    key_variable: KeyOption = None,
    tls: Annotated[bool, typer.Option("--tls", help="It speaks https.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of one of that id.")
    ] = False,
    share: Annotated[
        bool,
        typer.Option("--share", help="Take a part of a model's prompts that agents serve by themselves."),
    ] = False,
    test: Annotated[bool, typer.Option("--test/--no-test", help="Try it out from here first.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Register a worker. It is tried out first; agents take it up without a restart."""
    from schemas.errors import InvalidRequest, error_from_body
    from schemas.nodes.workers import ManageWorkers
    from services.cli.workers.old_format import build_worker
    from services.cli.workers.tables import added_line, trial_line
    from services.cli.workers.trial import try_worker

    fields = {
        "type": kind, "host": host, "port": port, "model": model, "id": worker_id, "slots": slots,
        "weight": weight, "served_as": served_as, "context_tokens": context, "key_variable": key_variable,
        "tls": tls,
    }  # fmt: skip
    worker = build_worker(fields, "")
    if not replace and any(status.worker.id == worker.id for status in _manage(ManageWorkers())):
        raise InvalidRequest(
            f"id: there is a worker {worker.id!r} already: --replace puts this one in its place", field="id"
        )
    if test:
        trial = asyncio.run(try_worker(worker))
        if trial.problem is not None:
            raise error_from_body(
                trial.problem.model_copy(
                    update={"message": f"{trial.problem.message} - not registered; --no-test does it anyway"}
                )
            )
        if not as_json:
            console().print(trial_line(trial))
    (status,) = _manage(ManageWorkers(action="add", worker=worker, replace=replace, share=share))
    print_outcome(status, f"registered {added_line(status.worker)}", as_json)


def list_workers(as_json: JsonFlag = False) -> None:
    """Show all workers: where they are, how they do, who uses them."""
    from schemas.nodes.workers import ManageWorkers, WorkersReply
    from services.cli.workers.tables import workers_table

    workers = _manage(ManageWorkers())
    if as_json:
        print_json(WorkersReply(workers=workers))
    elif workers:
        console().print(workers_table(workers))
    else:
        console().print("no external workers; `choir worker add` registers one")


def test_workers(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Which; all without.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Try workers out from this host.

    Each is reached, has its model, and generates a short text, which is timed.
    """
    from schemas.errors import UnknownWorker
    from schemas.nodes.workers import ManageWorkers
    from services.cli.workers.tables import trial_line
    from services.cli.workers.trial import Trials

    registered = {status.worker.id: status.worker for status in _manage(ManageWorkers())}
    unknown = [worker_id for worker_id in ids or () if worker_id not in registered]
    if unknown:
        known = ", ".join(registered) or "none"
        raise UnknownWorker(f"id: there is no worker {unknown[0]!r}; known: {known}", field="id")
    chosen = [registered[worker_id] for worker_id in ids or registered]
    trials = asyncio.run(_try_all(chosen))
    if as_json:
        print_json(Trials(trials=tuple(trials)))
    else:
        for trial in trials:
            console().print(trial_line(trial))
    if any(trial.problem is not None for trial in trials):
        raise typer.Exit(1)


async def _try_all(workers: list[Worker]) -> list[Trial]:
    from services.cli.workers.trial import try_worker

    return list(await asyncio.gather(*(try_worker(worker) for worker in workers)))


def cordon(worker_id: IdArgument, as_json: JsonFlag = False) -> None:
    """Give a worker nothing new; it finishes what it has."""
    _change("cordon", worker_id, "{} gets nothing new", as_json)


def uncordon(worker_id: IdArgument, as_json: JsonFlag = False) -> None:
    """Give a cordoned worker work again."""
    _change("uncordon", worker_id, "{} gets work again", as_json)


def remove(worker_id: IdArgument, as_json: JsonFlag = False) -> None:
    """Remove a worker; it finishes what it has."""
    _change("remove", worker_id, "{} is removed", as_json)


def import_workers(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The old workers.json.")],
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite workers of the same id.")] = False,
    share: Annotated[
        bool, typer.Option("--share", help="Also those in the names of models that agents serve themselves.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Register all workers of a workers.json. Those that cannot be are named; the others are registered."""
    from schemas.errors import ChoirError
    from schemas.nodes.workers import ManageWorkers, WorkersReply
    from services.cli.workers.old_format import read_workers
    from services.cli.workers.tables import added_line
    from services.client.client import Choir

    entries = list(read_workers(file))

    registered: list[WorkerStatus] = []

    async def register() -> int:
        failed = 0
        async with Choir() as mesh:
            for entry in entries:
                try:
                    if isinstance(entry, ChoirError):
                        raise entry
                    request = ManageWorkers(action="add", worker=entry, replace=replace, share=share)
                    (status,) = await mesh.workers(request)
                    registered.append(status)
                    if not as_json:
                        typer.echo(f"registered {added_line(status.worker)}")
                except ChoirError as error:
                    failed += 1
                    typer.echo(f"not registered: {error.message}", err=True)
        return failed

    failed = asyncio.run(register())
    if as_json:
        print_json(WorkersReply(workers=tuple(registered)))
    if failed:
        raise typer.Exit(1)


COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("add", add),
    ("list", list_workers),
    ("test", test_workers),
    ("cordon", cordon),
    ("uncordon", uncordon),
    ("remove", remove),
    ("import", import_workers),
)


def build_worker_app() -> typer.Typer:
    """`choir worker` with its commands."""
    return command_group(COMMANDS, "External workers: Ollama, LM Studio, Exo and other servers.")


def _change(action: str, worker_id: str, done: str, as_json: bool) -> None:
    from schemas.nodes.workers import ManageWorkers, WorkersReply
    from services.client.request_builder import build

    (status,) = _manage(build(ManageWorkers, {"action": action, "id": worker_id}))
    print_outcome(WorkersReply(workers=(status,)), done.format(status.worker.id), as_json)


def _manage(request: ManageWorkers) -> tuple[WorkerStatus, ...]:
    from services.client.client import Choir

    async def ask() -> tuple[WorkerStatus, ...]:
        async with Choir() as mesh:
            return await mesh.workers(request)

    return asyncio.run(ask())
