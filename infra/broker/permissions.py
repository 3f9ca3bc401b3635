"""Users of the broker who may do only what the catalog says, as a block for nats-server's configuration.

One user for each service, one for each client (`client`, unless `--client` says who there are), and one that
may do everything (the supervisor, who provisions). Nobody else may create consumers: whoever can, can read a
stream. Each user receives replies under an inbox prefix of his own, `_INBOX_<user>`: the command line and the
Python client do so by themselves, others have to be told (`nats --inbox-prefix _INBOX_client`). It is not
switched on by default:

    CHOIR_PASSWORD_ROUTER=... CHOIR_PASSWORD_AGENT=... python -m infra.broker.permissions > users.conf

then `include users.conf` in the broker's configuration, and `CHOIR_MESH__USER` and
`CHOIR_MESH__PASSWORD` for each service.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import typer

from schemas import catalog, subjects
from schemas.catalog import Access
from schemas.errors import ChoirError, ConfigurationError

OPERATOR = "supervisor"
CLIENT = catalog.CLIENT_USER
PASSWORD_VARIABLE = "CHOIR_PASSWORD_"

RESPONSES = {"max": -1, "expires": "2h"}
"""A reply may be a stream of tokens, and a request may take an hour."""

SERVICES_API = "$SRV.>"

REPUBLISHED = frozenset(spec.name for spec in catalog.BUCKETS if spec.republished)

User = dict[str, object]


def users(clients: Iterable[str] = (CLIENT,)) -> tuple[str, ...]:
    """Everybody who needs a password."""
    return (OPERATOR, *clients, *(access.service for access in catalog.ACCESS))


def publishes(access: Access) -> list[str]:
    """Every subject that a service publishes to, the requests to JetStream's API among them."""
    return [
        *access.publishes,
        *(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.>" for stream in access.pulls),
        *(f"$JS.ACK.{stream}.>" for stream in access.pulls),
        *(f"$JS.API.STREAM.INFO.{stream}" for stream in access.pulls),
        *(subject for stream in access.reads for subject in _reading(stream)),
        *(f"$JS.API.STREAM.MSG.DELETE.{stream}" for stream in access.deletes),
        *(f"$JS.API.STREAM.PURGE.{stream}" for stream in access.purges),
        *(
            subject
            for bucket in dict.fromkeys((*access.buckets_read, *access.buckets_written))
            for subject in _reading(subjects.bucket_stream(bucket))
        ),
        *(subjects.bucket_keys(bucket) for bucket in access.buckets_written),
    ]


def subscribes(access: Access) -> list[str]:
    """Every subject that a service listens to."""
    return [
        *access.subscribes,
        *(subjects.bucket_updates(bucket) for bucket in access.buckets_read if bucket in REPUBLISHED),
        f"{subjects.inbox_prefix(access.service)}.>",
        SERVICES_API,
    ]


def _reading(stream: str) -> tuple[str, ...]:
    """What it takes to read a stream message by message: a direct get, and what the stream is."""
    return (
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
    )


def service_user(access: Access, password: str) -> User:
    """A service. It may answer whoever asks it, under whatever reply subject."""
    return {
        "user": access.service,
        "password": password,
        "permissions": {
            "publish": publishes(access),
            "subscribe": subscribes(access),
            "allow_responses": RESPONSES,
        },
    }


def client_user(name: str, password: str) -> User:
    """A client: it may ask what the client surface offers, and hear the replies that are for it."""
    return {
        "user": name,
        "password": password,
        "permissions": {
            # What is led to a door is allowed or refused by the name of the door.
            "publish": [*catalog.door_mappings(), *catalog.door_mappings().values(), SERVICES_API],
            "subscribe": [f"{subjects.inbox_prefix(name)}.>"],
        },
    }


def authorization(passwords: Mapping[str, str], clients: Sequence[str] = (CLIENT,)) -> str:
    """The `authorization` block. ConfigurationError names users without password or of one name."""
    everyone = users(clients)
    twice = sorted({user for user in everyone if everyone.count(user) > 1})
    if twice:
        raise ConfigurationError(f"two users are called {', '.join(twice)}: give the client another name")
    missing = [user for user in everyone if not passwords.get(user)]
    if missing:
        raise ConfigurationError(
            f"no password for {', '.join(missing)}: set {PASSWORD_VARIABLE}{missing[0].upper()}"
        )
    everybody: list[User] = [
        {"user": OPERATOR, "password": passwords[OPERATOR]},
        *(client_user(name, passwords[name]) for name in clients),
        *(service_user(access, passwords[access.service]) for access in catalog.ACCESS),
    ]
    # JSON is valid in nats-server's configuration.
    return f"authorization: {json.dumps({'users': everybody}, indent=2)}\n"


def main(
    client: Annotated[
        list[str] | None, typer.Option(help="a user who asks; one for each person or application; repeatable")
    ] = None,
) -> None:
    """Print the block, with the passwords that the environment holds."""
    clients = client or [CLIENT]
    passwords = {user: os.environ.get(PASSWORD_VARIABLE + user.upper(), "") for user in users(clients)}
    try:
        typer.echo(authorization(passwords, clients))
    except ChoirError as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
