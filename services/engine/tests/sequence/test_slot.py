from __future__ import annotations

import numpy as np

from schemas.requests.origin import Origin
from schemas.requests.sampling import Sampling
from services.engine.decode.sampler import new_sampler
from services.engine.model.model import Model
from services.engine.sequence.generation import Generation
from services.engine.sequence.sequence import Sequence
from services.engine.sequence.slot import Slot, best_slot, common_prefix, place_of_a_copy


def test_a_prompt_goes_to_the_free_slot_that_begins_most_like_it() -> None:
    slots: list[Slot[Sequence]] = [Slot(0, [1, 2]), Slot(1, [1, 2, 3, 9]), Slot(2, [7])]
    choice = best_slot(slots, np.array([1, 2, 3, 4], dtype=np.int32))
    assert choice is not None
    assert (choice[0].index, choice[1]) == (1, 3)


def test_nothing_is_shared_with_another_tenant_s_text() -> None:
    slots: list[Slot[Sequence]] = [
        Slot(0, [1, 2, 3], last_used=1, origin=Origin("ann")),
        Slot(1, last_used=2),
    ]
    prompt = np.array([1, 2, 3, 4], dtype=np.int32)
    assert [best_slot(slots, prompt, tenant) for tenant in ("ann", "bob")] == [(slots[0], 3), (slots[0], 0)]


def test_with_nothing_in_common_the_slot_that_was_free_longest_is_given_up() -> None:
    slots: list[Slot[Sequence]] = [Slot(0, [1], last_used=5), Slot(1, [2], last_used=3)]
    choice = best_slot(slots, np.array([8], dtype=np.int32))
    assert choice is not None and choice[0].index == 1


def test_a_few_tokens_that_all_prompts_begin_with_do_not_decide() -> None:
    slots: list[Slot[Sequence]] = [Slot(0, [1, 2, 3], last_used=5), Slot(1, [9], last_used=3)]
    choice = best_slot(slots, np.array([1, *range(50, 60)], dtype=np.int32))
    assert choice is not None and choice[0].index == 1


def test_with_nothing_to_share_a_neighbour_of_slots_in_use_is_taken(model: Model) -> None:
    sequence = Sequence(
        np.array([1], dtype=np.int32), Sampling(), new_sampler(model, Sampling()), Generation(lambda: None)
    )
    slots: list[Slot[Sequence]] = [Slot(0), Slot(1), Slot(2, last_used=9), Slot(3, sequence=sequence)]
    choice = best_slot(slots, np.array([1], dtype=np.int32))
    sequence.sampler.close()
    assert choice is not None and choice[0].index == 2


def test_a_copy_goes_to_a_free_slot_that_is_worth_less_than_the_end_of_the_text() -> None:
    text = list(range(100))
    slots: list[Slot[Sequence]] = [
        Slot(0, text, last_used=5),
        Slot(1, [1], last_used=9),
        Slot(2, [2], last_used=3),
    ]
    assert place_of_a_copy(slots, slots[0], shared=50) is slots[2]
    assert place_of_a_copy(slots, slots[0], shared=90) is None
    assert place_of_a_copy(slots[:2], slots[0], shared=50) is None
    assert place_of_a_copy(slots, slots[2], shared=0) is None


def test_without_a_free_slot_there_is_none_to_give() -> None:
    assert best_slot([], np.array([1], dtype=np.int32)) is None


def test_the_common_beginning_of_one_inside_the_other_is_the_shorter() -> None:
    assert common_prefix([1, 2, 3], np.array([1, 2], dtype=np.int32)) == 2
    assert common_prefix([], np.array([1], dtype=np.int32)) == 0
