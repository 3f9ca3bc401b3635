from __future__ import annotations

import numpy as np

from services.engine.decode.batch import Batch


def test_llama_cpp_is_shown_what_was_added() -> None:
    batch = Batch(8)
    assert batch.add_token(slot=3, position=7, token=42) == 0
    last = batch.add_chunk(1, 10, np.array([5, 6, 7], dtype=np.int32), want_last=True)
    struct = batch.filled()
    assert last == 3
    assert struct.n_tokens == 4
    assert [struct.token[i] for i in range(4)] == [42, 5, 6, 7]
    assert [struct.pos[i] for i in range(4)] == [7, 10, 11, 12]
    assert [struct.seq_id[i][0] for i in range(4)] == [3, 1, 1, 1]
    assert [struct.n_seq_id[i] for i in range(4)] == [1, 1, 1, 1]
    assert [struct.logits[i] for i in range(4)] == [1, 0, 0, 1]


def test_a_cleared_batch_is_filled_from_its_beginning() -> None:
    batch = Batch(2)
    batch.add_token(0, 0, 1)
    batch.clear()
    assert batch.room == 2
    assert batch.add_chunk(0, 0, np.array([8], dtype=np.int32), want_last=False) == 0
    assert batch.filled().logits[0] == 0


def test_rows_of_hidden_states_take_the_place_of_what_was_there() -> None:
    batch = Batch(3, width=2)
    slots, positions = np.array([0, 2], dtype=np.int32), np.array([4, 9], dtype=np.int32)
    batch.fill(slots, positions, np.array([[1, 2], [3, 4]], dtype=np.float32))
    batch.fill(slots, positions, np.array([[5, 6], [7, 8]], dtype=np.float32), wanted=[1])
    struct = batch.filled()
    assert struct.n_tokens == 2 and not struct.token
    assert [struct.embd[i] for i in range(4)] == [5, 6, 7, 8]
    assert [(struct.seq_id[i][0], struct.pos[i]) for i in range(2)] == [(0, 4), (2, 9)]
    assert [struct.logits[i] for i in range(2)] == [0, 1]
