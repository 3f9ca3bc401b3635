"""What `choir up` shows: to people what they need, to others every line."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from infra.host.children.forward import to_console
from services.cli.up.entry import GraveLines
from services.cli.up.json_lines import echo_json
from services.cli.up.log_file import LogFile
from services.cli.views.terminal import plain

Mode = Literal["people", "verbose", "json"]
SUPERVISOR = "choir"
LABEL_WIDTH = 8
STYLES = {"warning": "yellow", "error": "red", "critical": "bold red"}
READY = "ready at "
"""How the supervisor's line begins that people see in other words."""
STOPPING = "stopping"
FIRST_QUESTION = '  choir ask "What is the capital of France?"'
NEXT = (
    "",
    "In another terminal:",
    FIRST_QUESTION,
    "  choir chat",
    "  choir top",
    "Ctrl-C here, or `choir down`, stops the mesh.",
)


class Screen:
    """Standard error, and the log file: `people` see warnings, errors and what is to be known; `verbose` all
    lines too; with `json` every line is a document and nothing else is written."""

    def __init__(self, mode: Mode, log: LogFile, err: Console | None = None) -> None:
        self._mode = mode
        self._log = log
        self._err = err or Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._status = self._err.status("")
        self._all_lines = to_console(self._err)
        self._grave = GraveLines()
        self._told_of_log = False

    def forward(self, instance: str, line: str) -> None:
        """A line that a service or the supervisor says: to the file, and here if somebody should see it."""
        self._log.write(instance, line)
        if self._mode == "json":
            echo_json(instance, line)
        elif self._mode == "verbose":
            self._all_lines(instance, line)
        else:
            self._show(instance, line)
        if self._log.problem is not None and not self._told_of_log:
            self._told_of_log = True
            self.say(f"the log cannot be written: {self._log.problem}", "red")

    def _show(self, instance: str, line: str) -> None:
        if instance == SUPERVISOR and line == STOPPING:
            self.say("stopping; Ctrl-C again kills what is left")
        elif instance == SUPERVISOR and not line.startswith(READY):
            self.say(f"{time.strftime('%H:%M:%S')}  {line}")
        elif instance != SUPERVISOR and (shown := self._grave.take(instance, line)) is not None:
            level = shown.partition(":")[0]
            self.say(f"{time.strftime('%H:%M:%S')}  {instance}: {shown}", STYLES.get(level, "dim"))

    def say(self, line: str, style: str = "") -> None:
        """A line for people; nothing where every line is a document."""
        if self._mode != "json":
            self._print(Text(plain(line), style))

    def fact(self, label: str, value: str) -> None:
        """`log     /home/...`"""
        if self._mode != "json":
            self._print(Text.assemble((f"{label:<{LABEL_WIDTH}}", "bold"), plain(value)))

    def _print(self, text: Text) -> None:
        """On a terminal lines break between words; elsewhere a line stays one, to be searched."""
        self._err.print(text, soft_wrap=not self._err.is_terminal)

    def starting(self, config: Path | None, demo: bool, models: Sequence[str]) -> None:
        """What is about to be run, and a sign of life until it does."""
        self.fact("config", f"{config}" + (" (the demo's: there is no choir.toml here)" if demo else ""))
        self.fact("log", str(self._log.path))
        what = f"starting, {counted(models)} to load ..."
        if self._mode == "people" and self._err.is_terminal:
            self._status.update(what)
            self._status.start()
        else:
            self.say(what)

    def ready(self, url: str, took_s: float, models: Sequence[str], gateway: str | None = None) -> None:
        """What runs now, and what to type next. `gateway` is the address of its HTTP interfaces."""
        self.quiet()
        self.fact("models", ", ".join(models) or "none can be asked; `choir validate` looks for the reason")
        self.fact("ready", f"{url}, after {took_s:.1f} s")
        if gateway is not None:
            self.fact("http", f"{gateway}, for clients of Ollama, OpenAI and Anthropic")
        for line in NEXT:
            self.say(line)
            if line == FIRST_QUESTION and gateway is not None and models:
                self.say(f"  {curl_line(gateway, models[0])}")

    def quiet(self) -> None:
        """Ends the sign of life."""
        self._status.stop()


def curl_line(gateway: str, model: str) -> str:
    """A question over HTTP, to be typed."""
    asked = {"model": model, "prompt": "What is the capital of France?"}
    return f"curl {gateway}/api/generate -d '{json.dumps(asked)}'"


def counted(models: Sequence[str]) -> str:
    """`1 model`, `4 models`."""
    return f"{len(models)} model{'' if len(models) == 1 else 's'}"
