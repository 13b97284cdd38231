"""The number of drafted tokens follows from costs and acceptance."""

import dataclasses

import jax
import pytest
import tiny

from seedjax.inference.drafting import (
    best_count,
    best_speculation,
    num_rows,
    pass_costs,
)
from seedjax.nn import denoiser
from seedjax.nn.gated import gate
from seedjax.nn.lora import LoRA, init_adapter

COSTS = {1: 10.0, 4: 12.0, 9: 16.0}


def test_as_many_as_pay():
    assert best_count(COSTS, [0.6, 0.3]) == 1
    assert best_count({1: 10.0, 4: 10.5, 9: 11.0}, [0.6, 0.3]) == 2
    # As on a CPU on which a row costs nearly a pass, or with drafts that are wrong.
    assert best_count({1: 10.0, 4: 28.0, 9: 60.0}, [0.9, 0.8]) == 0
    assert best_count(COSTS, [0.24, 0.1]) == 0
    assert best_count({1: 1.0}, []) == 0


@pytest.mark.slow
def test_costs_are_measured_on_the_model():
    config = dataclasses.replace(
        tiny.CONFIG, attention="causal", logit_alignment="shifted"
    )
    params = denoiser.init(jax.random.key(0), config)
    lora = LoRA(rank=2)
    params = gate(params, init_adapter(jax.random.key(1), params, lora), lora)
    costs = pass_costs(params, config, [1, 4])
    assert costs.keys() == {num_rows(0), num_rows(1)} and min(costs.values()) > 0.0
    # Nothing is accepted: nothing is drafted.
    assert best_speculation(params, config, [0.0]) is None
