"""`choir keys`: API keys, which people show to the gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.shell import completion
from services.cli.shell.command_group import command_group
from services.cli.views.terminal import console, print_json

if TYPE_CHECKING:
    from schemas.requests.keys import ApiKey, ManageKeys

ENDING_LENGTH = 4

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The key's id; `choir keys list` has them.")]
LabelOption = Annotated[str | None, typer.Option("--label", help="Whose it is, or what for.")]
ScopeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        metavar="SCOPE",
        help="What it opens: models, generate, embed, observe, operate. Again for more; without it the first "
        "three.",
    ),
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Only this model, or ensemble. Again for more.",
        autocompletion=completion.model,
    ),
]
InFlightOption = Annotated[
    int | None, typer.Option("--in-flight", help="At most so many requests at a time.")
]
TokensOption = Annotated[int | None, typer.Option("--tokens-per-minute", help="At most so many tokens.")]
RequestsOption = Annotated[
    int | None, typer.Option("--requests-per-minute", help="At most so many requests of models.")
]
ShareOption = Annotated[
    float | None, typer.Option("--batch-share", help="Of the queue, for its batch work: 0.01 is 1 %.")
]
PriorityOption = Annotated[
    str | None,
    typer.Option(
        "--priority",
        metavar="CLASS",
        help="interactive, or batch: all that is asked by it waits for what others ask.",
    ),
]
ExpiresOption = Annotated[
    str | None, typer.Option("--expires", metavar="TIME", help="After that it opens nothing: 12h, 90d.")
]
CacheOption = Annotated[
    bool | None, typer.Option("--cache/--no-cache", help="Whether the cache may answer for the model.")
]


def add(
    label: LabelOption = None,
    tenant: Annotated[str, typer.Option("--tenant", help="Whose part it is.")] = "local",
    scope: ScopeOption = None,
    model: ModelOption = None,
    in_flight: InFlightOption = None,
    tokens: TokensOption = None,
    requests: RequestsOption = None,
    batch_share: ShareOption = None,
    priority: PriorityOption = None,
    expires: ExpiresOption = None,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a key. Its secret is shown once: the mesh keeps only a digest of it."""
    import secrets

    from schemas.requests.keys import USUAL_SCOPES, ApiKey, ManageKeys, digest_of, new_secret
    from services.cli.views.tables.keys_view import NewKey
    from services.client.moment import span_s
    from services.client.request_builder import build

    key_id, now_s = f"k-{secrets.token_hex(4)}", time.time()
    secret = new_secret(key_id)
    fields = {
        "id": key_id,
        "tenant": tenant,
        "label": label or "",
        "digest": digest_of(secret),
        "ending": secret[-ENDING_LENGTH:],
        "scopes": tuple(scope) if scope else USUAL_SCOPES,
        "models": tuple(model or ()),
        "limits": _limits(in_flight, tokens, requests, batch_share),
        "priority": priority or "interactive",
        "cache": cache is not False,
        "created_at_s": now_s,
        "expires_at_s": None if expires is None else now_s + span_s(expires, "expires"),
    }
    (key,) = _manage(ManageKeys(action="add", key=build(ApiKey, fields)))
    if as_json:
        print_json(NewKey(secret=secret, key=key))
    else:
        typer.echo(secret)
        typer.echo("it is shown this once; clients send it as their API key", err=True)


def list_keys(as_json: JsonFlag = False) -> None:
    """Show all keys: what each opens, its limits, whether it is good."""
    from schemas.requests.keys import KeysReply, ManageKeys
    from services.cli.views.tables.keys_view import keys_table

    keys = _manage(ManageKeys())
    if as_json:
        print_json(KeysReply(keys=keys))
    elif keys:
        console().print(keys_table(keys))
    else:
        console().print("no keys; `choir keys add` makes one")


def change(
    key_id: IdArgument,
    label: LabelOption = None,
    scope: ScopeOption = None,
    model: ModelOption = None,
    all_models: Annotated[bool, typer.Option("--all-models", help="All models again.")] = False,
    in_flight: InFlightOption = None,
    tokens: TokensOption = None,
    requests: RequestsOption = None,
    batch_share: ShareOption = None,
    priority: PriorityOption = None,
    expires: ExpiresOption = None,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Change what a key opens. Gateways follow within a second; limits that are not named are gone."""
    from services.client.moment import span_s

    limits = _limits(in_flight, tokens, requests, batch_share)
    said = {
        "label": label,
        "scopes": tuple(scope) if scope else None,
        "models": () if all_models else (tuple(model) if model else None),
        "limits": limits or None,
        "priority": priority,
        "cache": cache,
        "expires_at_s": None if expires is None else time.time() + span_s(expires, "expires"),
    }
    _change_and_show(
        key_id, "change", as_json, {name: value for name, value in said.items() if value is not None}
    )


def revoke(key_id: IdArgument, as_json: JsonFlag = False) -> None:
    """End a key, at once and for good."""
    _change_and_show(key_id, "revoke", as_json)


def remove(key_id: IdArgument, as_json: JsonFlag = False) -> None:
    """Forget a key: it opens nothing any more, and is in no list."""
    _change_and_show(key_id, "remove", as_json)


COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("add", add),
    ("list", list_keys),
    ("change", change),
    ("revoke", revoke),
    ("remove", remove),
)


def build_keys_app() -> typer.Typer:
    """`choir keys` with its commands."""
    return command_group(COMMANDS, "API keys, which people and programs show to the gateway.")


def _limits(
    in_flight: int | None, tokens: int | None, requests: int | None, batch_share: float | None
) -> dict[str, float]:
    """The limits that were named."""
    said = {
        "requests_in_flight": in_flight,
        "tokens_per_minute": tokens,
        "requests_per_minute": requests,
        "batch_share": batch_share,
    }
    return {name: value for name, value in said.items() if value is not None}


def _change_and_show(key_id: str, action: str, as_json: bool, what: dict[str, Any] | None = None) -> None:
    from schemas.requests.keys import KeysReply, ManageKeys
    from services.cli.views.tables.keys_view import keys_table
    from services.client.request_builder import build

    keys = _manage(build(ManageKeys, {"action": action, "id": key_id, "change": what}))
    if as_json:
        print_json(KeysReply(keys=keys))
    elif action == "remove":
        console().print(f"{key_id} is removed")
    else:
        console().print(keys_table(keys))


def _manage(request: ManageKeys) -> tuple[ApiKey, ...]:
    from services.client.client import Choir

    async def ask() -> tuple[ApiKey, ...]:
        async with Choir() as mesh:
            return await mesh.keys(request)

    return asyncio.run(ask())
