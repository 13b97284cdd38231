"""The kernels in Pallas, on and off: what they compute, and the time of each.

Where the device has none of them, they run in Pallas's interpreter: the numbers count,
the times do not, and are not taken.
"""

import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import cached_case

from seedjax.nn.attention import _attend_decode, attend
from seedjax.nn.grouped_product import grouped_product, multiply_ragged
from seedjax.nn.kernels import SWITCH

pytestmark = pytest.mark.accelerator

ON_GPU = jax.default_backend() == "gpu"
ROUNDS = 20


def timed(program: Callable, *arguments) -> tuple[np.ndarray, float]:
    """A result, and the median seconds of a call after the first."""
    result = jax.block_until_ready(program(*arguments))
    seconds = []
    for _ in range(ROUNDS if ON_GPU else 1):
        began = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        seconds.append(time.perf_counter() - began)
    return np.asarray(result, np.float32), statistics.median(seconds)


def compare(
    name: str,
    plain: Callable,
    interpreted: Callable,
    arguments: tuple,
    monkeypatch: pytest.MonkeyPatch,
    record: Callable[[str, object], None],
) -> None:
    """Off, then on; notes the largest difference, relative to the spread of the
    results, and on a device that has the kernel both times."""
    monkeypatch.setenv(SWITCH, "off")
    off, off_s = timed(jax.jit(functools.partial(plain)), *arguments)
    monkeypatch.setenv(SWITCH, name)
    kernel = jax.jit(functools.partial(plain if ON_GPU else interpreted))
    if ON_GPU:
        assert "triton" in kernel.lower(*arguments).as_text()
    on, on_s = timed(kernel, *arguments)
    difference = float(np.max(np.abs(on - off)) / off.std())
    record("kernel", name)
    record("difference", f"{difference:.1e}")
    if ON_GPU:
        record("off_ms", f"{1e3 * off_s:.3f}")
        record("on_ms", f"{1e3 * on_s:.3f}")
    assert difference < 0.05  # both are products of bfloat16


@pytest.mark.parametrize("capacity", [8192, 32_768] if ON_GPU else [1024])
def test_decode(capacity, monkeypatch, record_property):
    """A block of 32 over a cache, heads of the 8 B shape."""
    heads = (32, 8) if ON_GPU else (4, 2)
    case = cached_case(capacity, 32, heads=heads, head_dim=128, dtype="bfloat16")
    plain = functools.partial(attend, dtype="bfloat16")
    kernel = functools.partial(_attend_decode, dtype="bfloat16", interpret=True)
    compare(
        "decode", plain, kernel, (case.queries, case.runs), monkeypatch, record_property
    )


@pytest.mark.parametrize("rows", [32, 1024] if ON_GPU else [32])
def test_experts(rows, monkeypatch, record_property):
    """Rows for 8 of 64 experts each, of the shape of a published model."""
    groups, width, inner = (64, 2048, 1024) if ON_GPU else (8, 64, 48)
    key = jax.random.key(0)
    left = jax.random.normal(key, (8 * rows, width), "bfloat16")
    kernels = jax.random.normal(
        jax.random.fold_in(key, 1), (groups, inner, width), "bfloat16"
    )
    chosen = jax.random.randint(jax.random.fold_in(key, 2), (8 * rows,), 0, groups)
    sizes = jnp.bincount(chosen, length=groups).astype(jnp.int32)
    kernel = functools.partial(
        multiply_ragged,
        dtype="bfloat16",
        transposed=False,
        in_kernel=True,
        interpret=True,
    )
    plain = functools.partial(grouped_product, dtype="bfloat16")
    compare(
        "experts", plain, kernel, (left, kernels, sizes), monkeypatch, record_property
    )
