"""One training step: equal however it is split, sharded or laid out; its numbers."""

import contextlib
import dataclasses
from functools import partial

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from seedjax.batch import Batch
from seedjax.config import MoEConfig
from seedjax.diffusion.objective import (
    Autoregressive,
    BlockDiffusion,
    MaskDiffusion,
)
from seedjax.nn.lora import LoRA, Pair, init_adapter, merge_adapter
from seedjax.plan.costs import cost_of
from seedjax.plan.hlo import read_module
from seedjax.plan.programs import training_step
from seedjax.sharding import batch_sharding, make_mesh
from seedjax.train.config import RunConfig
from seedjax.train.state import (
    first_state,
    initialize,
    params_shardings,
    state_shardings,
)
from seedjax.train.step import (
    Frozen,
    answer_loss,
    hidden_at_targets,
    train_step,
)


def packed_batch(
    vocab_size: int, rows: int = 8, length: int = 32, seed: int = 3
) -> Batch:
    """Random tokens; two documents and padding in the even rows, one in the odd
    ones."""
    tokens = jax.random.randint(jax.random.key(seed), (rows, length), 20, vocab_size)
    two = np.array([1] * 12 + [2] * 16 + [0] * 4)
    segments = np.stack([two if r % 2 == 0 else np.ones(length) for r in range(rows)])
    starts = [[*range(12), *range(16), *range(4)], [*range(length)]]
    positions = np.stack([starts[r % 2] for r in range(rows)])
    return Batch(
        tokens=tokens,
        segments=jnp.array(segments, jnp.int32),
        positions=jnp.array(positions, jnp.int32),
        supervised=jnp.array((segments > 0) & (positions > 0)),
    )


def fresh(run: RunConfig):
    return first_state(compiled.init(jax.random.key(run.seed), run.model), run)


def step_once(run: RunConfig, batch: Batch, stage="mask"):
    return jax.jit(partial(train_step, run=run, stage=stage))(fresh(run), batch)


def assert_trees_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.mark.slow
def test_accumulation_and_chunks_change_nothing(tiny_run):
    batch = packed_batch(tiny_run.model.vocab_size)
    stage = "edit"  # has both terms of the loss
    state, metrics = step_once(tiny_run, batch, stage)
    other = dataclasses.replace(tiny_run, accumulate=4, loss_chunk=5)
    state_other, metrics_other = step_once(other, batch, stage)
    assert_trees_close(metrics, metrics_other, rtol=1e-5)
    assert_trees_close(state.params, state_other.params, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_edit_stage_asks_other_questions(tiny_run):
    batch = packed_batch(tiny_run.model.vocab_size)
    _, masked = step_once(tiny_run, batch, "mask")
    _, edited = step_once(tiny_run, batch, "edit")
    assert abs(float(masked.loss) - float(edited.loss)) > 0.1


@pytest.mark.parametrize(
    ("mesh", "alignment"),
    [
        ("", "same_position"),
        ("fsdp=2,sequence=4", "same_position"),
        ("", "shifted"),  # both copies have targets
        pytest.param("fsdp=2,sequence=4", "shifted", marks=pytest.mark.slow),
    ],
)
def test_two_copies_equal_a_row_under_one_mask(tiny_run, mesh, alignment):
    """Copies taken apart, against the mask of `nn.masks` over a doubled row."""
    model = dataclasses.replace(tiny_run.model, logit_alignment=alignment)
    batch = packed_batch(model.vocab_size)
    inputs = tiny_run.objective.corrupt(jax.random.key(0), batch, model=model)
    params = compiled.init(jax.random.key(1), model)
    length = inputs.targets.shape[1]
    copies = 1 if alignment == "same_position" else 2
    assert inputs.tokens.shape[1] * copies == 2 * length
    assert inputs.num_noisy * copies == length
    with jax.set_mesh(make_mesh(mesh)) if mesh else contextlib.nullcontext():
        apart = jax.jit(hidden_at_targets, static_argnums=2)(params, inputs, model)
    one_mask = compiled.hidden_states(params, model, inputs.tokens, inputs.layout)
    real = np.asarray(inputs.layout.segments[:, -length:]) > 0
    np.testing.assert_allclose(
        np.asarray(apart)[real],
        np.asarray(one_mask.hidden[:, -length:])[real],
        rtol=1e-5,
        atol=1e-5,
    )


MESHES = [
    pytest.param("data=8", marks=pytest.mark.slow),
    "fsdp=8",
    "data=2,fsdp=2,tensor=2",
    pytest.param("data=2,tensor=4", marks=pytest.mark.slow),
]


@pytest.mark.representative("data=2,fsdp=2,tensor=2")
@pytest.mark.parametrize("mesh", MESHES)
def test_sharded_step_equals_one_device(tiny_run, mesh):
    model = dataclasses.replace(
        tiny_run.model, num_layers=1, num_heads=4, num_kv_heads=2
    )
    run = dataclasses.replace(tiny_run, model=model, loss_chunk=8)
    batch = packed_batch(model.vocab_size)
    state, metrics = step_once(run, batch)

    device_mesh = make_mesh(mesh)
    with jax.set_mesh(device_mesh):
        shardings = state_shardings(run, device_mesh)
        sharded = initialize(run, device_mesh)
        sharded, sharded_metrics = jax.jit(
            partial(train_step, run=run, stage="mask"), out_shardings=(shardings, None)
        )(sharded, jax.device_put(batch, batch_sharding(device_mesh, batch)))
    assert_trees_close(metrics, sharded_metrics, rtol=1e-5)
    # Adam divides by the root of the second moment, which on the first step magnifies
    # the last bit of small gradients: hence the looser bound on parameters.
    assert_trees_close(state.params, sharded.params, rtol=1e-3, atol=1e-5)
    if "fsdp=8" in mesh:
        kernel = sharded.params["layers_0"]["mlp"]["gate"]["kernel"]
        assert kernel.addressable_shards[0].data.size * 8 == kernel.size
        _, (adam, *_) = sharded.opt_state  # clipping, then AdamW
        moment = adam.mu["layers_0"]["mlp"]["gate"]["kernel"]
        assert moment.addressable_shards[0].data.size * 8 == moment.size


@pytest.mark.slow
@pytest.mark.parametrize("objective", [BlockDiffusion(), MaskDiffusion()])
@pytest.mark.parametrize("mesh", ["fsdp=2,sequence=4", "tensor=2,sequence=4"])
def test_positions_split_over_devices(tiny_run, mesh, objective):
    """A step of long rows equals that of one device, and takes a fraction of its
    memory."""
    length = 1024
    model = dataclasses.replace(
        tiny_run.model, max_positions=length, remat="layer", attention_backend="chunked"
    )
    run = dataclasses.replace(
        tiny_run, model=model, objective=objective, loss_chunk=128, accumulate=1
    )
    tokens = jax.random.randint(jax.random.key(3), (2, length), 20, model.vocab_size)
    batch = Batch(
        tokens=tokens,
        segments=jnp.ones_like(tokens),
        positions=jnp.tile(jnp.arange(length, dtype=jnp.int32), (2, 1)),
        supervised=jnp.ones(tokens.shape, bool),
    )
    step = partial(train_step, run=run, stage="mask")
    state = fresh(run)
    one = jax.jit(step).lower(state, batch).compile()
    _, metrics = one(state, batch)

    device_mesh = make_mesh(mesh)
    with jax.set_mesh(device_mesh):
        shardings = state_shardings(run, device_mesh)
        many = jax.jit(step, out_shardings=(shardings, None)).lower(
            initialize(run, device_mesh),
            jax.device_put(batch, batch_sharding(device_mesh, batch)),
        )
        many = many.compile()
        _, split = many(
            initialize(run, device_mesh),
            jax.device_put(batch, batch_sharding(device_mesh, batch)),
        )
    assert_trees_close(metrics, split, rtol=1e-5)
    whole, part = (x.memory_analysis().temp_size_in_bytes for x in (one, many))
    assert part < whole / 3


@pytest.mark.parametrize("experts", [0, 2])
def test_an_adapter_beside_its_kernels_learns_as_if_merged(tiny_run, experts):
    """The same loss and gradients; without experts, fewer operations, as no gradient
    of a whole kernel is made."""
    moe = MoEConfig(num_experts=2, num_selected=1, expert_size=16) if experts else None
    model = dataclasses.replace(tiny_run.model, moe=moe, layer_loop="scan")
    run = dataclasses.replace(tiny_run, model=model, lora=LoRA(rank=2), init_from="x")
    base = compiled.init(jax.random.key(run.seed), model)
    drawn = init_adapter(jax.random.key(1), base, run.lora)
    drawn = {name: Pair(p.down, jnp.full_like(p.up, 0.02)) for name, p in drawn.items()}
    batch = packed_batch(model.vocab_size)
    inputs = run.objective.corrupt(jax.random.key(2), batch, model=model)
    plain = dataclasses.replace(run, lora=None, init_from="")

    def beside(adapter):
        return answer_loss(adapter, inputs, run, Frozen(base))[0]

    def merged(adapter):
        return answer_loss(merge_adapter(base, adapter, run.lora), inputs, plain)[0]

    programs = [jax.jit(jax.value_and_grad(f)).lower(drawn) for f in (beside, merged)]
    programs = [lowered.compile() for lowered in programs]
    (loss, gradients), (wanted, theirs) = (program(drawn) for program in programs)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    assert_trees_close(gradients, theirs, rtol=1e-3, atol=1e-5)
    if not experts:
        here, there = (program.cost_analysis()["flops"] for program in programs)
        assert here < 0.95 * there


@pytest.mark.slow
@pytest.mark.parametrize(
    "mesh", ["data=8", "data=2,fsdp=2,tensor=2", "fsdp=4,tensor=2"]
)
def test_sharded_step_of_an_adapter_equals_one_device(tiny_run, mesh):
    """Loss, gradient norm and both matrices of each pair after a step."""
    model = dataclasses.replace(tiny_run.model, num_heads=4, num_kv_heads=2)
    run = dataclasses.replace(tiny_run, model=model, lora=LoRA(rank=2), init_from="x")
    batch = packed_batch(model.vocab_size)
    base = compiled.init(jax.random.key(run.seed), model)
    step = partial(train_step, run=run, stage="mask")
    state, metrics = jax.jit(step)(first_state(base, run), batch, Frozen(base))

    device_mesh = make_mesh(mesh)
    with jax.set_mesh(device_mesh):
        shardings = state_shardings(run, device_mesh)
        placed = jax.device_put(base, params_shardings(model, device_mesh))
        sharded, sharded_metrics = jax.jit(step, out_shardings=(shardings, None))(
            initialize(run, device_mesh, lambda: placed),
            jax.device_put(batch, batch_sharding(device_mesh, batch)),
            Frozen(placed),
        )
    assert_trees_close(metrics, sharded_metrics, rtol=1e-5)
    assert_trees_close(state.params, sharded.params, rtol=1e-3, atol=1e-5)


@pytest.mark.representative("edit-tpu")
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("stage", ["mask", "edit"])
def test_step_lowers_for_accelerators(tiny_run, platform, stage):
    model = dataclasses.replace(
        tiny_run.model, layer_loop="scan", dtype="bfloat16", remat="layer"
    )
    run = dataclasses.replace(tiny_run, model=model)
    state = jax.eval_shape(lambda: fresh(run))
    traced = jax.jit(partial(train_step, run=run, stage=stage)).trace(
        state, packed_batch(model.vocab_size)
    )
    assert "dot_general" in traced.lower(lowering_platforms=(platform,)).as_text()


def test_golden_step(tiny_run):
    """The numbers of one step of each objective.

    They change when initialization, corruption, loss or optimizer change; update them
    only when such a change was meant, and say so in the commit.
    """
    batch = packed_batch(tiny_run.model.vocab_size)
    causal = dataclasses.replace(
        tiny_run.model, attention="causal", logit_alignment="shifted"
    )
    runs = {
        "block": tiny_run,
        "mask": dataclasses.replace(tiny_run, objective=MaskDiffusion()),
        "ar": dataclasses.replace(tiny_run, objective=Autoregressive(), model=causal),
    }
    got = {}
    for name, run in runs.items():
        _, metrics = step_once(run, batch)
        got[name] = [float(metrics.loss), float(metrics.grad_norm)]
    for name, wanted in GOLDEN.items():
        assert got[name] == pytest.approx(wanted, rel=1e-3), (name, got)


GOLDEN = {  # loss, gradient norm
    "block": [6.9425, 1.3007],
    "mask": [6.3840, 1.5681],
    "ar": [6.2736, 0.7666],
}


@pytest.mark.slow
def test_gradient_reaches_every_parameter(tiny_run):
    batch = packed_batch(tiny_run.model.vocab_size)
    inputs = tiny_run.objective.corrupt(jax.random.key(0), batch, model=tiny_run.model)
    params = compiled.init(jax.random.key(1), tiny_run.model)
    grads = jax.grad(lambda p: answer_loss(p, inputs, tiny_run)[0])(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert float(jnp.abs(leaf).max()) > 0, jax.tree_util.keystr(path)


@pytest.mark.slow
def test_chunked_loss_never_holds_all_logits(tiny_run):
    """A 155k vocabulary at 2048 positions: [B, L, V] would be 1.27 GB in float32."""
    model = dataclasses.replace(
        tiny_run.model, vocab_size=155_136, max_positions=2048, hidden_size=32
    )
    data = dataclasses.replace(tiny_run.data, sequence_length=2048, batch_size=1)
    batch = Batch(*(jnp.zeros((1, 2048), t) for t in (jnp.int32,) * 3 + (bool,)))

    def temporary_bytes(chunk: int) -> int:
        run = dataclasses.replace(
            tiny_run,
            model=model,
            data=data,
            objective=MaskDiffusion(),
            loss_chunk=chunk,
        )
        state = jax.eval_shape(lambda: fresh(run))
        step = jax.jit(partial(train_step, run=run, stage="mask"), donate_argnums=0)
        return step.lower(state, batch).compile().memory_analysis().temp_size_in_bytes

    all_logits = 2048 * 155_136 * 4
    whole, chunked = temporary_bytes(0), temporary_bytes(128)
    print(f"temporaries: {whole / 2**20:.0f} MiB whole, {chunked / 2**20:.0f} chunked")
    assert whole > all_logits
    assert chunked < all_logits / 2


def collective_bytes(run: RunConfig, mesh: str) -> dict[str, int]:
    """Bytes of the collectives of a step, by kind."""
    text = training_step(run, make_mesh(mesh)).compile().as_text()
    found: dict[str, int] = {}
    for each in cost_of(read_module(text)).collectives.values():
        found[each.operation] = found.get(each.operation, 0) + each.num_bytes
    return found


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["fsdp=8", "data=2,fsdp=2,tensor=2"])
def test_head_travels_once_however_many_chunks(tiny_run, mesh):
    """Of the loss: it is gathered before the chunks, its gradient reduced after."""
    model = dataclasses.replace(
        tiny_run.model, num_layers=1, tie_embeddings=False, dtype="bfloat16"
    )
    runs = [
        dataclasses.replace(tiny_run, model=model, loss_chunk=chunk)
        for chunk in (16, 4)
    ]
    two, eight = (collective_bytes(run, mesh) for run in runs)
    head = model.vocab_size * model.hidden_size * 2
    for kind in two | eight:
        assert eight.get(kind, 0) - two.get(kind, 0) < head / 2, kind


def layer_inputs(jaxpr) -> set[tuple[tuple[int, ...], str]]:
    """Shapes and dtypes of what loops over layers take, in inner programs as well."""
    found = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            found |= {(v.aval.shape, str(v.aval.dtype)) for v in equation.invars}
        for inner in jaxprs_in_params(equation.params):
            found |= layer_inputs(inner)
    return found


def test_weights_are_cast_before_the_layers(tiny_run):
    """So that a mesh gathers bfloat16; the trained weights and moments are float32."""
    model = dataclasses.replace(
        tiny_run.model,
        layer_loop="scan",
        remat="layer",
        dtype="bfloat16",
        activation_dtype="bfloat16",
    )
    run = dataclasses.replace(tiny_run, model=model)
    state = jax.eval_shape(lambda: fresh(run))
    for leaf in jax.tree.leaves(state):
        assert leaf.dtype in (jnp.float32, jnp.int32)
    step = partial(train_step, run=run, stage="mask")
    traced = jax.jit(step).trace(state, packed_batch(model.vocab_size))
    taken = layer_inputs(traced.jaxpr.jaxpr)
    for name in ("gate", "down"):
        kernel = state.params["layers"]["mlp"][name]["kernel"].shape
        assert (kernel, "bfloat16") in taken
        assert (kernel, "float32") not in taken
