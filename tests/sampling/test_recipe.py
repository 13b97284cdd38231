"""The sampler's recipe: what it refuses, and its way through JSON."""

import dataclasses
import json
import math

import pytest

from seedjax.config import from_dict, to_dict
from seedjax.errors import InputError
from seedjax.sampling.policy import ConfidenceThreshold, FixedCount
from seedjax.sampling.recipe import SamplerConfig, block_denoiser
from seedjax.sampling.stopping import IgnoreEos, StopAtEos


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.5),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", 0),
        ("max_new_tokens", 0),
        ("block_size", 0),
        ("max_steps_per_block", 0),
        ("vocabulary_end", 0),
        ("forbidden_token_ids", (-1,)),
    ],
)
def test_wrong_values_are_refused(field, value):
    with pytest.raises(InputError, match=f"SamplerConfig.{field} is"):
        SamplerConfig(**{field: value})


@pytest.mark.parametrize(
    "recipe",
    [
        SamplerConfig(),
        SamplerConfig(
            policy=FixedCount(steps_per_block=3), eos=IgnoreEos(), block_size=8, top_k=5
        ),
        SamplerConfig(
            context="canvas_dual_cache",
            policy=ConfidenceThreshold(threshold=0.5),
            eos=StopAtEos(min_new_tokens=4),
            forbidden_token_ids=(4, 5),
        ),
    ],
)
def test_json_round_trip(recipe):
    written = json.loads(json.dumps(to_dict(recipe)))
    assert from_dict(SamplerConfig, written) == recipe
    assert hash(recipe) == hash(from_dict(SamplerConfig, written))


def test_vary():
    recipe = SamplerConfig().vary(
        temperature=1, policy={"kind": "FixedCount", "steps_per_block": 2}
    )
    assert recipe.temperature == 1.0
    assert recipe.policy == FixedCount(steps_per_block=2)
    assert recipe.vary(policy=ConfidenceThreshold()).policy == ConfidenceThreshold()
    with pytest.raises(InputError, match="did you mean 'temperature'"):
        SamplerConfig().vary(temprature=1.0)
    with pytest.raises(InputError, match="top_k is 'many'"):
        SamplerConfig().vary(top_k="many")
    with pytest.raises(InputError, match="temperature is -1"):
        SamplerConfig().vary(temperature=-1.0)


def test_an_end_is_never_banned(config):
    recipe = SamplerConfig(forbidden_token_ids=(3, 9))
    assert recipe.banned_ids(config) == (0, 1, 2, 9)
    padding_ends = dataclasses.replace(config, eos_token_ids=(1, 3))
    assert recipe.banned_ids(padding_ends) == (0, 2, 9)


@pytest.mark.parametrize(("length", "steps"), [(5, 8), (16, 8), (20, 8), (7, 1)])
def test_a_span_takes_about_its_steps(length, steps):
    recipe = SamplerConfig(policy=FixedCount(steps_per_block=steps))
    span = recipe.for_span(length, 48)
    assert span.block_size == 48 and span.eos == IgnoreEos()
    per_step = math.ceil(48 / span.policy.steps_per_block)
    assert per_step <= math.ceil(length / steps)
    assert math.ceil(length / per_step) <= steps + 1


def test_which_grids_a_model_takes(config):
    def grid(model, size):
        denoiser = block_denoiser(model, SamplerConfig(block_size=size))
        return denoiser.attention, denoiser.block_size

    assert grid(config, None) == ("block_causal", 4)
    assert grid(config, 2) == ("block_causal", 2)
    with pytest.raises(InputError, match="block size 8 is one that the model cannot"):
        grid(config, 8)
    with pytest.raises(InputError, match="block size 3"):
        grid(config, 3)
    free = dataclasses.replace(config, attention="bidirectional")
    assert grid(free, 7) == ("block_causal", 7)
    causal = dataclasses.replace(config, attention="causal", logit_alignment="shifted")
    with pytest.raises(InputError, match="autoregressive"):
        grid(causal, None)
    shifted = dataclasses.replace(config, logit_alignment="shifted")
    assert grid(shifted, None) == grid(config, None)
