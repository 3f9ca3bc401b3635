"""What is shown of a stream is the result's text in the end, whatever was lost or begun again on the way."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.errors import Overloaded
from schemas.replies import Answer, Result, Sample, TokenChunk
from schemas.requests.chat import ToolCall
from services.client.streamed_text import StreamedText


def chunk(index: int, text: str, attempt: int = 1, *, agent: str = "a", done: bool = False) -> TokenChunk:
    return TokenChunk(
        request_id="r1", agent=agent, index=index, text=text, attempt=attempt, done=done, sequence=index + 1
    )


def result(text: str, agent: str = "a") -> Result:
    answer = Answer(request_id="r1", agent=agent, model=agent, instance="i", text=text, finish_reason="stop")
    return Result(
        request_id="r1",
        fingerprint="",
        topology="single",
        text=text,
        answers=(answer,),
        accepted_at_s=1.0,
        completed_at_s=2.0,
    )


def joined(chunks: Iterable[TokenChunk | None]) -> str:
    """The text as a user joins it."""
    text = ""
    for shown in filter(None, chunks):
        text = shown.text if shown.restarted else text + shown.text
    return text


def test_a_text_that_comes_whole_is_shown_as_it_comes() -> None:
    streamed = StreamedText()
    shown = [
        streamed.take(chunk(0, "The ")),
        streamed.take(chunk(1, "city")),
        streamed.take(chunk(2, "", done=True)),
    ]
    assert [piece.text for piece in filter(None, shown)] == ["The ", "city", ""]
    assert streamed.rest(result("The city")) == []


def test_another_text_of_a_second_attempt_begins_anew_where_it_differs() -> None:
    streamed = StreamedText()
    before = [streamed.take(chunk(index, text)) for index, text in enumerate(("The ", "city ", "is "))]
    after = [streamed.take(chunk(index, text, 7)) for index, text in enumerate(("The ", "town ", "was "))]
    late = streamed.take(chunk(3, "Paris"))  # the first agent was only paused
    assert [piece and piece.text for piece in after] == [None, "The town ", "was "]
    assert [piece.restarted for piece in filter(None, after)] == [True, False]
    assert late is None
    assert joined([*before, *after, late, *streamed.rest(result("The town was "))]) == "The town was "


def test_the_same_text_of_a_second_attempt_is_not_shown_twice() -> None:
    streamed = StreamedText()
    before = [streamed.take(chunk(0, "The ")), streamed.take(chunk(1, "city "))]
    after = [
        streamed.take(chunk(0, "The city", 2)),
        streamed.take(chunk(1, " is", 2)),
        streamed.take(chunk(2, "", 2, done=True)),
    ]
    assert [piece and piece.text for piece in after] == [None, "is", ""]
    assert not any(piece.restarted for piece in filter(None, after))
    assert joined([*before, *after]) == "The city is"


def test_a_shorter_text_of_a_second_attempt_takes_the_place_of_the_first() -> None:
    streamed = StreamedText()
    before = [streamed.take(chunk(0, "The ")), streamed.take(chunk(1, "city "))]
    after = [streamed.take(chunk(0, "The ", 2)), streamed.take(chunk(1, "", 2, done=True))]
    assert joined([*before, *after]) == "The "


def test_a_piece_that_is_missing_is_looked_for_once_and_else_comes_with_the_result() -> None:
    streamed = StreamedText()
    shown = [streamed.take(chunk(0, "one "))]
    assert not streamed.missing()
    shown.append(streamed.take(chunk(2, "three ")))
    assert (streamed.missing(), streamed.sequence) == (True, 0)
    shown += [streamed.take(chunk(0, "one ")), streamed.take(chunk(2, "three "))]
    assert not streamed.missing()
    shown += streamed.rest(result("one two three "))
    assert joined(shown) == "one two three "
    assert not any(piece.restarted for piece in filter(None, shown))


def test_a_missing_piece_that_is_found_is_shown_in_its_place() -> None:
    streamed = StreamedText()
    shown = [streamed.take(chunk(0, "one ")), streamed.take(chunk(2, "three "))]
    assert streamed.missing()
    shown += [streamed.take(chunk(index, text)) for index, text in enumerate(("one ", "two ", "three "))]
    assert joined(shown) == "one two three "


def test_nothing_that_was_streamed_by_a_loser_stays() -> None:
    """The first agent was paused, a second one streamed, and then the first one's result was the faster."""
    streamed = StreamedText()
    shown = [streamed.take(chunk(0, "A")), streamed.take(chunk(0, "B", 2)), streamed.take(chunk(1, "C", 2))]
    assert joined([*shown, *streamed.rest(result("A and more"))]) == "A and more"


def test_an_error_has_no_text() -> None:
    assert StreamedText().rest(Result.unreadable("r1", Overloaded("full"), 1.0)) == []


CALL = ToolCall(id="c1", name="weather", arguments={"city": "Paris"})


def thought(index: int, thinking: str, attempt: int = 1) -> TokenChunk:
    return chunk(index, "", attempt).model_copy(update={"thinking": thinking})


def called(index: int, attempt: int = 1) -> TokenChunk:
    return chunk(index, "", attempt).model_copy(update={"tool_calls": (CALL,)})


def test_thinking_and_calls_of_a_second_attempt_are_not_shown_twice() -> None:
    streamed = StreamedText()
    before = [streamed.take(thought(0, "First. ")), streamed.take(called(1))]
    after = [
        streamed.take(thought(0, "First. ", 2)),
        streamed.take(called(1, 2)),
        streamed.take(chunk(2, "Done", 2)),
    ]
    assert [piece and (piece.thinking, piece.tool_calls) for piece in before] == [
        ("First. ", ()),
        (None, (CALL,)),
    ]
    assert [piece and piece.text for piece in after] == [None, None, "Done"]


def test_other_thinking_of_a_second_attempt_makes_void_what_came_before() -> None:
    streamed = StreamedText()
    streamed.take(thought(0, "Rome. "))
    again = streamed.take(thought(0, "Paris. ", 2))
    assert again is not None and (again.thinking, again.restarted) == ("Paris. ", True)


def test_several_texts_of_an_agent_are_kept_apart() -> None:
    streamed = StreamedText()
    pieces = [(0, "One "), (1, "Two "), (0, "first"), (1, "second")]
    shown = [
        streamed.take(chunk(index, text).model_copy(update={"sample": sample}))
        for index, (sample, text) in enumerate(pieces)
    ]
    assert [piece and (piece.sample, piece.text) for piece in shown] == pieces
    whole = result("One first")
    (answer,) = whole.answers
    samples = (Sample(text="Two second", finish_reason="stop"), Sample(text="Three", finish_reason="stop"))
    whole = whole.model_copy(update={"answers": (answer.model_copy(update={"samples": samples}),)})
    assert [(piece.sample, piece.text) for piece in streamed.rest(whole)] == [(2, "Three")]


def test_calls_that_were_lost_come_with_the_result() -> None:
    whole = result("")
    (answer,) = whole.answers
    told = answer.model_copy(update={"tool_calls": (CALL,), "thinking": "Look it up."})
    (rest,) = StreamedText().rest(whole.model_copy(update={"answers": (told,)}))
    assert (rest.tool_calls, rest.thinking) == ((CALL,), "Look it up.")
