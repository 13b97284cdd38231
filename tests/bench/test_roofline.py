"""Counting, and the bounds that follow."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from seedjax.bench.forwards import block_subject, prefill_subject
from seedjax.bench.roofline import (
    Peaks,
    Work,
    count,
    has_loop,
    peaks,
    probes,
    roof,
)
from seedjax.bench.source import Source
from seedjax.bench.sweep import Sweep, lines_of
from seedjax.sampling import head


def test_the_larger_time_is_the_bound():
    reached = Peaks({1 << 20: 20e9}, {"float32": 300e9})
    bound = roof(Work(flops=30e9, bytes=4e9, least_bytes=1e9), reached, "float32")
    assert bound.memory_seconds == pytest.approx(0.2)
    assert bound.product_seconds == pytest.approx(0.1)
    assert bound.seconds == pytest.approx(0.2)
    assert bound.bound_by == "memory"
    assert bound.least_seconds == pytest.approx(0.1)
    bound = roof(Work(flops=90e9, bytes=4e9, least_bytes=1e9), reached, "float32")
    assert (bound.seconds, bound.bound_by) == (pytest.approx(0.3), "products")


def test_bandwidth_is_that_of_arrays_no_smaller():
    reached = Peaks({8: 50.0, 64: 30.0, 512: 40.0}, {})
    assert reached.bandwidth_for(4.0) == 50.0
    assert reached.bandwidth_for(9.0) == 40.0  # the best of those that are not smaller
    assert reached.bandwidth_for(100.0) == 40.0
    assert reached.bandwidth_for(10_000.0) == 40.0


def test_peaks_are_the_best_of_their_probes():
    found = probes({"float32", "int8"}, copy_bytes=(1 << 12,), product_sizes=(8, 16))
    assert [probe.name for probe in found] == [
        "read and write 0 MiB",
        *("float32 product 8", "float32 product 16"),
        *("int8 product 8", "int8 product 16"),
    ]
    for probe in found:
        probe.run()
        probe.run()
    reached = peaks(dict(zip(found, (1.0, 1.0, 4.0, 2.0, 8.0), strict=True)))
    assert reached.bandwidth == {1 << 12: 2 * (1 << 12)}
    assert reached.flops == {"float32": 2 * 16**3 / 4, "int8": 2 * 16**3 / 8}


def test_operations_and_bytes_of_a_product():
    left = jax.ShapeDtypeStruct((8, 32), jnp.float32)
    right = jax.ShapeDtypeStruct((32, 16), jnp.float32)
    work = count(lambda a, b: a @ b, left, right)
    assert work.flops == 2 * 8 * 32 * 16
    least = 4 * (8 * 32 + 32 * 16 + 8 * 16)
    assert work.least_bytes == least
    assert work.bytes >= least


def test_loops_are_recognised():
    loop = jax.jit(lambda x: jax.lax.fori_loop(0, 9, lambda _, y: y @ y, x))
    plain = jax.jit(lambda x: x @ x)
    x = jnp.ones((4, 4))
    assert has_loop(loop.lower(x).compile())
    assert not has_loop(plain.lower(x).compile())


def product_flops(config, batch: int, length: int, seen: int, *, head: bool) -> int:
    """Operations of all matrix products of a forward pass, by formula."""
    width, inner = config.hidden_size, config.num_heads * config.head_dim
    joined = inner + 2 * config.num_kv_heads * config.head_dim
    kernels = width * joined + inner * width + 3 * width * config.mlp_size
    layer = 2 * length * kernels + 2 * 2 * length * seen * inner
    logits = 2 * length * width * config.vocab_size if head else 0
    return batch * (config.num_layers * layer + logits)


@pytest.mark.representative("unroll")
@pytest.mark.parametrize("layer_loop", ["unroll", "scan"])
def test_a_block_forward_is_counted_whole(tiny_config, layer_loop, monkeypatch):
    # Layers in a loop and the vocabulary in a loop are counted as if they were not.
    monkeypatch.setattr(head, "CHUNK", 128)
    config = dataclasses.replace(
        tiny_config, layer_loop=layer_loop, attention="bidirectional"
    )
    source = Source("random", config, 0)
    (line,) = lines_of(Sweep(measures=("block",), blocks=(8,), prefixes=(32,)))
    subject = block_subject(source, line)
    assert subject.run() is None
    wanted = product_flops(config, 1, 8, 32 + 8, head=True)
    assert wanted < subject.work.flops < 1.3 * wanted  # norms, softmax, and so on
    assert subject.work.bytes >= subject.work.least_bytes > 0


@pytest.mark.slow
def test_a_quantized_block_reads_less(tiny_config):
    pytest.importorskip("qwix")
    source = Source("random", tiny_config, 0)
    sweep = Sweep(measures=("block",), blocks=(4,), quantizations=(None, "int8"))
    floats, integers = (
        block_subject(source, dataclasses.replace(line, prefix=8))
        for line in lines_of(sweep)
    )
    assert integers.run() is None
    assert integers.work.least_bytes < 0.6 * floats.work.least_bytes
    assert integers.line.operands == "int8"


@pytest.mark.slow
def test_a_prefill_is_counted(tiny_config):
    source = Source("random", tiny_config, 0)
    (line,) = lines_of(Sweep(measures=("prefill",), batches=(2,), prefixes=(32,)))
    subject = prefill_subject(source, line)
    assert subject.run() is None
    whole = product_flops(tiny_config, 2, 32, 32, head=False)
    # The last layer stops at its keys and values.
    assert whole / 2 < subject.work.flops < whole
    assert subject.compile_seconds > 0
