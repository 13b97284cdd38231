"""What an accelerator has to compute as a CPU does, and how fast at least.

    scripts/check_accelerator        runs these and writes a report
    pytest -m "gpu or tpu or accelerator" tests/accelerator

They take the devices that JAX finds. Where that is a CPU, they run all the same, at
small sizes, so that a fault of a test shows before there is a machine to rent.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import make_case, output_and_gradients

import seedjax
from seedjax.batch import Batch
from seedjax.bench.run import bench
from seedjax.bench.source import Source
from seedjax.bench.sweep import Sweep
from seedjax.data.pipeline import DataConfig
from seedjax.diffusion.objective import BlockDiffusion
from seedjax.nn import denoiser
from seedjax.nn.attention import attend
from seedjax.nn.presets import preset
from seedjax.plan.costs import cost_of
from seedjax.plan.hlo import read_module
from seedjax.plan.programs import Shapes, block_forward
from seedjax.sharding import make_mesh
from seedjax.train.config import RunConfig
from seedjax.train.optim import OptimizerConfig
from seedjax.train.state import first_state
from seedjax.train.step import train_step

pytestmark = pytest.mark.accelerator

ON_CPU = jax.default_backend() == "cpu"
PROMPTS = [
    'def is_prime(n):\n    """Return whether n is a prime number."""\n',
    'def digit_sum(n):\n    """Return the sum of the digits of n."""\n',
    'def vowel_count(text):\n    """Count the vowels in text."""\n',
    'def largest(values):\n    """Return the largest value."""\n',
]
GREEDY = {"temperature": 0.0, "max_new_tokens": 48}


@pytest.fixture(autouse=True)
def products_in_full():
    """TPUs and GPUs take float32 products for less unless told otherwise."""
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="module")
def here():
    """The bundled model where JAX computes by default."""
    return seedjax.load("mini", dtype="float32", compile_cache=False)


@functools.cache
def of_cpu() -> list[list[int]]:
    model = seedjax.load("mini", dtype="float32", device="cpu", compile_cache=False)
    return model.generate(PROMPTS, **GREEDY).tokens


@pytest.mark.parametrize(
    ("dtype", "bound"), [("float32", 1e-4), ("bfloat16", 0.05)], ids=str
)
def test_logits_are_those_of_a_cpu(dtype, bound):
    """Root mean square of the difference over the spread of the logits in float32."""
    config = dataclasses.replace(
        preset("tiny" if ON_CPU else "base"), dtype=dtype, init_scale=0.1
    )
    tokens = jax.random.randint(jax.random.key(1), (2, 96), 20, config.vocab_size)

    def logits(params, tokens):
        layout = denoiser.simple_layout(tokens)
        return denoiser.logits(params, config, tokens, layout)

    params = jax.jit(denoiser.init, static_argnums=1)(jax.random.key(0), config)
    found = np.asarray(jax.jit(logits)(params, tokens))
    last_cpu = jax.devices("cpu")[-1]
    given = jax.device_put((params, tokens), last_cpu)
    exact = dataclasses.replace(config, dtype="float32")

    def exact_logits(params, tokens):
        layout = denoiser.simple_layout(tokens)
        return denoiser.logits(params, exact, tokens, layout)

    expected = np.asarray(jax.jit(exact_logits)(*given))
    assert np.sqrt(np.mean((found - expected) ** 2)) < bound * expected.std()


def test_greedy_tokens_are_those_of_a_cpu(here):
    out = here.generate(PROMPTS, **GREEDY)
    assert out.tokens == of_cpu()
    assert out.forwards < sum(out.new_tokens)


@pytest.mark.parametrize("kind", ["block_causal", "clean_then_noisy"])
def test_chunked_attention_is_dense_attention(kind):
    """Outputs and gradients, over several chunks."""
    length = 640 if ON_CPU else 4096
    case = make_case(kind, length=length, block=32, head_dim=64)
    dense, chunked = (
        output_and_gradients(
            functools.partial(attend, dtype="float32", backend=backend), case
        )
        for backend in ("auto" if ON_CPU else "dense", "chunked")
    )
    for ours, theirs in zip(*map(jax.tree.leaves, (chunked, dense)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("axis", ["data", "fsdp"])
def test_completions_on_all_devices(axis):
    count = jax.device_count()
    if count == 1:
        pytest.skip("there is one device")
    mesh = f"{axis}={count}"
    model = seedjax.load("mini", dtype="float32", mesh=mesh, compile_cache=False)
    rows = PROMPTS * 2
    assert model.generate(rows, **GREEDY).tokens == of_cpu() * 2


def long_run(length: int) -> RunConfig:
    model = dataclasses.replace(
        preset("tiny" if ON_CPU else "base"),
        block_size=32,
        remat="layer",
        dtype="bfloat16",
        max_positions=length,
    )
    return RunConfig(
        model=model,
        objective=BlockDiffusion(),
        data=DataConfig(corpus="none", sequence_length=length, batch_size=1),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=1),
        num_steps=100,
        loss_chunk=256,
    )


def batch_of(length: int, vocab_size: int) -> Batch:
    tokens = jax.random.randint(jax.random.key(3), (1, length), 20, vocab_size)
    return Batch(
        tokens=tokens,
        segments=jnp.ones_like(tokens),
        positions=jnp.arange(length, dtype=jnp.int32)[None],
        supervised=jnp.ones_like(tokens, bool),
    )


def compiled_step(length: int):
    run = long_run(length)
    init = jax.jit(denoiser.init, static_argnums=1)
    state = jax.jit(first_state, static_argnames="run")(
        init(jax.random.key(0), run.model), run=run
    )
    batch = batch_of(length, run.model.vocab_size)
    step = jax.jit(
        functools.partial(train_step, run=run, stage="mask"), donate_argnums=0
    )
    return step.lower(state, batch).compile(), state, batch


def test_a_long_training_step_has_bounded_memory_and_learns():
    """Twice the length takes at most two and a half times the memory, and a few steps
    on one batch lower its loss."""
    length = 4096 if ON_CPU else 16_384
    half, *_ = compiled_step(length // 2)
    step, state, batch = compiled_step(length)
    small, large = (
        program.memory_analysis().temp_size_in_bytes for program in (half, step)
    )
    assert large < 2.5 * small
    if ON_CPU:
        return  # the steps would take minutes
    losses = []
    for _ in range(8):
        state, metrics = step(state, batch)
        losses.append(float(metrics.loss))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-2:]) < np.mean(losses[:2])


def test_prompts_of_many_lengths_share_programs(here):
    here.generate(PROMPTS[0], **GREEDY)
    programs = here.num_programs
    for count in range(1, 6):
        out = here.generate(PROMPTS[1][: 8 * count], **GREEDY)
        assert out.compile_seconds == 0
    assert here.num_programs == programs


@pytest.mark.parametrize(
    ("measure", "floor"),
    [("prefill", 0.02 if ON_CPU else 0.15), ("block", 0.02 if ON_CPU else 0.1)],
)
def test_forward_passes_reach_a_share_of_what_the_device_can(measure, floor):
    """The bound from products and copies that were measured in the same rounds, over
    the time that a pass takes."""
    sweep = Sweep(
        measures=(measure,),
        batches=(1 if ON_CPU else 8,),
        prefixes=(256 if ON_CPU else 1024,),
        dtypes=("float32" if ON_CPU else "bfloat16",),
        rounds=3,
    )
    source = Source.from_preset("tiny" if ON_CPU else "base")
    sizes = ((8 << 20,), (512,)) if ON_CPU else (None, None)
    with jax.default_matmul_precision("default"):
        report = bench(source, sweep, copy_bytes=sizes[0], product_sizes=sizes[1])
    (row,) = report.rows
    assert row.fraction is not None
    assert row.fraction > floor


@pytest.mark.gpu
@pytest.mark.tpu
@pytest.mark.parametrize("weights", ["bfloat16", "int8_weights"])
def test_a_block_of_the_8b_shape_moves_little_more_than_it_must(weights):
    """Two layers of it, compiled by this device's compiler, bytes as `seedjax plan`
    counts them."""
    shape = dataclasses.replace(
        preset("stable_diffcoder_8b"), num_layers=2, block_size=32, layer_loop="unroll"
    )
    mesh = make_mesh("", jax.devices()[:1])
    with jax.default_matmul_precision("default"):
        program = block_forward(shape, Shapes(weights=weights), mesh)
        module = read_module(program.compile().as_text())
    cost = cost_of(module)
    assert not cost.host_transfers
    assert cost.hbm_bytes < 2.0 * program.least.total
