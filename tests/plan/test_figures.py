"""The whole way from a model to its figures, on the CPU devices of the tests."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from seedjax.config import from_dict, to_dict
from seedjax.errors import InputError
from seedjax.plan.figures import Case, Figures, figures_of, plan, table
from seedjax.plan.programs import Shapes, block_forward, whole_sampler
from seedjax.sharding import make_mesh


@pytest.fixture
def config(tiny_config):
    return dataclasses.replace(tiny_config, tie_embeddings=False, layer_loop="scan")


@pytest.fixture
def mesh():
    return make_mesh("tensor=2", jax.devices()[:2])


SHAPES = Shapes(weights="float32", prefix=16, max_new_tokens=8)


def test_the_least_is_everything_once(config, mesh):
    least = block_forward(config, SHAPES, mesh).least
    d, f, v, layers = 32, 48, 64, 2
    split = layers * (4 * d * d + 3 * d * f) + v * d  # kernels and head, on two devices
    copied = (2 * layers + 1) * d  # norms
    rows = config.block_size * d // 2  # of the embedding table
    assert least.weights == 4 * (split // 2 + copied + rows)
    keys_and_values = 2 * layers * 16 * d * 4 // 2
    layout = 16 * (4 + 4 + 1)
    assert least.cache == keys_and_values + layout
    assert 0 < least.activations < 1024


def test_int8_weights_take_a_byte(config, mesh):
    """And a scale of four a row."""
    pytest.importorskip("qwix")
    wide = block_forward(config, SHAPES, mesh).least.weights
    shapes = dataclasses.replace(SHAPES, weights="int8_weights")
    narrow = block_forward(config, shapes, mesh).least.weights
    assert wide / 4 < narrow < wide / 2.5


@pytest.mark.slow
def test_figures_of_a_block_forward(config, mesh):
    program = block_forward(config, SHAPES, mesh)
    figures = figures_of(program, Case(program="block", weights="float32", prefix=16))
    (block,) = figures.passes
    assert block.name == "block"
    assert block.host_transfers == ()
    reduced = {c.operation: c.count for c in block.collectives}["all-reduce"]
    assert reduced >= 2 * config.num_layers
    assert block.over_least >= 1.0
    weights = sum(
        np.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(program.arguments[0])
    )
    assert weights < figures.argument_bytes < 1.5 * weights
    assert figures.hbm_bytes > figures.argument_bytes
    assert figures.compiler.startswith("jaxlib ")


def test_a_mesh_that_splits_heads_gathers_no_cache(config, mesh):
    """With several rows as with one."""
    rows = 4
    shapes = dataclasses.replace(SHAPES, batch_size=rows, prefix=64)
    program = block_forward(config, shapes, mesh)
    (block,) = figures_of(program, Case(batch_size=rows)).passes
    gathered = {c.operation: c.num_bytes for c in block.collectives}
    assert gathered.get("all-gather", 0) < program.least.cache


@pytest.mark.slow
def test_figures_of_a_sampler(config, mesh):
    program = whole_sampler(config, SHAPES, mesh)
    figures = figures_of(program, Case(program="sampler", weights="float32", prefix=16))
    names = ["once", "prefill", "first step", "later step"]
    assert [p.name for p in figures.passes] == names
    assert all(p.host_transfers == () for p in figures.passes)
    assert all(p.hbm_bytes > figures.least_bytes for p in figures.passes[2:])


@pytest.mark.slow
def test_figures_go_through_json(config, mesh):
    program = block_forward(config, SHAPES, mesh)
    figures = figures_of(program, Case())
    text = json.dumps(to_dict(figures))
    assert from_dict(Figures, json.loads(text)) == figures
    lines = table([figures]).splitlines()
    assert len(lines) == 3
    assert len({line.count("|") for line in lines}) == 1


def test_without_libtpu_there_is_one_clear_line(config, monkeypatch):
    from jax.experimental import topologies

    def missing(*_):
        raise RuntimeError("no libtpu\nand a long trace")

    monkeypatch.setattr(topologies, "get_topology_desc", missing)
    with pytest.raises(InputError, match=r"no libtpu \(names .* 'seedjax\[plan\]'\)"):
        plan(config, Case())


def test_a_program_that_is_too_large_is_one_clear_line(config, mesh, monkeypatch):
    program = block_forward(config, SHAPES, mesh)

    def too_large(self):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of HBM\nmore")

    monkeypatch.setattr(jax.stages.Lowered, "compile", too_large)
    with pytest.raises(InputError, match="^it does not fit: Ran out of HBM$"):
        program.compile()
