"""The Python door: what is taken, and what every refusal says."""

import dataclasses
import json
import os
import subprocess
import sys
import typing
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from text_model import PROMPTS

import seedjax
from seedjax.errors import InputError
from seedjax.sampling import arguments
from seedjax.sampling.options import SamplerOptions
from seedjax.sampling.policy import ConfidenceThreshold, FixedCount, LeftToRight
from seedjax.sampling.recipe import POLICY_WORDS, SamplerConfig

CALLS = """
import inspect, json, sys, textwrap
import numpy as np
import seedjax
from text_model import CONFIG, PROMPTS, RECIPE, params_of
from seedjax.text.sentencepiece import train_tokenizer
from seedjax.inference.model import Model

tokenizer = train_tokenizer([inspect.getsource(textwrap)] * 2, vocab_size=400)
model = Model(params_of(CONFIG), CONFIG, tokenizer, RECIPE)
engine = seedjax.Engine(model, num_slots=1, max_prompt_tokens=8)
names = {"model": model, "engine": engine, "seedjax": seedjax, "np": np}
found = {}
for call in json.load(sys.stdin):
    try:
        found[call] = repr(eval(call, names))
    except seedjax.InputError as error:
        found[call] = f"InputError: {error}"
    except Exception as error:
        found[call] = f"{type(error).__name__}: {error}"
json.dump(found, sys.stdout)
"""

SEED = "give an integer from 0 to 4294967295"
TEXTS = "give a string, or a list of strings"
REFUSED = {
    "model.generate([1])": "prompts[0] is 1, an int; give a string",
    "model.generate(['x', None])": "prompts[1] is None; give a string",
    "model.generate([['a']])": "prompts[0] is ['a'], a list; give a string",
    "model.generate(b'x')": f"prompts is b'x', a bytes; {TEXTS}",
    "model.generate(None)": f"prompts is None; {TEXTS}",
    "model.generate({'a': 1})": f"prompts is {{'a': 1}}, a dict; {TEXTS}",
    "seedjax.generate_checked(model, 5)": f"prompts is 5, an int; {TEXTS}",
    "model.infill(None, 'x')": f"prefix is None; {TEXTS}",
    "model.infill('x', 5)": f"suffix is 5, an int; {TEXTS}",
    "model.infill('x', 'y', length='3')": "length is '3', a str; give an integer of",
    "model.edit(b'x', 'y')": f"code is b'x', a bytes; {TEXTS}",
    "model.edit('x', 5)": f"instruction is 5, an int; {TEXTS}",
    "list(model.stream(5))": "prompt is 5, an int; give a string",
    "model.chat('hello')": "as [{'role': 'user', 'content': 'hello'}]",
    "model.chat(None)": "messages is None; give a list of messages",
    "model.generate('x', seed=True)": f"seed is True, a bool; {SEED}",
    "model.generate('x', seed=1.5)": f"seed is 1.5, a float; {SEED}",
    "model.generate('x', seed='a')": f"seed is 'a', a str; {SEED}",
    "model.generate('x', seed=-1)": f"seed is -1; {SEED}",
    "model.generate('x', seed=2**40)": f"seed is 1099511627776; {SEED}",
    "model.generate('x', seed=[1, 2])": "2 seeds for 1 prompts",
    "list(model.stream('x', seed='a'))": f"seed is 'a', a str; {SEED}",
    "engine.submit('x', seed='a')": f"is 'a', a str; {SEED}",
    "model.generate('x', grammar='[0-9]+')": "Regex(pattern='[0-9]+')",
    "model.generate('x', max_new_tokens='5')": "max_new_tokens is '5'; expected int",
    "model.generate('x', max_new_tokens=True)": "max_new_tokens is True; expected int",
    "model.generate('x', max_new_tokens=1.5)": "max_new_tokens is 1.5; expected int",
    "model.generate('x', temperature='hot')": "is 'hot'; expected float",
    "model.generate('x', temperature=float('nan'))": "temperature is nan; ",
    "model.generate('x', temperature=float('inf'))": "temperature is inf; ",
    "seedjax.SamplerConfig(temperature='hot')": "is 'hot'; expected float",
    "seedjax.SamplerConfig(max_new_tokens='5')": "is '5'; expected int",
    "model.generate('x', stop=5)": f"stop is 5, an int; {TEXTS}",
    "model.generate('x', stop=['a', 5])": "stop[1] is 5, an int; give a string",
    "model.generate('x', forced_tokens='x')": "is 'x', a str; give a mapping",
    "model.generate('x', forced_tokens={'a': 1})": "is 'a', a str; give an integer",
    "model.generate('x', forced_tokens={0: 1.5})": "is 1.5, a float; give an integer",
    "model.generate('x', forced_tokens={0: model.config.mask_token_id})": "the mask",
    "model.generate(np.array(3))": f"prompts is array(3), a ndarray; {TEXTS}",
    "model.generate('x', seed=np.float32(3))": f"a float32; {SEED}",
    "seedjax.Engine('mini')": "model is 'mini'; give a Model",
    "seedjax.load(dtype=np.int8)": "dtype is 'int8'; expected one of 'float32', 'bf",
    "seedjax.load(dtype=5)": "dtype is 5, an int; give 'float32' or 'bfloat16'",
    "model.generate('x', forced_tokens={20: 1})": "20; give an integer from 0 to 19",
    "list(engine.run('ab'))": "prompts is 'ab', a str; give a list",
    "list(engine.run(b'ab'))": "prompts is b'ab', a bytes; give a list",
    "list(engine.run([5]))": "prompt is 5, an int; give a string, or token ids",
    "engine.submit(None)": "prompt is None; give a string, or token ids",
    "engine.submit([1, 'a'])": "prompt[1] is 'a', a str; give an integer from 0",
    "engine.submit([10**9])": "prompt[0] is 1000000000; give an integer from 0",
    "engine.submit('x', max_new_tokens='5')": "is '5', a str; give an integer from 1",
    "seedjax.Engine(model, num_slots='2')": "num_slots is '2', a str",
    "seedjax.Engine(model, max_prompt_tokens=-5)": "is -5; give an integer of at least",
    "seedjax.load(dtype='foo')": "dtype is 'foo'; expected one of 'float32', 'bf",
    "seedjax.load(None)": "model is None; give a name or a directory",
    "seedjax.load(quantization='x')": "quantization is 'x'; it must be one of",
    "seedjax.load(adapter=5)": "adapter is 5, an int",
    "seedjax.load(device='tpu:3')": "device is 'tpu:3'; give None",
    "seedjax.load(device=5)": "device is 5, an int; give None",
    "seedjax.load_exported(None)": "path is None; give a name or a directory",
    "seedjax.export_sampler(model, 'x', batch_size='1')": "batch_size is '1', a str",
    "seedjax.export_sampler(model, 'x', platforms=5)": "platforms is 5, an int",
}
NUMPY = (
    "model.generate(np.array(PROMPTS), seed=np.array([3, 4]), top_k=np.int64(3), "
    "temperature=np.float32(0.5), max_new_tokens=np.int32(6)).tokens"
)
PLAIN = (
    "model.generate(PROMPTS, seed=[3, 4], top_k=3, temperature=0.5, "
    "max_new_tokens=6).tokens"
)


@pytest.mark.slow
def test_the_door():
    """In a process without the type checks of these tests, which would be first."""
    script = CALLS.replace('"np": np', '"np": np, "PROMPTS": PROMPTS')
    run = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps([*REFUSED, NUMPY, PLAIN, "engine.num_waiting"]),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(run.stdout)
    assert found.pop(NUMPY) == found.pop(PLAIN)
    assert found.pop("engine.num_waiting") == "0"
    wrong = {
        call: got
        for call, got in found.items()
        if not got.startswith("InputError: ") or REFUSED[call] not in got
    }
    assert wrong == {}


def test_stop_strings_and_grammars(model):
    for string in ("", "\ufffd", "\ud800"):
        with pytest.raises(InputError, match="stop string"):
            model.generate("x", stop=string)
    with pytest.raises(InputError, match="stop string would cut"):
        model.generate("x", stop="x", grammar=seedjax.Regex(pattern="a"))
    with pytest.raises(InputError, match="one of the two"):
        list(model.stream())


def test_arrays_without_axes_are_numbers():
    assert arguments.seed(np.array(3)) == arguments.seed(jnp.int32(3)) == 3
    for wrong in (np.array(3.0), np.array(True)):
        with pytest.raises(InputError, match="give an integer"):
            arguments.seed(wrong)
    with pytest.raises(InputError, match="give a string"):
        arguments.texts(np.array(3), "prompts")


def test_dtypes_are_names_or_those_of_jax():
    assert arguments.dtype(jnp.bfloat16) == arguments.dtype("bfloat16") == "bfloat16"
    assert arguments.dtype(np.dtype("float32")) == arguments.dtype(np.float32)
    for wrong in ("foo", np.int8, 5, None):
        with pytest.raises(InputError, match="dtype is .*'float32'"):
            arguments.dtype(wrong)


def test_the_mask_is_no_forced_token():
    sizes = {"num_places": 4, "vocab_size": 9, "mask_token_id": 7}
    assert arguments.forced_tokens({0: 8}, **sizes) == {0: 8}
    with pytest.raises(InputError, match=r"forced_tokens\[1\] is 7, the mask"):
        arguments.forced_tokens({0: 8, 1: 7}, **sizes)


def test_sets_within_sets_of_a_pattern_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert seedjax.Regex(pattern="[[:alpha:]]+").bare_pattern == "[[:alpha:]]+"


@pytest.mark.slow
def test_a_device(model):
    assert arguments.device("cpu:3") == jax.devices("cpu")[3]
    assert arguments.device(jax.devices()[1]) == jax.devices()[1]
    place = jax.devices()[2]
    other = seedjax.Model(
        jax.device_put(model.params, place), model.config, model.tokenizer, name="other"
    )
    recipe = {"max_new_tokens": 6, "temperature": 0.0}
    wanted = model.generate(PROMPTS, **recipe).tokens
    assert other.generate(PROMPTS, **recipe).tokens == wanted
    assert "".join(other.stream(PROMPTS[0], **recipe)) == model.tokenizer.decode(
        wanted[0]
    )


def test_options_are_the_fields_of_the_recipe():
    fields = {field.name for field in dataclasses.fields(SamplerConfig)}
    assert {*typing.get_type_hints(SamplerOptions)} == {*fields, *POLICY_WORDS}


def test_words_for_a_policy(model):
    left = SamplerConfig(policy=LeftToRight(threshold=0.7))
    bold = SamplerConfig(policy=FixedCount(steps_per_block=2))
    assert left.vary(threshold=0.5).policy == LeftToRight(threshold=0.5)
    assert left.vary(order="confidence").policy == ConfidenceThreshold(threshold=0.7)
    assert bold.vary(threshold=0.5).policy == ConfidenceThreshold(threshold=0.5)
    assert left.vary(steps=4).policy == FixedCount(steps_per_block=4)
    assert left.vary(steps=None, threshold=None) == left
    for words, message in (
        ({"steps": 4, "order": "left"}, "give steps, or threshold and order"),
        ({"order": "up"}, "order is 'up'; expected one of 'confidence', 'left'"),
        ({"threshold": "x"}, "policy.threshold is 'x'; expected float"),
        ({"steps": 4, "policy": left.policy}, "steps and policy both say"),
    ):
        with pytest.raises(InputError, match=message):
            left.vary(**words)
    assert model.generate("x", steps=1, max_new_tokens=4).texts


def test_what_is_printed_of_a_model(model):
    assert repr(model).startswith("<Model model: ") and "\n" not in repr(model)
    shown = str(model)
    for word in ("parameters", "block_causal in blocks of", "at most 128", "policy"):
        assert word in shown
    assert all(len(line) < 100 for line in shown.splitlines())
