"""Who may use which subject of the broker: generated from the catalog, nothing more.

A service may publish and hear what the catalog says, and replies under an inbox prefix of its own. An
instance whose `Scope` is known may renew its own lease alone, and take work of its own models alone. Replies
go to inboxes, whatever reply subject a request names.

Where services and clients share one account of a broker that runs already, users with passwords are printed
by

    CHOIR_PASSWORD_ROUTER=... CHOIR_PASSWORD_AGENT=... python -m infra.broker.access.permissions > users.conf

for `include users.conf` beside the doors (`python -m infra.broker.access.accounts`), and `CHOIR_MESH__USER`
and `CHOIR_MESH__PASSWORD` for each service. There one user stands for all instances of a service, and every
client (`client`, unless `--client` says who there are) is the tenant `local`. `choir up` does better: see
accounts.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from schemas import subjects
from schemas.broker import catalog
from schemas.broker.catalog import Access
from schemas.errors import ChoirError, ConfigurationError

OPERATOR = "supervisor"
HOST = "host"
"""The user name of supervisors of hosts that have joined: their inboxes begin with it."""
CLIENT = catalog.CLIENT_USER
PASSWORD_VARIABLE = "CHOIR_PASSWORD_"

SERVICES_API = "$SRV.>"
INBOXES = "_INBOX.>"
"""Where replies come to clients that choose no prefix."""
ACROSS_ACCOUNTS = "_R_.>"
"""Where the broker leads replies into another account."""

REPUBLISHED = frozenset(spec.name for spec in catalog.BUCKETS if spec.republished)

User = dict[str, object]


@dataclass(frozen=True)
class Scope:
    """Whose rights: those of one instance, or of all of a service without `instance`.

    `models` are those whose work it takes; None where nobody can say so beforehand. A gateway that is
    `keyless` serves whoever is on its host, as the tenant `local`, also what else takes an API key.
    """

    instance: str | None = None
    models: tuple[str, ...] | None = None
    keyless: bool = False


ANY = Scope()


def scope_of(
    instance: str,
    models: tuple[str, ...] | None,
    takes_workers: bool,
    worker_models: Iterable[str] | None,
    *,
    keyless: bool = False,
) -> Scope:
    """The rights of an instance that serves `models`, or of a `keyless` gateway. If it takes workers, those
    for `worker_models` besides, the models that workers are registered for; where these are not known (None),
    for all."""
    if models is None or not takes_workers:
        return Scope(instance, models, keyless)
    if worker_models is None:
        return Scope(instance)
    return Scope(instance, tuple(dict.fromkeys((*models, *worker_models))))


def users(clients: Iterable[str] = (CLIENT,)) -> tuple[str, ...]:
    """Everybody who needs a password."""
    return (OPERATOR, *clients, *(access.service for access in catalog.ACCESS))


def publishes(access: Access, scope: Scope = ANY) -> list[str]:
    """Every subject that a service publishes to, the requests to JetStream's API among them; no replies."""
    own = {
        subjects.ALL_EVENTS: subjects.events_of(access.service),
        subjects.ALL_DEAD: subjects.dead_of(access.service),
    }
    return [
        *(own.get(subject, subject) for subject in access.publishes),
        *_without_keys(access, scope),
        *_pulling(access, scope),
        *(subjects.stream_info(stream) for stream in access.pulls),
        *(subject for stream in access.reads for subject in _reading(stream)),
        *(f"$JS.API.STREAM.MSG.DELETE.{stream}" for stream in access.deletes),
        *(f"$JS.API.STREAM.PURGE.{stream}" for stream in access.purges),
        *(subjects.consumer_list(stream) for stream in access.counts),
        *(
            subject
            for bucket in dict.fromkeys((*access.buckets_read, *access.buckets_written))
            for subject in _reading(subjects.bucket_stream(bucket))
        ),
        *(_written(bucket, access.service, scope) for bucket in access.buckets_written),
    ]


def _without_keys(access: Access, scope: Scope) -> list[str]:
    """Where nobody on the host needs a key: the doors of `local` in place of the keyed ones."""
    if not scope.keyless:
        return []
    return [
        subjects.door(subjects.LOCAL_TENANT, subject)
        for subject in catalog.KEYED
        if subjects.keyed_doors(subject) in access.publishes
    ]


def _pulling(access: Access, scope: Scope) -> Iterator[str]:
    """Takes messages and acknowledges them: of consumers that are its own, or of any where that is open."""
    names = access.consumers
    if not names and scope.models is not None:
        names = tuple(spec.name for model in scope.models for spec in catalog.model_consumers(model))
    for stream in access.pulls:
        for name in names or ("*",):
            yield subjects.pull_next(stream, name)
            yield subjects.acknowledgements(stream, name)


def refused(access: Access, scope: Scope = ANY) -> list[str]:
    """What a pattern of `publishes` takes in and is not the service's to do: the work of other services."""
    if access.consumers or scope.models is not None:
        return []
    return [
        subject
        for spec in catalog.FIXED_CONSUMERS
        if spec.stream in access.pulls
        for subject in (
            subjects.pull_next(spec.stream, spec.name),
            subjects.acknowledgements(spec.stream, spec.name),
        )
    ]


def _written(bucket: str, service: str, scope: Scope) -> str:
    """The keys that a service puts: of leases its own."""
    if bucket != subjects.NODES_BUCKET:
        return subjects.bucket_keys(bucket)
    keys = (
        subjects.node_keys(service) if scope.instance is None else subjects.node_key(service, scope.instance)
    )
    return subjects.bucket_key(bucket, keys)


def subscribes(access: Access, scope: Scope = ANY) -> list[str]:
    """Every subject that a service listens to."""
    inbox = (
        subjects.inbox_prefix(access.service)
        if scope.instance is None
        else subjects.service_inbox(access.service, scope.instance)
    )
    return [
        *(one for subject in access.subscribes for one in _heard(subject, scope)),
        *(subjects.bucket_updates(bucket) for bucket in access.buckets_read if bucket in REPUBLISHED),
        f"{inbox}.>",
        SERVICES_API,
    ]


def _heard(subject: str, scope: Scope) -> tuple[str, ...]:
    """Of what is asked of any model that of its own models, of what is sent to one agent its own."""
    to_one = {
        subjects.ALL_LOAD_ORDERS: subjects.load_order,
        subjects.ALL_PREFIX_SIGNALS: subjects.prefix_signal,
    }.get(subject)
    if to_one is not None and scope.instance is not None:
        return (to_one(scope.instance),)
    spell = {
        subjects.ALL_COUNTS: subjects.count_tokens,
        subjects.ALL_TOKENIZERS: subjects.tokenizer,
    }.get(subject)
    if spell is None or scope.models is None:
        return (subject,)
    return tuple(spell(model) for model in scope.models)


def _reading(stream: str) -> tuple[str, ...]:
    """What it takes to read a stream message by message: a direct get, and what the stream is."""
    return (
        subjects.stream_info(stream),
        subjects.direct_get(stream),
        f"{subjects.direct_get(stream)}.>",
        subjects.message_get(stream),
    )


def replies(clients: Iterable[str] = (), *, services: bool = True) -> list[str]:
    """Where replies may go: inboxes of the operator and these clients, and other accounts; of `services`
    where a service is asked by others."""
    others = tuple(access.service for access in catalog.ACCESS) if services else ()
    everybody = (OPERATOR, HOST, *others, *clients)
    return [*(f"{subjects.inbox_prefix(user)}.>" for user in everybody), INBOXES, ACROSS_ACCOUNTS]


def service_permissions(access: Access, scope: Scope = ANY, clients: Iterable[str] = ()) -> dict[str, object]:
    """The rights of a service. It may answer whoever asks it in an inbox, and nowhere else."""
    publish: dict[str, object] = {
        "allow": [*publishes(access, scope), *replies(clients, services=bool(access.subscribes))]
    }
    if deny := refused(access, scope):
        publish["deny"] = deny
    return {"publish": publish, "subscribe": subscribes(access, scope)}


def host_permissions(host: str) -> dict[str, object]:
    """The supervisor of a host that has joined: it tells of its processes, sees leases, and asks for
    pipelines of its choir.toml and whether they can be asked."""
    asks = (subjects.SHARD, subjects.MODELS)
    return {
        "publish": [
            subjects.enrol(host),
            *(subjects.door(subjects.LOCAL_TENANT, subject) for subject in asks),
            *_reading(subjects.bucket_stream(subjects.NODES_BUCKET)),
        ],
        "subscribe": [f"{subjects.host_inbox(host)}.>", subjects.bucket_updates(subjects.NODES_BUCKET)],
    }


def invite_permissions(public_key: str) -> dict[str, object]:
    """Whoever holds an invite may ask to join by it, and nothing else."""
    return {
        "publish": [subjects.join(public_key)],
        "subscribe": [f"{subjects.joining_inbox(public_key)}.>"],
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


def authorization(
    passwords: Mapping[str, str], clients: Sequence[str] = (CLIENT,), *, keyless: bool = False
) -> str:
    """The `authorization` block; gateways are `keyless` or not. ConfigurationError names users without
    password or of one name."""
    everyone = users(clients)
    twice = sorted({user for user in everyone if everyone.count(user) > 1})
    if twice:
        raise ConfigurationError(f"two users are called {', '.join(twice)}: give the client another name")
    missing = [user for user in everyone if not passwords.get(user)]
    if missing:
        raise ConfigurationError(
            f"no password for {', '.join(missing)}: set {PASSWORD_VARIABLE}{missing[0].upper()}"
        )
    service_users: list[User] = [
        {
            "user": access.service,
            "password": passwords[access.service],
            "permissions": service_permissions(access, Scope(keyless=keyless), clients),
        }
        for access in catalog.ACCESS
    ]
    everybody: list[User] = [
        {"user": OPERATOR, "password": passwords[OPERATOR]},
        *(client_user(name, passwords[name]) for name in clients),
        *service_users,
    ]
    # JSON is valid in nats-server's configuration.
    return f"authorization: {json.dumps({'users': everybody}, indent=2)}\n"


def main(
    client: Annotated[
        list[str] | None, typer.Option(help="a user who asks; one for each person or application; repeatable")
    ] = None,
    keyless_gateway: Annotated[
        bool, typer.Option(help="gateways want no keys: whoever is on their hosts may operate the mesh")
    ] = False,
) -> None:
    """Print the block, with the passwords that the environment holds."""
    clients = client or [CLIENT]
    passwords = {user: os.environ.get(PASSWORD_VARIABLE + user.upper(), "") for user in users(clients)}
    try:
        typer.echo(authorization(passwords, clients, keyless=keyless_gateway))
    except ChoirError as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
