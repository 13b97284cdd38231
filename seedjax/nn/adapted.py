"""Kernels with an adapter beside them, instead of merged into them.

    adapted             kernel x + (alpha / rank) * up (down x)
    gated, of text      kernel x
    gated, of a draft   kernel x + (alpha / rank) * up (down x)

Two products with the rank in the middle cost little, and no matrix of the kernel's size
is made, nor its gradient: so an adapter is trained. A gated one leaves what the model
says of the text untouched, bit for bit, so one pass can check drafts with the model as
it is and draft with the adapter (Uno, arXiv 2609.04010; gated LoRA, arXiv 2507.11851).
`Layout.noisy` is the gate.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from seedjax.nn.lora import Adapter, LoRA, check_adapter, merge_pair, name_of
from seedjax.typing import Params


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("kernel", "down", "up"),
    meta_fields=("gated",),
)
@dataclass(frozen=True, eq=False)
class Adapted:
    """A kernel with its adapter, in the place of a kernel.

    A pytree, so that it goes through `jit` and layer scans; transformations put other
    things in the places of its arrays, hence no array types here.

    Attributes:
      kernel: [..., out, in], or a `Quantized` of that shape.
      down: [..., rank, in].
      up: [..., out, rank], times alpha / rank.
      gated: whether the adapter acts on drafted positions alone.
    """

    kernel: Any
    down: Any
    up: Any
    gated: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return self.kernel.shape


def adapt(params: Params, adapter: Adapter, config: LoRA) -> Params:
    """The parameters with an adapter beside them. Kernels of experts, which one product
    takes together, have theirs merged in.

    Args:
      params: a denoiser's, quantized or not, their layers as those of the adapter.
      adapter: pairs of matrices by the names of the kernels.
      config: the adapter's recipe.

    Raises:
      InputError: if there is no kernel of some pair's name and shape.
    """
    check_adapter(params, adapter)

    def adapted(path: Any, kernel: Any) -> Any:
        name = name_of(path)
        pair = adapter.get(name)
        if pair is None:
            return kernel
        if "experts" in name.split(".") and not config.gated:
            return merge_pair(kernel, pair, config)
        return Adapted(kernel, pair.down, config.scale * pair.up, config.gated)

    return jax.tree_util.tree_map_with_path(adapted, params, is_leaf=has_shape)


def is_gated(params: Params) -> bool:
    """Whether any parameter has a gated adapter."""
    return any(map(_is_gated, jax.tree.leaves(params, is_leaf=_is_gated)))


def ungated(params: Params) -> Params:
    """The parameters without gated adapters: those of the text."""
    return jax.tree.map(
        lambda leaf: leaf.kernel if _is_gated(leaf) else leaf, params, is_leaf=_is_gated
    )


def has_shape(leaf: Any) -> bool:
    """Whether a part of a tree of parameters stands for one matrix or vector."""
    return hasattr(leaf, "shape")


def _is_gated(leaf: Any) -> bool:
    return isinstance(leaf, Adapted) and leaf.gated
