"""Who is led to the services, as a block for nats-server's configuration.

Services hear what clients ask at doors, `choir.door.<tenant>.<endpoint>`: see schemas/subjects.py. Where
services and clients share one account the broker leads everybody there as the tenant `local`. `choir up`
writes that for its own broker; for one that runs already

    python -m infra.broker.accounts > choir.conf

and `include choir.conf` in its configuration.
"""

from __future__ import annotations

import json

import typer

from schemas import catalog


def one_account() -> str:
    """The block where services and clients share one account: what is asked goes to the door of `local`."""
    # JSON is valid in nats-server's configuration.
    return f"mappings: {json.dumps(catalog.door_mappings(), indent=2)}\n"


def main() -> None:
    """Print the block that a broker needs so that clients reach the services."""
    typer.echo(one_account(), nl=False)


if __name__ == "__main__":
    typer.run(main)
