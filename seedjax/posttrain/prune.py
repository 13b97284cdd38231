"""Pruning: matrices with zeros in them, as a start for training under a fixed mask.

    magnitude   the smallest weights of each matrix go, wherever they stand
    2:4         of every four weights in a row of a matrix, the two smaller ones go:
                the pattern that NVIDIA's sparse tensor cores take (arXiv 2104.08378)

`RunConfig.keep_zeros` trains what is left. The zeros are part of the weights: nothing
else has to be kept.
"""

from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp

from seedjax.errors import InputError
from seedjax.files.output import writes
from seedjax.files.text import fill_markdown
from seedjax.inference.loading import load
from seedjax.inference.model import Model
from seedjax.nn.lora import name_of
from seedjax.train.export import export_model
from seedjax.typing import Array, Params, Shaped

Pattern = Literal["magnitude", "2:4"]

CARD = """\
# {name}

{base} with {share:.1%} of the weights of its projections set to zero ({pattern}). Not
trained since: `seedjax posttrain prune` with `--config`, or `keep_zeros`, goes on.
"""


def prune_params(params: Params, pattern: Pattern, share: float) -> Params:
    """The parameters with zeros in the kernels of all projections; embeddings, head,
    norms, biases and routers are left as they are.

    Args:
      params: of a denoiser.
      pattern: which weights go.
      share: of the weights of each kernel that go; 2:4 is always half of them.

    Raises:
      InputError: for a share that is no share, or a matrix whose rows are no multiple
        of four.
    """
    if not 0.0 < share < 1.0:
        raise InputError(f"share is {share}; it must be between 0 and 1")

    def prune(path: object, leaf: Array) -> Array:
        name = name_of(path)
        if not name.endswith(".kernel") or ".router." in name:
            return leaf
        if pattern == "2:4":
            return two_of_four(name, leaf)
        return smallest_to_zero(leaf, share)

    return jax.tree_util.tree_map_with_path(prune, params)


def smallest_to_zero(
    kernel: Shaped[Array, "... out in"], share: float
) -> Shaped[Array, "... out in"]:
    """A kernel without its smallest weights; stacked kernels are pruned one by one.

    Example, half of four: 3 -1 2 0.5 become 3 0 2 0.
    """
    flat = kernel.reshape(*kernel.shape[:-2], -1)
    count = round(share * flat.shape[-1])
    order = jnp.argsort(jnp.abs(flat), axis=-1)
    rank = jnp.argsort(order, axis=-1)
    return jnp.where(rank < count, 0, flat).astype(kernel.dtype).reshape(kernel.shape)


def two_of_four(
    name: str, kernel: Shaped[Array, "... out in"]
) -> Shaped[Array, "... out in"]:
    """A kernel with the two smaller ones of every four weights along its input zero.

    Raises:
      InputError: if its input is no multiple of four.
    """
    if kernel.shape[-1] % 4:
        raise InputError(
            f"{name} has {kernel.shape[-1]} inputs, not a multiple of four; prune it "
            "by magnitude"
        )
    groups = kernel.reshape(*kernel.shape[:-1], -1, 4)
    rank = jnp.argsort(jnp.argsort(jnp.abs(groups), axis=-1), axis=-1)
    kept = jnp.where(rank < 2, 0, groups).astype(kernel.dtype)
    return kept.reshape(kernel.shape)


def sparsity(params: Params) -> float:
    """Share of zeros in the kernels of the projections."""
    kernels = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if name_of(path).endswith(".kernel")
    ]
    zeros = sum(int(jnp.sum(kernel == 0)) for kernel in kernels)
    return zeros / sum(kernel.size for kernel in kernels)


@writes("posttrain prune", sources=("base",))
def prune_model(
    base: str, out: str | Path, *, pattern: Pattern = "2:4", share: float = 0.5
) -> Model:
    """Writes a pruned model and gives it back.

    Raises:
      InputError: as `prune_params`, or for a model that cannot be read.
    """
    model = load(base)
    model = model.with_params(prune_params(model.params, pattern, share))
    export_model(
        out,
        model.params,
        config=model.config,
        tokenizer=model.tokenizer,
        base=base,
        recipe={"pattern": pattern, "share": share},
        card=fill_markdown(
            CARD,
            name=Path(out).name,
            base=base,
            share=sparsity(model.params),
            pattern=pattern,
        ),
        weights_dtype="float32",
    )
    return model
