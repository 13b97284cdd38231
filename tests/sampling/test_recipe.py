"""The sampler's recipe: what it refuses, and its way through JSON."""

import dataclasses
import json
import math
import re

import pytest

from seedjax.config import from_dict, to_dict
from seedjax.errors import InputError
from seedjax.nn.presets import preset
from seedjax.sampling.ahead import WorkAhead
from seedjax.sampling.check import block_denoiser, check_recipe
from seedjax.sampling.policy import (
    ConfidenceThreshold,
    FixedCount,
    LeftToRight,
    StochasticOrder,
    SubBlocks,
    TimeSchedule,
)
from seedjax.sampling.recipe import (
    SamplerConfig,
    Speculation,
)
from seedjax.sampling.revision import LevenshteinEdits, Remask, TokenEdits
from seedjax.sampling.stopping import IgnoreEos, StopAtEos
from seedjax.train.config import run_config_file


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
        ("last_token_ids", (-1,)),
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


def test_a_span_takes_its_steps():
    recipe = SamplerConfig(policy=FixedCount(steps_per_block=8))
    span = recipe.for_span(20, 48)
    assert span.block_size == 48 and span.eos == IgnoreEos()
    assert span.policy == FixedCount(steps_per_block=8, of="masked")


def test_steps_keep_the_schedule_of_a_recipe():
    masked = FixedCount(steps_per_block=4, by="margin", of="masked")
    dream = TimeSchedule(steps_per_block=512, eps=0.01)
    for policy in (masked, dream, StochasticOrder(policy=dream)):
        inner = policy.policy if isinstance(policy, StochasticOrder) else policy
        wanted = dataclasses.replace(inner, steps_per_block=7)
        assert SamplerConfig(policy=policy).vary(steps=7).policy == wanted
    assert SamplerConfig().vary(steps=7).policy == FixedCount(steps_per_block=7)


def test_a_threshold_keeps_the_parts_of_a_block():
    recipe = SamplerConfig(policy=SubBlocks(size=4))
    wanted = SubBlocks(size=4, policy=ConfidenceThreshold(threshold=0.5))
    assert recipe.vary(threshold=0.5).policy == wanted
    assert recipe.vary(threshold=0.5, order="left").policy == LeftToRight(threshold=0.5)


def test_blocks_as_long_as_the_answer(config):
    free = dataclasses.replace(config, attention="bidirectional")
    recipe = SamplerConfig(block_size="answer", context="canvas", max_new_tokens=23)
    assert block_denoiser(free, recipe).block_size == 23
    assert recipe.vary(max_new_tokens=9).tokens_per_block(free) == 9
    written = json.loads(json.dumps(to_dict(recipe)))
    assert from_dict(SamplerConfig, written) == recipe
    with pytest.raises(InputError, match="'answer' is for a context that shows"):
        check_recipe(free, recipe.vary(context="decided"))
    with pytest.raises(InputError, match="block_size is 'all'"):
        recipe.vary(block_size="all")


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
    with pytest.raises(InputError, match="has no blocks"):
        grid(causal, None)
    shifted = dataclasses.replace(config, logit_alignment="shifted")
    assert grid(shifted, None) == grid(config, None)


SPECULATION = {"speculation": Speculation()}
LEVENSHTEIN = {"revision": LevenshteinEdits(delete_token_id=4, insert_token_id=5)}
SHIFTED, CAUSAL = {"logit_alignment": "shifted"}, {"attention": "causal"}
FREE = {"attention": "bidirectional"}


@pytest.mark.parametrize(
    ("model", "recipe", "asked", "names"),
    [
        ({}, SPECULATION, {}, ("speculation", "shifted")),
        (SHIFTED, SPECULATION | {"trace": True}, {}, ("speculation", "trace=True")),
        (
            SHIFTED,
            {"speculation": Speculation(draft_token_id=64)},
            {},
            ("token id 64", "63"),
        ),
        (SHIFTED, SPECULATION | {"ahead": WorkAhead()}, {}, ("speculation", "ahead")),
        (SHIFTED, SPECULATION | {"cache": False}, {}, ("speculation", "cache")),
        (SHIFTED, SPECULATION, {"grammar": True}, ("speculation", "grammar")),
        (CAUSAL, {"revision": TokenEdits()}, {}, ("a causal model", "revision")),
        (CAUSAL, {"ahead": WorkAhead()}, {}, ("a causal model", "ahead")),
        (CAUSAL, {"context": "canvas"}, {}, ("causal", "context 'canvas'")),
        (FREE, {"context": "canvas", "ahead": WorkAhead()}, {}, ("ahead", "context")),
        (FREE, {"context": "canvas", "int8_cache": True}, {}, ("int8_cache", "canvas")),
        ({}, {"cache": False, "int8_cache": True}, {}, ("int8_cache", "cache=False")),
        ({}, LEVENSHTEIN | {"ahead": WorkAhead()}, {}, ("LevenshteinEdits", "ahead")),
        ({}, LEVENSHTEIN, {"forced_tokens": True}, ("Levenshtein", "forced_tokens")),
        ({}, {"revision": Remask()}, {"grammar": True}, ("grammar", "Remask")),
        ({}, {"forbidden_token_ids": (9, 64)}, {}, ("the token id 64", "end at 63")),
        ({}, {"trace": True}, {"surface": "stream"}, ("stream", "trace=True")),
        ({}, {"trace": True}, {"surface": "engine"}, ("Engine", "trace=True")),
        ({}, {"trace": True}, {"surface": "exported"}, ("exported", "trace=True")),
        ({}, {"trace": True}, {"surface": "checked"}, ("syntax", "trace=True")),
        (SHIFTED, SPECULATION, {"surface": "checked"}, ("syntax", "speculation")),
        (SHIFTED, SPECULATION, {"surface": "infill"}, ("speculation", "length")),
        ({}, {}, {"surface": "orders"}, ("orders", "trace=True")),
        ({}, {}, {"surface": "evaluation", "grammar": True}, ("eval", "grammar")),
    ],
)
def test_pairs_that_are_refused(config, model, recipe, asked, names):
    """In one line, which names both and says what to drop."""
    config = dataclasses.replace(config, **model)
    with pytest.raises(InputError) as fault:
        check_recipe(config, SamplerConfig(**recipe), **asked)
    line = str(fault.value)
    assert all(name in line for name in names), line
    assert "\n" not in line and re.search("drop|give|change", line)


def test_what_depends_on_a_key():
    for recipe in (
        {"temperature": 0.5},
        {"policy": StochasticOrder()},
        {"revision": Remask()},
    ):
        assert SamplerConfig(**recipe).draws
    assert not SamplerConfig(revision=TokenEdits(), policy=FixedCount()).draws


def test_the_recipe_for_8b_fits_its_model(request):
    """configs/sample_8b.py, as its header calls it."""
    path = request.config.rootpath / "configs" / "sample_8b.py"
    recipe = run_config_file(path, SamplerConfig)
    check_recipe(preset("stable_diffcoder_8b"), recipe)
    assert SamplerConfig().vary(**vars(recipe)) == recipe
