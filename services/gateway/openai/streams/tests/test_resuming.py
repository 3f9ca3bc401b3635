"""A stream that is taken up after any of its events goes on with the next, whatever it is made of then."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import GenerationFailed, InvalidRequest
from schemas.replies import Result, Sample, TokenChunk
from schemas.requests.chat import ToolCall
from schemas.requests.sampling import MAX_SAMPLES
from services.gateway.http.body import checked
from services.gateway.openai.chat.body import ChatBody
from services.gateway.openai.chat.stream import chat_events
from services.gateway.openai.completions.body import MAX_PROMPTS
from services.gateway.openai.streams.place import Place
from services.gateway.openai.streams.track import Track
from services.gateway.openai.tests.results import chunk, result

BODY = checked(
    {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "logprobs": True,
        "stream_options": {"include_usage": True},
    },
    ChatBody,
)
END = b"\n\n"
CALLS = (ToolCall(id="call_1", name="weather"), ToolCall(id="call_2", name="time"))


async def frames_of(replies: Sequence[TokenChunk | Result], had: Place | None = None) -> list[bytes]:
    """The events of a stream of these replies."""

    async def coming() -> AsyncIterator[TokenChunk | Result]:
        for reply in replies:
            yield reply

    written = b"".join([frame async for frame in chat_events(BODY, "r", 0, coming(), had)])
    return [event + END for event in written.split(END)[:-1]]


def place_of(frame: bytes) -> Place:
    """What the id of an event says."""
    return Place.read(frame.split(b"\n")[0].removeprefix(b"id: ").decode())


def said(frames: Sequence[bytes]) -> list[Any]:
    """All that events say, whatever pieces the texts are in: by choice thoughts, text, tokens, calls, end."""
    told: dict[int, dict[str, Any]] = {}
    whole: list[Any] = []
    for frame in frames:
        name, _, data = frame.partition(b"data: ")
        if not name:
            whole.append(data)
            continue
        event = json.loads(data)
        for choice in event["choices"]:
            one = told.setdefault(choice["index"], {"thought": "", "text": "", "tokens": [], "rest": []})
            delta = choice["delta"]
            one["thought"] += delta.pop("reasoning_content", "")
            one["text"] += delta.pop("content", "")
            one["tokens"] += (choice["logprobs"] or {"content": []})["content"]
            if delta or choice["finish_reason"]:
                one["rest"].append((delta, choice["finish_reason"]))
        if not event["choices"]:
            whole.append(event["usage"])
    return [told, whole]


def tokens_of(text: str) -> tuple[dict[str, Any], ...]:
    """A token of each character."""
    return tuple({"text": char, "logprob": -1.0} for char in text)


def chunks_of(text: str, thoughts: str, cuts: Sequence[int]) -> list[TokenChunk]:
    """A text in pieces, after its thoughts."""
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts)]
    pieces = [text[start:end] for start, end in pairwise(bounds)]
    thinking = [chunk("", index, thinking=char) for index, char in enumerate(thoughts)]
    return thinking + [chunk(piece, index, logprobs=tokens_of(piece)) for index, piece in enumerate(pieces)]


@settings(deadline=None, max_examples=25)
@given(
    text=st.text(max_size=90),
    thoughts=st.text(max_size=5),
    cuts=st.lists(st.integers(min_value=0, max_value=90), max_size=6),
    calls=st.sampled_from([(), CALLS[:1], CALLS]),
    samples=st.lists(st.text(max_size=3), max_size=2),
)
async def test_a_stream_goes_on_after_any_event(
    text: str, thoughts: str, cuts: list[int], calls: tuple[ToolCall, ...], samples: list[str]
) -> None:
    # Given a stream of which a client had some events
    further = tuple(Sample(text=one, finish_reason="stop") for one in samples)
    last = result(text, calls=calls, thinking=thoughts or None, logprobs=tokens_of(text), samples=further)
    live: list[TokenChunk | Result] = [*chunks_of(text, thoughts, cuts), last]
    anew: list[TokenChunk | Result] = [last]
    frames = await frames_of(live)
    ids = [frame.split(b"\n")[0] for frame in frames[:-1]]
    assert len(set(ids)) == len(ids), "no two events have one id"

    for count in range(1, len(frames)):
        had = place_of(frames[count - 1])

        # When it goes on, from the chunks or from the result alone, then nothing is missing or doubled
        for replies in (live, anew):
            rest = await frames_of(replies, had)
            assert said(frames[:count] + rest) == said(frames)
            assert not set(ids[:count]) & {frame.split(b"\n")[0] for frame in rest[:-1]}
            assert rest[-1] == frames[-1]


@pytest.mark.parametrize("choice", [999, 1_000, MAX_PROMPTS * MAX_SAMPLES - 1, MAX_PROMPTS * MAX_SAMPLES])
def test_each_of_the_texts_that_a_request_may_have_is_a_place(choice: int) -> None:
    """The number behind the last one is the usage."""
    track = Track("r")
    track.begin(choice)
    had = place_of(track.stamp(b"data: {}"))

    assert had.choice == choice
    again = Track("r", had)
    assert not again.begin(choice) and again.begin(choice + 1)


@pytest.mark.parametrize("other", ["Good day", "Hell", "Hellish"])
async def test_a_text_that_is_another_one_by_now_is_not_joined_to_what_was_shown(other: str) -> None:
    frames = await frames_of([chunk("Hel"), chunk("lo", 1), result("Hello")])

    with pytest.raises(GenerationFailed, match="differs"):
        await frames_of([result(other)], place_of(frames[2]))


@pytest.mark.parametrize("text", ["", "7", "r:1.2", "r:1.2.3.4.5.6.7", "a b:0.0.0.0.0.0", "r:-1.0.0.0.0.0"])
def test_what_is_no_id_of_an_event_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Place.read(text)

    assert refused.value.field == "last-event-id"
