import dataclasses
import json

import pytest

from seedjax.config import DenoiserConfig, MoEConfig, from_dict, override, to_dict
from seedjax.errors import InputError
from seedjax.nn.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip(name):
    config = PRESETS[name]
    assert from_dict(DenoiserConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert hash(config) == hash(dataclasses.replace(config))


MIXTURE = dataclasses.replace(
    preset("mini"),
    moe=MoEConfig(
        num_experts=8, num_selected=2, expert_size=64, num_groups=4, scoring="sigmoid"
    ),
)


def test_mixture_round_trip():
    written = json.loads(json.dumps(to_dict(MIXTURE)))
    assert written["moe"]["kind"] == "MoEConfig"
    assert from_dict(DenoiserConfig, written) == MIXTURE
    del written["moe"]["kind"]  # as in a file written by hand
    assert from_dict(DenoiserConfig, written) == MIXTURE
    assert hash(MIXTURE) != hash(preset("mini"))
    assert override(MIXTURE, ["moe=null"]) == preset("mini")
    assert override(MIXTURE, ["moe.scale=2.5"]).moe.scale == 2.5


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("moe.num_expert=4", "no field 'num_expert'; did you mean 'num_experts'"),
        ('moe={"num_expert": 4}', "no field 'num_expert'; did you mean 'num_experts'"),
        ("moe=4", "expected MoEConfig"),
        ("moe.scoring=tanh", "expected one of 'softmax'"),
        ("moe.num_experts=0", "num_experts is 0; it must be at least 1"),
        ("moe.num_groups=3", "a divisor of num_experts=8"),
        ("moe.num_selected_groups=5", "from 1 to num_groups=4"),
        ("moe.num_selected=3", "from 1 to the 2 experts of the selected groups"),
        ("moe.scale=0", "above 0"),
        ("moe.shared_size=-1", "at least 0"),
        ("moe.num_dense_layers=4", "below num_layers=4"),
    ],
)
def test_bad_mixture_says_what_was_wanted(assignment, message):
    with pytest.raises(InputError, match=message) as error:
        override(MIXTURE, [assignment])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("num_layer=3", "no field 'num_layer'; did you mean 'num_layers'"),
        ("num_layers=three", "expected int"),
        ("num_layers=2.5", "expected int"),
        ("num_layers=true", "expected int"),
        ("attention=sideways", "expected one of 'bidirectional'"),
        ("num_kv_heads=2", "a divisor of num_heads=3"),
        ("mask_token_id=1536", "a token id below vocab_size=1536"),
        ("rope_fraction=0.4", "an even share"),
        ("num_layers", "not of the form"),
        ("num_layers.x=1", "has no fields"),
    ],
)
def test_bad_override_says_what_was_wanted(assignment, message):
    with pytest.raises(InputError, match=message) as error:
        override(preset("mini"), [assignment])
    assert "\n" not in str(error.value)


def test_override_reads_json_values_in_order():
    config = override(
        preset("mini"),
        ["num_layers=7", "rope_theta=10000", "eos_token_ids=[3, 5]", "num_layers=2"],
    )
    assert (config.num_layers, config.eos_token_ids) == (2, (3, 5))
    assert config.rope_theta == 10000.0 and isinstance(config.rope_theta, float)


@pytest.mark.parametrize("turn", [1, -1])
def test_fields_that_go_together_are_checked_when_all_are_set(turn):
    both = ["moe.num_experts=6", "moe.num_groups=3", "moe.num_selected_groups=2"]
    mixture = override(MIXTURE, both[::turn]).moe
    assert (mixture.num_experts, mixture.num_groups) == (6, 3)
    with pytest.raises(InputError, match="a divisor of num_experts=8"):
        override(MIXTURE, both[1:])


def test_a_value_set_whole_takes_the_place_of_what_was_set_within_it():
    small = MoEConfig(num_experts=4, num_selected=1, expert_size=32)
    whole = "moe=" + json.dumps(to_dict(small))
    assert override(MIXTURE, ["moe.scale=2.0", whole]).moe == small
    part = override(MIXTURE, [whole, "moe.scale=2.0"]).moe
    assert part == dataclasses.replace(small, scale=2.0)


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(InputError, match="no preset 'huge'; there are tiny, mini"):
        preset("huge")
