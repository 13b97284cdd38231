"""The arithmetic that a step needs, counted by formula and from its program."""

import dataclasses
from functools import partial

import jax
import pytest

from seedjax.batch import Batch
from seedjax.chips import chip_of, chip_of_device
from seedjax.config import MoEConfig
from seedjax.diffusion.objective import Autoregressive, BlockDiffusion, MaskDiffusion
from seedjax.nn import denoiser
from seedjax.nn.lora import LoRA
from seedjax.plan.case import named_cases, run_of
from seedjax.plan.operations import operations_of
from seedjax.train.state import abstract_state
from seedjax.train.step import train_step
from seedjax.train.utilization import (
    attention_operations,
    ideal_step_s,
    layer_operations,
    model_operations,
)

MOE = MoEConfig(num_experts=4, num_selected=4, expert_size=16, shared_size=16)


def counted(run) -> int:
    """Products in the jaxpr of a step, scores of masked positions included."""
    shape = (run.data.batch_size, run.data.sequence_length)
    ids = jax.ShapeDtypeStruct(shape, "int32")
    batch = Batch(ids, ids, ids, jax.ShapeDtypeStruct(shape, "bool"))
    step = partial(train_step, run=run, stage="mask")
    return operations_of(step, abstract_state(run), batch).total


@pytest.mark.parametrize("tied", [True, False])
def test_the_formula_is_what_the_program_multiplies(tiny_run, tied):
    model = dataclasses.replace(
        tiny_run.model, attention="bidirectional", tie_embeddings=tied
    )
    run = dataclasses.replace(tiny_run, model=model, objective=MaskDiffusion())
    assert model_operations(run) == pytest.approx(counted(run), rel=0.02)
    remat = dataclasses.replace(model, remat="layer")
    again = dataclasses.replace(run, model=remat)
    assert model_operations(again) == model_operations(run) < 0.9 * counted(again)


def test_a_token_takes_the_experts_that_it_is_sent_to(tiny_run):
    model = dataclasses.replace(tiny_run.model, attention="bidirectional", moe=MOE)
    tokens = jax.ShapeDtypeStruct((2, 16), "int32")

    def run(params, tokens):
        layout = denoiser.simple_layout(tokens)
        return denoiser.hidden_states(params, model, tokens, layout).hidden

    forward = operations_of(run, denoiser.abstract_params(model), tokens).total
    needed = layer_operations(model) + attention_operations(model, 16)
    assert 32 * needed == pytest.approx(forward, rel=0.02)
    fewer = dataclasses.replace(model, moe=dataclasses.replace(MOE, num_selected=1))
    assert layer_operations(fewer) < 0.7 * layer_operations(model)


def test_blocks_are_two_copies_and_causal_attention_half(tiny_run):
    rows, length = tiny_run.data.batch_size, tiny_run.data.sequence_length
    full = dataclasses.replace(tiny_run.model, attention="bidirectional")
    mask = dataclasses.replace(tiny_run, model=full, objective=MaskDiffusion())
    block = dataclasses.replace(
        tiny_run,
        model=dataclasses.replace(full, attention="block_causal"),
        objective=BlockDiffusion(),
    )
    causal = dataclasses.replace(
        tiny_run,
        model=dataclasses.replace(full, attention="causal", logit_alignment="shifted"),
        objective=Autoregressive(),
    )
    head = 6.0 * rows * length * full.hidden_size * full.vocab_size
    scores = [
        3.0 * rows * length * attention_operations(r.model, length)
        for r in (mask, block, causal)
    ]
    layers = [model_operations(r) - head for r in (mask, block, causal)]
    assert layers[1] - 2 * scores[1] == pytest.approx(2 * (layers[0] - scores[0]))
    assert layers[2] - scores[2] == pytest.approx(layers[0] - scores[0])
    assert scores[2] == pytest.approx(scores[0] * (length + 1) / (2 * length))


def test_an_adapter_takes_two_thirds_of_the_weights_share():
    run = run_of(*named_cases("train-8b-h100x8"))
    tuned = dataclasses.replace(run, lora=LoRA(rank=8), init_from="coder")
    assert 0.66 < model_operations(tuned) / model_operations(run) < 0.75
    # 6 operations for each of 8 B weights and token, in two copies, and some attention.
    tokens = run.data.batch_size * run.data.sequence_length
    assert 1.8 < model_operations(run) / (6 * 8.25e9 * tokens) < 2.2


def test_the_ideal_is_the_peak_of_the_dtype_on_all_devices(tiny_run, monkeypatch):
    assert ideal_step_s(tiny_run) == 0.0  # a CPU is no chip of the table
    assert chip_of_device("TPU v5 lite") == chip_of("v5e:2x4")
    assert chip_of_device("cpu") is None
    chip = chip_of("h100:8")
    monkeypatch.setattr("seedjax.train.utilization.chip_of_device", lambda _: chip)
    run = dataclasses.replace(
        tiny_run, model=dataclasses.replace(tiny_run.model, dtype="bfloat16")
    )
    peak = len(jax.devices()) * 989e12
    assert ideal_step_s(run) == pytest.approx(model_operations(run) / peak)
