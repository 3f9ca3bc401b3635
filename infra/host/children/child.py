"""One service process under supervision: started, listened to, started again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from infra.host.children.forward import Forward, without_commands
from infra.host.children.processes import LAST_LINES, PREEXEC

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2
READ_BYTES = 64 * 1024
LAST_OUTPUT_DEADLINE_S = 1.0


@dataclass
class BackOff:
    """How long to wait before the next start: twice as long each time, anew after a stable while."""

    first_s: float = 0.5
    longest_s: float = 30.0
    stable_s: float = 60.0
    failures: int = 0

    def after(self, ran_s: float) -> float:
        """The wait after a process that had run for `ran_s` seconds."""
        self.failures = 0 if ran_s >= self.stable_s else self.failures
        wait_s = min(self.longest_s, self.first_s * 2.0**self.failures)
        self.failures += 1
        return wait_s


@dataclass(frozen=True)
class ServiceCommand:
    """How one instance of a service is started. `env` is its whole environment."""

    service: str
    instance: str
    arguments: Sequence[str]
    env: Mapping[str, str]


class Running(Protocol):
    """What is asked of a process that was started: `asyncio.subprocess.Process` has it."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    @property
    def stdout(self) -> asyncio.StreamReader | None: ...

    def send_signal(self, number: int, /) -> None: ...

    async def wait(self) -> int: ...


async def start_process(command: ServiceCommand) -> Running:
    """Starts it, with a pipe for what it writes."""
    return await asyncio.create_subprocess_exec(
        *command.arguments,
        env=dict(command.env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        preexec_fn=PREEXEC,
        start_new_session=True,  # Ctrl-C is for the supervisor, which stops its children in order
    )


@dataclass
class Child:
    """Keeps one instance running until it is told to stop."""

    command: ServiceCommand
    forward: Forward
    back_off: BackOff = field(default_factory=BackOff)
    start_process: Callable[[ServiceCommand], Awaitable[Running]] = start_process
    last_exit: int | None = None
    exits: int = 0
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    _process: Running | None = None
    _task: asyncio.Task[None] | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """The instance."""
        return self.command.instance

    @property
    def pid(self) -> int | None:
        """The process that runs now; None between two."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process is not None else None

    def start(self) -> None:
        """Start the process, and keep it."""
        self._task = asyncio.create_task(self._keep(), name=f"keep {self.name}")

    async def stop(self, deadline_s: float) -> None:
        """SIGTERM, then SIGKILL after the deadline; it is not started again."""
        self._stopping.set()
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        if self._task is None:
            return
        done, _ = await asyncio.wait([self._task], timeout=deadline_s)
        if not done:
            self.forward(self.name, f"did not stop within {deadline_s:.0f} s and is killed")
            self.kill()
        await self._task

    def kill(self) -> None:
        """SIGKILL the process that runs now."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started_s = loop.time()
            self.last_exit = await self._run()
            self.exits += 1
            if self._stopping.is_set():
                return
            wait_s = self.back_off.after(loop.time() - started_s)
            self.forward(self.name, f"{self._ending()}; starts again in {wait_s:g} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stopping.wait()

    def _ending(self) -> str:
        code = self.last_exit or 0
        if code == EXIT_CONFIGURATION:
            return "cannot run with its settings (exit code 2)"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    async def _run(self) -> int:
        try:
            process = await self.start_process(self.command)
        except OSError as error:
            self._heard(f"cannot be started: {error}".encode())
            return EXIT_FAILED
        self._process = process
        if self._stopping.is_set():  # told so while it was being started
            self._signal(signal.SIGTERM)
        assert process.stdout is not None
        listening = asyncio.create_task(self._listen(process.stdout))
        code = await process.wait()
        await asyncio.wait([listening], timeout=LAST_OUTPUT_DEADLINE_S)
        listening.cancel()
        return code

    async def _listen(self, output: asyncio.StreamReader) -> None:
        rest = b""
        while block := await output.read(READ_BYTES):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                self._heard(line)
        if rest:
            self._heard(rest)

    def _heard(self, line: bytes) -> None:
        text = without_commands(line.decode(errors="replace").rstrip())
        self.lines.append(text)
        self.forward(self.name, text)
