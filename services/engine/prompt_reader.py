"""Reads prompts: a text, tokens or a chat become the tokens and the options that a text begins with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schemas.errors import ContextExceeded, InvalidRequest
from schemas.requests.sampling import Sampling
from services.engine.decode.grammar import SCHEMA_FIELD
from services.engine.decode.sampler import REPEAT_LAST, TokenSampler, new_sampler
from services.engine.model.chat.format import ChatFormat
from services.engine.model.chat.plain_text import Piece
from services.engine.model.model import Model, Tokens
from services.engine.sequence.answer_reader import AnswerForm
from services.engine.sequence.prompt import Prompt, TokenPrompt


@dataclass(frozen=True)
class PreparedPrompt:
    """A prompt as text in `pieces`, or as `tokens`; how it is gone on with, and what may be in the answer.
    `forced`: the options have a grammar that was made of the tools."""

    sampling: Sampling
    pieces: tuple[Piece, ...] = ()
    tokens: Tokens | None = None
    form: AnswerForm | None = None
    forced: bool = False


class PromptReader:
    """Reads the prompts of one model. Any thread may do so, as long as the model is there."""

    def __init__(self, model: Model, chats: ChatFormat, context_tokens: int, name: str) -> None:
        """`name` is the model's in messages of errors."""
        self._model = model
        self._chats = chats
        self._context_tokens = context_tokens
        self._name = name

    def prepare(self, prompt: Prompt, sampling: Sampling) -> PreparedPrompt:
        """A prompt in its template. Raises InvalidRequest for one that cannot be used."""
        match prompt:
            case str():
                if not prompt:
                    raise InvalidRequest("the prompt is empty", field="prompt")
                return PreparedPrompt(sampling, pieces=(Piece(prompt),))
            case TokenPrompt():
                for place, token in enumerate(prompt.tokens):
                    if token >= self._model.vocab_size:
                        raise InvalidRequest(
                            f"raw.tokens.{place}: the model has no token {token}", field=f"raw.tokens.{place}"
                        )
                return PreparedPrompt(sampling, tokens=np.asarray(prompt.tokens, dtype=np.int32))
            case _:
                chat = self._chats.prepare(prompt, sampling)
                if not chat.pieces:
                    raise InvalidRequest("the prompt is empty", field="prompt")
                forced = chat.sampling is not sampling
                return PreparedPrompt(chat.sampling, pieces=chat.pieces, form=chat.form, forced=forced)

    def count(self, prepared: PreparedPrompt) -> int:
        """How many tokens a prompt has, however many the context holds."""
        return len(self._tokens_of(prepared))

    def tokens(self, prepared: PreparedPrompt) -> Tokens:
        """The tokens of a prompt that fits; one that cannot fit is refused before it is tokenized. Raises
        ContextExceeded for a prompt that leaves no room for a token."""
        room = self._context_tokens
        least = sum(len(piece.text) for piece in prepared.pieces) // self._model.longest_token_bytes
        tokens = self._tokens_of(prepared) if least < room else None
        if tokens is None or len(tokens) >= room:
            count = f"at least {least}" if tokens is None else str(len(tokens))
            raise ContextExceeded(
                f"the prompt has {count} tokens; the context of {self._name} holds {room}", field="prompt"
            )
        if not len(tokens):
            raise InvalidRequest("the prompt has no tokens", field="prompt")
        return tokens

    def sampler(self, prepared: PreparedPrompt, tokens: Tokens) -> TokenSampler:
        """The sampler of a text. Raises InvalidRequest for options that cannot be used; a constraint that was
        made of the tools is told by their name."""
        try:
            return new_sampler(self._model, prepared.sampling, prompt=tokens[-REPEAT_LAST:].tolist())
        except InvalidRequest as error:
            if prepared.forced and error.field == SCHEMA_FIELD:
                raise InvalidRequest(f"tools: {error.message}", field="tools") from error
            raise

    def _tokens_of(self, prepared: PreparedPrompt) -> Tokens:
        if prepared.tokens is not None:
            return prepared.tokens
        return self._model.tokenize_pieces(prepared.pieces)
