"""How fast a program could be on this machine: the roofline model.

    seconds >= max(bytes / bandwidth, operations / peak)

Bandwidth and peak are measured in the same rounds as the programs: an array that is
read and written in place, and square matrix products in the dtype that the program
uses. Operations and bytes are what XLA counts in the compiled program. It counts the
body of a loop once, so only single forward passes are counted, with their layers
unrolled and the vocabulary whole. Bytes are those of every fused operation's operands
and results; where such a result stays in a cache, the true bound is lower, down to
`least_bytes`, which the program cannot do without.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seedjax.bench.measure import Run

COPY_BYTES = (8 << 20, 64 << 20, 512 << 20)
PRODUCT_SIZES = (512, 1024, 2048)
PRODUCT_SIZES_OF_ACCELERATORS = (4096, 8192)

Operands = str
"""Type of a product's operands: "float32", "bfloat16" or "int8"."""


class Work(NamedTuple):
    """The work of one call of a program.

    Attributes:
      flops: arithmetic operations, as XLA counts them.
      bytes: read and written, as XLA counts them.
      least_bytes: of the arguments and results, each once.
    """

    flops: float
    bytes: float
    least_bytes: float


class Probe(NamedTuple):
    """A measurement of the machine.

    Attributes:
      name: for the report.
      run: what is timed.
      amount: bytes, or operations, of a call.
      operands: of a product; None where bytes are counted.
      size: bytes of the array, or edge of the matrices.
    """

    name: str
    run: Run
    amount: float
    operands: Operands | None
    size: int


class Peaks(NamedTuple):
    """The performance that the machine reached.

    Attributes:
      bandwidth: bytes per second, by size of the array in bytes.
      flops: operations per second of the fastest product, by operands.
    """

    bandwidth: Mapping[int, float]
    flops: Mapping[Operands, float]

    def bandwidth_for(self, held: float) -> float:
        """Bytes per second for a program that holds so many: the best measured on
        arrays that are not smaller, or on the largest."""
        fitting = [
            rate
            for size, rate in self.bandwidth.items()
            if size >= min(held, max(self.bandwidth))
        ]
        return max(fitting)


class Roof(NamedTuple):
    """Lower bounds of a program's seconds.

    Attributes:
      memory_seconds: counted bytes over bandwidth.
      product_seconds: counted operations over the peak.
      least_seconds: the bound with `least_bytes` for bytes.
    """

    memory_seconds: float
    product_seconds: float
    least_seconds: float

    @property
    def seconds(self) -> float:
        """The bound: the larger of the two."""
        return max(self.memory_seconds, self.product_seconds)

    @property
    def bound_by(self) -> str:
        """The bound's cause: "memory" or "products"."""
        memory = self.memory_seconds > self.product_seconds
        return "memory" if memory else "products"


def probes(
    operands: set[Operands],
    *,
    copy_bytes: tuple[int, ...] | None = None,
    product_sizes: tuple[int, ...] | None = None,
) -> list[Probe]:
    """The measurements of what the machine can do; sizes that are None are chosen
    for the device."""
    if product_sizes is None:
        product_sizes = PRODUCT_SIZES
        if jax.default_backend() != "cpu":
            product_sizes += PRODUCT_SIZES_OF_ACCELERATORS
    return [
        *(_copy(size) for size in copy_bytes or COPY_BYTES),
        *(_product(kind, n) for kind in sorted(operands) for n in product_sizes),
    ]


def _copy(size: int) -> Probe:
    # In place: a fresh result would measure the kernel's handing out of pages.
    add_one = jax.jit(lambda x: x + 1, donate_argnums=0)
    held = [jnp.zeros((size // 4,), jnp.float32)]

    def run() -> None:
        held[0] = add_one(held[0])
        held[0].block_until_ready()

    return Probe(f"read and write {size >> 20} MiB", run, 2.0 * size, None, size)


def _product(operands: Operands, size: int) -> Probe:
    result = jnp.int32 if operands == "int8" else jnp.float32
    left, right = (jnp.ones((size, size), operands) for _ in range(2))
    # Without an argument for the precision, accelerators take float32 for less.
    precision = jax.lax.Precision.HIGHEST if operands == "float32" else None

    @jax.jit
    def multiply(left: Any, right: Any) -> Any:
        return jnp.einsum(
            "mk,nk->mn",
            left,
            right,
            preferred_element_type=result,
            precision=precision,
        )

    def run() -> None:
        multiply(left, right).block_until_ready()

    return Probe(f"{operands} product {size}", run, 2.0 * size**3, operands, size)


def peaks(measured: Mapping[Probe, float]) -> Peaks:
    """The best of all probes, from the seconds of each one's fastest call."""
    bandwidth: dict[int, float] = {}
    flops: dict[Operands, float] = {}
    for probe, seconds in measured.items():
        rate = probe.amount / seconds
        if probe.operands is None:
            bandwidth[probe.size] = rate
        else:
            flops[probe.operands] = max(rate, flops.get(probe.operands, 0.0))
    return Peaks(bandwidth, flops)


def roof(work: Work, peaks: Peaks, operands: Operands) -> Roof:
    """The bounds of a program.

    2 GB and 30 GFLOP at 20 GB/s and 300 GFLOP/s: 100 ms for either.
    """
    bandwidth = peaks.bandwidth_for(work.least_bytes)
    product_seconds = work.flops / peaks.flops[operands]
    return Roof(
        memory_seconds=work.bytes / bandwidth,
        product_seconds=product_seconds,
        least_seconds=max(work.least_bytes / bandwidth, product_seconds),
    )


def count(function: Callable[..., Any], *arguments: Any) -> Work:
    """The work of `function` on arguments that may be abstract, from its compiled
    program. It must have no loop, and no static argument."""
    compiled = jax.jit(function).lower(*arguments).compile()
    return work_of(compiled)


def work_of(compiled: Any) -> Work:
    """The work of a compiled program without loops."""
    analysis = compiled.cost_analysis()
    memory = compiled.memory_analysis()
    return Work(
        flops=float(analysis["flops"]),
        bytes=float(analysis["bytes accessed"]),
        least_bytes=float(memory.argument_size_in_bytes + memory.output_size_in_bytes),
    )


def has_loop(compiled: Any) -> bool:
    """Whether a compiled program has a loop, whose body would be counted once."""
    return " while(" in compiled.as_text()
