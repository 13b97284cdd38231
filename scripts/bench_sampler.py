"""Tokens per second of the compiled block sampler against two slower ways to the same
answer:

    python_loop  a jitted forward pass a step, with a KV cache; what to accept is worked
                 out between the steps by JAX operations called one by one, and a
                 finished block is committed by a pass of its own: the way the published
                 Python samplers of block diffusion go
    no_cache     the compiled sampler, every step recomputing the whole text

    python scripts/bench_sampler.py                                # small and base
    python scripts/bench_sampler.py --presets small --rounds 1     # a first look

Weights are random, so the policy is a fixed number of steps a block and the end of
sequence is ignored: every side runs the same shapes and as many steps. The sides take
turns; compile time is measured apart.
"""

import argparse
import dataclasses
import functools
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from seedjax.nn import cache as kv_cache
from seedjax.nn import denoiser
from seedjax.presets import preset
from seedjax.sampling import loop
from seedjax.sampling.canvas import prompt_canvas
from seedjax.sampling.policy import FixedCount
from seedjax.sampling.recipe import SamplerConfig, block_denoiser
from seedjax.sampling.stopping import IgnoreEos


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--presets", nargs="+", default=["small", "base"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--prompt", type=int, default=512, help="prompt tokens")
    parser.add_argument("--new", type=int, default=256, help="new tokens")
    parser.add_argument("--block", type=int, default=32, help="block size")
    parser.add_argument("--steps", type=int, default=8, help="steps a block")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--sides",
        nargs="+",
        default=["compiled", "python_loop", "no_cache"],
        choices=["compiled", "python_loop", "no_cache"],
    )
    return parser.parse_args()


empty_cache = jax.jit(kv_cache.create, static_argnums=(0, 1, 2))


@functools.partial(jax.jit, static_argnames="config")
def block_logits(params, config, tokens, layout, cache):
    """One refinement step's logits."""
    return denoiser.logits(params, config, tokens, layout, cache=cache)


@functools.partial(jax.jit, static_argnames="config", donate_argnames="cache")
def commit(params, config, tokens, layout, cache):
    """Writes finished tokens to the cache."""
    forward = denoiser.hidden_states(params, config, tokens, layout, cache=cache)
    return kv_cache.append(cache, forward.entries, layout, tokens.shape[1])


def decode_in_python(params, config, sampler: SamplerConfig, prompts) -> np.ndarray:
    """The decode as a Python loop over jitted forward passes; new tokens, [B, new]."""
    config = block_denoiser(config, sampler)
    size, new = config.block_size, sampler.max_new_tokens
    assert isinstance(sampler.policy, FixedCount)
    count = math.ceil(size / sampler.policy.steps_per_block)
    prompt = jnp.asarray(prompts, jnp.int32)
    batch, length = prompt.shape
    assert length % size == 0 and new % size == 0
    banned = jnp.asarray([*sampler.banned_ids(config), *config.eos_token_ids])
    rows = jnp.arange(batch)[:, None]

    cache = empty_cache(config, batch, length + new)
    cache = commit(params, config, prompt, denoiser.simple_layout(prompt), cache)
    blocks = []
    for start in range(length, length + new, size):
        current = jnp.full((batch, size), config.mask_token_id, jnp.int32)
        layout = denoiser.simple_layout(current, start=start)
        while (current == config.mask_token_id).any():
            logits = block_logits(params, config, current, layout, cache)
            logits = logits.at[:, :, banned].set(-jnp.inf)
            probabilities = jax.nn.softmax(logits, axis=-1)
            tokens = jnp.argmax(logits, axis=-1).astype(jnp.int32)
            confidence = jnp.max(probabilities, axis=-1)
            undecided = current == config.mask_token_id
            confidence = jnp.where(undecided, confidence, -jnp.inf)
            _, chosen = jax.lax.top_k(confidence, count)
            current = current.at[rows, chosen].set(tokens[rows, chosen])
        blocks.append(current)
        if start + size < length + new:
            cache = commit(params, config, current, layout, cache)
    return np.asarray(jnp.concatenate(blocks, axis=1))


def compiled(params, config, sampler: SamplerConfig, prompts):
    """The compiled sampler as a function without arguments, and its compile time."""
    canvas = prompt_canvas(
        prompts,
        config,
        block_size=block_denoiser(config, sampler).block_size,
        max_new_tokens=sampler.max_new_tokens,
    )
    keys = loop.row_keys(jax.random.key(0), len(prompts))
    began = time.perf_counter()
    program = (
        jax.jit(loop.generate, static_argnames=("config", "sampler"))
        .lower(params, config, sampler, canvas, keys)
        .compile()
    )
    seconds = time.perf_counter() - began

    def run() -> np.ndarray:
        answer = program(params, canvas, keys)
        return np.array(loop.new_tokens(canvas, answer.tokens, answer.lengths))

    return run, seconds


def make_sides(arguments, config, params) -> dict[str, tuple[Callable, float]]:
    """Each side as a function that gives new tokens, with its compile time."""
    sampler = SamplerConfig(
        block_size=arguments.block,
        max_new_tokens=arguments.new,
        policy=FixedCount(steps_per_block=arguments.steps),
        eos=IgnoreEos(),
    )
    generator = np.random.default_rng(0)
    shape = (arguments.batch, arguments.prompt)
    prompts = generator.integers(4, config.vocab_size, shape).tolist()
    sides: dict[str, tuple[Callable, float]] = {}
    for name in arguments.sides:
        if name == "python_loop":
            run = functools.partial(decode_in_python, params, config, sampler, prompts)
            began = time.perf_counter()
            run()
            first = time.perf_counter() - began
            began = time.perf_counter()
            run()
            sides[name] = run, first - (time.perf_counter() - began)
        else:
            recipe = dataclasses.replace(sampler, cache=name == "compiled")
            sides[name] = compiled(params, config, recipe, prompts)
    return sides


def bench(arguments, name: str) -> None:
    config = dataclasses.replace(
        preset(name),
        dtype=arguments.dtype,
        param_dtype=arguments.dtype,  # or the Python loop would cast at every step
        attention="bidirectional",  # which takes every block size
    )
    params = jax.jit(denoiser.init, static_argnums=1)(jax.random.key(0), config)
    sides = make_sides(arguments, config, params)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    answers = {side: run() for side, (run, _) in sides.items()}  # warm up
    for _ in range(arguments.rounds):
        for side, (run, _) in sides.items():
            began = time.perf_counter()
            run()
            seconds[side].append(time.perf_counter() - began)

    count = arguments.batch * arguments.new
    print(f"\n{name}: {denoiser.num_parameters(config):,} parameters")
    first, reference = next(iter(seconds)), next(iter(answers.values()))
    for side, times in seconds.items():
        median = statistics.median(times)
        ratio = median / statistics.median(seconds[first])
        same = (answers[side] == reference).mean()
        print(
            f"  {side:12} {count / median:9.1f} tokens/s   median {median:8.3f} s"
            f"   best {min(times):8.3f} s   compile {sides[side][1]:6.1f} s"
            f"   {ratio:6.2f} times {first}'s   {same:.0%} same tokens"
        )


def main() -> None:
    arguments = parse_arguments()
    device = jax.devices()[0]
    print("command:", "python", *sys.argv)
    print(f"device: {device.platform} {device.device_kind}, {os.cpu_count()} CPU cores")
    print(
        f"versions: Python {platform.python_version()}, jax {jax.__version__}, "
        f"numpy {np.__version__}; load {os.getloadavg()[0]:.1f}"
    )
    print(
        f"shapes: batch {arguments.batch}, prompt {arguments.prompt}, new "
        f"{arguments.new}, block {arguments.block}, {arguments.steps} steps a block, "
        f"{arguments.dtype}; median of {arguments.rounds} rounds, sides in turn"
    )
    for name in arguments.presets:
        bench(arguments, name)


if __name__ == "__main__":
    main()
