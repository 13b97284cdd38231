"""Lists of shapes become lines."""

import pytest

from seedjax.bench.sweep import (
    Line,
    Sweep,
    lines_of,
    parse_dtype,
    parse_measure,
    parse_quantization,
)
from seedjax.errors import InputError
from seedjax.sampling.policy import ConfidenceThreshold, FixedCount

STEPS = FixedCount(steps_per_block=8)


def test_every_combination_is_a_line_and_idle_fields_make_none():
    sweep = Sweep(
        measures=("decode", "ar", "block", "prefill"),
        batches=(1, 2),
        blocks=(8, 16, 32),
        news=(64, 128),
        policies=(STEPS, ConfidenceThreshold()),
    )
    lines = lines_of(sweep)
    count = {
        measure: sum(line.measure == measure for line in lines)
        for measure in sweep.measures
    }
    # batches x blocks x news x policies, batches x news, batches x blocks, batches
    assert count == {"decode": 24, "ar": 4, "block": 6, "prefill": 2}
    assert len(set(lines)) == len(lines)


def test_lines_come_in_the_order_of_the_measures():
    sweep = Sweep(measures=("ar", "torch:ar", "block"), dtypes=("float32", "bfloat16"))
    assert [(line.library, line.measure, line.dtype) for line in lines_of(sweep)] == [
        ("seedjax", "ar", "float32"),
        ("seedjax", "ar", "bfloat16"),
        ("torch", "ar", "float32"),
        ("torch", "ar", "bfloat16"),
        ("seedjax", "block", "float32"),
        ("seedjax", "block", "bfloat16"),
    ]


def test_against_torch_adds_counterparts():
    sweep = Sweep(
        measures=("prefill", "decode", "python_loop", "ar"),
        quantizations=(None, "int8"),
        against_torch=True,
    )
    others = [
        (line.library, line.measure)
        for line in lines_of(sweep)
        if line.library != "seedjax"
    ]
    assert others == [
        ("torch", "prefill"),
        ("torch", "decode"),
        ("torch", "no_cache"),
        ("torch", "ar"),
        ("transformers", "ar"),
    ]


def test_labels_tell_lines_apart():
    lines = lines_of(
        Sweep(
            measures=("decode", "torch:decode", "block"),
            batches=(1, 4),
            blocks=(8, 16),
            dtypes=("float32", "bfloat16"),
            quantizations=(None, "int8"),
            policies=(None, STEPS),
        )
    )
    assert len({line.label for line in lines}) == len(lines)


def test_operands_are_what_the_products_multiply():
    line = Line(measure="ar", batch=1, prefix=4, block=None, new=4, dtype="bfloat16")
    assert line.operands == "bfloat16"
    (quantized,) = lines_of(Sweep(measures=("ar",), quantizations=("int8",)))
    assert quantized.operands == "int8"
    (weights,) = lines_of(Sweep(measures=("ar",), quantizations=("int8_weights",)))
    assert weights.operands == "float32"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda: Sweep(measures=("ar",), rounds=0), "rounds"),
        (lambda: Sweep(measures=()), "measures"),
        (lambda: Sweep(measures=("ar",), batches=(1, 0)), "batches"),
        (lambda: Sweep(measures=("ar",), news=()), "news"),
        (lambda: Sweep(measures=("speed",)), "no measure 'speed'"),
        (lambda: parse_measure("torch:python_loop"), "of torch"),
        (lambda: parse_measure("mlx:ar"), "library 'mlx'"),
        (lambda: parse_dtype("float16"), "float16"),
        (lambda: parse_quantization("int4"), "int4"),
    ],
)
def test_faults_are_named(fault, said):
    with pytest.raises(InputError, match=said):
        fault()
