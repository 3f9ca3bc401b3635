"""The engine's end of the processes in which grammars are computed."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from schemas.errors import InvalidRequest, WorkerFailed
from schemas.requests.sampling import Sampling
from services.engine.decode.grammar_protocol import (
    ACCEPT,
    ALLOWED,
    MEMORY_LIMIT_BYTES,
    READY,
    STEP_LIMIT_S,
    TOKEN,
    TRY,
)

MODULE = "services.engine.decode.grammar_child"
PATIENCE_S = 30.0
"""For an answer of a process that has STEP_LIMIT_S of computing: a busy machine takes its time."""
HANDED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR")
"""The environment of an agent may hold secrets, which have no place where strangers' grammars are read."""
CONSTRAINT = {"json_schema", "grammar"}


class GrammarProcess:
    """One text's grammar, in a process of its own. One thread uses it at a time."""

    def __init__(self, connection: Connection, field: str, limit_s: float) -> None:
        self.connection = connection
        self._field = field
        self._limit_s = limit_s

    def try_token(self, token: int) -> None:
        """Asks for a token to be accepted; `answer` says what came of it."""
        self._send(TRY + struct.pack(TOKEN, token))

    def accept(self, tokens: Sequence[int]) -> None:
        """Takes tokens that are known to be allowed."""
        self._send(ACCEPT + b"".join(struct.pack(TOKEN, token) for token in tokens))

    def answered(self, wait_s: float) -> bool:
        """Whether there is an answer, or comes within `wait_s`."""
        try:
            return self.connection.poll(wait_s)
        except OSError:
            return True  # `answer` says that it has ended

    def answer(self) -> npt.NDArray[np.bool_] | None:
        """None if the token was accepted, else which ones may come.

        Raises InvalidRequest where the grammar takes too much to compute.
        """
        reply = self._receive()
        if reply == ALLOWED:
            return None
        return np.unpackbits(np.frombuffer(reply, dtype=np.uint8)).view(np.bool_)

    def require_ready(self) -> None:
        """Raises InvalidRequest unless the constraint can be used."""
        reply = self._receive()
        if reply != READY:
            refused = json.loads(reply)
            raise InvalidRequest(str(refused["message"]), field=refused["field"])

    def close(self) -> None:
        """Ends the process, at once or after the job that it is at."""
        self.connection.close()

    def _send(self, job: bytes) -> None:
        try:
            self.connection.send_bytes(job)
        except OSError as error:
            raise self._ended() from error

    def _receive(self) -> bytes:
        if not self.answered(PATIENCE_S):
            raise WorkerFailed(
                f"a grammar has not been computed within {PATIENCE_S:g} s: this host is too busy"
            )
        try:
            return self.connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._ended() from error

    def _ended(self) -> InvalidRequest:
        megabytes = MEMORY_LIMIT_BYTES // 1024**2
        return InvalidRequest(
            f"the grammar takes more than {self._limit_s:g} s or {megabytes} MB to compute: it can be read "
            "in too many ways; write it with fewer optional parts",
            field=self._field,
        )


class GrammarProcesses:
    """The processes for one model: the first grammar starts the one that the others are forked from."""

    def __init__(self, path: Path, limit_s: float = STEP_LIMIT_S) -> None:
        self._path = path
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def start(self, sampling: Sampling, field: str) -> GrammarProcess:
        """A process for the constraint of `sampling`, which came in `field`.

        Raises InvalidRequest for a constraint that cannot be used, WorkerFailed where there is no process to
        be had.
        """
        grammar = GrammarProcess(self._connect(), field, self._limit_s)
        try:
            constraint = sampling.model_dump(include=CONSTRAINT) | {"limit_s": self._limit_s}
            grammar._send(json.dumps(constraint).encode())
            grammar.require_ready()
        except BaseException:
            grammar.close()
            raise
        return grammar

    def close(self) -> None:
        """Ends the process that the others are forked from; they end with their texts."""
        with self._lock:
            self._closed = True
            self._end()

    def _connect(self) -> Connection:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._hand_over(theirs)
            return Connection(ours.detach())

    def _hand_over(self, connection: socket.socket) -> None:
        with self._lock:
            if self._closed:
                raise WorkerFailed("the model is closed")
            if self._process is not None and self._process.poll() is not None:
                self._end()
            try:
                if self._control is None:
                    self._control = self._begin()
                socket.send_fds(self._control, [b"+"], [connection.fileno()])
            except OSError as error:
                self._end()
                raise WorkerFailed(f"no process can be had for a grammar: {error.strerror}") from error

    def _begin(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            # -P: a folder `services` in the working directory is not ours.
            command = [sys.executable, "-P", "-m", MODULE, str(self._path), str(theirs.fileno())]
            env = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
            try:
                self._process = subprocess.Popen(
                    command, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
                )
            except OSError:
                ours.close()
                raise
        return ours

    def _end(self) -> None:
        control, process = self._control, self._process
        self._control = self._process = None
        if control is not None:
            control.close()
        if process is not None:
            process.wait()
