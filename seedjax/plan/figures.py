"""The figures of a compiled program, for reading, storing and comparing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from seedjax.config import DenoiserConfig
from seedjax.evaluate.report.writer import markdown_table
from seedjax.plan.costs import Collective, Cost, argument_sizes, cost_of
from seedjax.plan.hlo import read_module
from seedjax.plan.programs import (
    Program,
    Shapes,
    Weights,
    block_forward,
    mesh_of,
    whole_sampler,
)

ProgramName = Literal["block", "sampler"]

AGAIN = 1.01
"""An argument of which more than this is read, over its size, is read again."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is compiled, and for what."""

    topology: str = "v5e:2x4"
    mesh: str = "tensor=8"
    program: ProgramName = "block"
    weights: Weights = "bfloat16"
    prefix: int = 2048
    batch_size: int = 1
    max_new_tokens: int = 256


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What one pass moves, on one device.

    Attributes:
      name: which: "block"; or of a sampler what runs "once", each piece of the
        "prefill", the "first step" of a block, and each "later step".
      hbm_bytes: read from and written to HBM.
      over_least: that, over the least that a pass over a block has to move; 0.0 for
        the prefill, which is no such pass.
      collectives: by kind.
      copied: arguments of which the pass makes a copy in HBM, or that it gathers.
      read_again: arguments of which more is read than there is, and how often.
      host_transfers: operations that leave the device.
    """

    name: str
    hbm_bytes: int
    over_least: float
    collectives: tuple[Collective, ...]
    copied: tuple[str, ...]
    read_again: tuple[tuple[str, float], ...]
    host_transfers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A compiled program. Bytes are those of one device."""

    case: Case
    compiler: str  # with its version
    argument_bytes: int  # HBM that the arguments take
    temporary_bytes: int  # HBM that is taken while it runs
    output_bytes: int  # HBM that the results take
    least_bytes: int  # what a pass over a block has to move
    xla_bytes_accessed: int  # cost analysis: all memory spaces, loop bodies once
    passes: tuple[Pass, ...]

    @property
    def hbm_bytes(self) -> int:
        """HBM that the program takes in all, without its code."""
        return self.argument_bytes + self.temporary_bytes + self.output_bytes


def plan(config: DenoiserConfig, case: Case) -> Figures:
    """Compiles a denoiser's program for a TPU topology and reads the result.

    Raises:
      InputError: if libtpu is missing, the topology or mesh does not exist, or the
        program does not fit into memory.
    """
    shapes = Shapes(
        weights=case.weights,
        prefix=case.prefix,
        max_new_tokens=case.max_new_tokens,
        batch_size=case.batch_size,
    )
    make = {"block": block_forward, "sampler": whole_sampler}[case.program]
    return figures_of(make(config, shapes, mesh_of(case.topology, case.mesh)), case)


def figures_of(program: Program, case: Case) -> Figures:
    """Compiles a program and reads the result.

    Raises:
      InputError: if it does not fit into memory.
    """
    compiled: Any = program.compile()
    module = read_module(compiled.as_text())
    cost = cost_of(module, least_move=program.least_kernel)
    memory = compiled.memory_analysis()
    accessed = compiled.cost_analysis()["bytes accessed"]
    sizes = argument_sizes(module)
    names = _pass_names(case.program, cost)
    return Figures(
        case=case,
        compiler=compiler_of(program),
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        output_bytes=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        least_bytes=program.least.total,
        xla_bytes_accessed=int(accessed),
        passes=tuple(
            _pass(name, part, program, sizes)
            for name, part in zip(names, cost.all_loops(), strict=True)
        ),
    )


def compiler_of(program: Program) -> str:
    """The package that compiles for a program's mesh, and JAX, with their versions."""
    assert program.mesh is not None
    platform = program.mesh.devices.flat[0].client.platform
    package = "libtpu" if platform == "tpu" else "jaxlib"
    return f"{package} {metadata.version(package)}, jax {metadata.version('jax')}"


def _pass_names(program: ProgramName, cost: Cost) -> Iterator[str]:
    """Names of a cost and its loops, outermost first."""
    known = (
        ("block",)
        if program == "block"
        else ("once", "prefill", "first step", "later step")
    )
    # How many loops each holds: the sampler's are a prefill, and blocks of steps.
    nest = [len(part.loops) for part in cost.all_loops()]
    if nest == ([0] if program == "block" else [2, 0, 1, 0]):
        return iter(known)
    return (f"loop {number}" for number in range(len(nest)))


def _pass(name: str, cost: Cost, program: Program, sizes: dict[str, int]) -> Pass:
    again = (
        (argument, round(num_bytes / sizes[argument], 2))
        for argument, num_bytes in cost.reads.items()
        if num_bytes > max(AGAIN * sizes[argument], program.least_kernel)
    )
    hbm_bytes, least = round(cost.hbm_bytes), program.least.total
    is_other = name in ("once", "prefill")  # than a pass over a block
    return Pass(
        name=name,
        hbm_bytes=hbm_bytes,
        over_least=0.0 if is_other else round(hbm_bytes / least, 3),
        collectives=tuple(cost.collectives[kind] for kind in sorted(cost.collectives)),
        copied=tuple(f"{move.kind} of {move.argument}" for move in cost.moves),
        read_again=() if is_other else tuple(sorted(again)),
        host_transfers=tuple(cost.host_transfers),
    )


def table(figures: Sequence[Figures]) -> str:
    """The figures in Markdown, a line a pass."""
    rows = []
    for each in figures:
        case = each.case
        for part in each.passes:
            collectives = ", ".join(
                f"{c.count} {c.operation} of {c.num_bytes / 1e6:.1f} MB"
                for c in part.collectives
            )
            rows.append(
                (
                    f"{case.topology}, {case.mesh}",
                    case.weights,
                    str(case.prefix),
                    part.name,
                    f"{part.hbm_bytes / 1e9:.2f}",
                    f"{part.over_least:.2f}" if part.over_least else "-",
                    f"{each.hbm_bytes / 2**30:.2f}",
                    collectives,
                    "; ".join(part.copied) or "nothing",
                )
            )
    head = ("chips", "weights", "prefix", "pass", "GB moved", "over least")
    return markdown_table((*head, "HBM, GiB", "collectives", "copied"), rows)
