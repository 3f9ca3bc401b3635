"""`python -m loadtest.trial.upgrading FOLDER ...`: `choir`, whose services may be of another version.

As long as FOLDER is there, its supervisor starts services of REPLACED with the schemas in it: as on a host
that is upgraded, or set back, while it works.
"""

from __future__ import annotations

import os
import runpy
import sys
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from unittest import mock

from infra.host.children.child import Running, ServiceCommand, start_process
from infra.host.children.forked import ForkServer

MODULE = "loadtest.trial.upgrading"
REPLACED = ("agent", "aggregator", "router")
"""The services on the way of a request."""
PATH = "PYTHONPATH"


def with_schemas_of(folder: Path) -> AbstractContextManager[object]:
    """Meanwhile supervisors of this process look into `folder` before they start a service of REPLACED."""
    present = ForkServer.start

    async def start(self: ForkServer, command: ServiceCommand) -> Running:
        other = _of_other_version(command, folder)
        return await present(self, command) if other is None else await start_process(other)

    return mock.patch.object(ForkServer, "start", start)


def _of_other_version(command: ServiceCommand, folder: Path) -> ServiceCommand | None:
    """The same with the schemas of that folder; None if it is to have those of this repository."""
    if command.service not in REPLACED or not folder.exists():
        return None
    # Where it leads now: a process imports still when the next version has come.
    path = os.pathsep.join(filter(None, (str(folder.resolve()), command.env.get(PATH))))
    return replace(command, env={**command.env, PATH: path})


def main() -> None:
    """`choir`, with all its arguments after the first."""
    with with_schemas_of(Path(sys.argv.pop(1))):
        runpy.run_module("services.cli", run_name="__main__")


if __name__ == "__main__":
    main()
