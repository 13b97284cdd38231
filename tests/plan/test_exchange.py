"""What a sharding must send, and what a step holds, counted by hand."""

import dataclasses
import math

import jax
import pytest

from seedjax.data.pipeline import DataConfig
from seedjax.diffusion.objective import Autoregressive, BlockDiffusion
from seedjax.nn.denoiser import num_parameters
from seedjax.plan.exchange import least_exchange
from seedjax.plan.programs import training_step
from seedjax.plan.search import activation_bytes
from seedjax.plan.visible import computed_share
from seedjax.sharding import make_mesh
from seedjax.train.config import RunConfig

ROWS, LENGTH = 4, 16


def run_of(config, length=LENGTH, objective=None):
    return RunConfig(
        model=dataclasses.replace(config, max_positions=max(length, 64)),
        objective=objective or BlockDiffusion(),
        data=DataConfig(sequence_length=length, batch_size=ROWS),
    )


@pytest.fixture
def config(tiny_config):
    return dataclasses.replace(tiny_config, tie_embeddings=False, layer_loop="scan")


def test_parameters_are_gathered_twice_and_gradients_scattered(config):
    """On two devices, each of which lacks half of every matrix."""
    sent = least_exchange(run_of(config), make_mesh("fsdp=2", jax.devices()[:2]))
    d, f, v, layers = 32, 48, 64, 2
    layer, table = 4 * d * d + 3 * d * f, v * d
    norms = (2 * layers + 1) * d  # whole on both
    looked_up = ROWS // 2 * 2 * LENGTH * d // 2  # fewer than the table has
    embedding = min(table // 2, looked_up)
    assert sent.gathers == 4 * (layers * layer + table // 2 + embedding)
    halves = layers * layer // 2 + table // 2 + embedding
    assert sent.gradients == 4 * (halves + norms)
    assert sent.activations == 0


def test_gradients_of_kernels_are_as_wide_as_products(config):
    """Of the head, whose sum runs over chunks of the loss, and of norms float32."""
    narrow = dataclasses.replace(
        config, dtype="bfloat16", activation_dtype="bfloat16", remat="layer"
    )
    mesh = make_mesh("fsdp=2", jax.devices()[:2])
    wide, sent = (least_exchange(run_of(each), mesh) for each in (config, narrow))
    assert sent.gathers == wide.gathers / 2
    head, norms = 64 * 32 // 2, (2 * 2 + 1) * 32
    assert (
        sent.gradients - 4 * (head + norms) == (wide.gradients - 4 * (head + norms)) / 2
    )


def test_copies_add_up_whole_gradients(config):
    sent = least_exchange(run_of(config), make_mesh("data=2", jax.devices()[:2]))
    assert sent.gathers == 0
    table = 64 * 32
    others = num_parameters(config) - table
    looked_up = ROWS // 2 * 2 * LENGTH * 32 // 2
    assert sent.gradients == 4 * (others + min(table, looked_up))


def test_layers_that_are_split_add_activations_up(config):
    """Four sums a layer, and two of embedding and head, of half the array twice."""
    sent = least_exchange(run_of(config), make_mesh("tensor=2", jax.devices()[:2]))
    tokens = ROWS * 2 * LENGTH
    sums = 4 * 2 * tokens + tokens + tokens // 2
    assert (sent.gathers, sent.gradients) == (0, 0)
    assert sent.activations == 4 * sums * 32


def test_pairs_of_chunks_that_are_masked_whole_are_skipped(config):
    """2,048 queries in chunks of 512, keys of 1,024."""
    causal = dataclasses.replace(
        config, attention="causal", logit_alignment="shifted", layer_loop="unroll"
    )
    assert computed_share(run_of(causal, 2048, Autoregressive())) == 6 / 8
    # Clean on clean, noisy on clean, and noisy on noisy, which is the diagonal.
    assert computed_share(run_of(config, 2048)) == (6 + 6 + 4) / 24
    assert computed_share(run_of(config)) == 1.0


@pytest.mark.parametrize(
    "remat", [pytest.param(x, marks=pytest.mark.slow) for x in ("none", "layer")]
)
def test_memory_is_close_to_what_is_counted_by_hand(config, remat):
    """Parameters, their average, two moments, gradients and activations."""
    run = run_of(dataclasses.replace(config, remat=remat), length=64)
    mesh = make_mesh("", jax.devices()[:1])
    program = training_step(run, mesh)
    count = num_parameters(config)
    moments = 2 * 4 * count
    assert program.held["parameters"] == program.held["average"] == 4 * count
    assert moments <= program.held["optimizer"] <= moments + 64
    memory = program.compile().memory_analysis()
    held = sum(program.held.values())
    assert memory.argument_size_in_bytes == pytest.approx(held, abs=64)
    counted = activation_bytes(run, mesh)
    assert counted <= 1.25 * memory.temp_size_in_bytes
    assert memory.temp_size_in_bytes <= 3 * counted
    assert math.isfinite(counted)


def test_positions_that_are_split_share_keys_and_add_gradients_up(config):
    """Of two devices each sends its keys and values, and later their gradients."""
    mesh = make_mesh("sequence=2", jax.devices()[:2])
    sent = least_exchange(run_of(config), mesh)
    tokens = ROWS * 2 * LENGTH // 2
    assert sent.keys == 4 * 2 * (2 * 2 * 32 * tokens)
    assert (sent.gathers, sent.activations) == (0, 0)
    assert sent.gradients >= 4 * (num_parameters(config) - 64 * 32)
    assert sent.total == sent.keys + sent.gradients
