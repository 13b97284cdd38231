"""Programs lowered for NVIDIA GPUs, none of which is here."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
from lowered import read_lowered

from seedjax.plan.programs import Shapes, block_forward, whole_sampler

KERNEL = 16 * 16 * 4


def lower(function, *shapes, platform="cuda"):
    arguments = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,))


def test_loops_of_unknown_length_are_loops():
    def inner(x):
        return jax.lax.while_loop(lambda x: x[0, 0] < 1.0, lambda x: x + 1.0, x)

    def run(x):
        x = jax.lax.fori_loop(0, 3, lambda i, x: inner(x), x)
        return jax.lax.while_loop(lambda x: x[0, 0] < 9.0, inner, x)

    program = read_lowered(lower(run, (2, 2)))
    assert [len(loop.loops) for loop in program.loops] == [0, 1]


def test_transposed_weights_are_found_wherever_they_are_used():
    def layer(x, kernel):
        return x @ kernel.T + kernel.astype(jnp.float16)[:1], None

    def run(x, kernels):
        x = jax.lax.scan(jax.jit(layer), x, kernels)[0]
        turned = jax.jit(lambda x: x @ kernels[0].T)
        return jax.lax.while_loop(lambda x: x[0, 0] < 1.0, turned, x)

    program = read_lowered(lower(run, (2, 16), (3, 16, 16)), least_move=KERNEL)
    assert program.moves == [("transpose", "kernels", KERNEL)]
    assert program.loops[0].moves == [("transpose", "kernels", KERNEL)]
    smaller = read_lowered(lower(run, (2, 16), (3, 16, 16)), least_move=KERNEL // 2)
    assert [move.kind for move in smaller.moves] == ["transpose", "convert"]


def test_what_is_made_of_a_weight_is_no_weight():
    def run(x, kernel):
        return (x @ kernel).T @ kernel

    assert read_lowered(lower(run, (16, 16), (16, 16)), least_move=1).moves == []


def test_callbacks_are_found():
    def run(x):
        def body(x):
            jax.debug.callback(lambda x: None, x)
            return x + 1.0

        return jax.lax.while_loop(lambda x: x[0] < 1.0, body, x)

    # (They do not even lower for a platform that is not here.)
    program = read_lowered(lower(run, (2,), platform="cpu"))
    assert program.host_transfers == []
    assert len(program.loops[0].host_transfers) == 1


@pytest.fixture
def config(tiny_config):
    """As on accelerators: layers scanned, everything in bfloat16."""
    return dataclasses.replace(
        tiny_config,
        tie_embeddings=False,
        layer_loop="scan",
        dtype="bfloat16",
        activation_dtype="bfloat16",
        param_dtype="bfloat16",
    )


@pytest.mark.representative("bfloat16")
@pytest.mark.parametrize("weights", ["bfloat16", "int8_weights"])
def test_the_sampler_is_one_nest_of_loops_and_stays_on_the_device(config, weights):
    shapes = Shapes(weights=weights, prefix=16, max_new_tokens=8)
    program = whole_sampler(config, shapes)
    sampler = read_lowered(program.lower("cuda"), least_move=program.least_kernel)
    prefill, blocks = sampler.loops
    (steps,) = blocks.loops
    assert steps.loops == []
    # Whether int8 is cast inside the product is left to the compiler.
    casts = {"convert"} if weights == "int8_weights" else set()
    for loop in (sampler, prefill, blocks, steps):
        assert loop.host_transfers == []
        assert {move.kind for move in loop.moves} <= casts


def test_a_block_forward_takes_weights_as_they_are(config):
    program = block_forward(config, Shapes(prefix=16))
    forward = read_lowered(program.lower("cuda"), least_move=program.least_kernel)
    assert forward.loops == []
    assert forward.host_transfers == []
    assert forward.moves == []


def test_a_long_cache_is_read_by_a_kernel(config):
    long = dataclasses.replace(config, max_positions=8192)
    lowered = block_forward(long, Shapes(prefix=4096)).lower("cuda").as_text()
    assert "attend_cache" in lowered and "triton" in lowered
    assert (
        "attend_cache"
        not in block_forward(config, Shapes(prefix=16)).lower("cuda").as_text()
    )


def test_a_cache_and_fresh_keys_are_scored_apart(config):
    """XLA:GPU joins products of the same operand, and would copy the cache for that."""
    text = block_forward(config, Shapes(prefix=16)).lower("cuda").as_text()
    queries = r"optimization_barrier %\S+ : tensor<1x2x4x16x"
    assert re.search(queries, text)
