"""Map-reduce over a document that does not fit a context: asks about each passage, and joins the answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from schemas.errors import ContextExceeded, InvalidRequest
from services.cli.batch.models import Models
from services.cli.batch.prompts import Prompt
from services.cli.batch.questions import Inquiry, Questions, Reading
from services.cli.batch.records import TaskTimings
from services.client.bulk.bounded import together
from services.summarizer.split import split

JOIN = """\
Below are answers to the instruction between the lines, each for another part of the document, in order.
----
{instruction}
----
Join them into one answer to the instruction. Leave out repetitions and add nothing.

"""
BETWEEN_ANSWERS = "\n\n"
DOCUMENT = "[the document]"
BYTES_PER_TOKEN = 4.0
"""English text has about so many. Where a model makes more tokens of a passage, the mesh says so."""
TEMPLATE_TOKENS = 48
"""What a chat template puts around a message, at most."""
LEAST_PASSAGE_BYTES = 64


class Reader:
    """Answers prompts about documents of any length. How one is split depends on nothing but itself."""

    def __init__(self, questions: Questions, models: Models, max_tokens: int) -> None:
        self._questions = questions
        self._models = models
        self._max_tokens = max_tokens

    async def read(self, inquiry: Inquiry, prompt: Prompt, filename: str, content: str) -> Reading:
        """The answer to `prompt` about a whole document.

        Raises InvalidRequest where prompt and answer leave no room for a document, and where the answers
        about its parts are no shorter than the document.
        """
        readings = await self._map(inquiry, prompt, filename, content)
        if len(readings) == 1:
            return readings[0]
        answers = BETWEEN_ANSWERS.join(reading.reply.response for reading in readings)
        if size(answers) >= size(content):
            raise InvalidRequest(
                f"the answers about {len(readings)} parts of the document are no shorter than itself: set "
                "fewer --max-tokens, or take a model with a longer context",
                field="max_tokens",
            )
        joined = await self.read(inquiry, joining(prompt, filename), filename, answers)
        return Reading(joined.reply, total([*readings, joined]), len(readings))

    async def _map(self, inquiry: Inquiry, prompt: Prompt, filename: str, content: str) -> list[Reading]:
        """One reading if the text fits, else those of its passages, in order."""
        text = prompt.about(filename, content)
        room = self._room(inquiry.model)
        if size(text) > room:
            limit = room - size(prompt.about(filename, ""))
        else:
            try:
                return [await self._questions.ask(inquiry, text)]
            except ContextExceeded:
                limit = size(content) * 2 // 3
        if limit < LEAST_PASSAGE_BYTES:
            raise InvalidRequest(
                f"the context of {inquiry.model} has no room for a document beside prompt and answer: take a "
                "model with a longer context, a shorter prompt, or fewer --max-tokens",
                field="prompt",
            )
        parts = split(content, limit * len(content) // size(content))  # its limit is in characters
        nested = await together(self._map(inquiry, prompt, filename, part) for part in parts)
        return [reading for readings in nested for reading in readings]

    def _room(self, model: str) -> int:
        """How many bytes of prompt should fit beside the answer."""
        tokens = self._models.context_tokens(model) - self._max_tokens - TEMPLATE_TOKENS
        return int(tokens * BYTES_PER_TOKEN)


def joining(prompt: Prompt, filename: str) -> Prompt:
    """The prompt that joins answers to `prompt` about parts of a document; it joins its own answers too."""
    if prompt.name == "join":
        return prompt
    escaped = prompt.about(filename, DOCUMENT).replace("{", "{{").replace("}", "}}")
    return Prompt("join", JOIN.replace("{instruction}", escaped) + "{content}")


def size(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text.encode())


def total(readings: Sequence[Reading]) -> TaskTimings:
    """The sums over all readings."""

    def plus(one: TaskTimings, other: TaskTimings) -> TaskTimings:
        return TaskTimings(
            queue_s=one.queue_s + other.queue_s,
            generation_s=one.generation_s + other.generation_s,
            prompt_tokens=one.prompt_tokens + other.prompt_tokens,
            generated_tokens=one.generated_tokens + other.generated_tokens,
        )

    return reduce(plus, (reading.timings for reading in readings), TaskTimings())
