"""The whole way from a model to its figures, on the CPU devices of the tests."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest

from seedjax.chips import chip_of, chips
from seedjax.config import from_dict, to_dict
from seedjax.errors import InputError
from seedjax.plan.case import Case, denoiser_of, named_cases, run_of
from seedjax.plan.chips import target_description
from seedjax.plan.figures import (
    Figures,
    axes_of,
    figures_of,
    plan,
)
from seedjax.plan.programs import Shapes, block_forward, whole_sampler
from seedjax.plan.report import (
    growth_table,
    sampling_table,
    table,
    tokens_per_forward,
)
from seedjax.sharding import make_mesh


@pytest.fixture
def config(tiny_config):
    return dataclasses.replace(tiny_config, tie_embeddings=False, layer_loop="scan")


@pytest.fixture
def mesh():
    return make_mesh("tensor=2", jax.devices()[:2])


CHIP = chip_of("v5e:2x4")
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
    figures = figures_of(
        program, Case(program="block", weights="float32", prefix=16), CHIP
    )
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


@pytest.mark.slow
def test_a_mesh_that_splits_heads_gathers_no_cache(config, mesh):
    """With several rows as with one."""
    rows = 4
    shapes = dataclasses.replace(SHAPES, batch_size=rows, prefix=64)
    program = block_forward(config, shapes, mesh)
    (block,) = figures_of(program, Case(batch_size=rows), CHIP).passes
    gathered = {c.operation: c.num_bytes for c in block.collectives}
    assert gathered.get("all-gather", 0) < program.least.cache


@pytest.mark.slow
def test_figures_of_a_sampler(config, mesh):
    program = whole_sampler(config, SHAPES, mesh)
    figures = figures_of(
        program, Case(program="sampler", weights="float32", prefix=16), CHIP
    )
    names = ["once", "prefill", "first step", "later step"]
    assert [p.name for p in figures.passes] == names
    assert all(p.host_transfers == () for p in figures.passes)
    assert all(p.hbm_bytes > figures.least_bytes for p in figures.passes[2:])


@pytest.mark.slow
def test_figures_go_through_json(config, mesh):
    program = block_forward(config, SHAPES, mesh)
    figures = figures_of(program, Case(), CHIP)
    text = json.dumps(to_dict(figures))
    assert from_dict(Figures, json.loads(text)) == figures
    lines = table([figures]).splitlines()
    assert len(lines) == 3
    assert figures.memory_size == 15.75 * 2**30
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize(
    ("topology", "package"), [("v5e:2x4", "libtpu"), ("h100:8", "jax-cuda13-plugin")]
)
def test_a_missing_compiler_is_named(monkeypatch, topology, package):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    monkeypatch.setitem(sys.modules, "jax_plugins", None)
    monkeypatch.setitem(sys.modules, "jax_plugins.xla_cuda13", None)
    with pytest.raises(InputError, match=rf"{package} .* 'seedjax\[plan\]'"):
        plan(Case(topology=topology))


def test_a_program_that_is_too_large_is_one_clear_line(config, mesh, monkeypatch):
    program = block_forward(config, SHAPES, mesh)

    def too_large(self):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of HBM\nmore")

    monkeypatch.setattr(jax.stages.Lowered, "compile", too_large)
    with pytest.raises(InputError, match="^it does not fit: Ran out of HBM$"):
        program.compile()


def test_every_plan_is_a_case_of_known_chips():
    from seedjax.files.package import package_table

    for name in package_table("seedjax.plan", "plans.toml"):
        for case in named_cases(name):
            assert chip_of(case.topology).title
            config = denoiser_of(case)
            if case.program == "train":
                assert run_of(case).model == config
            else:
                assert config.block_size == (1 if case.program == "ar" else 32)


def test_an_unknown_plan_or_chip_names_the_nearest():
    with pytest.raises(InputError, match="sample-8b-h100"):
        named_cases("sample-8b-h10")
    with pytest.raises(InputError, match="no chip 'v5'"):
        chip_of("v5:2x2")


def test_a_gpu_is_described_by_its_table():
    text = target_description(chips()["h20"])
    assert "core_count: 78" in text
    assert "memory_bandwidth: 4000000000000" in text
    assert "$" not in text


def test_collectives_are_told_apart_by_mesh_axes():
    shape = {"data": 1, "fsdp": 2, "expert": 1, "tensor": 4}
    assert axes_of((0, 1, 2, 3), shape) == "tensor"
    assert axes_of((0, 4), shape) == "fsdp"
    assert axes_of((0, 5), shape) == "fsdp,tensor"
    assert axes_of((), shape) == "fsdp,tensor"


def test_products_are_counted_as_often_as_they_run():
    import jax.numpy as jnp

    from seedjax.plan.operations import operations_of

    def layers(x, kernels):
        step = jax.checkpoint(lambda x, kernel: (jnp.tanh(x @ kernel), None))
        return jnp.sum(jax.lax.scan(step, x, kernels)[0])

    x = jax.ShapeDtypeStruct((4, 16), jnp.float32)
    kernels = jax.ShapeDtypeStruct((3, 16, 16), jnp.float32)
    once = 3 * 2 * 4 * 16 * 16
    assert operations_of(layers, x, kernels).products == {"float32": once}
    # Forward, forward again for the backward pass, and two products of its own.
    backward = operations_of(jax.grad(layers, argnums=(0, 1)), x, kernels)
    assert backward.products == {"float32": 4 * once}


def test_a_training_step_is_planned_with_what_it_holds(tiny_config, mesh):
    from seedjax.data.pipeline import DataConfig
    from seedjax.diffusion.objective import BlockDiffusion
    from seedjax.plan.programs import training_step
    from seedjax.train.config import RunConfig

    run = RunConfig(
        model=dataclasses.replace(tiny_config, num_layers=1),
        objective=BlockDiffusion(),
        data=DataConfig(sequence_length=16, batch_size=4),
    )
    program = training_step(run, mesh)
    (step,) = figures_of(program, Case(program="train"), CHIP).passes
    assert program.held["optimizer"] >= 2 * program.held["parameters"]
    assert step.name == "step"
    assert step.operations > 0
    assert step.seconds.total == max(
        step.seconds.products, step.seconds.memory, step.seconds.links
    )
    assert step.seconds.bound_by in ("products", "memory", "links")
    assert {each.axes for each in step.collectives} <= {"tensor"}


def test_speeds_follow_from_seconds(config, mesh):
    program = block_forward(config, SHAPES, mesh)
    block = figures_of(program, Case(weights="float32"), CHIP)
    step = dataclasses.replace(block, case=Case(program="ar", weights="float32"))
    seconds = block.passes[0].seconds.total
    assert tokens_per_forward(block, 2 / seconds) == pytest.approx(2.0)
    assert "| 1.00 | 5.4 |" in sampling_table([block, step])


def test_a_choice_between_products_and_none_makes_a_share_of_them():
    import jax.numpy as jnp

    from seedjax.plan.costs import cost_of
    from seedjax.plan.hlo import read_module
    from seedjax.plan.operations import operations_of

    def attend(x, kernel):
        seen = lambda x: x @ kernel  # noqa: E731
        return jax.lax.cond(x[0, 0] > 0, seen, lambda x: x, x)

    x = jax.ShapeDtypeStruct((128, 128), jnp.float32)
    operations = operations_of(attend, x, x, computed=0.25).products
    assert operations == {"float32": 0.25 * 2 * 128**3}
    module = read_module(jax.jit(attend).lower(x, x).compile().as_text())
    whole, part = (cost_of(module, computed=n).hbm_bytes for n in (1.0, 0.25))
    assert 128 * 128 * 4 < whole - part < 4 * 128 * 128 * 4


def test_growth_is_listed_by_its_field(config, mesh):
    program = block_forward(config, SHAPES, mesh)
    first = figures_of(program, Case(weights="float32", prefix=16), CHIP)
    second = dataclasses.replace(first, case=Case(weights="float32", prefix=64))
    lines = growth_table([first, second], "prefix").splitlines()
    assert [line.split("|")[2].strip() for line in lines[2:]] == ["16", "64"]
