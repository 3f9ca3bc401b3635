"""Chat templates: from messages and tools to the one text that a model was trained to continue.

A model brings its template in its metadata (`tokenizer.chat_template`), written in Jinja for Hugging Face's
`apply_chat_template`; the same names and options are given to it here. A template comes from an
untrusted file, so it runs in a sandbox (`sandbox.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, meta

from schemas.errors import InvalidRequest, ModelUnusable
from schemas.requests.chat import Tool
from schemas.requests.sampling import Think
from services.engine.model.chat.plain_text import Piece, PlainText
from services.engine.model.chat.sandbox import BoundedEnvironment
from services.engine.sequence.answer_reader import THINKING_BEGINS, THINKING_ENDS
from services.engine.sequence.prompt import Chat, Message, chat_of
from services.engine.sequence.tool_calls import CALL_BEGINS, CALL_ENDS

THINKING_WORDS = (THINKING_BEGINS, THINKING_ENDS, "enable_thinking", "reasoning_content")
TOOLS_PLACE = "{tools}"
TOOLS_IN_WORDS = (
    f"You may call functions. Each of these lines is one, as JSON:\n{TOOLS_PLACE}\n\n"
    "To call one, write this and nothing after it, once for each call:\n"
    f'{CALL_BEGINS}\n{{"name": <name>, "arguments": <object>}}\n{CALL_ENDS}'
)
"""What a model is told whose template knows nothing of tools."""

LONGEST_SOURCE = 128 * 1024
"""Of a template. The longest that models are known to have are a third of it."""
REFUSALS = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError, MemoryError)
"""What a template may make Python raise."""


class ChatTemplate:
    """One model's way to write a chat down."""

    def __init__(
        self,
        source: str | None,
        *,
        bos_text: str = "",
        eos_text: str = "",
        plain_text: PlainText | None = None,
    ) -> None:
        """`source` None: a model without a template. `plain_text` knows what is no text in the vocabulary.
        Raises ModelUnusable for one that is no Jinja."""
        environment = _environment()
        if source is not None and len(source) > LONGEST_SOURCE:
            raise ModelUnusable(f"the chat template is longer than {LONGEST_SOURCE} characters")
        try:
            self._template = None if source is None else environment.from_string(source)
            names = set() if source is None else meta.find_undeclared_variables(environment.parse(source))
        except TemplateSyntaxError as error:
            raise ModelUnusable(f"the chat template is not valid, line {error.lineno}: {error}") from error
        except (*REFUSALS, SyntaxError) as error:
            raise ModelUnusable(f"the chat template is nested too deep: {type(error).__name__}") from error
        self.source = source
        self.takes_tools = "tools" in names
        self.thinks = source is not None and any(word in source for word in THINKING_WORDS)
        self._names = {"bos_token": bos_text, "eos_token": eos_text}
        self._plain_text = plain_text or PlainText(())

    def render(self, prompt: Chat | Sequence[Message], think: Think | None = None) -> str:
        """The text of pieces(), joined."""
        return "".join(piece.text for piece in self.pieces(prompt, think))

    def pieces(self, prompt: Chat | Sequence[Message], think: Think | None = None) -> tuple[Piece, ...]:
        """The text to continue with the assistant's turn, and which parts of it are plain. Without a template
        that is the messages' text, a blank line between them. Raises InvalidRequest where the template
        refuses the messages."""
        chat = chat_of(prompt)
        if not chat.messages:
            raise InvalidRequest("a chat has at least one message", field="messages")
        tools = [] if chat.tool_choice == "none" else [_described(tool) for tool in chat.tools]
        turns = [_turn(message) for message in chat.messages]
        marks = self._plain_text.marks_for([turns, tools])
        turns, tools = marks.put(turns), marks.put(tools)
        if not self.takes_tools:
            turns = in_words(turns, tools)
        return marks.cut(self._render(turns, tools if self.takes_tools else [], think))

    def _render(self, turns: list[dict[str, Any]], tools: list[dict[str, Any]], think: Think | None) -> str:
        if self._template is None:
            return "\n\n".join(turn["content"] for turn in turns)
        more: dict[str, Any] = {"tools": tools} if tools else {}
        more |= _thinking_options(think)
        try:
            return self._template.render(messages=turns, add_generation_prompt=True, **self._names, **more)
        except (TemplateError, *REFUSALS) as error:
            raise InvalidRequest(
                f"the chat template refuses these messages: {error}", field="messages"
            ) from error


def in_words(turns: list[dict[str, Any]], tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turns for a template that knows neither tools nor calls: all of that is written into the turns' text.

    What is said of the tools goes to the end of the system's turn, or to the beginning of the first one.
    """
    plain: list[dict[str, Any]] = []
    for turn in turns:
        said = _in_words(turn)
        if plain and plain[-1]["role"] == said["role"] and turn["role"] == "tool":
            plain[-1] = {**said, "content": f"{plain[-1]['content']}\n{said['content']}"}
        else:
            plain.append(said)
    if not tools:
        return plain
    lines = "\n".join(_to_json(tool["function"]) for tool in tools)
    told = TOOLS_IN_WORDS.replace(TOOLS_PLACE, lines)
    system = plain[0]["role"] == "system"
    parts = (plain[0]["content"], told) if system else (told, plain[0]["content"])
    return [{**plain[0], "content": "\n\n".join(part for part in parts if part)}, *plain[1:]]


def _in_words(turn: dict[str, Any]) -> dict[str, Any]:
    if turn["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{turn['content']}\n</tool_response>"}
    calls = (
        f"{CALL_BEGINS}\n{_to_json(call['function'])}\n{CALL_ENDS}" for call in turn.get("tool_calls", ())
    )
    content = "\n".join(part for part in (turn["content"], *calls) if part)
    return {"role": turn["role"], "content": content}


def _turn(message: Message) -> dict[str, Any]:
    """A turn as Hugging Face's templates have it."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    thinking = getattr(message, "thinking", None)
    if thinking:
        turn["reasoning_content"] = thinking
    calls = getattr(message, "tool_calls", ())
    if calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": dict(call.arguments)},
            }
            for call in calls
        ]
    for name in ("tool_call_id", "name"):
        if getattr(message, name, None):
            turn[name] = getattr(message, name)
    return turn


def _described(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description or "",
        "parameters": dict(tool.parameters),
    }
    return {"type": "function", "function": function}


def _thinking_options(think: Think | None) -> Mapping[str, Any]:
    """What templates of several families call the switch."""
    if think is None:
        return {}
    options: dict[str, Any] = {"enable_thinking": bool(think), "thinking": bool(think)}
    return options | ({"reasoning_effort": think} if isinstance(think, str) else {})


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


def _to_json(
    value: Any,
    indent: int | None = None,
    ensure_ascii: bool = False,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as Hugging Face writes it: without the HTML escapes of Jinja's own filter. Characters are never
    escaped, whatever `ensure_ascii` says: the marks of plain text would be."""
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
