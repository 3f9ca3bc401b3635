"""Signatures by the key with which a service is let in by the broker (nkeys: Ed25519)."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

import nkeys
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

_CHECKSUM_BYTES = 2


class Signer:
    """Signs in the name of one key."""

    def __init__(self, seed: bytes) -> None:
        self._pair = nkeys.from_seed(bytearray(seed))

    @classmethod
    def of_file(cls, path: str | None) -> Signer | None:
        """With the seed in a file; None where the service has no key."""
        return None if path is None else cls(Path(path).expanduser().read_bytes().strip())

    @property
    def key(self) -> str:
        """The public key, as brokers write it."""
        public: bytes = self._pair.public_key
        return public.decode()

    def sign(self, data: bytes) -> str:
        """The signature in base64."""
        return base64.b64encode(self._pair.sign(data)).decode()


def is_signed(data: bytes, key: str, signature: str) -> bool:
    """Whether the owner of a public key has signed exactly this."""
    try:
        raw = base64.b32decode(key + "=" * (-len(key) % 8))[1:-_CHECKSUM_BYTES]
        VerifyKey(raw).verify(data, base64.b64decode(signature, validate=True))
    except (BadSignatureError, ValueError, TypeError, binascii.Error):
        return False
    return True
