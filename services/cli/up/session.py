"""One run of `choir up`: start, say what runs, wait, stop; and what signals do meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from infra.host.supervisor import Supervisor
from infra.settings import DEMO_CONFIG, HostSettings
from schemas.errors import ChoirError
from schemas.message import Struct
from services.chassis.nats.connecting.address import without_password
from services.chassis.settings import CONFIG_VARIABLE
from services.cli.up.log_file import LogFile
from services.cli.up.screen import Screen
from services.cli.views.terminal import print_json
from services.client.client import Choir

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class UpDocument(Struct):
    """What `choir up --json` prints when the mesh is ready; it runs on after that."""

    url: str
    pid: int
    config: str | None = None
    log: str
    models: tuple[str, ...]
    problems: tuple[str, ...]
    started_after_s: float


class UpSession:
    """This host's part of the mesh, in the foreground."""

    def __init__(self, settings: HostSettings, screen: Screen, log: LogFile, *, as_json: bool) -> None:
        self._settings = settings
        self._screen = screen
        self._log = log
        self._as_json = as_json
        self._supervisor = Supervisor(settings, forward=screen.forward)
        self._interrupted = False

    async def run(self) -> None:
        """Until a signal or `choir down`. CancelledError if it was interrupted before it was ready."""
        config = self._settings.config
        if config is not None:
            os.environ[CONFIG_VARIABLE] = str(config)  # for the client that asks the mesh for its models
        self._screen.starting(config, config == DEMO_CONFIG, self._settings.models)
        started_s = time.monotonic()
        try:
            await self._start()
        finally:
            self._screen.quiet()
        await self._show_ready(time.monotonic() - started_s)
        await self._supervisor.run_until_stopped()
        self._screen.say("stopped")

    async def _start(self) -> None:
        """Starts the mesh. The first signal stops what was started, the second kills what is left of it."""
        loop = asyncio.get_running_loop()
        starting = asyncio.ensure_future(self._supervisor.start())

        def on_signal() -> None:
            if starting.done():
                self._supervisor.ask_to_stop()
            elif self._interrupted:
                for child in self._supervisor.children:
                    child.kill()
            else:
                self._interrupted = True
                self._screen.quiet()
                self._screen.say("stopping what was started; Ctrl-C again kills it")
                starting.cancel()

        for number in SIGNALS:
            loop.add_signal_handler(number, on_signal)  # until `run_until_stopped` sets its own
        try:
            await starting
        except ChoirError:
            self._screen.quiet()
            if self._log.written:
                self._screen.say(f"the mesh has not started; all that was said is in {self._log.path}", "red")
            raise

    async def _show_ready(self, took_s: float) -> None:
        """Says what runs."""
        supervisor = self._supervisor
        models = await self._models()
        url = without_password(supervisor.url)
        section, member = self._settings.gateway, supervisor.member
        here = section.enabled and (member is None or "gateway" in member.services)
        self._screen.ready(url, took_s, models, section.address if here and self._gateway_listens() else None)
        if self._as_json:
            document = UpDocument(
                url=url,
                pid=os.getpid(),
                config=None if self._settings.config is None else str(self._settings.config),
                log=str(self._log.path),
                models=models,
                problems=tuple(supervisor.problems),
                started_after_s=round(took_s, 3),
            )
            print_json(document)

    def _gateway_listens(self) -> bool:
        """Whether nothing is told of the gateway of this host; of a port that is taken it would be."""
        children = self._supervisor.children
        named = {child.name for child in children if child.command.service == "gateway"}
        return not any(problem.partition(":")[0] in named for problem in self._supervisor.problems)

    async def _models(self) -> tuple[str, ...]:
        """The models that can be asked; where no router says so, those that were asked for here."""
        try:
            async with Choir(self._supervisor.url, name="choir-up") as mesh:
                return tuple(model.name for model in await mesh.models())
        except ChoirError:
            return self._settings.models
