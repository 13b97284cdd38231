"""A wider and deeper model that computes what another does, as a start for more
training.

Every channel is copied `factor` times, and what a kernel read from one channel it reads
from its copies, in shares that add up (Net2WiderNet, arXiv 1511.05641; for transformers
bert2BERT, arXiv 2110.07143). Two inputs and one output, factor 2:

    y = [ 3  8 ] [a]         [y]   [ 1  5  2  3 ]  [a]
                 [b]         [y] = [ 2  2  1  6 ]  [b]
                                                   [a]
                                                   [b]

The shares are drawn anew for every copy of an output. With equal ones the copies of a
channel would get the same gradients, and stay copies however long they are trained.

Layers that are added are copies of the last one that add nothing at first: their output
projections are zero, and training takes them from there (LLaMA Pro, arXiv 2401.02415).
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp

from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.files.output import writes
from seedjax.files.text import fill_markdown
from seedjax.inference.loading import load
from seedjax.inference.model import Model
from seedjax.nn.denoiser import abstract_params, unstack_layers
from seedjax.nn.lora import name_of
from seedjax.train.export import export_model
from seedjax.typing import Array, Float, Params, PRNGKey

CARD = """\
# {name}

{base}, {factor} times as wide, with {more} layers more: it computes the same. Not
trained since; `seedjax train --init-from` goes on.
"""
OUTPUTS = ("attention.output.kernel", "mlp.down.kernel")  # what a layer adds


def wider_config(config: DenoiserConfig, factor: int) -> DenoiserConfig:
    """The shape with `factor` times the channels, heads and width of the feed-forward
    layers, and as many experts; heads are as wide as before.

    Raises:
      InputError: for a factor below 2.
    """
    if factor < 2:
        raise InputError(f"factor is {factor}; it must be 2 or more")
    moe = config.moe and dataclasses.replace(
        config.moe,
        expert_size=factor * config.moe.expert_size,
        shared_size=factor * config.moe.shared_size,
    )
    return dataclasses.replace(
        config,
        hidden_size=factor * config.hidden_size,
        num_heads=factor * config.num_heads,
        num_kv_heads=factor * config.num_kv_heads,
        mlp_size=factor * config.mlp_size,
        moe=moe,
    )


def widen_params(
    params: Params, config: DenoiserConfig, factor: int, key: PRNGKey
) -> Params:
    """Parameters of `wider_config(config, factor)` with the logits of `params`.

    Args:
      params: of `config`, one branch a layer.
      config: their shape.
      factor: how many copies of every channel.
      key: of the shares.

    Raises:
      InputError: for a factor below 2.
    """
    wider = abstract_params(
        dataclasses.replace(wider_config(config, factor), layer_loop="unroll")
    )
    leaves, structure = jax.tree.flatten(params)
    keys = jax.tree.unflatten(structure, list(jax.random.split(key, len(leaves))))

    def widen(
        path: object, leaf: Array, like: jax.ShapeDtypeStruct, key: PRNGKey
    ) -> Array:
        name = name_of(path)
        if name == "final_norm.scale" and config.tie_embeddings:
            # The table of embeddings, whose columns are copied, is the head too and
            # adds every product `factor` times.
            return jnp.tile(leaf / factor, factor)
        if leaf.ndim == 1 or name == "embedding":
            # Where the length is that of experts or of one head, there is one copy.
            return jnp.tile(leaf, like.shape[-1] // leaf.shape[-1])
        return widen_kernel(leaf, factor, like.shape[-2] // leaf.shape[-2], key)

    return jax.tree_util.tree_map_with_path(widen, params, wider, keys)


def widen_kernel(
    kernel: Float[Array, "... out in"], factor: int, copies: int, key: PRNGKey
) -> Float[Array, "... wider_out wider_in"]:
    """A kernel for `factor` copies of its inputs, with `copies` of its outputs.

    The shares of a weight are between a third of and three times one another.
    """
    shape = (copies, factor, *kernel.shape)
    shares = jax.random.uniform(key, shape, minval=0.5, maxval=1.5)
    shares = shares / jnp.sum(shares, axis=1, keepdims=True)
    # ... copies out factor in
    parts = jnp.moveaxis(shares * kernel[None, None], (0, 1), (-4, -2))
    return parts.reshape(
        *kernel.shape[:-2], copies * kernel.shape[-2], factor * kernel.shape[-1]
    ).astype(kernel.dtype)


def deepen_params(params: Params, config: DenoiserConfig, more: int) -> Params:
    """Parameters with `more` layers after those of `params`, and their logits.

    Args:
      params: of `config`, one branch a layer.
      config: their shape.
      more: how many layers are added.

    Raises:
      InputError: for a negative number, or a model with experts.
    """
    if more < 0:
        raise InputError(f"{more} layers cannot be added; give 0 or more")
    if more and config.moe is not None:
        raise InputError("layers can only be added to a model without experts")
    last = config.num_layers - 1

    def silent(path: object, leaf: Array) -> Array:
        return jnp.zeros_like(leaf) if name_of(path) in OUTPUTS else leaf

    layer = jax.tree_util.tree_map_with_path(silent, params[f"layers_{last}"])
    return {**params, **{f"layers_{last + n}": layer for n in range(1, more + 1)}}


@writes("posttrain widen", sources=("base",))
def widen_model(
    base: str, out: str | Path, *, factor: int = 2, more_layers: int = 0, seed: int = 0
) -> Model:
    """Writes a wider model, with some layers more, and gives it back.

    Raises:
      InputError: for a factor below 2, a number of layers that cannot be added, or a
        model that cannot be read.
    """
    narrow = load(base)
    params = narrow.params
    if narrow.config.layer_loop == "scan":
        params = unstack_layers(params)
    wider = wider_config(narrow.config, factor)
    widened = widen_params(params, narrow.config, factor, jax.random.key(seed))
    depth = narrow.config.num_layers + more_layers
    wide = Model(
        deepen_params(widened, wider, more_layers),
        dataclasses.replace(wider, num_layers=depth, layer_loop="unroll"),
        narrow.tokenizer,
        narrow.sampler,
    )
    export_model(
        out,
        wide.params,
        config=wide.config,
        tokenizer=wide.tokenizer,
        base=base,
        recipe={"factor": factor, "more_layers": more_layers, "seed": seed},
        card=fill_markdown(
            CARD, name=Path(out).name, base=base, factor=factor, more=more_layers
        ),
        weights_dtype="float32",
    )
    return wide
