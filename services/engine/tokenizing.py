"""Answers questions about tokens with a model's own vocabulary."""

from __future__ import annotations

from schemas.commands import Tokenize
from schemas.replies import Tokenized, TokenizerInfo
from schemas.requests.sampling import Sampling
from services.engine.model.chat.format import ChatFormat
from services.engine.model.model import Model
from services.engine.sequence.prompt import Chat


def tokenized(model: Model, chats: ChatFormat, request: Tokenize, context_tokens: int) -> Tokenized:
    """Tokens of a text or of messages, the text of tokens, or what is known of the tokenizer. Raises
    InvalidRequest for tokens that the model has not, and for messages that its template refuses."""
    told = Tokenized(model=request.model, context_tokens=context_tokens)
    if request.tokens is not None:
        text = model.detokenize(request.tokens, special=request.special)
        return told.model_copy(update={"text": text})
    if request.text is not None:
        tokens = model.tokenize(request.text, special=request.special, bos=request.bos)
        return told.model_copy(update={"tokens": tuple(tokens.tolist())})
    if request.messages:
        chat = chats.prepare(Chat(request.messages, request.tools), Sampling())
        return told.model_copy(update={"tokens": tuple(model.tokenize_pieces(chat.pieces).tolist())})
    tokenizer = TokenizerInfo(
        bos=model.bos_text or None,
        eos=model.eos_text or None,
        pad=model.pad_text or None,
        chat_template=chats.template.source,
    )
    return told.model_copy(update={"tokenizer": tokenizer})
