"""Origins: prompts of one tenant that begin alike have the same first blocks, and nobody else's have."""

from __future__ import annotations

from schemas.commands import ChatMessage, Generate, RawPrompt
from schemas.requests.origin import BLOCK_BYTES, LEAST_BYTES, MOST_BLOCKS, origin_of, shared_blocks
from schemas.requests.sampling import Sampling

LONG = "You answer questions about animals, shortly. " * 60
TURNS = (
    ChatMessage(role="system", content=LONG),
    ChatMessage(role="user", content="What is the tallest animal? " * 20),
    ChatMessage(role="assistant", content="The giraffe. " * 20),
    ChatMessage(role="user", content="And the smallest?"),
)


def asked(request_id: str, **fields: object) -> Generate:
    command = {"agent": "alpha", "model": "alpha", "sampling": Sampling(), "fingerprint": "f"}
    return Generate.model_validate(
        {**command, "request_id": request_id, "accepted_at_s": 0, "deadline_at_s": 1, **fields}
    )


def test_a_conversation_goes_on_with_the_blocks_of_its_earlier_turns() -> None:
    first, second = (asked(f"r{count}", messages=TURNS[:count]).origin for count in (2, 4))
    assert len(first.blocks) > len(LONG) // BLOCK_BYTES
    assert second.blocks[: len(first.blocks)] == first.blocks
    assert shared_blocks(second.blocks, set(first.blocks)) == len(first.blocks) < len(second.blocks)


def test_two_conversations_share_the_blocks_of_their_system_prompt_alone() -> None:
    other = ChatMessage(role="user", content="Which animals fly? " * 40)
    one, two = (asked("r", messages=turns).origin for turns in (TURNS, (TURNS[0], other)))
    shared = shared_blocks(one.blocks, set(two.blocks))
    assert len(LONG) // BLOCK_BYTES <= shared < min(len(one.blocks), len(two.blocks))


def test_the_same_prompt_of_two_tenants_has_no_block_in_common() -> None:
    one, two = (asked(request_id, messages=TURNS).origin for request_id in ("ann=r", "bob=r"))
    assert (one.tenant, two.tenant, len(one.blocks)) == ("ann", "bob", len(two.blocks))
    assert not set(one.blocks) & set(two.blocks)
    assert not set(origin_of("an", b"n" + b"x" * LEAST_BYTES).blocks) & set(
        origin_of("ann", b"x" * (LEAST_BYTES + 1)).blocks
    )


def test_other_tools_are_another_beginning() -> None:
    tools = [{"name": "weather", "parameters": {"type": "object"}}]
    with_tools, without = asked("r", messages=TURNS, tools=tools), asked("r", messages=TURNS)
    assert shared_blocks(with_tools.origin.blocks, set(without.origin.blocks)) == 0


def test_raw_prompts_have_blocks_as_well() -> None:
    text = asked("r", raw=RawPrompt(text=LONG)).origin
    assert asked("s", raw=RawPrompt(text=LONG + "More.")).origin.blocks[: len(text.blocks)] == text.blocks
    assert asked("r", raw=RawPrompt(tokens=tuple(range(1_000)))).origin.blocks


def test_what_is_short_has_no_blocks_and_what_is_long_a_bounded_number() -> None:
    assert origin_of("ann", b"x" * (LEAST_BYTES - 1)).blocks == ()
    assert len(origin_of("ann", b"x" * BLOCK_BYTES * (MOST_BLOCKS + 9)).blocks) == MOST_BLOCKS


def test_any_block_that_is_held_tells_of_all_before_it() -> None:
    assert shared_blocks(("a", "b", "c", "d"), {"c", "x"}) == 3
    assert shared_blocks(("a", "b"), {"x"}) == 0
    assert shared_blocks((), {"x"}) == 0
