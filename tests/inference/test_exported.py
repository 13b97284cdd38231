"""Samplers that run without the model's code."""

import json

import jax
import numpy as np
import pytest
from safetensors.flax import load_file
from text_model import CONFIG, PROMPTS

from seedjax.errors import InputError
from seedjax.inference.exported import export_sampler, load_exported

pytest.importorskip("flatbuffers", reason="needs the extra export")


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "sampler"
    return export_sampler(model, path, batch_size=2, max_prompt_tokens=24)


def test_it_answers_as_the_model_does(model, exported):
    sampler = load_exported(exported)
    wanted = model.generate(PROMPTS, seed=3)
    found = sampler.generate(PROMPTS, seed=3)
    assert found.texts == wanted.texts and found.tokens == wanted.tokens
    assert found.compile_seconds > 0 == sampler.generate("x").compile_seconds
    short = sampler.generate(PROMPTS[0], seed=3, max_new_tokens=5)
    assert short.tokens[0] == wanted.tokens[0][:5] or short.new_tokens[0] <= 5


def test_whoever_has_jax_can_call_it(model, exported):
    """Nothing of ours but the numbers in its record."""
    program = jax.export.deserialize(bytearray((exported / "program.bin").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    record = json.loads((exported / "program.json").read_text())
    prompts = np.zeros((2, record["prompt_columns"]), np.int32)
    prompts[:, :3] = [5, 60, 70]
    tokens, lengths, forwards = program.call(
        load_file(exported / "params.safetensors"),
        prompts,
        np.array([3, 3], np.int32),
        np.array([20, 20], np.int32),
        jax.random.key_data(jax.random.split(jax.random.key(1), 2)),
    )[:3]
    assert tokens.shape[0] == 2 and forwards > 1
    assert (np.asarray(lengths) <= 20).all()


@pytest.mark.slow
def test_an_autoregressive_model(causal, tmp_path):
    path = export_sampler(
        causal,
        tmp_path / "ar",
        platforms=["cpu"],
        max_prompt_tokens=24,
        max_new_tokens=9,
    )
    found = load_exported(path).generate(PROMPTS[0], seed=1)
    assert found.texts == causal.generate(PROMPTS[0], seed=1, max_new_tokens=9).texts


def test_faults(model, exported, tmp_path):
    for match, recipe in [
        ("unknown platform 'vax'", {"platforms": ["vax"]}),
        ("batch_size is 0", {"batch_size": 0}),
        ("the model holds 128", {"max_prompt_tokens": 120}),
        ("did you mean 'temperature'", {"temprature": 1.0}),
    ]:
        with pytest.raises(InputError, match=match):
            export_sampler(model, tmp_path / "new", **recipe)
    assert not (tmp_path / "new").exists()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        export_sampler(model, tmp_path)
    with pytest.raises(InputError, match="holds no exported sampler"):
        load_exported(tmp_path)
    sampler = load_exported(exported)
    with pytest.raises(InputError, match="batch_size is 3; this sampler was exported"):
        sampler.generate(["x"] * 3)
    with pytest.raises(InputError, match="max_new_tokens is 21"):
        sampler.generate("x", max_new_tokens=21)
    with pytest.raises(InputError, match="max_prompt_tokens is"):
        sampler.generate("x = 1\n" * 30)
    record = json.loads((exported / "program.json").read_text())
    assert record["max_new_tokens"] == 20 and CONFIG.max_positions == 128
