"""The origin of a prompt: whose it is, and how it begins, as hashes from which nobody reads a text."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

BLOCK_BYTES = 256
LEAST_BYTES = 1_024
"""A shorter beginning is evaluated sooner than found."""
MOST_BLOCKS = 1_024
HASH_BYTES = 6
TENANT_LENGTH_BYTES = 4
MOST_TOLD = 512
"""Blocks of a model in a lease: some 6 kB."""
MOST_TOLD_OF_ONE = 64


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose a prompt is, and its `blocks`: for each whole block of BLOCK_BYTES the hash of the tenant's name
    and of all that the prompt has up to the block's end. None of a prompt that is shorter than LEAST_BYTES.

    Prompts of one tenant that begin alike begin with the same blocks, those of two tenants never do.
    """

    tenant: str = ""
    blocks: tuple[str, ...] = ()


NOBODY = Origin()
"""The origin of what no tenant asks."""


def origin_of(tenant: str, prompt: bytes) -> Origin:
    """The origin of a prompt, in whatever form: one that goes on with another has the other's bytes first."""
    if len(prompt) < LEAST_BYTES:
        return Origin(tenant)
    name = tenant.encode()
    hashed = hashlib.blake2b(
        len(name).to_bytes(TENANT_LENGTH_BYTES, "big") + name, digest_size=HASH_BYTES, usedforsecurity=False
    )
    blocks = []
    for number in range(min(len(prompt) // BLOCK_BYTES, MOST_BLOCKS)):
        hashed.update(prompt[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES])
        blocks.append(base64.urlsafe_b64encode(hashed.digest()).decode())
    return Origin(tenant, tuple(blocks))


def shared_blocks(blocks: Sequence[str], held: Collection[str]) -> int:
    """How many of its first blocks a prompt has in common with texts of which `held` are some blocks."""
    for count in range(len(blocks), 0, -1):
        if blocks[count - 1] in held:
            return count
    return 0


def told_blocks(kept: Iterable[Origin]) -> tuple[str, ...]:
    """The blocks that a lease tells of prompts whose cells are kept, those that come first above all. Of a
    long prompt every so many: any one that is known tells of all before it."""
    told: dict[str, None] = {}
    for origin in kept:
        step = -(-len(origin.blocks) // MOST_TOLD_OF_ONE) or 1
        told.update(dict.fromkeys((*origin.blocks[step - 1 :: step], *origin.blocks[-1:])))
        if len(told) >= MOST_TOLD:
            break
    return tuple(told)[:MOST_TOLD]
