"""Gated adapters: low-rank changes that act on drafted positions alone.

    text        kernel x
    draft       kernel x + (alpha / rank) * up (down x)

What the model says of the text is untouched, bit for bit, so one pass can check drafts
with the model as it is and draft with the adapter (Uno, arXiv 2609.04010; gated LoRA,
arXiv 2507.11851). `Layout.noisy` is the gate.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from seedjax.nn.lora import Adapter, LoRA, check_adapter, name_of
from seedjax.typing import Params


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("kernel", "down", "up"),
    meta_fields=(),
)
@dataclass(frozen=True, eq=False)
class Gated:
    """A kernel with its adapter, in the place of a kernel.

    A pytree, so that it goes through `jit` and layer scans; transformations put other
    things in the places of its arrays, hence no array types here.

    Attributes:
      kernel: [..., out, in], or a `Quantized` of that shape.
      down: [..., rank, in].
      up: [..., out, rank], times alpha / rank.
    """

    kernel: Any
    down: Any
    up: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.kernel.shape


def gate(params: Params, adapter: Adapter, config: LoRA) -> Params:
    """The parameters with an adapter that acts on drafts.

    Args:
      params: a denoiser's, quantized or not, their layers as those of the adapter.
      adapter: pairs of matrices by the names of the kernels.
      config: the adapter's recipe.

    Raises:
      InputError: if there is no kernel of some pair's name and shape.
    """
    check_adapter(params, adapter)

    def gated(path: Any, kernel: Any) -> Any:
        pair = adapter.get(name_of(path))
        return (
            kernel if pair is None else Gated(kernel, pair.down, config.scale * pair.up)
        )

    return jax.tree_util.tree_map_with_path(gated, params, is_leaf=has_shape)


def is_gated(params: Params) -> bool:
    """Whether any parameter is a `Gated`."""
    return any(map(_is_leaf, jax.tree.leaves(params, is_leaf=_is_leaf)))


def ungated(params: Params) -> Params:
    """The parameters of the model as it is."""
    return jax.tree.map(
        lambda leaf: leaf.kernel if _is_leaf(leaf) else leaf, params, is_leaf=_is_leaf
    )


def has_shape(leaf: Any) -> bool:
    """Whether a part of a tree of parameters stands for one matrix or vector."""
    return hasattr(leaf, "shape")


def _is_leaf(leaf: Any) -> bool:
    return isinstance(leaf, Gated)
