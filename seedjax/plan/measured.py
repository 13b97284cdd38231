"""Plans of the device that is here: what they predict, and what is measured.

The chip is described by measuring: the bandwidth and the peak of `seedjax.bench`, in
the same rounds as the programs. So a ratio says how well the count of bytes and
operations predicts seconds, not how good a data sheet is.
"""

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seedjax.bench.measure import Run, take_turns
from seedjax.bench.roofline import peaks, probes
from seedjax.chips import Chip
from seedjax.plan.case import Case
from seedjax.plan.figures import Figures, program_of, read_figures
from seedjax.plan.programs import Program
from seedjax.progress import Progress, silent
from seedjax.sharding import make_mesh

HERE = Case(
    topology="this machine",
    mesh="",
    layer_loop="unroll",
    weights="float32",
    remat="none",
)
CASES = (
    dataclasses.replace(HERE, model="small", prefix=256),
    dataclasses.replace(HERE, model="small", prefix=1024),
    dataclasses.replace(HERE, model="base", prefix=256),
    dataclasses.replace(HERE, program="train", model="tiny", batch_size=8, length=128),
    dataclasses.replace(HERE, program="train", model="small", batch_size=4, length=128),
)
"""Forward passes over a block and steps of training that a laptop runs in seconds."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A plan and what was measured of it.

    Attributes:
      figures: of the compiled program; its chip is the device that ran it.
      seconds: of a call, median of the rounds.
      fastest: seconds of the fastest call.
    """

    figures: Figures
    seconds: float
    fastest: float

    @property
    def predicted(self) -> float:
        """The plan's lower bound of the seconds."""
        return self.figures.passes[0].seconds.total

    @property
    def ratio(self) -> float:
        """Fastest call over predicted; the bound is of fastest calls too."""
        return self.fastest / self.predicted


def measure(
    cases: Sequence[Case] = CASES,
    *,
    rounds: int = 5,
    report: Progress = silent,
    copy_bytes: tuple[int, ...] | None = None,
    product_sizes: tuple[int, ...] | None = None,
) -> list[Measurement]:
    """Compiles cases for the first device that is here, and runs them.

    Args:
      cases: forward passes and steps of training; topology and mesh are not used.
      rounds: in which everything takes its turn.
      report: called with the progress.
      copy_bytes, product_sizes: what bandwidth and peak are measured on, as for
        `seedjax.bench`.
    """
    device = jax.devices()[0]
    mesh = make_mesh("", [device])
    programs, compiled, compile_seconds = [], [], []
    for number, case in enumerate(cases):
        report(f"compiling {case.program} of {case.model}", number, len(cases))
        programs.append(program_of(case, mesh))
        began = time.perf_counter()
        compiled.append(programs[-1].compile())
        compile_seconds.append(time.perf_counter() - began)
    kinds = {kind for each in programs for kind in each.operations().products}
    known = probes(
        kinds & {"float32", "bfloat16", "int8"},
        copy_bytes=copy_bytes,
        product_sizes=product_sizes,
    )
    runs: list[Run] = [_runner(*pair) for pair in zip(programs, compiled, strict=True)]
    timings = take_turns(
        [*runs, *(probe.run for probe in known)], rounds, report=report
    )
    own, of_probes = timings[: len(runs)], timings[len(runs) :]
    reached = peaks({p: t.best for p, t in zip(known, of_probes, strict=True)})

    def chip_for(program: Program) -> Chip:
        held = sum(program.held.values())
        return Chip(
            title=device.device_kind,
            platform=device.platform,
            memory_gib=_memory_gib(device),
            memory_bytes=reached.bandwidth_for(float(held)),
            ring_bytes=1.0,  # there is one device
            products={"bfloat16": reached.flops["float32"], **reached.flops},
            source="measured",
        )

    measurements = []
    for number, (case, program, timing) in enumerate(
        zip(cases, programs, own, strict=True)
    ):
        figures = read_figures(
            compiled[number],
            program,
            case,
            chip_for(program),
            seconds=compile_seconds[number],
        )
        measurements.append(
            Measurement(figures=figures, seconds=timing.median, fastest=timing.best)
        )
    return measurements


def _memory_gib(device: jax.Device) -> float:
    stats = device.memory_stats()
    if stats is not None:
        return stats["bytes_limit"] / 2**30
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def _runner(program: Program, compiled: Any) -> Run:
    """A call of a program on random arguments. A step of training goes on from its own
    state."""
    rng = np.random.default_rng(0)
    arguments = jax.tree.map(lambda x: _random(rng, x), program.arguments)
    held = [arguments]

    def run() -> None:
        results = compiled(*held[0])
        jax.block_until_ready(results)
        if program.donated:
            held[0] = (results[0], *held[0][1:])

    return run


def _random(rng: np.random.Generator, leaf: Any) -> jax.Array:
    """Numbers for an argument: small ones, whole ones that are ids of tokens and
    documents alike, and True."""
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        values = np.abs(rng.normal(scale=0.02, size=leaf.shape))
    elif leaf.dtype == jnp.bool_:
        values = np.ones(leaf.shape, bool)
    else:
        values = rng.integers(1, 64, leaf.shape)
    return jax.device_put(jnp.asarray(values, leaf.dtype), leaf.sharding)
