"""The whole denoiser in Flax Linen: embedding, blocks and final norm.

`seedjax.nn.denoiser` has the pure functions around it, and imports this file only when
one of them is traced: Flax takes a third of a second to import, and a process that runs
stored programs never needs it.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from seedjax.batch import Layout
from seedjax.config import DenoiserConfig
from seedjax.nn.cache import Entries, KVCache, LayerEntries
from seedjax.nn.copies import Copies, CopiesVisibility, visibility_of_copies
from seedjax.nn.embedding import embed
from seedjax.nn.layers import Block, RMSNorm, parameter
from seedjax.nn.masks import MaskSpec, Visibility, visibility
from seedjax.nn.rotary import Rotation, rotary_angles
from seedjax.sharding import constrain
from seedjax.typing import Array, Float, Params

REMAT_POLICIES = {
    "layer": None,  # keep only what enters each layer
    "dots_saved": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Denoiser(nn.Module):
    """Embedding, blocks and final norm; the output head is `unembed`."""

    config: DenoiserConfig
    cache_in_front: bool = True
    noisy: int = 0  # of the last tokens, those of a noisy copy
    both_copies: bool = False  # whether hidden states of the clean one are returned

    @nn.compact
    def __call__(
        self, tokens: Array, layout: Layout, cache: KVCache | None
    ) -> tuple[Array, Entries]:
        """Normalised hidden states, and the keys and values of the pass."""
        config, spec = self.config, MaskSpec.of(self.config)
        copies = None
        if self.noisy:
            copies = Copies(tokens.shape[1] - self.noisy, self.noisy)
            tokens, layout = jax.tree.map(copies.join_halves, (tokens, layout))
        shape, axes = (config.vocab_size, config.hidden_size), ("vocab", "embed")
        initializer = nn.initializers.normal(config.init_scale)
        table = parameter(self, "embedding", initializer, shape, axes=axes)
        if not config.tie_embeddings:
            parameter(self, "head", initializer, shape, axes=axes)
        x = embed(table, tokens).astype(config.activation_dtype)
        x = constrain(x, ("batch", "length", "activation_embed"))

        visible: Visibility | CopiesVisibility
        if copies is None:
            visible = visibility(spec, layout, layout)
        else:
            visible = visibility_of_copies(spec, layout, copies)
        shared = (
            rotary_angles(layout.positions, config),
            visible,
            None
            if cache is None
            else visibility(spec, layout, cache.layout, alike=self.cache_in_front),
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
            # Of the top of the clean copy nothing may be needed.
            last = i == config.num_layers - 1
            top = copies is not None and last and not self.both_copies
            if self.is_initializing() or config.remat != "none":
                layer = block(config, mixture, top, name=f"layers_{i}")
                x, layer_entries = layer(x, cached, *shared)
            else:
                weights = self.variables["params"][f"layers_{i}"]
                x, layer_entries = run_layer(
                    weights,
                    x,
                    cached,
                    *shared,
                    config=config,
                    mixture=mixture,
                    noisy_only=top,
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
            if copies is not None and not self.both_copies:
                x = copies.split(x)[1]
        if copies is not None and self.both_copies:
            x = jnp.concatenate(copies.split(x), axis=1)
        return RMSNorm(config, name="final_norm")(x), entries


@functools.partial(jax.jit, static_argnames=("config", "mixture", "noisy_only"))
def run_layer(
    weights: Params,
    x: Float[Array, "B L D"],
    cached: LayerEntries | None,
    rotation: Rotation,
    visible: Visibility | CopiesVisibility,
    cached_visible: Visibility | None,
    *,
    config: DenoiserConfig,
    mixture: bool,
    noisy_only: bool,
) -> tuple[Float[Array, "B A D"], LayerEntries]:
    """One unrolled layer. A function of its own under `jit`, so that layers of one
    shape are traced and lowered once; XLA writes it out again wherever it is called.
    """
    layer = Block(config, mixture, noisy_only)
    return layer.apply(
        {"params": weights}, x, cached, rotation, visible, cached_visible
    )  # type: ignore[return-value]
