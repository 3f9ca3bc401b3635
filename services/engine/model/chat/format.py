"""A model's way to take part in a chat: its template, how it writes calls and thinking, how a call is
forced."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote

from schemas.errors import InvalidRequest
from schemas.requests.chat import NamedTool, Tool, is_forced
from schemas.requests.sampling import Sampling
from services.engine.model.chat.plain_text import Piece, PlainText
from services.engine.model.chat.template import ChatTemplate
from services.engine.model.model import Model
from services.engine.sequence.answer_reader import THINKING_BEGINS, THINKING_ENDS, AnswerForm
from services.engine.sequence.prompt import Chat, Message, chat_of
from services.engine.sequence.tool_calls import CALL_BEGINS, MISTRAL_CALLS, PYTHON_TAG

Family = Literal["hermes", "llama", "mistral"]
FORCED_BEGINNINGS: dict[Family, str] = {
    "hermes": f"{CALL_BEGINS}\n",
    "llama": "",
    "mistral": f"{MISTRAL_CALLS}[",
}
"""What a forced call is begun with, so that the model goes on as it was trained to."""
DEFINITIONS = "$defs"


@dataclass(frozen=True)
class PreparedChat:
    """A prompt that is ready to be tokenized. `sampling` has the constraint of a forced call; with `form`
    None the text is the answer as it stands."""

    pieces: tuple[Piece, ...]
    sampling: Sampling
    form: AnswerForm | None = None


class ChatFormat:
    """What is known of a model's chats from its template."""

    def __init__(self, template: ChatTemplate) -> None:
        self.template = template
        self.family = family_of(template.source or "")

    @classmethod
    def of(cls, model: Model) -> ChatFormat:
        """From a model's metadata. Raises ModelUnusable for a template that is none."""
        source = model.header.text("tokenizer.chat_template")
        plain_text = PlainText(model.control_texts())
        names = {"bos_text": model.bos_text, "eos_text": model.eos_text}
        return cls(ChatTemplate(source, plain_text=plain_text, **names))

    def prepare(self, prompt: Chat | Sequence[Message], sampling: Sampling) -> PreparedChat:
        """Raises InvalidRequest, naming the field, for messages that the template refuses, and for a forced
        call beside another constraint."""
        chat = chat_of(prompt)
        tools = () if chat.tool_choice == "none" else chat.tools
        forced = bool(tools) and is_forced(chat.tool_choice)
        if forced and (sampling.json_schema is not None or sampling.grammar is not None):
            raise InvalidRequest(
                "tool_choice: a call that is required is the whole answer, which can have no json_schema and "
                "no grammar: leave these out, or set tool_choice to auto",
                field="tool_choice",
            )
        pieces = self.template.pieces(chat, False if forced else sampling.think)
        begun = _thinking_is_begun(pieces) and self.template.thinks
        if forced:
            pieces = (*pieces, Piece((f"\n{THINKING_ENDS}\n\n" if begun else "") + self._beginning))
        constrained = self._constrained(chat, tools, sampling, forced=forced)
        if not tools and not self.template.thinks:
            return PreparedChat(pieces, constrained)
        form = AnswerForm(
            thinks=self.template.thinks and not forced,
            in_thinking=begun and not forced,
            tools=frozenset(tool.name for tool in tools),
            whole_object=bool(tools) and (self.family == "llama" or constrained.json_schema is not None),
            salt=str(sum(len(piece.text) for piece in pieces)),
        )
        return PreparedChat(pieces, constrained, form)

    @property
    def _beginning(self) -> str:
        return FORCED_BEGINNINGS[self.family]

    def _constrained(
        self, chat: Chat, tools: tuple[Tool, ...], sampling: Sampling, *, forced: bool
    ) -> Sampling:
        """With the schema of the call that is forced, or of either a call or the form that was asked for."""
        if forced:
            named = chat.tool_choice.name if isinstance(chat.tool_choice, NamedTool) else None
            asked = tuple(tool for tool in tools if named in (None, tool.name))
            return sampling.model_copy(update={"json_schema": self._schema(asked)})
        if tools and sampling.grammar is not None:
            raise InvalidRequest(
                "sampling.grammar: with it a model cannot call tools: leave tools out, or take a json_schema",
                field="sampling.grammar",
            )
        if tools and sampling.json_schema is not None:
            return sampling.model_copy(update={"json_schema": self._schema(tools, sampling.json_schema)})
        return sampling

    def _schema(self, tools: tuple[Tool, ...], other: dict[str, Any] | None = None) -> dict[str, Any]:
        return call_schema(tools, "parameters" if self.family == "llama" else "arguments", other)


def family_of(template: str) -> Family:
    """How a model writes calls, as its template shows; Hermes's way if it shows nothing."""
    if MISTRAL_CALLS in template:
        return "mistral"
    if CALL_BEGINS in template:
        return "hermes"
    return "llama" if PYTHON_TAG in template or "ipython" in template else "hermes"


def call_schema(
    tools: tuple[Tool, ...], arguments: str, other: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The JSON schema of a call of one of `tools`, or of `other`. Raises InvalidRequest for a schema that
    refers to what is not in it."""
    definitions: dict[str, Any] = {}
    forms: list[dict[str, Any]] = []
    for number, tool in enumerate(tools):
        definitions |= _definitions(tool.parameters, f"tool-{number}", "tools")
        forms.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool.name},
                    arguments: {"$ref": f"#/{DEFINITIONS}/tool-{number}"},
                },
                "required": ["name", arguments],
            }
        )
    if other is not None:
        definitions |= _definitions(other, "answer", "sampling.json_schema")
        forms.append({"$ref": f"#/{DEFINITIONS}/answer"})
    form = forms[0] if len(forms) == 1 else {"anyOf": forms}
    return {**form, DEFINITIONS: definitions}


def _definitions(schema: dict[str, Any], name: str, field: str) -> dict[str, Any]:
    """A schema under a name, and under names of their own all parts of it that it refers to from its root
    (`#/$defs/...`): the converter to a grammar tells parts by the last word of a reference."""
    whole = copy.deepcopy(schema)
    definitions: dict[str, Any] = {name: whole}
    names = {"#": name}
    left: list[Any] = [whole]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            reference = part.get("$ref")
            if isinstance(reference, str):
                if reference not in names:
                    names[reference] = f"{name}-{len(names)}"
                    definitions[names[reference]] = _referred(whole, reference, field)
                part["$ref"] = f"#/{DEFINITIONS}/{names[reference]}"
            left.extend(part.values())
        elif isinstance(part, list):
            left.extend(part)
    return definitions


def _referred(schema: dict[str, Any], reference: str, field: str) -> Any:
    """The part of a schema that a JSON pointer names."""
    head, *steps = reference.split("/")
    part: Any = schema
    try:
        if head != "#":
            raise KeyError(head)
        for step in steps:
            word = unquote(step).replace("~1", "/").replace("~0", "~")
            part = part[int(word)] if isinstance(part, list) else part[word]
    except (LookupError, TypeError, ValueError) as error:
        what = f"{field}: a schema refers to {reference}, which it has not"
        raise InvalidRequest(what, field=field) from error
    return part


def _thinking_is_begun(pieces: tuple[Piece, ...]) -> bool:
    return bool(pieces) and not pieces[-1].plain and pieces[-1].text.rstrip().endswith(THINKING_BEGINS)
