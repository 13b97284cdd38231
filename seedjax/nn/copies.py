"""A clean and a noisy copy of rows in one pass, side by side in one sequence.

Every product with weights takes both copies at once, so that a mesh gathers each weight
once and sums one gradient. Attention alone takes them apart, and leaves out the quarter
of the scores that no mask lets through, clean queries on noisy keys.

Where the positions are split over devices, each has its part of both copies:

    one device     c0 c1 c2 c3 n0 n1 n2 n3
    two devices    c0 c1 n0 n1 | c2 c3 n2 n3
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from seedjax.batch import Layout
from seedjax.nn.attention import Keys
from seedjax.nn.masks import MaskSpec, Visibility, visibility
from seedjax.sharding import num_parts
from seedjax.typing import Array, Float, Float32


@dataclass(frozen=True)
class Copies:
    """Lengths of the copies, which may differ."""

    clean: int
    noisy: int

    @property
    def parts(self) -> int:
        """Into how many parts the mesh splits both."""
        parts = num_parts("length", self.clean)
        return parts if parts == num_parts("length", self.noisy) else 1

    def join_halves(self, tokens: Array) -> Array:
        """Facts of tokens, [B, L], the clean copy before the noisy one, joined."""
        return self.join(tokens[:, : self.clean], tokens[:, self.clean :])

    def join(self, clean: Array, noisy: Array, axis: int = 1) -> Array:
        """One sequence of both."""
        cut = [
            x.reshape(*x.shape[:axis], self.parts, -1, *x.shape[axis + 1 :])
            for x in (clean, noisy)
        ]
        return jnp.concatenate(cut, axis + 1).reshape(
            *clean.shape[:axis], self.clean + self.noisy, *clean.shape[axis + 1 :]
        )

    def split(self, both: Array, axis: int = 1) -> tuple[Array, Array]:
        """The clean and the noisy part of what was joined."""
        before, after = both.shape[:axis], both.shape[axis + 1 :]
        cut = both.reshape(*before, self.parts, -1, *after)
        clean, noisy = jnp.split(cut, [self.clean // self.parts], axis + 1)
        return (
            clean.reshape(*before, self.clean, *after),
            noisy.reshape(*before, self.noisy, *after),
        )


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("query", "clean", "across", "noisy"),
    meta_fields=("copies",),
)
@dataclass(frozen=True, eq=False, kw_only=True)
class CopiesVisibility:
    """Which queries of two copies see which keys.

    Attributes:
      query: layout of the queries, joined.
      clean: clean queries, clean keys.
      across: noisy queries, clean keys.
      noisy: noisy queries, noisy keys.
      copies: their lengths.
    """

    query: Any
    clean: Any
    across: Any
    noisy: Any
    copies: Copies


def visibility_of_copies(
    spec: MaskSpec, layout: Layout, copies: Copies
) -> CopiesVisibility:
    """`nn.masks.visibility` for both copies; `layout` is of the joined sequence."""
    clean, noisy = (
        jax.tree.map(lambda leaf, which=which: copies.split(leaf)[which], layout)
        for which in range(2)
    )
    see: partial[Visibility] = partial(visibility, spec)
    return CopiesVisibility(
        query=layout,
        clean=see(clean, clean),
        across=see(noisy, clean),
        noisy=see(noisy, noisy),
        copies=copies,
    )


def attend_copies(
    attend: Callable[[Array, tuple[Keys, ...]], Array],
    queries: Float[Array, "B H L C"],
    keys: Float[Array, "B K S C"],
    values: Float[Array, "B K S C"],
    visibility: CopiesVisibility,
) -> Float32[Array, "B H L C"]:
    """`attend` for the queries of both copies, or of the noisy one alone."""
    copies = visibility.copies
    clean, noisy = zip(copies.split(keys, 2), copies.split(values, 2), strict=True)
    runs = Keys(*clean, visibility.across), Keys(*noisy, visibility.noisy)
    if queries.shape[2] == copies.noisy:
        return attend(queries, runs)
    of_clean, of_noisy = copies.split(queries, 2)
    mixed = attend(of_clean, (Keys(*clean, visibility.clean),))
    return copies.join(mixed, attend(of_noisy, runs), 2)
