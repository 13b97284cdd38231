"""The denoiser as pure functions: `init`, `hidden_states`, `unembed`, `logits`.

    tokens, layout ─▶ embedding ─▶ blocks ─▶ final norm ─▶ hidden ─▶ unembed ─▶ logits
                                     ▲ │
                              cache ─┘ └─▶ entries (what `cache.write` writes)

Parameters are nested dictionaries. Unless `layer_loop` is "scan", every layer has its
own branch (`layers_0`, `layers_1`, ...), which is also how models are stored; with
"scan" the layers are stacked on a leading axis under `layers` and the compiler sees one
of them. The leading dense layers of a mixture of experts keep their own branches then.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from seedjax.batch import Layout
from seedjax.config import DenoiserConfig, DType
from seedjax.nn.attention import Rotation, rotary_angles
from seedjax.nn.cache import Entries, KVCache, LayerEntries
from seedjax.nn.layers import Block, RMSNorm, parameter
from seedjax.nn.masks import MaskSpec, Visibility, visibility
from seedjax.nn.precision import product
from seedjax.nn.quantize import Int8Array
from seedjax.sharding import constrain, num_parts
from seedjax.typing import Array, Float, Float32, Int32, Params, PRNGKey

REMAT_POLICIES = {
    "layer": None,  # keep only what enters each layer
    "dots_saved": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Forward(NamedTuple):
    """Result of a pass through the blocks.

    Attributes:
      hidden: normalised hidden states, [B, L, D].
      entries: keys and values of the pass, in the shape of `KVCache.layers`.
    """

    hidden: Array
    entries: Entries


class Denoiser(nn.Module):
    """Embedding, blocks and final norm; the output head is `unembed`."""

    config: DenoiserConfig
    cache_in_front: bool = True

    @nn.compact
    def __call__(self, tokens: Array, layout: Layout, cache: KVCache | None) -> Forward:
        config, spec = self.config, MaskSpec.of(self.config)
        shape, axes = (config.vocab_size, config.hidden_size), ("vocab", "embed")
        initializer = nn.initializers.normal(config.init_scale)
        table = parameter(self, "embedding", initializer, shape, axes=axes)
        if not config.tie_embeddings:
            parameter(self, "head", initializer, shape, axes=axes)
        # Rows are looked up whole: gathered over fsdp here rather than in the lookup.
        rows = jax.tree.map(
            lambda leaf: constrain(leaf, ("vocab", "activation_embed")), table
        )
        x = look_up(rows, tokens).astype(config.activation_dtype)
        x = constrain(x, ("batch", "length", "activation_embed"))

        visible = functools.partial(visibility, spec, layout)
        shared = (
            rotary_angles(layout.positions, config),
            visible(layout),
            None if cache is None else visible(cache.layout, alike=self.cache_in_front),
        )
        block = Block
        if config.remat != "none":
            block = nn.remat(Block, policy=REMAT_POLICIES[config.remat])
        scanned = config.layer_loop == "scan"
        apart = config.num_leading_layers if scanned else config.num_layers
        entries: Entries = ()
        cached: Entries
        for i in range(apart):
            mixture = config.moe is not None and i >= config.num_leading_layers
            cached = None if cache is None else cache.layers[i]
            if self.is_initializing() or config.remat != "none":
                layer = block(config, mixture, name=f"layers_{i}")
                x, layer_entries = layer(x, cached, *shared)
            else:
                weights = self.variables["params"][f"layers_{i}"]
                x, layer_entries = run_layer(
                    weights, x, cached, *shared, config=config, mixture=mixture
                )
            entries = (*entries, layer_entries)
        if scanned:
            stack = nn.scan(
                block,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
                length=config.num_layers - apart,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            cached = None if cache is None else cache.layers
            if apart and cache is not None:
                cached = cache.layers[-1]
            layers = stack(config, config.moe is not None, name="layers")
            x, stacked = layers(x, cached, *shared)
            entries = (*entries, stacked) if apart else stacked
        return Forward(RMSNorm(config, name="final_norm")(x), entries)


@functools.partial(jax.jit, static_argnames=("config", "mixture"))
def run_layer(
    weights: Params,
    x: Float[Array, "B L D"],
    cached: LayerEntries | None,
    rotation: Rotation,
    visible: Visibility,
    cached_visible: Visibility | None,
    *,
    config: DenoiserConfig,
    mixture: bool,
) -> tuple[Float[Array, "B L D"], LayerEntries]:
    """One unrolled layer. A function of its own under `jit`, so that layers of one
    shape are traced and lowered once; XLA writes it out again wherever it is called.
    """
    layer = Block(config, mixture)
    return layer.apply(
        {"params": weights}, x, cached, rotation, visible, cached_visible
    )  # type: ignore[return-value]


def hidden_states(
    params: Params,
    config: DenoiserConfig,
    tokens: Int32[Array, "B L"],
    layout: Layout,
    *,
    cache: KVCache | None = None,
    cache_in_front: bool = True,
) -> Forward:
    """Runs the blocks over `tokens`, which also see the finished tokens in `cache`.

    Args:
      params: the denoiser's parameters.
      config: the denoiser.
      tokens: what is shown.
      layout: of these tokens.
      cache: keys and values of other tokens.
      cache_in_front: whether all tokens of a row see the same of the cache, as while
        decoding, where it stands in front of them all. Otherwise each sees what the
        mask says.
    """
    denoiser = Denoiser(config, cache_in_front)
    return denoiser.apply({"params": params}, tokens, layout, cache)  # type: ignore[return-value]


def look_up(
    table: Float[Array, "V D"] | Int8Array, tokens: Int32[Array, "B L"]
) -> Float[Array, "B L D"]:
    """The rows of `table` at `tokens`. Of an `Int8Array`, which has a scale a row, only
    these rows become floats (float32)."""
    if isinstance(table, Int8Array):
        values, scale = _take(table.values, tokens), _take(table.scale, tokens)
        return values.astype(jnp.float32) * scale
    if table.dtype != jnp.bfloat16:
        return _take(table, tokens)
    # A TPU would copy the whole table to see it as bits.
    return jax.lax.platform_dependent(table, tokens, cpu=_take_bits, default=_take)


def _take(table: Array, tokens: Array) -> Array:
    return jnp.take(table, tokens, axis=0)


@jax.custom_vjp
def _take_bits(table: Array, tokens: Array) -> Array:
    """`_take` from a bfloat16 table, which XLA's CPU backend would first copy into
    float32. (And in front of a loop it would copy the bits, hence the barrier.)"""
    table, tokens = jax.lax.optimization_barrier((table, tokens))
    bits = jax.lax.bitcast_convert_type(table, jnp.uint16)
    return jax.lax.bitcast_convert_type(_take(bits, tokens), jnp.bfloat16)


def _take_bits_forward(table: Array, tokens: Array):
    return _take_bits(table, tokens), (table, tokens)


def _take_bits_backward(saved, cotangent: Array):
    table, tokens = saved
    return (*jax.vjp(lambda table: _take(table, tokens), table)[1](cotangent), None)


_take_bits.defvjp(_take_bits_forward, _take_bits_backward)


def unembed(
    params: Params, config: DenoiserConfig, hidden: Float[Array, "B L D"]
) -> Float32[Array, "B L V"]:
    """Logits of hidden states, from any number of positions."""
    logits = product("bld,vd->blv", hidden, head_table(params, config), config.dtype)
    return constrain(logits, ("batch", "length", "vocab"))


def gathered_head(
    params: Params, config: DenoiserConfig, rows: int
) -> Callable[[Float[Array, "B l D"]], Float32[Array, "B l V"]]:
    """`unembed` for a loop over chunks of positions: on a mesh the output head is
    gathered once, and its gradient reduced once, however many chunks there are.

    Every group of rows that shares a device multiplies a copy of the head of its own,
    so that no product inside the loop sums over devices.

    Args:
      params: the denoiser's parameters.
      config: the denoiser.
      rows: B of the hidden states.
    """
    table = head_table(params, config)
    if isinstance(table, Int8Array):
        return functools.partial(unembed, params, config)
    groups = num_parts("batch", rows)
    copies = _copy_for_groups(table, groups, config.dtype)

    def unembed_chunk(hidden: Float[Array, "B l D"]) -> Float32[Array, "B l V"]:
        _, length, width = hidden.shape
        grouped = hidden.reshape(groups, rows // groups, length, width)
        axes = ("batch", "group_rows", "length", "activation_embed")
        grouped = constrain(grouped, axes)
        logits = product("gbld,gvd->gblv", grouped, copies, config.dtype)
        return constrain(logits.reshape(rows, length, -1), ("batch", "length", "vocab"))

    return unembed_chunk


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _copy_for_groups(
    table: Float[Array, "V D"], groups: int, dtype: DType
) -> Float32[Array, "groups V D"]:
    # It travels in the compute dtype. The copies are float32, whose gradient is summed
    # over the chunks; the product casts them back, which XLA drops.
    gathered = constrain(table.astype(dtype), ("vocab", "activation_embed"))
    copies = jnp.broadcast_to(gathered.astype(jnp.float32), (groups, *table.shape))
    return constrain(copies, ("batch", "vocab", "activation_embed"))


def _copy_for_groups_forward(table: Array, groups: int, dtype: DType):
    return _copy_for_groups(table, groups, dtype), jnp.zeros((0,), table.dtype)


def _copy_for_groups_backward(groups: int, dtype: DType, table_like, cotangent: Array):
    # Constrained to where the parameter lies: a reduce-scatter instead of a reduction.
    total = constrain(jnp.sum(cotangent, axis=0), ("vocab", "embed"))
    return (total.astype(table_like.dtype),)


_copy_for_groups.defvjp(_copy_for_groups_forward, _copy_for_groups_backward)


def head_table(params: Params, config: DenoiserConfig) -> Any:
    """The output head, [V, D]: the embedding itself where they are tied. As it is
    stored, which may be quantized."""
    return params["embedding" if config.tie_embeddings else "head"]


def logits(
    params: Params,
    config: DenoiserConfig,
    tokens: Int32[Array, "B L"],
    layout: Layout,
    *,
    cache: KVCache | None = None,
) -> Float32[Array, "B L V"]:
    """`hidden_states` and `unembed` in one, for short inputs: all logits are alive."""
    forward = hidden_states(params, config, tokens, layout, cache=cache)
    return unembed(params, config, forward.hidden)


def _boxed_init(key: PRNGKey, config: DenoiserConfig):
    tokens = jnp.zeros((1, config.block_size), jnp.int32)
    layout = simple_layout(tokens)
    return Denoiser(config).init(key, tokens, layout, None)["params"]


def init(key: PRNGKey, config: DenoiserConfig) -> Params:
    """Fresh parameters: normal with `init_scale`, norms at one, biases at zero."""
    return nn.meta.unbox(_boxed_init(key, config))


def abstract_params(config: DenoiserConfig) -> Params:
    """Shapes and dtypes of the parameters, without making them."""
    # Stacked layers are traced once, however many there are.
    scanned = dataclasses.replace(config, layer_loop="scan")

    def make() -> Params:
        # The key is made inside: outside it would be a program to compile.
        params = init(jax.random.key(0), scanned)
        return unstack_layers(params) if config.layer_loop != "scan" else params

    return jax.eval_shape(make)


def logical_axes(config: DenoiserConfig) -> Params:
    """The logical axis names of every parameter, a tuple at each leaf."""
    boxed = jax.eval_shape(lambda: _boxed_init(jax.random.key(0), config))
    return jax.tree.map(
        lambda box: tuple(box.names),
        boxed,
        is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata),
    )


def num_parameters(config: DenoiserConfig) -> int:
    """How many numbers the model holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(abstract_params(config)))


def simple_layout(tokens: Int32[Array, "B L"], *, start: int = 0) -> Layout:
    """The layout of one document a row, without padding, whose first token stands at
    `start`."""
    positions = jnp.arange(start, start + tokens.shape[1], dtype=jnp.int32)
    positions = jnp.broadcast_to(positions[None, :], tokens.shape)
    return Layout(
        positions=positions,
        segments=jnp.ones_like(tokens),
        noisy=jnp.zeros(tokens.shape, bool),
    )


def stack_layers(params: Params) -> Params:
    """Parameters for `layer_loop="scan"` from those of "unroll". The leading dense
    layers of a mixture of experts stay as they are."""
    names = sorted(
        (n for n in params if n.startswith("layers_")), key=lambda n: int(n[7:])
    )
    mixtures = [n for n in names if "router" in params[n]["mlp"]]
    names = mixtures or names
    rest = {n: v for n, v in params.items() if n not in names}
    stacked = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(params[n] for n in names)
    )
    return rest | {"layers": stacked}


def unstack_layers(params: Params) -> Params:
    """Parameters for `layer_loop="unroll"` from those of "scan"."""
    rest = {n: v for n, v in params.items() if n != "layers"}
    count = jax.tree.leaves(params["layers"])[0].shape[0]
    apart = sum(n.startswith("layers_") for n in rest)
    layers = {
        f"layers_{apart + i}": jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
        for i in range(count)
    }
    return rest | layers
