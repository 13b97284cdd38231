"""The least that devices send each other in a step of training, by its sharding.

Let a parameter have P elements on a device once it is gathered over the axes that split
the rows (data, fsdp, expert), S of them at rest, and R devices that hold the same S. In
a ring, a device sends

    gathers      (P - S) in the compute dtype: of a layer for the forward pass and again
                 for the backward pass, of the output head once, for both
    gradients    (P - S) to scatter their sum, and 2 (R - 1) / R S to add it up over the
                 devices that hold the same part; of kernels in the compute dtype, of
                 the output head, adapters and norms in float32
    activations  2 (T - 1) / T of rows x length x D in the compute dtype, T = `tensor`:
                 two sums a layer forward, two backward, one more where the backward
                 pass makes the layer again; two of embedding and head
    keys         (Q - 1) of a device's own keys and values in the compute dtype,
                 Q = `sequence`: in each layer forward, again where the backward pass
                 makes it again, and their gradients

Of the embedding table, rows that are looked up may be sent instead, if they are fewer.
Frozen weights have no gradients. Not in it: a few scalars, and what balances experts.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from seedjax.batch import Batch
from seedjax.config import DenoiserConfig
from seedjax.nn import denoiser
from seedjax.sharding import named_sharding
from seedjax.train.config import RunConfig
from seedjax.train.state import abstract_state, params_shardings, state_shardings

OVER_ROWS = ("data", "fsdp", "expert")
"""Mesh axes that split the rows of a batch."""


class Exchange(NamedTuple):
    """Bytes that a device sends in a step of training, at least.

    Attributes:
      gathers: parameters.
      gradients: sums of gradients.
      activations: sums over `tensor`.
      keys: keys and values of other positions of a row.
    """

    gathers: float
    gradients: float
    activations: float
    keys: float

    @property
    def total(self) -> float:
        return sum(self)


class _Part(NamedTuple):
    """Elements of a parameter: gathered over the rows' axes, at rest, and how many
    devices hold the same."""

    gathered: int
    rest: int
    copies: int

    @property
    def missing(self) -> int:
        return self.gathered - self.rest

    @property
    def summed(self) -> float:
        """Elements that a device sends to add its gradient up."""
        return self.missing + 2.0 * (self.copies - 1) / self.copies * self.rest


def least_exchange(run: RunConfig, mesh: Mesh) -> Exchange | None:
    """The least that a device sends in a step; None for experts that are spread, whose
    traffic depends on the data."""
    sizes = dict(mesh.shape)
    if run.model.moe is not None and sizes["expert"] > 1:
        return None
    tokens, targets = tokens_of(run, mesh)
    trained, used = _parts_of(of_one_row(run), mesh)
    width = jnp.dtype(run.model.dtype).itemsize
    looked_up = _looked_up(run.model, tokens, sizes)
    gathers = gradients = 0.0
    for name, part in used.items():
        times = 2 if "layers" in name else 1
        sent = float(times * part.missing)
        if "embedding" in name and not run.model.tie_embeddings:
            sent = min(sent, looked_up)
        gathers += width * sent
    for name, part in trained.items():
        sent = part.summed
        if "embedding" in name and not run.model.tie_embeddings:
            sent = min(sent, looked_up)
        gradients += (width if _is_narrow(name, run) else 4) * sent
    return Exchange(
        gathers=gathers,
        gradients=gradients,
        activations=width * _summed_activations(run.model, tokens, targets, sizes),
        keys=width * _shared_keys(run.model, tokens, sizes),
    )


def _is_narrow(name: str, run: RunConfig) -> bool:
    """Whether a gradient travels in the compute dtype."""
    if run.lora is not None or "router" in name:
        return False
    if "embedding" in name:
        own_dtype = run.model.activation_dtype == run.model.dtype
        return own_dtype and not run.model.tie_embeddings
    return "kernel" in name or "experts" in name


def _summed_activations(
    model: DenoiserConfig, tokens: int, targets: int, sizes: dict[str, int]
) -> float:
    """Elements that a device sends to add activations up over `tensor`."""
    ring = 2.0 * (sizes["tensor"] - 1) / sizes["tensor"]
    sums = (5 if model.remat == "layer" else 4) * model.num_layers * tokens
    return ring * (sums + tokens + targets) * model.hidden_size


def _shared_keys(model: DenoiserConfig, tokens: int, sizes: dict[str, int]) -> float:
    """Elements of keys and values that a device sends over `sequence`."""
    times = 3 if model.remat == "layer" else 2
    own = 2 * model.num_kv_heads * model.head_dim * tokens
    return float(times * model.num_layers * own * (sizes["sequence"] - 1))


def of_one_row(run: RunConfig) -> RunConfig:
    """The recipe with a batch of one row, and nothing made again: its state lies as
    that of all others."""
    return dataclasses.replace(
        run,
        accumulate=1,
        data=dataclasses.replace(run.data, batch_size=1),
        model=dataclasses.replace(run.model, remat="none"),
    )


def tokens_of(run: RunConfig, mesh: Mesh) -> tuple[int, int]:
    """Inputs and positions with targets, on one device."""
    size = (run.data.batch_size,)
    rows = named_sharding(mesh, ("batch",), size).shard_shape(size)[0]
    parts = dict(mesh.shape)["sequence"]
    tokens, targets = _tokens_of_row(of_one_row(run))
    return rows * tokens // parts, rows * targets // parts


@functools.cache
def _tokens_of_row(run: RunConfig) -> tuple[int, int]:
    inputs = jax.eval_shape(
        lambda batch: run.objective.corrupt(
            jax.random.key(0), batch, model=run.model, progress=0.0, stage="mask"
        ),
        abstract_batch(run),
    )
    return inputs.tokens.size, inputs.targets.size


@functools.cache
def _parts_of(run: RunConfig, mesh: Mesh) -> tuple[dict[str, _Part], dict[str, _Part]]:
    """Parameters that are trained, and those that a step reads."""
    trained = _parts(abstract_state(run).params, state_shardings(run, mesh).params)
    if run.lora is None:
        return trained, trained
    base = denoiser.abstract_params(run.model)
    return trained, {**_parts(base, params_shardings(run.model, mesh)), **trained}


def abstract_batch(run: RunConfig) -> Batch:
    """Shapes and dtypes of a batch."""
    shape = (run.data.batch_size, run.data.sequence_length)
    dtypes = ("int32", "int32", "int32", "bool")
    leaves: Any = [jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)) for dtype in dtypes]
    return Batch(*leaves)


def _looked_up(model: DenoiserConfig, tokens: int, sizes: dict[str, int]) -> float:
    """Elements of embeddings that a device sends to those that need them, if each holds
    a part of the width of every row."""
    others = math.prod(sizes[name] for name in OVER_ROWS)
    return tokens * model.hidden_size * (others - 1) / others


def _parts(abstract: Any, shardings: Any) -> dict[str, _Part]:
    """How each leaf lies, by its path."""
    parts = {}
    leaves = jax.tree_util.tree_leaves_with_path(abstract)
    for (path, leaf), sharding in zip(leaves, jax.tree.leaves(shardings), strict=True):
        sizes, split = dict(sharding.mesh.shape), 1
        for entry in sharding.spec:
            for name in (entry,) if isinstance(entry, str) else entry or ():
                split *= sizes[name] if name in OVER_ROWS else 1
        rest = math.prod(sharding.shard_shape(leaf.shape))
        holders = math.prod(sizes[name] for name in (*OVER_ROWS, "sequence"))
        parts[jax.tree_util.keystr(path)] = _Part(rest * split, rest, holders // split)
    return parts
