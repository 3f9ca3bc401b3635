"""The tables of the engine's README: architectures that are cut, the others, and shapes that are tested."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from infra.testing.made_models.published_shapes import PUBLISHED
from services.engine.model.architectures.table import ARCHITECTURES, REFUSED, UNTRIED, Architecture


def architecture_rows() -> Iterator[tuple[str, str, str]]:
    """For each architecture its name, where its slices may begin, and what there is to know."""
    for name, entry in ARCHITECTURES.items():
        yield f"`{name}`", _where(entry), "; ".join(_notes(entry))


def refused_rows() -> Iterator[tuple[str, str]]:
    """For each reason not to cut the architectures that have it."""
    for reason in dict.fromkeys(REFUSED.values()):
        yield _names(name for name, why in REFUSED.items() if why == reason), reason
    yield _names(UNTRIED), "nobody has tried"


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


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _where(entry: Architecture) -> str:
    if entry.step_key:
        periods = [str(entry.index_period)] if entry.index_period > 1 else []
        return f"at multiples of {' and of '.join([*periods, f'`{entry.step_key}`'])}"
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
