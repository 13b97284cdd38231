"""Logical axes of what a decode starts from, carries and returns.

Compiled programs hand a state on to each other: with its layout on a mesh fixed here,
each gives it as the next one takes it.
"""

from typing import Any

import jax

from seedjax.nn.cache import ENTRY_AXES
from seedjax.sampling.loop import DecodeResult
from seedjax.sharding import LogicalAxes


def decode_axes(tree: Any) -> Any:
    """A tuple of axis names at each leaf of a `Canvas`, `DecodeState`, `Slots` or
    `DecodeResult`, be its leaves arrays or abstract, or of a tuple of these.

    Rows are split and so are the heads of the cache. Automata are copied, and so are
    results, which are small and read by the host.
    """
    if isinstance(tree, DecodeResult):
        return jax.tree.map(lambda leaf: ("whole_length",) * leaf.ndim, tree)
    if type(tree) is tuple:
        return tuple(map(decode_axes, tree))
    return jax.tree_util.tree_map_with_path(_axes, tree)


def _axes(path: tuple[Any, ...], leaf: Any) -> LogicalAxes:
    fields = {getattr(step, "name", None) for step in path}
    if fields & {"automaton", "stops"}:
        return ("whole_length",) * leaf.ndim
    if "layers" in fields:
        return ("layers",) * (leaf.ndim - len(ENTRY_AXES)) + ENTRY_AXES
    if "trace" in fields:
        return ("whole_length", "whole_length", "batch", "whole_length")
    return ("batch", *("whole_length",) * (leaf.ndim - 1)) if leaf.ndim else ()
