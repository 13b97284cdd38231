"""The PyTorch side does what ours does."""

import dataclasses
import sys

import jax
import numpy as np
import pytest

from seedjax.bench.comparison import BENCHMARKS
from seedjax.bench.decodes import decode_subject
from seedjax.bench.source import Source, as_array
from seedjax.bench.sweep import Line
from seedjax.errors import InputError
from seedjax.nn import denoiser
from seedjax.sampling.ahead import WorkAhead
from seedjax.sampling.policy import ConfidenceThreshold, FixedCount

torch = pytest.importorskip("torch")

sys.path.append(str(BENCHMARKS))
from torch_side.decodes import TorchSide, as_tensor  # noqa: E402
from torch_side.hugging_face import causal_model, transformers_subject  # noqa: E402
from torch_side.network import TorchNetwork  # noqa: E402

SHAPES = {
    "plain": {},
    "grouped": {
        "num_kv_heads": 1,
        "attention_bias": True,
        "tie_embeddings": False,
        "layer_loop": "scan",
    },
    "half rotated": {"qk_norm": True, "rope_fraction": 0.5},
    "normalized": {"qk_norm": True},
    "shifted": {"logit_alignment": "shifted"},
}


def random_source(config, shape: str) -> Source:
    config = dataclasses.replace(
        config, attention="bidirectional", init_scale=0.3, **SHAPES[shape]
    )
    source = Source("random", config, 1)
    params = source.params("float32", None)
    generator = np.random.default_rng(2)

    def vary(leaf):  # biases and norms that matter
        noise = 0.1 * generator.normal(size=leaf.shape)
        return jax.device_put((np.asarray(leaf) + noise).astype(np.float32))

    source._params["float32", None] = jax.tree.map(vary, params)
    return source


def line(measure: str, **fields) -> Line:
    values = {"batch": 2, "prefix": 16, "block": 4, "new": 8, "dtype": "float32"}
    policy = FixedCount(steps_per_block=2)
    return Line(measure=measure, **values | {"policy": policy} | fields)


@pytest.mark.representative("half rotated")
@pytest.mark.parametrize("shape", ["plain", "grouped", "half rotated"])
def test_logits_are_the_same(tiny_config, shape):
    source = random_source(tiny_config, shape)
    config = dataclasses.replace(source.config, attention="block_causal")
    params = source.params("float32", None)
    tokens = as_array(source.prompts(line("ar", prefix=12)))
    layout = denoiser.simple_layout(tokens)
    forward = jax.jit(denoiser.logits, static_argnames="config")
    ours = forward(params, config, tokens, layout)

    network = TorchNetwork(params, config, num_columns=12)
    cache = network.empty_cache(2, 12)
    given = as_tensor(tokens.tolist())
    blocks = torch.arange(8) // config.block_size
    bias = network.bias_of(blocks <= blocks[:, None])
    with torch.inference_mode():
        first = network.hidden_states(given[:, :8], 0, cache, bias=bias)
        second = network.hidden_states(given[:, 8:], 8, cache)
        theirs = network.logits(torch.cat([first, second], dim=1)).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.representative("shifted-fields3")
@pytest.mark.parametrize(
    ("shape", "fields"),
    [
        ("grouped", {"prefix": 14, "new": 7}),  # off the grid
        ("half rotated", {"prefix": 4, "batch": 1}),  # no prefill
        ("plain", {"prefix": 3, "policy": FixedCount(steps_per_block=3)}),
        ("shifted", {"prefix": 9, "new": 10}),
    ],
)
def test_block_decodes_give_the_same_tokens(tiny_config, shape, fields):
    source = random_source(tiny_config, shape)
    ours = decode_subject(source, line("decode", **fields)).run()
    side = TorchSide(source, 64)
    cached, whole = (
        side.subject(line(measure, library="torch", **fields)).run()
        for measure in ("decode", "no_cache")
    )
    assert cached == ours
    assert whole.tokens == ours.tokens
    assert len({token for row in ours.tokens for token in row}) > 1


@pytest.mark.slow
def test_token_by_token_gives_the_same_tokens(tiny_config):
    source = random_source(tiny_config, "grouped")
    asked = line("ar", block=None, policy=None)
    ours = decode_subject(source, asked).run()
    theirs = TorchSide(source, 64).subject(dataclasses.replace(asked, library="torch"))
    assert theirs.run() == ours


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["plain", "grouped", "normalized"])
def test_transformers_give_the_same_tokens(tiny_config, shape):
    pytest.importorskip("transformers")
    source = random_source(tiny_config, shape)
    asked = line("ar", block=None, policy=None)
    ours = decode_subject(source, asked).run()
    theirs = transformers_subject(
        source, dataclasses.replace(asked, library="transformers")
    ).run()
    assert theirs.tokens == ours.tokens


@pytest.mark.slow
def test_bfloat16_runs(tiny_config):
    source = random_source(tiny_config, "plain")
    side = TorchSide(source, 64)
    for measure in ("prefill", "block"):
        asked = line(measure, library="torch", dtype="bfloat16")
        assert side.subject(asked).run() is None
    asked = line("decode", library="torch", dtype="bfloat16")
    assert [len(row) for row in side.subject(asked).run().tokens] == [8, 8]


@pytest.mark.parametrize(
    "fields",
    [
        {"policy": ConfidenceThreshold()},
        {"temperature": 1.0},
        {"ahead": WorkAhead()},
    ],
)
def test_other_recipes_are_refused(tiny_config, fields):
    source = random_source(tiny_config, "plain")
    source.sampler = dataclasses.replace(
        source.sampler, **{k: v for k, v in fields.items() if k != "policy"}
    )
    policy = fields.get("policy", FixedCount())
    with pytest.raises(InputError, match="fixed number of steps"):
        TorchSide(source, 64).subject(line("decode", library="torch", policy=policy))


def test_a_shape_that_transformers_do_not_have_is_refused(tiny_config):
    pytest.importorskip("transformers")
    config = dataclasses.replace(tiny_config, rope_fraction=0.5, attention="causal")
    with pytest.raises(InputError, match="rope_fraction"):
        causal_model({}, config)
