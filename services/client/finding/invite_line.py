"""The line of an invite: where the mesh is, what proves it, and the key that lets somebody join once. Pure.

`choir1-` and, in base64 without padding, a compressed document: a line is whole or said to be damaged.
"""

from __future__ import annotations

import base64
import binascii
import ssl
import zlib

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import ConfigurationError
from schemas.nodes.joining import InviteKind

BEGINNING = "choir1-"
MOST_BYTES = 64 * 1024
"""What a line may hold when it is unpacked."""
SEPARATOR = b"\0"
NOT_WHOLE = "the line of the invite is not whole: copy all of it, in one piece"


class InviteLine(BaseModel):
    """`seed` is the secret: whoever has the line may join, once. `ca` is the certificate of the mesh's
    authority (DER); without it the broker is known by what the system trusts."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: InviteKind
    name: str
    addresses: tuple[str, ...] = Field(min_length=1)
    seed: str
    ca: bytes = Field(default=b"", exclude=True)

    @property
    def ca_pem(self) -> str | None:
        """The certificate as a PEM file has it."""
        return ssl.DER_cert_to_PEM_cert(self.ca) if self.ca else None

    @property
    def text(self) -> str:
        """What is typed."""
        return pack(BEGINNING, self.model_dump_json().encode() + SEPARATOR + self.ca)


def pack(beginning: str, content: bytes) -> str:
    """A line that is typed: after its beginning nothing that a shell would take for something else."""
    return beginning + base64.urlsafe_b64encode(zlib.compress(content, 9)).rstrip(b"=").decode()


def unpack(beginning: str, text: str) -> bytes:
    """What a line holds. ConfigurationError if it is not whole."""
    body = "".join(text.split()).removeprefix(beginning)
    try:
        unpacking = zlib.decompressobj()
        whole = unpacking.decompress(
            base64.b64decode(body + "=" * (-len(body) % 4), b"-_", validate=True), MOST_BYTES
        )
    except (binascii.Error, zlib.error, ValueError) as error:
        raise ConfigurationError(NOT_WHOLE) from error
    if not unpacking.eof:
        raise ConfigurationError(NOT_WHOLE)
    return whole


def parse_line(text: str) -> InviteLine:
    """Reads what was typed. ConfigurationError if it is no line of an invite, or not a whole one."""
    words = "".join(text.split())
    if not words.startswith(BEGINNING):
        raise ConfigurationError(
            f"this is no line of an invite, which begins with {BEGINNING}: `choir invite` on the broker's "
            f"host "
            "prints one"
        )
    document, _, ca = unpack(BEGINNING, words).partition(SEPARATOR)
    try:
        line = InviteLine.model_validate_json(document)
    except ValidationError as error:
        raise ConfigurationError(NOT_WHOLE) from error
    return line.model_copy(update={"ca": ca})
