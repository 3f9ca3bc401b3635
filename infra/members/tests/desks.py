"""A desk for tests of a broker with one account for all: invites are kept, and nobody is kept out."""

from __future__ import annotations

from pathlib import Path

from nats.aio.client import Client

from infra.members.accounts_controller import AccountsController
from infra.members.desk import Desk
from infra.members.inviting import Whereabouts
from infra.members.members import Members


async def start_desk(client: Client, folder: Path) -> None:
    """From now on `client` answers what supervisors answer; `folder` is the state folder."""
    folder.mkdir(parents=True)

    def block(members: Members) -> str:
        return " ".join(sorted(members.invites))

    async def reload(_block: str, _new_account: bool) -> None:
        """There are no accounts to be read again."""

    async def serve(_models: tuple[str, ...]) -> None:
        """The queues are there."""

    def where() -> Whereabouts:
        return Whereabouts(("127.0.0.1:4222",))

    controller = AccountsController(folder, block, reload, print)
    await controller.start(client)
    await Desk(client, controller, (), serve, where).start()
