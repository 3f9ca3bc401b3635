"""A model and its vocabulary in llama.cpp's memory."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path

import llama_cpp
import numpy as np
import numpy.typing as npt

from schemas.errors import GenerationFailed, InvalidRequest, ModelUnusable
from services.engine.decode.grammar_process import GrammarProcesses
from services.engine.model.build import OPENMP, extra_buffers_are_safe, features
from services.engine.model.chat.plain_text import Piece
from services.engine.model.gguf.check import check_model_file
from services.engine.model.gguf.header import GgufHeader
from services.engine.model.logs import LLAMA_LOG
from services.engine.model.memory.repacking import Repacking
from services.engine.sequence.answer_reader import THINKING_BEGINS, THINKING_ENDS
from services.engine.sequence.tool_calls import ARGUMENTS_BEGIN, OPENERS

logger = logging.getLogger(__name__)

PIECE_BYTES = 64
NO_TOKEN = -1
NO_VOCABULARY = 0
ANSWER_MARKERS = (
    THINKING_BEGINS,
    THINKING_ENDS,
    ARGUMENTS_BEGIN,
    *OPENERS,
    *(end for end in OPENERS.values() if end),
)
"""What is part of a text for whoever reads calls and thinking in it, though it may be a control token."""

Tokens = npt.NDArray[np.int32]


@lru_cache(maxsize=1)
def start_backend() -> None:
    """Sets llama.cpp up, once in a process."""
    LLAMA_LOG.install()
    llama_cpp.llama_backend_init()
    if OPENMP in features():
        logger.warning("llama.cpp was compiled with OpenMP: several threads are slower than they could be")


class Weights:
    """The weights of one checked GGUF file: a whole model, or a slice of its layers."""

    def __init__(self, path: Path, *, gpu_layers: int = 0) -> None:
        """Raises ModelUnusable with a sentence that names the file and what is wrong with it."""
        self.path = path
        self.gpu_layers = gpu_layers
        self.header: GgufHeader = check_model_file(path)
        start_backend()
        if gpu_layers and not llama_cpp.llama_supports_gpu_offload():
            raise ModelUnusable(
                f"gpu_layers is {gpu_layers}, and llama.cpp is built here for the processor alone: build it "
                "for a GPU (services/engine/README.md says how), or leave gpu_layers out",
                field="gpu_layers",
            )
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.use_extra_bufts = extra_buffers_are_safe()
        if not Repacking(self.header).mapped:
            params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
        LLAMA_LOG.forget_errors()
        self.handle = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            reason = LLAMA_LOG.first_error() or "it does not say why"
            raise ModelUnusable(f"llama.cpp cannot load the model file {path}: {reason}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.handle)
        self.vocab_size: int = llama_cpp.llama_vocab_n_tokens(self.vocab)

    def close(self) -> None:
        """Frees the weights; nothing else may be called afterwards."""
        if self.handle:
            llama_cpp.llama_model_free(self.handle)
            self.handle = None

    @property
    def layers(self) -> int:
        """How many layers the model has."""
        return int(llama_cpp.llama_model_n_layer(self.handle))

    @property
    def width(self) -> int:
        """How many numbers a hidden state has."""
        return int(llama_cpp.llama_model_n_embd(self.handle))

    @property
    def trained_context_tokens(self) -> int:
        """The context that the model was trained for."""
        return int(llama_cpp.llama_model_n_ctx_train(self.handle))

    @property
    def parameters(self) -> int:
        """How many weights there are."""
        return int(llama_cpp.llama_model_n_params(self.handle))

    @property
    def weights_bytes(self) -> int:
        """The size of all tensors."""
        return int(llama_cpp.llama_model_size(self.handle))


class Model(Weights):
    """A whole model, with the vocabulary to generate text. Any thread may read the vocabulary; whoever does
    not own the model does so within `reading()`, for then close() waits."""

    def __init__(self, path: Path, *, gpu_layers: int = 0) -> None:
        """Raises ModelUnusable with a sentence that names the file and what is wrong with it."""
        super().__init__(path, gpu_layers=gpu_layers)
        self._pieces: dict[
            int, bytes
        ] = {}  # of the tokens that were met: asked for with each one that is said
        self._ends: dict[int, bool] = {}
        self._readers = 0
        self._closed = False
        self._readers_changed = threading.Condition()
        self.grammars = GrammarProcesses(path)
        tokens = self.header.array("tokenizer.ggml.tokens")
        self.longest_token_bytes = max(1, tokens.longest_bytes if tokens else 1)
        self._add_bos: bool = llama_cpp.llama_vocab_get_add_bos(self.vocab)
        self._check_can_generate()
        self.bos_text = self._special_text(llama_cpp.llama_vocab_bos(self.vocab))
        self.eos_text = self._special_text(llama_cpp.llama_vocab_eos(self.vocab))
        self.pad_text = self._special_text(llama_cpp.llama_vocab_pad(self.vocab))

    def close(self) -> None:
        """Ends the processes of grammars, and frees the weights when nobody reads the vocabulary any more."""
        self.grammars.close()
        with self._readers_changed:
            self._closed = True
            self._readers_changed.wait_for(lambda: not self._readers)
        super().close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The vocabulary stays for as long as the context is open. Raises GenerationFailed when the model is
        closed. llama.cpp reads freed memory where this is missing, and ends the process."""
        with self._readers_changed:
            if self._closed:
                raise GenerationFailed(f"the model {self.path.name} is closed")
            self._readers += 1
        try:
            yield
        finally:
            with self._readers_changed:
                self._readers -= 1
                self._readers_changed.notify_all()

    @property
    def generates(self) -> bool:
        """Whether it goes on with texts. One whose tokens see those after them gives vectors, as BERT."""
        architecture = self.header.text("general.architecture")
        return self.header.metadata.get(f"{architecture}.attention.causal") is not False

    def tokenize(self, text: str, *, special: bool = True, bos: bool = True) -> Tokens:
        """The tokens of a text: with `special` control tokens such as <|im_end|> are recognised, with `bos`
        they come after the beginning-of-sequence token, where the model wants one and the text does not begin
        with it."""
        try:
            raw = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidRequest("the prompt holds a lone surrogate", field="prompt") from error
        add_special = bos and not self._begins(text)
        tokens: Tokens = np.empty(len(raw) + 2, dtype=np.int32)
        pointer = tokens.ctypes.data_as(llama_cpp.llama_token_p)
        count = llama_cpp.llama_tokenize(
            self.vocab, raw, len(raw), pointer, len(tokens), add_special, special
        )
        if count < 0:
            raise InvalidRequest("the prompt cannot be tokenized", field="prompt")
        return tokens[:count].copy()

    def adds_to(self, text: str) -> bool:
        """Whether tokenize() has a token before those of a text that is not in it."""
        return self._add_bos and not self._begins(text)

    def _begins(self, text: str) -> bool:
        return bool(self.bos_text) and text.startswith(self.bos_text)

    def tokenize_pieces(self, pieces: Sequence[Piece]) -> Tokens:
        """The tokens of a prompt, in whose plain pieces the names of control tokens are text."""
        if len(pieces) == 1 and not pieces[0].plain:
            return self.tokenize(pieces[0].text)
        begins_with_bos = bool(self.bos_text) and bool(pieces) and pieces[0].text.startswith(self.bos_text)
        bos = not begins_with_bos or pieces[0].plain
        parts = [
            self.tokenize(piece.text, special=not piece.plain, bos=bos and number == 0)
            for number, piece in enumerate(pieces)
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)

    def control_texts(self) -> tuple[str, ...]:
        """The names of all control tokens, such as <|im_end|>."""
        names = (
            llama_cpp.llama_vocab_get_text(self.vocab, token)
            for token in range(self.vocab_size)
            if llama_cpp.llama_vocab_is_control(self.vocab, token)
        )
        return tuple(name.decode("utf-8", errors="replace") for name in names if name)

    def detokenize(self, tokens: Sequence[int], *, special: bool) -> str:
        """The text that tokens stand for, with the names of control tokens if they are `special`. Raises
        InvalidRequest for an id that the vocabulary has not."""
        for place, token in enumerate(tokens):
            if token >= self.vocab_size:
                raise InvalidRequest(
                    f"tokens.{place}: the model has no token {token}; its ids go up to {self.vocab_size - 1}",
                    field=f"tokens.{place}",
                )
        return b"".join(self._piece(token, special=special) for token in tokens).decode("utf-8", "replace")

    @cached_property
    def markers(self) -> dict[int, bytes]:
        """The control tokens that say how an answer goes on, such as [TOOL_CALLS], and their names."""
        names: dict[int, bytes] = {}
        for word in ANSWER_MARKERS:
            tokens = self.tokenize(word, bos=False)
            if len(tokens) == 1:
                names[int(tokens[0])] = word.encode()
        return names

    def piece(self, token: int, *, markers: bool = False) -> bytes:
        """The bytes that a token stands for; none for a control token, unless it is one of the `markers` and
        these are wanted."""
        if markers and token in self.markers:
            return self.markers[token]
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._piece(token, special=False)
        return piece

    def text_of(self, tokens: Sequence[int]) -> str:
        """The text that tokens stand for."""
        return b"".join(map(self.piece, tokens)).decode("utf-8", errors="replace")

    def ends_generation(self, token: int) -> bool:
        """Whether the model says with this token that it is done."""
        ends = self._ends.get(token)
        if ends is None:
            ends = self._ends[token] = bool(llama_cpp.llama_vocab_is_eog(self.vocab, token))
        return ends

    def _piece(self, token: int, *, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(PIECE_BYTES)
        length = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, PIECE_BYTES, 0, special)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, -length, 0, special)
        return buffer.raw[:length]

    def _special_text(self, token: int) -> str:
        return "" if token == NO_TOKEN else self._piece(token, special=True).decode("utf-8", errors="replace")

    def _check_can_generate(self) -> None:
        fault = self._generation_fault()
        if fault:
            self.close()
            raise ModelUnusable(f"the model file {self.path} is not usable: {fault}")

    def _generation_fault(self) -> str | None:
        if llama_cpp.llama_vocab_type(self.vocab) == NO_VOCABULARY:
            return "it has no tokenizer"
        if llama_cpp.llama_model_has_encoder(self.handle) or not llama_cpp.llama_model_has_decoder(
            self.handle
        ):
            return "it is not a decoder-only model"
        if self._add_bos and llama_cpp.llama_vocab_bos(self.vocab) == NO_TOKEN:
            return "its tokenizer wants a beginning-of-sequence token and names none"
        return None
