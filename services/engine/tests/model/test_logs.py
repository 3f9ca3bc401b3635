from __future__ import annotations

import logging

import llama_cpp
import pytest

from services.engine.model.logs import LLAMA_LOG, LlamaLog
from services.engine.model.model import Model

ERROR, WARNING, CONTINUED = 4, 3, 5


def test_pieces_of_a_line_are_joined_at_their_level(caplog: pytest.LogCaptureFixture) -> None:
    log = LlamaLog()
    with caplog.at_level(logging.DEBUG, "llama.cpp"):
        log._write(ERROR, b"it went ", None)
        log._write(CONTINUED, b"wrong\n...\n", None)
        log._write(WARNING, b"\n", None)
    assert caplog.record_tuples == [("llama.cpp", logging.ERROR, "it went wrong")]


def test_nothing_of_llama_cpp_reaches_stderr(
    model: Model, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    LLAMA_LOG.install()
    with caplog.at_level(logging.DEBUG, "llama.cpp"):
        params = llama_cpp.llama_context_default_params()
        context = llama_cpp.llama_init_from_model(model.handle, params)
        llama_cpp.llama_free(context)
    assert capfd.readouterr().err == ""
    assert any("n_ctx" in record.message for record in caplog.records)
