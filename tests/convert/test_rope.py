"""Scaled rotary embeddings: every kind that seedjax computes gives transformers' logits
beyond the first context, and any other is refused by name."""

import dataclasses
import json

import compiled
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import config_of, write_checkpoint

from seedjax.batch import Layout
from seedjax.config import DynamicRope, LinearRope, Llama3Rope, YarnRope
from seedjax.convert.checkpoint import open_checkpoint
from seedjax.convert.exporting import export, published_config
from seedjax.convert.families import FAMILIES
from seedjax.convert.fields import Fields
from seedjax.convert.importing import convert, load_params
from seedjax.convert.rope import read_rope
from seedjax.errors import InputError

ORIGINAL = "original_max_position_embeddings"
CONTEXT = {"max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, ORIGINAL: 64}
LLAMA3 |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": LLAMA3,
    "yarn": {"rope_type": "yarn", "factor": 4.0, ORIGINAL: 64},
    "yarn of DeepSeek": {
        **{"type": "yarn", "factor": 8.0, ORIGINAL: 64, "beta_fast": 16.0},
        **{"mscale": 1.0, "mscale_all_dim": 0.5, "truncate": False},
    },
}


def read(config, **context):
    return read_rope(Fields({**CONTEXT, **config, **context}))


@pytest.mark.representative("yarn")
@pytest.mark.parametrize("name", SCALED)
def test_logits_beyond_the_first_context_are_those_of_transformers(name, tmp_path):
    """At 150 positions, of which the model was first trained on 64."""
    transformers = pytest.importorskip("transformers", reason="needs the extra torch")
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    config = config_of("llama") | CONTEXT | {"rope_scaling": SCALED[name]}
    folder = write_checkpoint(tmp_path / "model", "llama", config=config)
    theirs = transformers.LlamaForCausalLM.from_pretrained(folder, dtype="float32")
    tokens = np.random.default_rng(3).integers(4, 80, (1, 150))
    with torch.no_grad():
        expected = theirs.eval()(torch.tensor(tokens)).logits.numpy()
    with open_checkpoint(folder, assignments=["max_positions=256"]) as checkpoint:
        params, found = load_params(checkpoint), checkpoint.config

    def ours(recipe):
        layout = Layout(
            positions=jnp.arange(150, dtype=jnp.int32)[None],
            segments=jnp.ones((1, 150), jnp.int32),
            noisy=jnp.zeros((1, 150), bool),
        )
        return np.asarray(compiled.logits(params, recipe, jnp.asarray(tokens), layout))

    scale = np.abs(expected).max()
    assert np.abs(ours(found) - expected).max() < 1e-4 * scale
    plain = ours(dataclasses.replace(found, rope_scaling=None))
    assert np.abs(plain - expected)[:, 100:].max() > 1e-2 * scale  # it does scale


def test_scaling_is_read_as_transformers_reads_it():
    linear = {"rope_type": "linear", "factor": 2, "rope_theta": 5e5}
    assert read({"rope_scaling": linear})["rope_scaling"] == LinearRope(factor=2.0)
    assert read({"rope_parameters": linear})["rope_theta"] == 5e5
    dynamic = {"type": "dynamic", "factor": 2.0}
    expected = DynamicRope(factor=2.0, original_positions=64)
    assert read({"rope_scaling": dynamic})["rope_scaling"] == expected
    expected = Llama3Rope(factor=8.0, original_positions=64)
    assert read({"rope_scaling": LLAMA3})["rope_scaling"] == expected
    yarn = {"rope_type": "yarn", "factor": 4.0}
    found = read({"rope_scaling": yarn}, **{ORIGINAL: 32})["rope_scaling"]
    assert isinstance(found, YarnRope) and found.original_positions == 32
    assert found.attention_factor == pytest.approx(1.1386, abs=1e-4)
    told = Fields({**CONTEXT, "rope_scaling": "junk"}, by_user={"rope_scaling": None})
    assert "rope_scaling" not in read_rope(told)


@pytest.mark.parametrize("name", ["rope_scaling", "rope_parameters"])
def test_scaling_that_scales_nothing(name):
    for neutral in (
        *(None, {}, {"rope_type": "default"}, {"type": "linear", "factor": 1.0}),
        {"rope_type": "llama3", "factor": 1.0, "low_freq_factor": 1.0},
        {"rope_type": "yarn", "factor": 1.0, "attention_factor": None},
    ):
        found = read({name: neutral})
        assert found.get("rope_scaling") is None and found["rope_theta"] == 10_000.0
    assert read({name: {"rope_theta": 5e5}})["rope_theta"] == 5e5


@pytest.mark.parametrize("name", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({"rope_type": "longrope", "factor": 1.0}, "type 'longrope'; it takes.*'yarn'"),
        ({"rope_type": "proportional", "factor": 2.0}, "'proportional'"),
        ({"rope_type": ["yarn"], "factor": 2.0}, "rotary type"),
        ({"rope_type": "default", "mrope_section": [16, 24]}, "mrope_section"),
        ({"rope_type": "yarn", "factor": 2.0, "low_freq_factor": 1}, "low_freq_factor"),
        ({"rope_type": "llama3"}, "factor is None"),
        ({"rope_type": "llama3", "factor": 8.0}, "low_freq_factor is None"),
        ({"type": "linear", "factor": "1"}, "factor is '1'"),
        ({"rope_type": "linear", "factor": 0.5}, "LinearRope.factor is 0.5"),
        ({"rope_type": "dynamic", "factor": 2.0, ORIGINAL: 32}, "begins at max_pos"),
        ({"rope_type": "default", "rope_theta": float("inf")}, "rope_theta is inf"),
        *((junk, "expected an object") for junk in ([1], "linear", 3, True)),
    ],
)
def test_any_other_scaling_is_refused_by_name(name, value, match):
    with pytest.raises(InputError, match=match):
        read({name: value})


def test_two_places_that_differ_are_refused():
    both = {"rope_scaling": SCALED["linear"], "rope_parameters": SCALED["dynamic"]}
    with pytest.raises(InputError, match="differ; remove one"):
        read(both)


@pytest.mark.parametrize("name", SCALED)
def test_scaling_goes_out_as_it_came(name, tmp_path):
    config = config_of("llama") | CONTEXT | {"rope_scaling": SCALED[name]}
    folder = write_checkpoint(tmp_path / "model", "llama", config=config)
    convert(folder, tmp_path / "converted")
    export(tmp_path / "converted", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert read(written) == read(config)
    with open_checkpoint(folder) as checkpoint:
        recipe = checkpoint.config
    newer = {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}
    again = published_config(FAMILIES["llama"], recipe, newer, "float32")
    assert read(again) == read(config) and "rope_scaling" not in again


def test_set_scaling_by_hand(tmp_path):
    folder = write_checkpoint(tmp_path / "model", "llama")
    told = 'rope_scaling={"kind": "YarnRope", "factor": 4, "original_positions": 256}'
    with open_checkpoint(folder, assignments=[told]) as checkpoint:
        assert checkpoint.config.rope_scaling == YarnRope(
            factor=4.0, original_positions=256
        )
