"""Writes the AsyncAPI 3.0 document of all subjects and messages, for those who generate clients from it.

python -m infra.asyncapi            # write schemas/broker/asyncapi.json
python -m infra.asyncapi --check    # exit 1 if it is not what the catalog says

The classes of the specification are FastStream's. They have no fields yet for the parameters of a channel,
the headers of a message and the reply of an operation, but take further fields: these are written as
dictionaries.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated
from urllib.parse import urlparse

import typer
from faststream.specification.asyncapi.v3_0_0.schema import (
    ApplicationInfo,
    ApplicationSchema,
    Components,
    License,
    Server,
)

from infra.asyncapi.channels import JSON_TYPE, channel_object, reply_name, reply_object
from infra.asyncapi.operations import operations_on
from infra.asyncapi.schemas import component_schemas
from infra.docs.readmes import size
from schemas.broker import catalog
from schemas.broker.channels import CHANNELS
from schemas.message import Message
from services.chassis.settings import DEFAULT_URL

DOCUMENT = Path(__file__).resolve().parents[2] / "schemas" / "broker" / "asyncapi.json"

ABOUT = """Every subject and message of Choir. Each operation is a client's or a service's, as its tag says.

A name in a subject is one token: letters, digits, `-` and `_` stay, every other UTF-8 byte becomes `=XX`,
so `llama3.2:3b` is `llama3=2E2=3A3b`. A field that would be null is left out. Requests and commands are
closed to unknown fields; in what services say there may be more than is described here, which readers leave
out. A reply is an ErrorReply, or a Result with an `error`, if it has the header `Nats-Service-Error`. Where
the broker knows users, replies go to `_INBOX_<user>`. The binary frames of stages, and what goes beyond a
schema, are in schemas/README.md."""


def document() -> ApplicationSchema:
    """The whole description."""
    version = Message.model_fields["schema_version"].default
    return ApplicationSchema(
        info=ApplicationInfo(
            title="Choir",
            version=f"{version}.{catalog.VERSION}",
            description=ABOUT,
            license=License(name="MIT"),
        ),
        defaultContentType=JSON_TYPE,
        servers={
            "mesh": Server(
                host=urlparse(DEFAULT_URL).netloc,
                pathname="",
                protocol="nats",
                description=f"the broker; a message with its headers has at most {size(catalog.MIB)}, unless "
                "max_payload in section [broker] says otherwise",
            )
        },
        channels={channel.name: channel_object(channel) for channel in CHANNELS}
        | {reply_name(channel): reply_object(channel) for channel in CHANNELS if channel.replies},
        operations=dict(pair for channel in CHANNELS for pair in operations_on(channel)),
        components=Components(schemas=component_schemas()),
    )


def render() -> str:
    """The document as it lies in the file."""
    return json.dumps(document().to_jsonable(), indent=1, ensure_ascii=False) + "\n"


def main(
    check: Annotated[bool, typer.Option("--check", help="change nothing; exit 1 if it is stale")] = False,
    file: Annotated[Path, typer.Option(help="where the document lies")] = DOCUMENT,
) -> None:
    """Write the AsyncAPI document anew."""
    new = render()
    if file.exists() and file.read_text(encoding="utf-8") == new:
        typer.echo(f"{file.name} is up to date")
    elif check:
        typer.echo(
            f"{file.name} does not say what schemas/broker/channels.py and the catalog say: run `just docs`",
            err=True,
        )
        raise typer.Exit(1)
    else:
        file.write_text(new, encoding="utf-8")
        typer.echo(f"{file.name} rewritten")
