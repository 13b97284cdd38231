"""Slots whose finished rows are replaced; what requests get of them is tested with the
`Engine`."""

import dataclasses

import pytest
import tiny

from seedjax.errors import InputError
from seedjax.sampling import slots
from seedjax.sampling.policy import ConfidenceThreshold
from seedjax.sampling.recipe import SamplerConfig

DRAWN = SamplerConfig(
    max_new_tokens=14, policy=ConfidenceThreshold(threshold=0.3), temperature=1.0
)


def test_faults():
    recipe = dataclasses.replace(DRAWN, trace=True)
    with pytest.raises(InputError, match="keeps no record of its slots"):
        slots.empty(tiny.CONFIG, recipe, 2, 8)
