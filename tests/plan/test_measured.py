"""Predicted against measured, on the CPU that runs the tests."""

import dataclasses

import pytest

from seedjax.plan.measured import HERE, measure
from seedjax.plan.report import measured_table


@pytest.mark.slow
def test_a_step_of_training_is_held_against_its_bound():
    """The chip is what the probes reached, and a step changes its own state."""
    case = dataclasses.replace(
        HERE, program="train", model="tiny", num_layers=1, batch_size=1, length=16
    )
    (found,) = measure([case], rounds=1, copy_bytes=(1 << 22,), product_sizes=(256,))
    assert found.predicted > 0
    assert 0 < found.fastest <= found.seconds
    assert 0.02 < found.ratio < 1000  # the machine may be busy
    assert found.figures.compile_seconds > 0
    assert "1 rows of 16" in measured_table([found])
