"""How much of an accelerator's arithmetic a training run uses: model FLOPs utilization
(MFU, Chowdhery et al. 2022, arXiv 2204.02311, appendix B)."""

import math
from functools import partial
from typing import Any

import jax

from seedjax.batch import Batch
from seedjax.checkpoints.manifest import named_leaves
from seedjax.chips import chip_of_device
from seedjax.config import DenoiserConfig
from seedjax.nn import denoiser
from seedjax.train.config import RunConfig


def ideal_step_s(run: RunConfig) -> float:
    """Seconds of a step in which all devices of the job take products at their peak;
    0.0 for devices that are not in the table of chips."""
    devices = jax.devices()
    chip = chip_of_device(devices[0].device_kind)
    if chip is None:
        return 0.0
    return model_operations(run) / (len(devices) * chip.products[run.model.dtype])


def model_operations(run: RunConfig) -> float:
    """Operations that a step of training needs, on all devices together.

    A multiply-add is two. Products with weights and attention over visible positions
    count, forward and backward; recomputation under `remat` and positions that a mask
    hides do not. Rows count as one document each, without padding. An adapter needs no
    gradient of the base, and a teacher no gradient at all.
    """
    model, rows = run.model, run.data.batch_size
    ids: Any = jax.ShapeDtypeStruct((rows, run.data.sequence_length), "int32")
    supervised: Any = jax.ShapeDtypeStruct(ids.shape, "bool")
    batch = Batch(ids, ids, ids, supervised)
    inputs = jax.eval_shape(
        partial(run.objective.corrupt, model=model, stage="mask"),
        jax.eval_shape(lambda: jax.random.key(0)),
        batch,
    )
    num_inputs, num_targets = (
        math.prod(x.shape) for x in (inputs.tokens, inputs.targets)
    )
    weights = num_inputs * layer_operations(model)
    weights += num_targets * 2.0 * model.hidden_size * model.vocab_size
    attention = num_inputs * attention_operations(model, run.data.sequence_length)
    teacher = weights + attention if run.teacher else 0.0
    return (2.0 if run.lora else 3.0) * weights + 3.0 * attention + teacher


def layer_operations(model: DenoiserConfig) -> float:
    """Operations of a token with the weights of all layers; of experts, those that it
    is sent to."""
    total = 0.0
    for name, leaf in named_leaves(denoiser.abstract_params(model)).items():
        if not name.startswith("layers") or not (
            name.endswith(".kernel") or ".experts." in name
        ):
            continue
        share = 1.0
        if ".experts." in name:
            assert model.moe is not None
            share = model.moe.num_selected / model.moe.num_experts
        total += 2.0 * share * leaf.size
    return total


def attention_operations(model: DenoiserConfig, length: int) -> float:
    """Operations of a token's scores and weighted sums in all layers, over the
    positions that it sees on average in a document of `length` tokens."""
    block = 1 if model.attention == "causal" else model.block_size
    visible = length if model.attention == "bidirectional" else (length + block) / 2
    return 4.0 * model.num_layers * model.num_heads * model.head_dim * visible
