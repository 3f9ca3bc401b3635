"""Has nats-py come by the key that its file holds now: a program goes on when its key is rotated.

nats-py (2.16) reads the public half of a key once, and the secret half for each connection. When another key
had come into the file every later connection named the old one, was signed by the new one, and was refused.
"""

from __future__ import annotations

from nats.aio.client import Client


def read_key_anew(client: Client) -> None:
    """From now on both halves are read for each connection. Does nothing the second time, nor for a client
    without a file."""
    if "_connect_command" in vars(client):
        return
    command = client._connect_command

    def command_by_the_file() -> bytes:
        if client._nkeys_seed is not None:
            client._setup_nkeys_connect()
        return command()

    setattr(client, "_connect_command", command_by_the_file)  # noqa: B010  # a method of nats-py's, for this one client
