"""Keys that the supervisor makes: a seed for each user of the broker, in a file that only its owner reads.

A seed (an Ed25519 private key, in NATS's words an nkey) never leaves the host: the broker's configuration has
the public key alone, and whoever connects signs what the broker sends.
"""

from __future__ import annotations

import os
from pathlib import Path

import nkeys

from infra.host.children.processes import writable_folder
from infra.host.secret_file import write_whole
from schemas.errors import ConfigurationError
from schemas.subjects import encode_token

SEED_BYTES = 32
SUFFIX = ".nk"


class KeyRing:
    """The seeds of one kind of user, each in a file of its own in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str) -> Path:
        """Where the seed of a user lies."""
        return self._folder / f"{encode_token(name)}{SUFFIX}"

    def public_key(self, name: str) -> str:
        """The public key of a user, whose seed is made if there is none. ConfigurationError if that fails."""
        path = self.path(name)
        try:
            if not path.is_file():
                self._make(path)
            pair = nkeys.from_seed(bytearray(path.read_bytes().strip()))
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read or written: {error.strerror}") from error
        except nkeys.NkeysError as error:
            raise ConfigurationError(
                f"{path} holds no seed of a user: remove it, and a new one is made"
            ) from error
        public: bytes = pair.public_key
        pair.wipe()
        return public.decode()

    def _make(self, path: Path) -> None:
        writable_folder(self._folder, "the folder of credentials").chmod(0o700)
        write_whole(path, nkeys.encode_seed(os.urandom(SEED_BYTES), nkeys.PREFIX_BYTE_USER))
