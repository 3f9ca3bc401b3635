"""What models of each family write is told apart, however it is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.engine.sequence.answer_reader import AnswerForm, AnswerReader, DecodedPiece

WEATHER = {"city": "Paris", "days": 2}
TOOLS = AnswerForm(tools=frozenset({"weather", "time"}))
THINKING = AnswerForm(thinks=True)
BOTH = AnswerForm(thinks=True, tools=frozenset({"weather", "time"}))
LLAMA = AnswerForm(tools=frozenset({"weather", "time"}), whole_object=True)

HERMES = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call>'
TEXT_ARGUMENTS = (
    '<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"Paris\\", \\"days\\": 2}"}</tool_call>'
)
OBJECT = '{"name": "weather", "parameters": {"city": "Paris", "days": 2}}'
MISTRAL_LIST = '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Paris", "days": 2}}]'
MISTRAL_NAMED = '[TOOL_CALLS]weather[ARGS]{"city": "Paris", "days": 2}'


def read(form: AnswerForm, text: str, cut: int = 1) -> DecodedPiece:
    """All that is made of a text that comes in pieces of `cut` characters."""
    reader = AnswerReader(form)
    decoded = [reader.feed(text[at : at + cut]) for at in range(0, len(text), cut)]
    decoded.append(reader.flush())
    return DecodedPiece(
        "".join(one.text for one in decoded),
        "".join(one.thinking for one in decoded),
        tuple(call for one in decoded for call in one.calls),
    )


def called(decoded: DecodedPiece) -> list[tuple[str, dict[str, object]]]:
    return [(call.name, call.arguments) for call in decoded.calls]


@pytest.mark.parametrize("cut", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    ("form", "written", "text"),
    [
        (TOOLS, HERMES, ""),
        (TOOLS, f"\n\n{HERMES}\n", ""),
        (TOOLS, f"Let me look.\n\n{HERMES}", "Let me look."),
        (TOOLS, f"{HERMES}\nThat is all.", "That is all."),
        (TOOLS, HERMES.removesuffix("\n</tool_call>"), ""),
        (TOOLS, MISTRAL_LIST, ""),
        (TOOLS, MISTRAL_NAMED, ""),
        (TOOLS, f"<|python_tag|>{OBJECT}", ""),
        (TOOLS, TEXT_ARGUMENTS, ""),
        (LLAMA, OBJECT, ""),
        (LLAMA, f"\n {OBJECT}\n", ""),
    ],
)
def test_a_call_is_read_as_each_family_writes_it(form: AnswerForm, written: str, text: str, cut: int) -> None:
    decoded = read(form, written, cut)
    assert called(decoded) == [("weather", WEATHER)]
    assert decoded.text == text


@pytest.mark.parametrize(
    ("form", "written"),
    [
        (TOOLS, f'{HERMES}\n<tool_call>\n{{"name": "time", "arguments": {{}}}}\n</tool_call>'),
        (TOOLS, MISTRAL_LIST[:-1] + ', {"name": "time", "arguments": {}}]'),
        (TOOLS, MISTRAL_NAMED + "[TOOL_CALLS]time[ARGS]{}"),
        (LLAMA, f'{OBJECT}; {{"name": "time", "parameters": {{}}}}'),
    ],
)
def test_several_calls_are_read_in_their_order_and_have_ids_of_their_own(
    form: AnswerForm, written: str
) -> None:
    decoded = read(form, written)
    assert called(decoded) == [("weather", WEATHER), ("time", {})]
    assert len({call.id for call in decoded.calls}) == 2
    assert all(len(call.id) == 9 and call.id.isalnum() for call in decoded.calls)


@pytest.mark.parametrize(
    ("form", "written"),
    [
        (TOOLS, "<tool_call>\nnot JSON\n</tool_call>"),
        (TOOLS, '<tool_call>\n{"arguments": {}}\n</tool_call>'),
        (TOOLS, '<tool_call>\n{"name": "two words", "arguments": {}}\n</tool_call>'),
        (TOOLS, '<tool_call>\n{"name": "weather", "arguments": {"x": NaN}}\n</tool_call>'),
        (TOOLS, "<tool_call>" + '{"a":' * 5000),
        (TOOLS, "[TOOL_CALLS] are what I would write"),
        (TOOLS, "1 < 2, and <tool is no call"),
        (TOOLS, OBJECT),
        (LLAMA, '{"name": "Anna", "age": 3}'),
        (LLAMA, '{"name": "unheard_of", "parameters": {}}'),
        (AnswerForm(), HERMES),
        (AnswerForm(), "<think>no model that thinks</think>"),
        (THINKING, "An answer about <think> tags"),
    ],
)
def test_what_is_no_call_and_no_thinking_is_text(form: AnswerForm, written: str) -> None:
    decoded = read(form, written, 5)
    assert (decoded.text, decoded.calls, decoded.thinking) == (written, (), "")


@pytest.mark.parametrize("cut", [1, 4, 1000])
@pytest.mark.parametrize(
    ("form", "written"),
    [
        (THINKING, "<think>\nFirst.\nThen.\n</think>\n\nParis"),
        (THINKING, "\n<think>First.\nThen.</think>Paris"),
        (AnswerForm(thinks=True, in_thinking=True), "\nFirst.\nThen.\n</think>\n\nParis"),
    ],
)
def test_thinking_is_kept_apart_from_the_answer(form: AnswerForm, written: str, cut: int) -> None:
    decoded = read(form, written, cut)
    assert (decoded.thinking, decoded.text) == ("First.\nThen.", "Paris")


def test_thinking_that_is_cut_off_is_no_answer() -> None:
    assert read(THINKING, "<think>\nFirst. ") == DecodedPiece(thinking="First.")


def test_a_call_after_thinking_is_a_call() -> None:
    decoded = read(BOTH, f"<think>\nA call: {HERMES}\n</think>\n\n{HERMES}")
    assert called(decoded) == [("weather", WEATHER)]
    assert (decoded.text, decoded.thinking) == ("", f"A call: {HERMES}")


def test_text_is_told_before_the_end() -> None:
    reader = AnswerReader(BOTH)
    assert [reader.feed(piece).text for piece in ("Par", "is", " is", " nice")] == [
        "Par",
        "is",
        " is",
        " nice",
    ]


@given(text=st.text(alphabet="<>/think tool_call[]TOLCAS{}\n a", max_size=60), cut=st.integers(1, 9))
def test_a_text_is_read_alike_however_it_is_cut(text: str, cut: int) -> None:
    assert read(BOTH, text, cut) == read(BOTH, text, 1000)
