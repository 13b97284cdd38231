"""Meshes, recomputation and batch sizes of a plan, compared.

    all that divide ─ formulas ─▶ those that fit, fastest first ─ two depths ─▶ the best

The formulas are lower bounds that need no compiler: state, saved activations and logits
for memory, and the least that a device must send. The compilers take minutes, so the
first few only are compiled, with 2 and with 4 layers, and continued along the line
through both: in a scan of layers, every layer takes the same.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from seedjax.chips import Chip, chip_of
from seedjax.config import DenoiserConfig
from seedjax.config.denoiser import Remat
from seedjax.errors import InputError
from seedjax.plan.case import Case, denoiser_of, run_of
from seedjax.plan.chips import topology_devices
from seedjax.plan.exchange import least_exchange, of_one_row, tokens_of
from seedjax.plan.figures import Seconds, plan, program_of
from seedjax.plan.programs import bytes_of, mesh_of, placed_base, placed_state
from seedjax.progress import Progress, silent
from seedjax.sharding import make_mesh
from seedjax.train.config import RunConfig

DEPTHS = (2, 4)
"""Layers that are compiled; with one, a compiler would write the scan out."""
BATCHES = (1, 2, 4)
"""Times the batch of the plan."""
REMATS: tuple[Remat, ...] = ("none", "layer")

UNKNOWN = Seconds(products=math.inf, memory=math.inf, links=math.inf)

Basis = Literal["formulas", "2 and 4 layers"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Time and memory that a case would take.

    Attributes:
      basis: where the figures are from.
      hbm_bytes: of a device.
      memory_size: that it has.
      seconds: lower bounds of a pass.
      tokens_per_second: upper bound of all devices together.
      note: why there are no figures of a compiler.
    """

    case: Case
    basis: Basis
    hbm_bytes: int
    memory_size: int
    seconds: Seconds
    tokens_per_second: float
    note: str = ""

    @property
    def fits(self) -> bool:
        return self.hbm_bytes <= self.memory_size and not self.note


def search(
    case: Case, *, num_compiled: int, report: Progress = silent
) -> list[Estimate]:
    """Estimates of a plan's alternatives: those that were compiled first, and of both
    kinds the fastest first; those that do not fit last.

    Args:
      case: a plan of training, or a forward pass over a block.
      num_compiled: how many are compiled, with 2 and with 4 layers.
      report: called with the progress.

    Raises:
      InputError: for a whole sampler, or if no alternative exists.
    """
    if case.program == "sampler":
        raise InputError("--search compares steps of training and passes over a block")
    cases = list(alternatives(case))
    estimates = []
    for number, each in enumerate(cases):
        report("estimating", number, len(cases))
        estimates.append(by_formulas(each))
    estimates.sort(key=_rank)
    compiled = []
    for number, best in enumerate(estimates[:num_compiled]):
        report(f"compiling {best.case.mesh}", number, num_compiled)
        compiled.append(by_depths(best.case))
    report("compiled", num_compiled, num_compiled)
    return sorted(compiled, key=_rank) + estimates[num_compiled:]


def _rank(estimate: Estimate) -> tuple[bool, int, int]:
    """Those that are as fast, to a token per second, by their memory."""
    speed = round(estimate.tokens_per_second)
    return not estimate.fits, -speed, estimate.hbm_bytes


def alternatives(case: Case) -> Iterator[Case]:
    """Cases that differ in mesh, and of training in recomputation and batch: all whose
    rows and heads divide."""
    size, config = len(topology_devices(case.topology)), denoiser_of(case)
    training = case.program == "train"
    batches = [case.batch_size * n for n in BATCHES] if training else [case.batch_size]
    remats = REMATS if training else (case.remat,)
    for mesh, batch, remat in itertools.product(
        meshes(size, config, training), batches, remats
    ):
        rows = math.prod(n for name, n in mesh.items() if name != "tensor")
        if batch % rows == 0:
            written = ",".join(f"{name}={n}" for name, n in mesh.items() if n > 1)
            yield dataclasses.replace(case, mesh=written, batch_size=batch, remat=remat)


def meshes(size: int, config: DenoiserConfig, training: bool) -> list[dict[str, int]]:
    """Sizes of data, fsdp and tensor whose product is `size`; `tensor` divides the key
    heads, and sampling splits no parameter by rows, which it would gather each pass."""
    divisors = [n for n in range(1, size + 1) if size % n == 0]
    return [
        {"data": size // (fsdp * tensor), "fsdp": fsdp, "tensor": tensor}
        for tensor in divisors
        if config.num_kv_heads % tensor == 0
        for fsdp in (divisors if training else [1])
        if size % (fsdp * tensor) == 0
    ]


def by_formulas(case: Case) -> Estimate:
    """Lower bounds of what a case takes, without compiling."""
    chip, mesh = chip_of(case.topology), mesh_of(case.topology, case.mesh)
    sent, width = 0.0, "bfloat16"
    if case.program == "train":
        run = run_of(case)
        held = _state_bytes(of_one_row(run), mesh)[0]
        hbm_bytes, moved = held + activation_bytes(run, mesh), 2 * held
        exchange = least_exchange(run, mesh)
        sent = exchange.total if exchange else 0.0
        row = dataclasses.replace(case, mesh="", batch_size=1)
        operations = _products_of_row(row) * case.batch_size
        width = str(run.model.dtype)
    else:
        program = program_of(case, mesh)
        hbm_bytes, moved = sum(program.held.values()), program.least.total
        operations = program.operations().total
        width = "int8" if case.weights == "int8" else width
    seconds = Seconds(
        products=operations / mesh.size / chip.products[width],
        memory=moved / chip.memory_bytes,
        links=sent / chip.ring_bytes,
    )
    return _estimate(case, "formulas", hbm_bytes, chip, seconds)


@functools.cache
def _state_bytes(run: RunConfig, mesh: Mesh) -> tuple[int, int]:
    """Bytes of a device's share of all that a step holds, and of what is trained."""
    state = placed_state(run, mesh)
    frozen = 0 if run.lora is None else bytes_of(placed_base(run, mesh))
    return bytes_of(state) + frozen, bytes_of(state.params)


@functools.cache
def _products_of_row(case: Case) -> float:
    """Operations of a step on one row: the same on every mesh."""
    here = make_mesh("", jax.devices("cpu")[:1])
    return program_of(dataclasses.replace(case, batch_size=1), here).operations().total


def by_depths(case: Case) -> Estimate:
    """Figures of a case, compiled with few layers and continued to all of them."""
    chip, layers = chip_of(case.topology), denoiser_of(case).num_layers
    try:
        few, more = (plan(dataclasses.replace(case, num_layers=n)) for n in DEPTHS)
    except InputError as error:
        return _estimate(case, "2 and 4 layers", 0, chip, UNKNOWN, str(error))
    if not few.passes or not more.passes:
        return _estimate(case, "2 and 4 layers", 0, chip, UNKNOWN, few.unread)

    def at_depth(of_few: float, of_more: float) -> float:
        slope = (of_more - of_few) / (DEPTHS[1] - DEPTHS[0])
        return of_few + slope * (layers - DEPTHS[0])

    seconds = (each.passes[0].seconds for each in (few, more))
    parts = zip(*(dataclasses.astuple(each) for each in seconds), strict=True)
    hbm_bytes = round(at_depth(float(few.hbm_bytes), float(more.hbm_bytes)))
    products, memory, links = (at_depth(*part) for part in parts)
    total = Seconds(products=products, memory=memory, links=links)
    return _estimate(case, "2 and 4 layers", hbm_bytes, chip, total)


def _estimate(
    case: Case,
    basis: Basis,
    hbm_bytes: int,
    chip: Chip,
    seconds: Seconds,
    note: str = "",
) -> Estimate:
    tokens = case.batch_size * (case.length if case.program == "train" else 1)
    return Estimate(
        case=case,
        basis=basis,
        hbm_bytes=hbm_bytes,
        memory_size=chip.memory_size,
        seconds=seconds,
        tokens_per_second=tokens / seconds.total,
        note=note,
    )


def activation_bytes(run: RunConfig, mesh: Mesh) -> int:
    """Memory of a device for a step of training besides its state, counted by hand:
    gradients, what layers keep for the backward pass, and the larger of a layer made
    again and of the logits of a chunk with their gradients. A lower bound."""
    model, split = run.model, dict(mesh.shape)["tensor"]
    tokens, targets = tokens_of(run, mesh)
    width = jnp.dtype(model.dtype).itemsize
    heads = 2 * (model.num_heads + model.num_kv_heads) * model.head_dim
    whole = (
        width * tokens * (4 * model.hidden_size + (heads + 3 * model.mlp_size) // split)
    )
    kept = jnp.dtype(model.activation_dtype).itemsize * tokens * model.hidden_size
    rows = targets // run.data.sequence_length
    chunk = min(run.loss_chunk or run.data.sequence_length, run.data.sequence_length)
    logits = 2 * 4 * rows * chunk * model.vocab_size // split
    gradients = _state_bytes(of_one_row(run), mesh)[1]
    layers = model.num_layers * (whole if model.remat == "none" else kept)
    return gradients + layers + max(whole, logits)
