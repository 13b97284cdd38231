"""The figures of a compiled program, for reading, storing and comparing."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from seedjax.chips import Chip, chip_of
from seedjax.nn import denoiser
from seedjax.plan.case import Case, ProgramName, denoiser_of, run_of
from seedjax.plan.chips import compiler_of
from seedjax.plan.costs import Collective, Cost, argument_sizes, cost_of
from seedjax.plan.hlo import read_module
from seedjax.plan.operations import Operations
from seedjax.plan.programs import (
    Program,
    Shapes,
    block_forward,
    mesh_of,
    training_step,
    whole_sampler,
)

AGAIN = 1.01
"""An argument of which more than this is read, over its size, is read again."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Collectives of one kind over the same axes of the mesh, on one device.

    Attributes:
      operation: such as "all-gather".
      axes: of the mesh, with commas between.
      count: how many.
      num_bytes: of their results.
      sent_bytes: what the device sends in a ring.
    """

    operation: str
    axes: str
    count: int
    num_bytes: int
    sent_bytes: int


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Lower bounds of the seconds of a pass, for each of what it has to do; none of
    them knows of the others (the roofline model).

    Attributes:
      products: its arithmetic at the chip's peak.
      memory: its bytes at the bandwidth of main memory.
      links: what it sends, at the bandwidth of one mesh axis.
    """

    products: float
    memory: float
    links: float

    @property
    def total(self) -> float:
        """The largest: as if the others were hidden by it."""
        return max(self.products, self.memory, self.links)

    @property
    def bound_by(self) -> str:
        """The bottleneck: "products", "memory" or "links"."""
        return max(
            ("products", "memory", "links"), key=lambda name: getattr(self, name)
        )


@dataclass(frozen=True, kw_only=True)
class Pass:
    """The work of one pass on one device.

    Attributes:
      name: which: "step", "block" or "ar"; or of a sampler what runs "once", each piece
        of the "prefill", the "first step" of a block, and each "later step".
      hbm_bytes: read from and written to HBM.
      over_least: that, over the least that a pass over a block has to move; 0.0 for
        what is no such pass.
      sent_over_least: what the device sends, over the least that the sharding of a step
        of training takes (`seedjax.plan.exchange`); 0.0 where there is no such least.
      operations: of products of matrices; 0.0 where the compiler's loops are not the
        program's, so that they cannot be told apart.
      seconds: lower bounds.
      collectives: by kind and mesh axes.
      copied: arguments of which the pass makes a copy in HBM, or that it gathers.
      read_again: arguments of which more is read than there is, and how often.
      host_transfers: operations that leave the device.
    """

    name: str
    hbm_bytes: int
    over_least: float
    sent_over_least: float
    operations: float
    seconds: Seconds
    collectives: tuple[Traffic, ...]
    copied: tuple[str, ...]
    read_again: tuple[tuple[str, float], ...]
    host_transfers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A compiled program. Bytes are those of one device.

    Attributes:
      compiler: with its version.
      compile_seconds: on this machine.
      num_parameters: of the model.
      held: bytes of arguments by category.
      argument_bytes: HBM that the arguments take.
      temporary_bytes: HBM that is taken while it runs.
      output_bytes: HBM that the results take, without what replaces arguments.
      memory_size: HBM of a device.
      least_bytes: what a pass over a block has to move; 0 for training.
      least_sent: what a device must send in a step of training: parameters, gradients,
        activations; empty where that is not known.
      unread: why the compiled text could not be read, so that `passes` is empty.
    """

    case: Case
    compiler: str
    compile_seconds: float
    num_parameters: int
    held: tuple[tuple[str, int], ...]
    argument_bytes: int
    temporary_bytes: int
    output_bytes: int
    memory_size: int
    least_bytes: int
    least_sent: tuple[tuple[str, int], ...]
    passes: tuple[Pass, ...]
    unread: str = ""

    @property
    def hbm_bytes(self) -> int:
        """HBM that the program takes in all, without its code."""
        return self.argument_bytes + self.temporary_bytes + self.output_bytes

    @property
    def tokens_per_second(self) -> float:
        """Upper bound: tokens of the batch for training, tokens decoded for "ar"; of a
        forward pass over a block, passes times rows. 0.0 where it is not known."""
        if not self.passes or self.case.program == "sampler":
            return 0.0
        training = self.case.program == "train"
        tokens = self.case.batch_size * (self.case.length if training else 1)
        return tokens / self.passes[0].seconds.total


def plan(case: Case) -> Figures:
    """Compiles a case for its topology and reads the result.

    Raises:
      InputError: if the compiler is missing, the topology or mesh does not exist, or
        the program does not fit into memory.
    """
    mesh = mesh_of(case.topology, case.mesh)
    return figures_of(program_of(case, mesh), case, chip_of(case.topology))


def program_of(case: Case, mesh: Any) -> Program:
    """The program of a case on a mesh."""
    if case.program == "train":
        return training_step(run_of(case), mesh)
    shapes = Shapes(
        weights=case.weights,
        prefix=case.prefix,
        max_new_tokens=case.max_new_tokens,
        batch_size=case.batch_size,
    )
    make = whole_sampler if case.program == "sampler" else block_forward
    return make(denoiser_of(case), shapes, mesh)


def figures_of(program: Program, case: Case, chip: Chip) -> Figures:
    """Compiles a program and reads the result; `chip` says how fast its devices are.

    Raises:
      InputError: if it does not fit into memory.
    """
    began = time.perf_counter()
    compiled = program.compile()
    seconds = time.perf_counter() - began
    return read_figures(compiled, program, case, chip, seconds=seconds)


def read_figures(
    compiled: Any, program: Program, case: Case, chip: Chip, *, seconds: float
) -> Figures:
    """The figures of a program that was compiled in so many seconds."""
    assert program.mesh is not None
    memory = compiled.memory_analysis()
    passes: tuple[Pass, ...] = ()
    unread = ""
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError as error:  # v5p: a check of the printer fails
        unread = str(error).splitlines()[0]
    else:
        passes = _passes(text, program, case, chip)
    params = denoiser.abstract_params(program.config)
    return Figures(
        case=case,
        compiler=compiler_of(program.mesh.devices.flat[0].client.platform),
        compile_seconds=round(seconds, 1),
        num_parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        held=tuple(program.held.items()),
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        output_bytes=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        memory_size=chip.memory_size,
        least_bytes=program.least.total,
        least_sent=_exchange(program),
        passes=passes,
        unread=unread,
    )


def _exchange(program: Program) -> tuple[tuple[str, int], ...]:
    if program.exchange is None:
        return ()
    return tuple((n, round(size)) for n, size in program.exchange._asdict().items())


def _passes(text: str, program: Program, case: Case, chip: Chip) -> tuple[Pass, ...]:
    module = read_module(text)
    cost = cost_of(module, least_move=program.least_kernel, computed=program.computed)
    costs = list(cost.all_loops())
    operations = list(program.operations().all_loops())
    if len(operations) != len(costs):  # the compiler merged or split loops
        operations = [Operations() for _ in costs]
    names = _pass_names(case.program, cost)
    sizes = argument_sizes(module)
    return tuple(
        _pass(name, cost, counted, program, sizes, chip)
        for name, cost, counted in zip(names, costs, operations, strict=True)
    )


def _pass_names(program: ProgramName, cost: Cost) -> Iterator[str]:
    """Names of a cost and its loops, outermost first."""
    known: tuple[str, ...] = ("once", "prefill", "first step", "later step")
    if program != "sampler":
        known = ("step" if program == "train" else program,)
    # How many loops each holds: the sampler's are a prefill, and blocks of steps.
    nest = [len(part.loops) for part in cost.all_loops()]
    if nest == ([2, 0, 1, 0] if program == "sampler" else [0]):
        return iter(known)
    return (f"loop {number}" for number in range(len(nest)))


def _pass(
    name: str,
    cost: Cost,
    operations: Operations,
    program: Program,
    sizes: dict[str, int],
    chip: Chip,
) -> Pass:
    assert program.mesh is not None
    num_devices, least = program.mesh.size, program.least.total
    again = (
        (argument, round(num_bytes / sizes[argument], 2))
        for argument, num_bytes in cost.reads.items()
        if num_bytes > max(AGAIN * sizes[argument], program.least_kernel)
    )
    traffic = traffic_by_axes(cost.collectives.values(), dict(program.mesh.shape))
    sent = sum(each.sent_bytes for each in traffic)
    must_send = program.exchange.total if program.exchange else 0.0
    is_other = name in ("once", "prefill", "step")  # than a pass over a block
    return Pass(
        name=name,
        hbm_bytes=round(cost.hbm_bytes),
        over_least=0.0 if is_other else round(cost.hbm_bytes / least, 3),
        sent_over_least=round(sent / must_send, 3) if must_send else 0.0,
        operations=operations.total / num_devices,
        seconds=Seconds(
            products=math.fsum(
                count / num_devices / chip.products.get(kind, chip.products["bfloat16"])
                for kind, count in operations.products.items()
            ),
            memory=cost.hbm_bytes / chip.memory_bytes,
            links=sent / chip.ring_bytes,
        ),
        collectives=traffic,
        copied=tuple(f"{move.kind} of {move.argument}" for move in cost.moves),
        read_again=() if is_other else tuple(sorted(again)),
        host_transfers=tuple(cost.host_transfers),
    )


def traffic_by_axes(
    collectives: Any, mesh_shape: dict[str, int]
) -> tuple[Traffic, ...]:
    """Collectives by kind and by the axes of the mesh that their groups run along."""
    found: dict[tuple[str, str], list[Collective]] = {}
    for each in collectives:
        key = (each.operation, axes_of(each.group, mesh_shape))
        found.setdefault(key, []).append(each)
    return tuple(
        Traffic(
            operation=operation,
            axes=axes,
            count=sum(each.count for each in group),
            num_bytes=sum(each.num_bytes for each in group),
            sent_bytes=round(sum(each.sent_bytes for each in group)),
        )
        for (operation, axes), group in sorted(found.items())
    )


def axes_of(group: tuple[int, ...], mesh_shape: dict[str, int]) -> str:
    """The mesh axes along which partitions of a group differ, with commas between; all
    that have a size for an empty group."""
    if not group:
        return ",".join(name for name, size in mesh_shape.items() if size > 1)
    places = np.unravel_index(np.array(group), tuple(mesh_shape.values()))
    return ",".join(
        name
        for name, place in zip(mesh_shape, places, strict=True)
        if len(np.unique(place)) > 1
    )
