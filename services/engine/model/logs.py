"""llama.cpp's own log, routed into the logger "llama.cpp" instead of stderr."""

from __future__ import annotations

import ctypes
import logging

import llama_cpp

logger = logging.getLogger("llama.cpp")

# ggml_log_level: debug, info, warn, error. Its info is a hundred lines for every model: debugging here.
LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
CONTINUED = 5
INTERRUPTED = (" with error 1", " compute status: 1", " failed to decode, ret = 2")
"""How lines end that tell of a step that was interrupted, which nobody needs to know."""


class LlamaLog:
    """Joins the pieces that llama.cpp logs into lines and passes them on."""

    def __init__(self) -> None:
        self._level = logging.DEBUG
        self._line = ""
        self._first_error = ""
        # ctypes does not keep callbacks alive: this reference must outlive llama.cpp's use of it.
        self._callback = llama_cpp.llama_log_callback(self._write)

    def install(self) -> None:
        """From now on llama.cpp logs here."""
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def forget_errors(self) -> None:
        """From now on first_error() is that of what comes."""
        self._first_error = ""

    def first_error(self) -> str:
        """What llama.cpp complained of first since forget_errors(); empty if it did not."""
        return self._first_error

    def _write(self, level: int, text: bytes, _user_data: object) -> None:
        if level != CONTINUED:
            self._level = LEVELS.get(level, logging.DEBUG)
        self._line += text.decode("utf-8", errors="replace")
        *lines, self._line = self._line.split("\n")
        for line in lines:
            if line.strip(" ."):
                self._pass_on(line.rstrip())

    def _pass_on(self, line: str) -> None:
        if line.endswith(INTERRUPTED) or "removing memory module entries" in line:
            logger.debug("%s", line)
            return
        if self._level == logging.ERROR:
            self._first_error = self._first_error or line
        logger.log(self._level, "%s", line)


LLAMA_LOG = LlamaLog()
