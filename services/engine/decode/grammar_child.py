"""The process in which grammars are computed: `python -m services.engine.decode.grammar_child MODEL FD`.

A grammar of a few hundred characters can keep llama.cpp busy for minutes, in one call that nothing can
interrupt. So each text that has a grammar has a process of its own, forked from one that holds the model's
vocabulary. The kernel ends it when a single job takes more than its time, or all of them more than their
memory. Whoever asked sees the end of the connection.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import struct
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from schemas.errors import InvalidRequest
from schemas.requests.sampling import Sampling
from services.engine.decode.grammar import constraint_field, grammar_of
from services.engine.decode.grammar_protocol import (
    ACCEPT,
    ALLOWED,
    MEMORY_LIMIT_BYTES,
    NICENESS,
    READY,
    TOKEN,
    TOTAL_LIMIT_S,
    TRY,
)
from services.engine.model.logs import LLAMA_LOG

GRAMMAR_ROOT = b"root"
CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
STATM = Path("/proc/self/statm")
DATA_PAGES = 5
"""The place of the number of private writable pages in /proc/PID/statm."""


class Grammar:
    """One grammar at work, on a vocabulary."""

    def __init__(self, vocab: object, sampling: Sampling) -> None:
        """Raises InvalidRequest for a constraint that cannot be used."""
        grammar = grammar_of(sampling)
        field = constraint_field(sampling)
        if grammar is None:
            raise InvalidRequest("there is no grammar", field=field)
        self._vocab = vocab
        self._candidates = np.zeros(int(llama_cpp.llama_vocab_n_tokens(vocab)), dtype=CANDIDATE)
        self._one = np.zeros(1, dtype=CANDIDATE)
        self._sampler = llama_cpp.llama_sampler_init_grammar(
            vocab, grammar.encode("utf-8", "replace"), GRAMMAR_ROOT
        )
        if not self._sampler:
            reason = "the grammar has a syntax error, no root rule, or a rule that begins with itself"
            raise InvalidRequest(reason, field=field)

    def allows(self, token: int) -> bool:
        """Whether this token may come next."""
        self._one["id"], self._one["logit"] = token, 0.0
        self._apply(self._one)
        return bool(self._one["logit"][0] != -np.inf)

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next, shape (vocabulary,)."""
        self._candidates["id"] = np.arange(len(self._candidates), dtype=np.int32)
        self._candidates["logit"] = 0.0
        self._apply(self._candidates)
        return np.asarray(self._candidates["logit"] != -np.inf)

    def accept(self, token: int) -> None:
        """Takes a token that is allowed; what ends a text is no part of it."""
        if not llama_cpp.llama_vocab_is_eog(self._vocab, token):
            llama_cpp.llama_sampler_accept(self._sampler, token)

    def _apply(self, candidates: npt.NDArray[np.void]) -> None:
        data = candidates.ctypes.data_as(llama_cpp.llama_token_data_p)
        array = llama_cpp.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
        llama_cpp.llama_sampler_apply(self._sampler, ctypes.byref(array))


def load_vocabulary(path: str) -> tuple[object, object]:
    """A model without its weights, and its vocabulary."""
    LLAMA_LOG.install()  # nobody listens: the agent has logged what there was to say about this file
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(path.encode(), params)
    if not model:
        raise SystemExit(f"llama.cpp cannot read the vocabulary of {path}")
    return model, llama_cpp.llama_model_get_vocab(model)


def serve(vocab: object, connection: Connection) -> None:
    """Computes one grammar until nobody needs it any more."""
    request = json.loads(connection.recv_bytes())
    limit_s = float(request.pop("limit_s"))
    _limit_memory()
    resource.setrlimit(resource.RLIMIT_CPU, (TOTAL_LIMIT_S, TOTAL_LIMIT_S))
    _allow(limit_s)
    try:
        grammar = Grammar(vocab, Sampling(**request))
    except InvalidRequest as error:
        connection.send_bytes(json.dumps({"message": error.message, "field": error.field}).encode())
        return
    _allow(0)
    connection.send_bytes(READY)
    while True:
        job = connection.recv_bytes()
        _allow(limit_s)
        _work(grammar, job, connection)
        _allow(0)


def _work(grammar: Grammar, job: bytes, connection: Connection) -> None:
    kind, tokens = job[:1], [token for (token,) in struct.iter_unpack(TOKEN, job[1:])]
    if kind == ACCEPT:
        for token in tokens:
            grammar.accept(token)
    elif kind == TRY:
        if grammar.allows(tokens[0]):
            grammar.accept(tokens[0])
            connection.send_bytes(ALLOWED)
        else:
            connection.send_bytes(np.packbits(grammar.allowed()).tobytes())


def _allow(seconds: float) -> None:
    """Ends this process once it has computed for so long, also in the midst of llama.cpp; 0: never."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory() -> None:
    if STATM.exists():  # elsewhere there is no such limit, and the time has to do
        pages = int(STATM.read_text().split()[DATA_PAGES])
        limit = pages * resource.getpagesize() + MEMORY_LIMIT_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def run(path: str, control: socket.socket) -> None:
    """Forks a process for each connection that comes, until nobody is there to send one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends with the agent, which may have work to finish
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICENESS)
    _model, vocab = load_vocabulary(path)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            _silence()
            _serve_to_the_end(vocab, Connection(descriptors[0]))
        for descriptor in descriptors:
            os.close(descriptor)


def _silence() -> None:
    """llama.cpp prints a grammar that it cannot parse, past its own log: texts of users, newlines and all."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(nowhere, output)


def _serve_to_the_end(vocab: object, connection: Connection) -> None:
    status = 1
    try:
        serve(vocab, connection)
        status = 0
    except (EOFError, OSError):
        status = 0  # the text is done, or nobody wants it any more
    finally:
        os._exit(status)  # what else this process has is its parent's


def main(arguments: list[str]) -> Any:
    """The process that forks."""
    path, descriptor = arguments
    run(path, socket.socket(fileno=int(descriptor)))


if __name__ == "__main__":
    main(sys.argv[1:])
