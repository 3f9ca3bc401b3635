"""`choir verify`: whether results are what their receipts say, and decided as they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from services.cli.commands.looking.overview import JsonFlag


def verify(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Results as `choir ask --receipt --json` printed them."),
    ],
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="They must be signed by this public key; repeatable."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="The model's answers must come from this file; repeatable."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Decide results again from their answers, and say what was changed since. No mesh is asked.

    A receipt without a signature shows mistakes, and no forgery: who changes a result can make it a new one.
    """
    from services.aggregator.receipts.checking import faults_of, faults_of_chain, faults_of_models
    from services.cli.sessions.kept_results import kept_results

    results = [result for path in files for result in kept_results(path)]
    named = dict(_named(said) for said in model or ())
    faults = [(result, faults_of(result, key or ()) + faults_of_models(result, named)) for result in results]
    chain = faults_of_chain(result.receipt for result in results if result.receipt is not None)
    if as_json:
        told = [
            {
                "request_id": result.request_id,
                "key": None if result.receipt is None else result.receipt.key,
                "faults": found,
            }
            for result, found in faults
        ]
        typer.echo(json.dumps({"results": told, "chain": chain}, ensure_ascii=False))
    else:
        for result, found in faults:
            signed = "" if result.receipt is None else f", signed by {result.receipt.key or 'nobody'}"
            for line in found or [f"whole{signed}"]:
                typer.echo(f"{result.request_id}: {line}")
        for line in chain:
            typer.echo(line)
    if chain or any(found for _, found in faults):
        raise typer.Exit(1)


def _named(said: str) -> tuple[str, str]:
    """The SHA-256 of the file in `NAME=FILE`, with the model's name. InvalidRequest for another form, and for
    a file that cannot be read."""
    from schemas.errors import InvalidRequest
    from services.engine.model.gguf.header import GgufFault
    from services.engine.model.gguf.split_files import sha256_of

    name, separator, path = said.partition("=")
    if not (name and separator and path):
        raise InvalidRequest(f"model: {said!r} is not of the form NAME=FILE", field="model")
    try:
        return name, sha256_of(Path(path).expanduser())
    except OSError as error:
        raise InvalidRequest(f"model: {path} cannot be read: {error.strerror}", field="model") from error
    except GgufFault as fault:
        raise InvalidRequest(f"model: {path}: {fault}", field="model") from fault
