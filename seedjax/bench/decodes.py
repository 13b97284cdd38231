"""Whole decodes by our own samplers, from prompt to answer."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seedjax.batch import Layout
from seedjax.bench.forwards import compile_timed
from seedjax.bench.measure import Produced
from seedjax.bench.source import Source, as_array
from seedjax.bench.subject import Subject
from seedjax.bench.sweep import Line
from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.nn import denoiser
from seedjax.nn.cache import KVCache, create, write
from seedjax.sampling import loop
from seedjax.sampling.canvas import prompt_canvas
from seedjax.sampling.policy import FixedCount
from seedjax.sampling.vocabulary import table_of_ids
from seedjax.typing import Array, Bool, Float32, Int32, Params


def decode_subject(source: Source, line: Line) -> Subject:
    """Block diffusion with or without a cache, or token by token, as one program."""
    sampler = source.recipe(line)
    if line.measure == "ar":
        config = source.causal_config(line)
    else:
        source.block_config(line)  # says what the model cannot take
        config = source.given_config(line)
    params = source.params(line.dtype, line.quantization)
    canvas = prompt_canvas(source.prompts(line), config, sampler)
    keys = loop.row_keys(jax.random.key(0), line.batch)

    def decode(params: Params, canvas: Any, keys: Any) -> loop.DecodeResult:
        return loop.generate(params, config, sampler, canvas, keys)

    compiled, seconds = compile_timed(decode, params, canvas, keys)

    def run() -> Produced:
        answer = compiled(params, canvas, keys)
        return Produced(loop.new_tokens(answer), int(answer.forwards))

    return Subject(line, run, seconds)


def python_loop_subject(source: Source, line: Line) -> Subject:
    """The way the published Python samplers of block diffusion go: a compiled forward
    pass a step, what to accept worked out between the steps by operations called one by
    one, and a pass of its own to commit a finished block."""
    sampler, config = source.recipe(line), source.block_config(line)
    size, policy = config.block_size, sampler.policy
    assert line.new is not None
    if not isinstance(policy, FixedCount) or config.logit_alignment != "same_position":
        raise InputError(
            "the Python loop takes a fixed number of steps and logits that are not "
            f"shifted; got {policy} and {config.logit_alignment}: give --steps, or a "
            "preset"
        )
    if line.prefix % size or line.new % size:
        raise InputError(
            f"the Python loop takes whole blocks of {size}; got a prefix of "
            f"{line.prefix} and {line.new} new tokens"
        )
    params = source.params(line.dtype, line.quantization)
    prompt = as_array(source.prompts(line))
    counts = policy.counts(size, size)
    banned = jnp.asarray(
        table_of_ids(
            config.vocab_size,
            (*sampler.banned_ids(config), *config.eos_token_ids),
            vocabulary_end=sampler.vocabulary_end,
        )
    )
    width = line.prefix + line.new

    def run() -> Produced:
        cache = _commit(
            params, prompt, _empty_cache(config, line.batch, width), 0, config=config
        )
        blocks, forwards = [], 1
        for start in range(line.prefix, width, size):
            block = jnp.full((line.batch, size), config.mask_token_id, jnp.int32)
            for count in counts:
                if not (block == config.mask_token_id).any():  # as theirs does
                    break
                logits = _logits(params, block, cache, start, config=config)
                block = _accept(logits, block, banned, config.mask_token_id, count)
                forwards += 1
            blocks.append(block)
            if start + size < width:
                cache = _commit(params, block, cache, start, config=config)
                forwards += 1
        return Produced(np.concatenate(blocks, axis=1).tolist(), forwards)

    return Subject(line, run)


def _accept(
    logits: Float32[Array, "B L V"],
    block: Int32[Array, "B L"],
    banned: Bool[Array, "V"],
    mask: int,
    count: int,
) -> Int32[Array, "B L"]:
    """The block with its `count` most confident candidates unmasked."""
    logits = jnp.where(banned[None, None, :], -jnp.inf, logits)
    confidence = jnp.max(jax.nn.softmax(logits, axis=-1), axis=-1)
    tokens = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    masked = block == mask
    _, first = jax.lax.top_k(jnp.where(masked, confidence, -1.0), count)
    rows = jnp.arange(block.shape[0])[:, None]
    chosen = jnp.zeros(block.shape, bool).at[rows, first].set(True)
    return jnp.where(chosen & masked, tokens, block)


_empty_cache = jax.jit(create, static_argnums=(0, 1, 2))


@functools.partial(jax.jit, static_argnames="config")
def _logits(
    params: Params, tokens: Array, cache: KVCache, start: Any, *, config: DenoiserConfig
) -> Array:
    layout = _layout(tokens, start)
    return denoiser.logits(params, config, tokens, layout, cache=cache)


@functools.partial(jax.jit, static_argnames="config", donate_argnames="cache")
def _commit(
    params: Params, tokens: Array, cache: KVCache, start: Any, *, config: DenoiserConfig
) -> KVCache:
    layout = _layout(tokens, start)
    forward = denoiser.hidden_states(params, config, tokens, layout, cache=cache)
    return write(cache, forward.entries, layout, start)


def _layout(tokens: Array, start: Any) -> Layout:
    layout = denoiser.simple_layout(tokens)
    return layout._replace(positions=layout.positions + start)
