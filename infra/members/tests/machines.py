"""Machines in networks of their own, on which Choir is installed and nothing was ever done."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from infra.host.children.processes import PREEXEC, last_lines
from infra.testing.networks import Network
from services.client.finding.local_mesh import running_mesh
from services.client.finding.membership import FILE as MEMBERSHIP

REPOSITORY = Path(__file__).resolve().parents[3]
UP_DEADLINE_S = 180.0
DEADLINE_S = 180.0


@dataclass
class Machine:
    """A machine of its own: network, home and folder. Nothing else is known there."""

    network: Network
    home: Path
    tools: Path
    took: list[tuple[str, float]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        named = {name: os.environ[name] for name in ("LANG", "TERM") if name in os.environ}
        path = f"{self.tools}{os.pathsep}{os.environ['PATH']}"
        return {**named, "HOME": str(self.home), "PATH": path, "PYTHONPATH": str(REPOSITORY)}

    def types(self, command: str) -> str:
        """Types a command; what it prints."""
        began_s = time.monotonic()
        done = self._run(command)
        assert done.returncode == 0, f"{command[:60]}: {done.stderr}"
        self.tell(command, time.monotonic() - began_s)
        return done.stdout.strip()

    def refused(self, command: str) -> str:
        """Types a command; why it fails, and nothing if it does not."""
        done = self._run(command)
        return done.stderr.strip() if done.returncode else ""

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.network.inside, "bash", "-c", command],
            cwd=self.home, env=self.environment, capture_output=True, text=True, timeout=DEADLINE_S,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    def also(self, name: str) -> Machine:
        """Another home on this machine, with what was joined here."""
        home = self.home.with_name(name)
        home.mkdir()
        shutil.copytree(self.home / ".config", home / ".config")
        joined = home / ".config" / "choir" / MEMBERSHIP
        joined.write_text(joined.read_text().replace(str(self.home), str(home)))
        return Machine(self.network, home, self.tools)

    @property
    def said(self) -> str:
        """What the command that goes on has printed so far."""
        return (self.home / "said.txt").read_text()

    def starts(self, command: str) -> subprocess.Popen[bytes]:
        """Types a command that goes on, and waits until there is a mesh here."""
        began_s, log = time.monotonic(), self.home / "said.txt"
        with log.open("wb") as said:
            process = subprocess.Popen(
                [*self.network.inside, "bash", "-c", f"exec {command}"],
                cwd=self.home, env=self.environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                preexec_fn=PREEXEC, start_new_session=True,
            )  # fmt: skip
        while running_mesh(self.home / ".local" / "state" / "choir") is None:
            assert process.poll() is None, f"{command}: {last_lines(log)}"
            assert time.monotonic() < began_s + UP_DEADLINE_S, f"{command}: {last_lines(log)}"
            time.sleep(0.05)
        self.tell(command, time.monotonic() - began_s)
        return process

    def tell(self, command: str, seconds: float) -> None:
        """Keeps how long something took, for the one who reads the test's figures."""
        self.took.append((re.sub(r"choir1-\S+", "LINE", command), seconds))
