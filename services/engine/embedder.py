"""Embeddings: one vector for a text, pooled as the model says, of length 1."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import llama_cpp
import numpy as np

from schemas.errors import ContextExceeded, GenerationFailed, InvalidRequest, ModelUnusable
from services.engine.decode.batch import Batch
from services.engine.decode.context import DECODED
from services.engine.model.model import Model, Tokens

POOLING_MEAN = 1
POOLING_UNSTATED = -1
POOLING_NONE = 0


@dataclass(frozen=True)
class Embedded:
    """The vector of a text, how many tokens of it were read, and how many at its end were not."""

    vector: tuple[float, ...]
    tokens: int
    cut: int = 0


class Embedder:
    """A context for vectors, made when the first one is wanted. A model that does not say how a text's states
    become one vector has their mean. Thread-safe: one text at a time."""

    def __init__(self, model: Model, *, context_tokens: int, threads: int) -> None:
        self._model = model
        self._context_tokens = context_tokens
        self._threads = threads
        self._handle: object | None = None
        self._lock = threading.Lock()
        self._closed = False

    def embed(self, tokens: Tokens, *, dimensions: int | None = None, truncate: bool = False) -> Embedded:
        """`dimensions` keeps so many numbers of the vector, which is of length 1 again. Raises
        ContextExceeded for a text that is too long and not to be truncated, InvalidRequest for more
        dimensions than there are, GenerationFailed where nothing comes of it."""
        if dimensions is not None and dimensions > self._model.width:
            raise InvalidRequest(
                f"embed.dimensions: the model's vectors have {self._model.width} numbers",
                field="embed.dimensions",
            )
        if len(tokens) > self._context_tokens and not truncate:
            raise ContextExceeded(
                f"the text has {len(tokens)} tokens; the context of the model holds {self._context_tokens}",
                field="embed.inputs",
            )
        given, tokens = len(tokens), tokens[: self._context_tokens]
        if not len(tokens):
            raise InvalidRequest("embed.inputs: a text has no tokens", field="embed.inputs")
        with self._lock:
            if self._closed:
                raise GenerationFailed("the engine is closed")
            vector = self._compute(tokens)
        vector = vector[:dimensions]
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or length == 0:
            raise GenerationFailed("the model computed no vector for this text")
        return Embedded(tuple((vector / length).tolist()), len(tokens), given - len(tokens))

    def close(self) -> None:
        """Frees the context, after the text at hand."""
        with self._lock:
            self._closed = True
            if self._handle is not None:
                llama_cpp.llama_free(self._handle)
                self._handle = None

    def _compute(self, tokens: Tokens) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        self._handle = handle = self._handle or self._make_context()
        memory = llama_cpp.llama_get_memory(handle)
        if memory is not None:
            llama_cpp.llama_memory_clear(memory, True)
        batch = Batch(len(tokens))
        batch.add_chunk(0, 0, tokens, want_last=True)
        batch.want_all()
        status = llama_cpp.llama_decode(handle, batch.filled())
        if status != DECODED:
            raise GenerationFailed(f"the text could not be evaluated: llama_decode said {status}")
        pointer = llama_cpp.llama_get_embeddings_seq(handle, 0)
        if not pointer:
            raise GenerationFailed("the model has computed no vector for this text")
        numbers = np.ctypeslib.as_array(pointer, shape=(self._model.width,))
        return numbers.astype(np.float64)

    def _make_context(self) -> object:
        params = llama_cpp.llama_context_default_params()
        # A vector is pooled from one batch: a text is read in one piece.
        params.n_ctx = params.n_batch = params.n_ubatch = self._context_tokens
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = self._threads
        params.embeddings = True
        params.pooling_type = self._pooling()
        handle = llama_cpp.llama_init_from_model(self._model.handle, params)
        if not handle:
            raise ModelUnusable(f"llama.cpp cannot make room for vectors of the model {self._model.path}")
        return handle

    def _pooling(self) -> int:
        """What the model's file says, else the mean."""
        architecture = self._model.header.text("general.architecture")
        stated = self._model.header.integer(f"{architecture}.pooling_type")
        return POOLING_MEAN if stated in (None, POOLING_NONE) else POOLING_UNSTATED
