"""Chat templates: from messages to the one text that a model was trained to continue.

A model brings its template in its metadata (`tokenizer.chat_template`), written in Jinja for Hugging Face's
`apply_chat_template`; the same names and options are given to it here. A template comes from an
untrusted file, so it runs in a sandbox (`template_sandbox.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError

from schemas.errors import InvalidRequest, ModelUnusable
from services.engine.model.template_sandbox import BoundedEnvironment
from services.engine.sequence.prompt import Message

REFUSALS = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError, MemoryError)
"""What a template may make Python raise."""


class ChatTemplate:
    """One model's way to write a chat down."""

    def __init__(self, source: str | None, *, bos_text: str = "", eos_text: str = "") -> None:
        """`source` None: a model without a template. Raises ModelUnusable for one that is no Jinja."""
        environment = _environment()
        try:
            self._template = None if source is None else environment.from_string(source)
        except TemplateSyntaxError as error:
            raise ModelUnusable(f"the chat template is not valid, line {error.lineno}: {error}") from error
        self._names = {"bos_token": bos_text, "eos_token": eos_text}

    def render(self, messages: Sequence[Message]) -> str:
        """The text to continue with the assistant's turn. Without a template that is the messages' text, a
        blank line between them. Raises InvalidRequest where the template refuses the messages."""
        if not messages:
            raise InvalidRequest("a chat has at least one message", field="messages")
        if self._template is None:
            return "\n\n".join(message.content for message in messages)
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self._template.render(messages=turns, add_generation_prompt=True, **self._names)
        except (TemplateError, *REFUSALS) as error:
            raise InvalidRequest(
                f"the chat template refuses these messages: {error}", field="messages"
            ) from error


def _environment() -> BoundedEnvironment:
    environment = BoundedEnvironment()
    environment.limit("tojson", _to_json)
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    return environment


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(value: Any, indent: int | None = None) -> str:
    """JSON as Hugging Face writes it: without the HTML escapes of Jinja's own filter."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
