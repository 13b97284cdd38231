"""Single forward passes: a prompt into the cache, and a block after it."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seedjax.batch import Layout
from seedjax.bench.roofline import Work, count, has_loop, work_of
from seedjax.bench.source import Source, as_array
from seedjax.bench.subject import Subject
from seedjax.bench.sweep import Line
from seedjax.config import DenoiserConfig
from seedjax.nn import denoiser
from seedjax.nn.cache import KVCache, create, write
from seedjax.sampling.canvas import check_length
from seedjax.sampling.head import Positions, head_of
from seedjax.sampling.loop import row_keys
from seedjax.sampling.proposal import Proposal
from seedjax.sampling.recipe import SamplerConfig
from seedjax.typing import Array, Int32, Key, Params


def prefill_subject(source: Source, line: Line) -> Subject:
    """A prompt into an empty cache. There are no logits, and the last layer is computed
    no further than its keys and values."""
    config = source.prefill_config(line)
    params = source.params(line.dtype, line.quantization)
    tokens = as_array(source.prompts(line))

    def build(config: DenoiserConfig) -> Callable[..., Any]:
        return functools.partial(fill_cache, config=config)

    compiled, seconds = compile_timed(build(config), params, tokens)
    work = _work(compiled, config, build, params, tokens)

    def run() -> None:
        jax.block_until_ready(compiled(params, tokens))

    return Subject(line, run, seconds, work)


def block_subject(source: Source, line: Line) -> Subject:
    """A block of masks after a cache full of prompt, and the candidates for it: one
    refinement step."""
    assert line.block is not None
    config, sampler = source.block_config(line), source.recipe(line)
    params = source.params(line.dtype, line.quantization)
    check_length(line.prefix, line.block, source.config)
    cache = jax.jit(fill_cache, static_argnames="config")(
        params, as_array(source.prompts(line)), config=source.prefill_config(line)
    )
    # The block begins on the grid, as in a decode.
    start = -(-line.prefix // line.block) * line.block
    tokens = jnp.full((line.batch, line.block), config.mask_token_id, jnp.int32)
    layout = denoiser.simple_layout(tokens, start=start)
    keys = row_keys(jax.random.key(0), line.batch)
    step = functools.partial(refinement_step, config=config, sampler=sampler)
    compiled, seconds = compile_timed(step, params, tokens, layout, cache, keys)
    work = _work(
        compiled,
        config,
        lambda config: functools.partial(whole_logits, config=config),
        params,
        tokens,
        layout,
        cache,
    )

    def run() -> None:
        jax.block_until_ready(compiled(params, tokens, layout, cache, keys))

    return Subject(line, run, seconds, work)


def fill_cache(
    params: Params, tokens: Int32[Array, "B L"], *, config: DenoiserConfig
) -> KVCache:
    """A cache of prompts without padding, as long as they are."""
    layout = denoiser.simple_layout(tokens)
    forward = denoiser.hidden_states(params, config, tokens, layout)
    cache = create(config, *tokens.shape)
    return write(cache, forward.entries, layout, 0)


def refinement_step(
    params: Params,
    tokens: Int32[Array, "B L"],
    layout: Layout,
    cache: KVCache,
    keys: Key[Array, "B"],
    *,
    config: DenoiserConfig,
    sampler: SamplerConfig,
) -> Proposal:
    """Candidates for a block."""
    forward = denoiser.hidden_states(params, config, tokens, layout, cache=cache)
    places = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None, :], tokens.shape)
    positions = Positions(tokens, sampler.eos.allows(places))
    return head_of(params, config, sampler).propose(forward.hidden, keys, positions)


def whole_logits(
    params: Params,
    tokens: Int32[Array, "B L"],
    layout: Layout,
    cache: KVCache,
    *,
    config: DenoiserConfig,
) -> tuple[Array, Array, Array]:
    """The values that `refinement_step` takes from the logits, plainly, without going
    through the vocabulary in a loop."""
    logits = denoiser.logits(params, config, tokens, layout, cache=cache)
    largest = jnp.max(logits, axis=-1)
    return jnp.argmax(logits, axis=-1), largest, jax.nn.logsumexp(logits, axis=-1)


def compile_timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """A compiled program, and the seconds that tracing and compiling took."""
    began = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    return compiled, time.perf_counter() - began


def _work(
    compiled: Any,
    config: DenoiserConfig,
    build: Callable[[DenoiserConfig], Callable[..., Any]],
    params: Params,
    *arguments: Any,
) -> Work:
    """The work of a program or, if that has a loop, of one without."""
    if not has_loop(compiled):
        return work_of(compiled)
    unrolled = dataclasses.replace(config, layer_loop="unroll")
    if config.layer_loop == "scan":
        params = jax.eval_shape(denoiser.unstack_layers, params)
        arguments = tuple(
            _unrolled_cache(argument, unrolled)
            if isinstance(argument, KVCache)
            else argument
            for argument in arguments
        )
    return count(build(unrolled), params, *arguments)


def _unrolled_cache(cache: KVCache, config: DenoiserConfig) -> KVCache:
    """The shapes of a cache for layers that are not stacked."""
    batch, capacity = cache.layout.segments.shape
    return jax.eval_shape(lambda: create(config, batch, capacity))
