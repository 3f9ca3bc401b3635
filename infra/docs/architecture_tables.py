"""The tables of the engine's README: the architectures that can be cut, and the shapes that are tested."""

from __future__ import annotations

from collections.abc import Iterator

from infra.testing.made_models.published_shapes import PUBLISHED
from services.engine.model.architectures.table import ARCHITECTURES, Architecture


def architecture_rows() -> Iterator[tuple[str, str, str]]:
    """For each architecture its name, where its slices may begin, and what there is to know."""
    for name, entry in ARCHITECTURES.items():
        yield f"`{name}`", _where(entry), "; ".join(_notes(entry))


def shape_rows() -> Iterator[tuple[str, ...]]:
    """For each published model whose shape is tested: its architecture, its sizes, and what is otherwise."""
    for one in PUBLISHED:
        yield (
            one.model,
            f"`{one.architecture}`",
            f"{one.recipe.shape.width:,}",
            one.heads,
            one.network,
            f"{one.window:,}" if one.window else "",
            str(one.recipe.layers),
            one.but,
        )


def _where(entry: Architecture) -> str:
    if entry.step_key:
        return f"at multiples of {entry.index_period} and of `{entry.step_key}`"
    if entry.index_period > 1:
        return f"at multiples of {entry.index_period}"
    return "at every layer with a window" if entry.window_period else "at every layer"


def _notes(entry: Architecture) -> Iterator[str]:
    if entry.window_period:
        named = ", if the file names their length" if entry.window_is_named else ""
        yield f"windows in all but the last of every {entry.window_period} layers{named}; a slice lists them"
    if entry.entry:
        yield f"hidden states are written into the graph, as `{entry.entry}`"
    if entry.scales_embeddings:
        yield "`embedding_scale` only in a first slice"
    if entry.needs_output:
        names = " and ".join(f"`{name}`" for name in entry.needs_output)
        yield f"a hole for {names} where a slice does not use it"
    for told in entry.layer_counts:
        layers = f"{told.layers} layers{' or more' if told.or_more else ''}"
        verb = "said by a key in slices, and no slice of others so long" if told.can_be_said else "not cut"
        yield f"{layers}: {told.meaning}: {verb}"
