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
from schemas.joining import InviteKind

BEGINNING = "choir1-"
MOST_BYTES = 64 * 1024
"""What a line may hold when it is unpacked."""
SEPARATOR = b"\0"


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
        packed = zlib.compress(self.model_dump_json().encode() + SEPARATOR + self.ca, 9)
        return BEGINNING + base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def parse_line(text: str) -> InviteLine:
    """Reads what was typed. ConfigurationError if it is no line of an invite, or not a whole one."""
    words = "".join(text.split())
    if not words.startswith(BEGINNING):
        raise ConfigurationError(
            f"this is no line of an invite, which begins with {BEGINNING}: `choir invite` on the broker's "
            f"host "
            "prints one"
        )
    try:
        body = words.removeprefix(BEGINNING)
        unpacking = zlib.decompressobj()
        whole = unpacking.decompress(
            base64.b64decode(body + "=" * (-len(body) % 4), b"-_", validate=True), MOST_BYTES
        )
        if not unpacking.eof:
            raise ValueError("it is cut off")
        document, _, ca = whole.partition(SEPARATOR)
        line = InviteLine.model_validate_json(document)
    except (binascii.Error, zlib.error, ValidationError, ValueError) as error:
        what = "the line of the invite is not whole: copy all of it, in one piece"
        raise ConfigurationError(what) from error
    return line.model_copy(update={"ca": ca})
