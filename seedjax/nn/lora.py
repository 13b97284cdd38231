"""Low-rank adapters (LoRA, arXiv 2106.09685): a small change to a model's matrices.

    kernel [out, in]  ─▶  kernel + (alpha / rank) * up [out, rank] @ down [rank, in]

The base stays as it is; `up` begins at zero, so that training begins at the base. An
adapter is a tree of its own. Merging it gives parameters like any other; while it is
trained, it stands beside the kernels (`nn.adapted`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seedjax.config import require
from seedjax.errors import InputError
from seedjax.typing import Array, Float, Params, PRNGKey


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Recipe of an adapter."""

    rank: int = 8
    alpha: float = 16.0  # the change is multiplied by alpha / rank
    # Names of the projections that are changed, in every layer.
    targets: tuple[str, ...] = (
        "query",
        "key",
        "value",
        "output",
        "gate",
        "up",
        "down",
    )
    merge: bool = True  # whether a run also writes base and adapter as one model
    gated: bool = False  # for drafted positions alone (`nn.adapted`); never merged

    def __post_init__(self):
        require(self.rank >= 1, self, "rank", "at least 1")
        require(self.alpha > 0, self, "alpha", "above 0")
        require(len(self.targets) > 0, self, "targets", "names of projections")
        require(
            not (self.gated and self.merge),
            self,
            "merge",
            "False where the adapter is gated: merged, it would change the text",
        )

    @property
    def scale(self) -> float:
        """The factor of the product of an adapter's matrices."""
        return self.alpha / self.rank


class Pair(NamedTuple):
    """The two matrices of a kernel's adapter; kernels of several layers or experts that
    are stacked have theirs stacked."""

    down: Float[Array, "... rank in"]
    up: Float[Array, "... out rank"]


Adapter = Mapping[str, Any]
"""Pairs by the names of their kernels, such as `layers_0.attention.query.kernel`."""


def init_adapter(key: PRNGKey, params: Params, config: LoRA) -> Adapter:
    """An adapter that changes nothing yet: `down` is drawn, `up` is zero.

    Raises:
      InputError: if the model has none of the projections, or a rank is too large.
    """
    kernels = {
        name: leaf for name, leaf in _named(params).items() if is_target(name, config)
    }
    if not kernels:
        raise InputError(
            f"the model has no projection named {' or '.join(config.targets)}; "
            "give others in lora.targets"
        )
    smallest = min(min(kernel.shape[-2:]) for kernel in kernels.values())
    require(
        config.rank <= smallest,
        config,
        "rank",
        f"at most {smallest}, the width of the narrowest projection",
    )
    # Kernels of one shape are drawn together: to compile hundreds of draws, one for
    # each, takes minutes.
    alike: dict[tuple[int, ...], list[str]] = {}
    for name in sorted(kernels):
        alike.setdefault(kernels[name].shape, []).append(name)
    drawn = zip(jax.random.split(key, len(alike)), alike.items(), strict=True)
    return {
        name: pair
        for key, (shape, names) in drawn
        for name, pair in zip(
            names, _pairs(key, len(names), shape, config.rank), strict=True
        )
    }


def _pairs(key: PRNGKey, count: int, shape: tuple[int, ...], rank: int) -> list[Pair]:
    """Fresh pairs of kernels of one shape."""
    *stacked, out, width = shape
    drawn = jax.random.normal(key, (count, *stacked, rank, width), jnp.float32)
    # Without the barrier XLA draws all of them anew for each.
    drawn = jax.lax.optimization_barrier(drawn / width**0.5)
    up = jnp.zeros((*stacked, out, rank), jnp.float32)
    return [Pair(down, up) for down in drawn]


def merge_adapter(params: Params, adapter: Adapter, config: LoRA) -> Params:
    """The base's parameters with the change added, in the base's dtypes.

    Raises:
      InputError: if the base has no kernel of some pair's name and shape.
    """
    if config.gated:
        raise InputError(
            "the adapter is gated: it acts on drafts alone, and merged it would change "
            "the text; load it with --adapter"
        )
    check_adapter(params, adapter)

    def changed(path: Any, kernel: Array) -> Array:
        pair = adapter.get(name_of(path))
        return kernel if pair is None else merge_pair(kernel, pair, config)

    return jax.tree_util.tree_map_with_path(changed, params)


def check_adapter(params: Params, adapter: Adapter) -> None:
    """Raises `InputError` if the base has no kernel of some pair's name and shape."""
    found = {
        name_of(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            params, is_leaf=lambda leaf: hasattr(leaf, "shape")
        )
    }
    for name, pair in adapter.items():
        expected = (*pair.up.shape[:-1], pair.down.shape[-1])
        if name not in found or found[name].shape != expected:
            raise InputError(
                f"the adapter changes {name} {list(expected)}, which the base does not "
                "have; it belongs to another model"
            )


def merge_pair(
    kernel: Float[Array, "... out in"], pair: Pair, config: LoRA
) -> Float[Array, "... out in"]:
    """A kernel with its change added."""
    change = jnp.matmul(pair.up, pair.down, precision=jax.lax.Precision.HIGHEST)
    return (kernel.astype(jnp.float32) + config.scale * change).astype(kernel.dtype)


def unstack_adapter(adapter: Adapter, num_apart: int = 0) -> Adapter:
    """The adapter of a model whose layers are apart, from that of one whose layers are
    scanned, as `denoiser.unstack_layers`.

    Args:
      adapter: any; one without scanned layers is given back as it is.
      num_apart: leading layers that are apart in both, the dense ones of a mixture.
    """
    apart: dict[str, Pair] = {}
    for name, pair in adapter.items():
        rest = name.removeprefix("layers.")
        if rest == name:
            apart[name] = pair
            continue
        for layer in range(pair.down.shape[0]):
            one = Pair(pair.down[layer], pair.up[layer])
            apart[f"layers_{num_apart + layer}.{rest}"] = one
    return apart


def is_target(name: str, config: LoRA) -> bool:
    """Whether a parameter is a kernel that an adapter changes."""
    *_, projection, last = ("", *name.split("."))
    # Experts' kernels lie side by side in one place, without a name of their own.
    return (last == "kernel" and projection in config.targets) or (
        projection == "experts" and last in config.targets
    )


def adapter_axes(axes: Params, adapter: Adapter) -> Any:
    """Logical axis names of an adapter, from those of the parameters: `down` is laid
    out as the kernel's input, `up` as its output; the rank is never spread."""
    named = {
        name_of(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            axes, is_leaf=lambda x: isinstance(x, tuple)
        )
    }
    return {
        name: Pair(
            down=(*named[name][:-2], "rank", named[name][-1]),  # type: ignore[arg-type]
            up=(*named[name][:-1], "rank"),  # type: ignore[arg-type]
        )
        for name in adapter
    }


def name_of(path: Any) -> str:
    """The name of a parameter from its path in the tree."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _named(params: Params) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {name_of(path): leaf for path, leaf in leaves}
