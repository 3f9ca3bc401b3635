"""Making the line of an invite from wherever an operator is: its key is made here, and its secret half stays
here until somebody types the line."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

import nkeys

from schemas.errors import ConfigurationError
from schemas.nodes.joining import Invite, MakeInvite
from services.client.finding.invite_line import InviteLine
from services.client.request_builder import build

if TYPE_CHECKING:
    from services.client.client import Choir

SEED_BYTES = 32


def new_seed() -> tuple[str, str]:
    """A seed that is kept nowhere, and its public key."""
    seed = nkeys.encode_seed(os.urandom(SEED_BYTES), nkeys.PREFIX_BYTE_USER)
    pair = nkeys.from_seed(bytearray(seed))
    public: bytes = pair.public_key
    pair.wipe()
    return bytes(seed).decode(), public.decode()


def line_of(invite: MakeInvite | Invite, seed: str, addresses: tuple[str, ...], ca: str | None) -> InviteLine:
    """The line of an invite. `seed` is the secret half of its key, `ca` a certificate (PEM).
    ConfigurationError if that cannot be read."""
    try:
        certificate = b"" if ca is None else ssl.PEM_cert_to_DER_cert(ca)
    except ValueError as error:
        raise ConfigurationError("the certificate of the mesh cannot be read") from error
    return InviteLine(kind=invite.kind, name=invite.name, addresses=addresses, seed=seed, ca=certificate)


async def invite_from_elsewhere(choir: Choir, **fields: object) -> InviteLine:
    """A line from the mesh of a client whose role is operate; `fields` are those of MakeInvite but the key.

    InvalidRequest names what is wrong, NotPermitted says that the client's role is another.
    """
    seed, public_key = new_seed()
    request = build(MakeInvite, {"public_key": public_key, **fields})
    made = await choir.invite(request)
    return line_of(request, seed, made.addresses, made.ca)
