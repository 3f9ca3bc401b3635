"""Packs what a stage sends into messages that the broker carries."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from schemas.errors import ModelUnusable
from schemas.pipelines.activations import HEADER_BYTES, MAX_FRAME_BYTES, Dtype, Frame, split_frame
from schemas.pipelines.stage_wire import Item, Sent, pack
from services.shard_stage.pipeline.step_executor import Outgoing

MESSAGE_BYTES = 256 * 1024
"""Limit of a message between stages: the broker passes larger ones on more slowly."""


def messages(out: Sequence[Outgoing], carried: int = MAX_FRAME_BYTES) -> Iterator[tuple[int, bytes]]:
    """Each message with the stage that it is for, the stages behind first. The last message of a stage ends
    with the time.

    Frames are split where they are longer than a message. What cannot be split, and is longer, is a message
    of its own. Raises PayloadTooLarge for what is longer than the `carried` bytes that the broker takes.
    """
    most = min(MESSAGE_BYTES, carried)
    for stage in sorted({outgoing.stage for outgoing in out}, reverse=True):
        items = [outgoing.item for outgoing in out if outgoing.stage == stage]
        for message in pack([*_split(items, most), Sent(time.time_ns())], most, carried):
            yield stage, message


def check_width(width: int, dtype: Dtype, carried: int) -> None:
    """Raises ModelUnusable for a model whose hidden states do not fit into a message one by one."""
    need = HEADER_BYTES + dtype.row_bytes(width)
    most = min(MESSAGE_BYTES, carried)
    if need > most:
        raise ModelUnusable(
            f"a hidden state of width {width} takes {need} bytes, and a message between stages holds {most}: "
            "take the dtype f16 or q8_0, or raise max_payload in section [broker]",
            field="broker.max_payload",
        )


def _split(items: Iterable[Item], most: int) -> Iterator[Item]:
    for item in items:
        if isinstance(item, Frame):
            yield from split_frame(item, most)
        else:
            yield item
