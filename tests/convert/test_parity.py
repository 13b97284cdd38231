"""Converted models against the networks that the checkpoints come from: transformers
where it has the architecture, plain numpy where it has not."""

import dataclasses
import json
import math

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from checkpoints import (
    BOS,
    EOS,
    HEAD,
    MASK,
    PAD,
    ROWS,
    config_of,
    tensors_of,
    write_checkpoint,
)

from seedjax.batch import Layout
from seedjax.convert.checkpoint import open_checkpoint
from seedjax.convert.fields import Fields
from seedjax.convert.importing import convert, load_params
from seedjax.convert.shapes import READERS
from seedjax.inference.loading import load
from seedjax.nn.cache import create, write

# Largest difference of two logits in float32, over the largest logit: two float32
# programs differ in rounding, which grows with the values. PyTorch itself is up to
# 1e-5 of the scale from float64.
TOLERANCE = 1e-5

TORCH = {
    # family -> architecture and type in transformers
    "llama": ("LlamaForCausalLM", "llama"),
    "qwen2": ("Qwen2ForCausalLM", "qwen2"),
    "qwen3": ("Qwen3ForCausalLM", "qwen3"),
    "qwen3-moe": ("Qwen3MoeForCausalLM", "qwen3_moe"),
    "stable-diffcoder": ("LlamaForCausalLM", "llama"),
    "dream": ("Qwen2ForCausalLM", "qwen2"),
    "fast-dllm-v2": ("Qwen2ForCausalLM", "qwen2"),
    "sdar": ("Qwen3ForCausalLM", "qwen3"),
    "sdar-moe": ("Qwen3MoeForCausalLM", "qwen3_moe"),
    "coda": ("Qwen3ForCausalLM", "qwen3"),
    "illada": ("LlamaForCausalLM", "llama"),
    "a2d-qwen2": ("Qwen2ForCausalLM", "qwen2"),
    "a2d-qwen3": ("Qwen3ForCausalLM", "qwen3"),
}
NUMPY = {
    "llada": reference.llada,
    "llada-moe": reference.mixture,
    "llada2": reference.mixture,
}
SETTINGS = ["dtype=float32", f"mask_token_id={MASK}", f"bos_token_id={BOS}"]
SETTINGS += [f"pad_token_id={PAD}", f"eos_token_ids=[{EOS}]"]
# What the files of these leave open.
OPEN = {
    "a2d-qwen2": ["attention=bidirectional"],
    "a2d-qwen3": ["attention=block_causal"],
}
LENGTH = 12


def visibility(config, present):
    """Which position sees which, [B, T, T]: by the definitions of the three kinds."""
    positions = np.maximum(np.cumsum(present, axis=1) - 1, 0)
    query, key = positions[:, :, None], positions[:, None, :]
    sees = {
        "causal": key <= query,
        "block_causal": key // config.block_size <= query // config.block_size,
        "bidirectional": np.ones_like(key <= query),
    }[config.attention]
    return positions, sees & present[:, None, :] & present[:, :, None]


def torch_model(folder, family):
    """The checkpoint in transformers, without a word about layouts by us."""
    transformers = pytest.importorskip("transformers", reason="needs the extra torch")
    pytest.importorskip("torch", reason="needs the extra torch")
    architecture, model_type = TORCH[family]
    config = config_of(family) | {
        "architectures": [architecture],
        "model_type": model_type,
    }
    write_checkpoint(folder, family, config=config)
    model = getattr(transformers, architecture).from_pretrained(
        folder, attn_implementation="eager", dtype="float32"
    )
    return model.eval()


def torch_logits(model, tokens, positions, sees):
    import torch

    bias = np.where(sees, 0.0, -1e30).astype(np.float32)[:, None]
    with torch.no_grad():
        out = model(
            input_ids=torch.tensor(tokens),
            position_ids=torch.tensor(positions),
            attention_mask=torch.tensor(bias),
            use_cache=False,
        )
    return out.logits.float().numpy()


def reference_logits(folder, family):
    """A function from tokens, positions and visibility to logits."""
    if family in TORCH:
        model = torch_model(folder, family)
        return lambda *given: torch_logits(model, *given)
    weights, config = tensors_of(family), config_of(family)

    def rows(tokens, positions, sees):
        given = zip(tokens, positions, sees, strict=True)
        return np.stack([NUMPY[family](weights, config, *row) for row in given])

    return rows


@pytest.fixture(params=[*TORCH, *NUMPY])
def family(request):
    return request.param


@pytest.fixture
def opened(family, tmp_path):
    """Family, parameters, recipe, and the reference."""
    expected = reference_logits(tmp_path / "reference", family)
    folder = write_checkpoint(tmp_path / family, family)
    told = [*SETTINGS, *OPEN.get(family, [])]
    with open_checkpoint(folder, assignments=told) as checkpoint:
        assert checkpoint.family.name == family
        config = checkpoint.config
        if config.attention == "block_causal":
            config = dataclasses.replace(config, block_size=4)
        return load_params(checkpoint), config, expected


def apart(got, wanted):
    """The largest difference of two arrays over the largest magnitude in the second."""
    return np.abs(got - wanted).max() / np.abs(wanted).max()


def layout_of(positions, present):
    return Layout(
        positions=jnp.asarray(positions, jnp.int32),
        segments=jnp.asarray(present, jnp.int32),
        noisy=jnp.zeros(present.shape, bool),
    )


@pytest.mark.representative(
    "llama", "llada", "dream", "qwen2", "qwen3", "sdar", "coda", "illada"
)
def test_logits_are_those_of_the_original(opened):
    """Without padding, and with padding in front of the second row; the block-causal
    families see three blocks."""
    params, config, expected = opened
    tokens = np.random.default_rng(1).integers(4, 80, (2, LENGTH))
    for pads in (0, 5):
        present = np.ones((2, LENGTH), bool)
        present[1, :pads] = False
        positions, sees = visibility(config, present)
        wanted = expected(tokens, positions, sees)
        got = compiled.logits(
            params, config, jnp.asarray(tokens), layout_of(positions, present)
        )
        assert np.abs(wanted).max() > 1  # the comparison means something
        assert apart(np.asarray(got)[present], wanted[present]) < TOLERANCE


@pytest.mark.representative("stable-diffcoder", "llada2")
def test_logits_with_a_cache_are_those_of_the_original(opened):
    """The first block goes into the cache, the rest sees it there."""
    params, config, expected = opened
    if config.attention == "bidirectional":
        pytest.skip("a full-attention family has no exact cache")
    tokens = np.random.default_rng(2).integers(4, 80, (2, LENGTH))
    present = np.ones((2, LENGTH), bool)
    positions, sees = visibility(config, present)
    wanted = expected(tokens, positions, sees)
    layout, half = layout_of(positions, present), 8
    first, second = (
        jax.tree.map(lambda x, part=part: x[:, part], layout)
        for part in (slice(half), slice(half, None))
    )
    cache = create(config, 2, half)
    forward = compiled.hidden_states(
        params, config, jnp.asarray(tokens[:, :half]), first
    )
    cache = write(cache, forward.entries, first, 0)
    got = compiled.logits(
        params, config, jnp.asarray(tokens[:, half:]), second, cache=cache
    )
    assert apart(np.asarray(got), wanted[:, half:]) < TOLERANCE


def test_head_size_has_a_key_of_its_own():
    """It is hidden size over heads only where the config does not say."""
    config = config_of("qwen3")
    assert READERS["qwen3"](Fields(config | {"head_dim": 16}))["head_dim"] == 16
    assert READERS["qwen3"](Fields(config | {"head_dim": None}))["head_dim"] == HEAD


def decode(expected, config, prompt, count, steps, cut):
    """A plain greedy decode, one row: the surest of each block first, `steps` a block;
    autoregressive where the model is. A bidirectional model sees its whole answer from
    the start, masks and all, and its blocks begin behind the prompt. The last block is
    decoded whole unless it is cut at the budget."""
    banned = sorted({MASK, PAD, BOS, EOS, *range(80, ROWS), 0})
    tokens, end = list(prompt), len(prompt) + count
    size = 1 if config.attention == "causal" else config.block_size
    shift = config.logit_alignment == "shifted"
    whole = config.attention == "bidirectional"
    first = len(prompt) if whole else len(prompt) // size * size
    for start in range(first, end, size):
        stop = min(start + size, end) if whole or cut else start + size
        tokens += [MASK] * ((end if whole else stop) - len(tokens))
        hole = range(max(start, len(prompt)), stop)
        while left := [i for i in hole if tokens[i] == MASK]:
            shown = np.array([tokens if size > 1 else tokens[:start]])
            present = np.ones(shown.shape, bool)
            positions, sees = visibility(config, present)
            logits = expected(shown, positions, sees)[0].astype(np.float64)
            logits[:, banned] = -np.inf
            probabilities = reference.softmax(logits)
            sure = {i: probabilities[i - shift].max() for i in left}
            number = math.ceil(size / steps)
            for i in sorted(left, key=lambda i: -sure[i])[:number]:
                tokens[i] = int(probabilities[i - shift].argmax())
    return tokens[len(prompt) : end]


@pytest.mark.representative("stable-diffcoder-4", "dream-4")
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(1, marks=pytest.mark.slow),
        4,
        pytest.param(32, marks=pytest.mark.slow),
    ],
)
def test_greedy_decodes_are_those_of_the_original(family, steps, tmp_path):
    """Blocks of 32 in 1, 4 and 32 steps, from a prompt that ends inside a block; a
    causal model decodes one token a step."""
    if family in OPEN:
        pytest.skip("no decode settings, and the network of Qwen2 or Qwen3")
    config = config_of(family)
    expected = reference_logits(tmp_path / "reference", family)
    folder = write_checkpoint(tmp_path / family, family, config=config)
    settings = [*SETTINGS, "block_size=32"]
    convert(folder, tmp_path / "model", assignments=settings, dtype="float32")
    model = load(str(tmp_path / "model"))
    whole = model.config.attention == "bidirectional"
    assert model.sampler.context == ("canvas" if whole else "decided")
    if model.config.attention == "causal":
        steps = 1
    prompts = ["abcdefg" * 5, "hij"]
    recipe = {"max_new_tokens": 40, "eos": {"kind": "IgnoreEos"}, "temperature": 0.0}
    recipe |= {"top_p": 1.0}
    if whole:
        recipe["block_size"] = 32
    if model.config.attention != "causal":
        recipe["policy"] = {"kind": "FixedCount", "steps_per_block": steps}
    got = model.generate(prompts, **recipe)
    for prompt, tokens in zip(prompts, got.tokens, strict=True):
        ids = [BOS, *model.tokenizer.encode(prompt)]
        cut = model.sampler.last_block == "cut"
        assert tokens == decode(expected, model.config, ids, 40, steps, cut)


def test_the_config_says_where_each_value_comes_from(tmp_path):
    folder = write_checkpoint(tmp_path / "sdar", "sdar")
    with open_checkpoint(folder, assignments=["block_size=8"]) as checkpoint:
        origins = {s.field: (s.value, s.origin) for s in checkpoint.settled}
    assert origins["block_size"] == (8, "you")
    assert origins["mask_token_id"] == (MASK, "config.json")
    assert origins["logit_alignment"] == ("same_position", "family")
    assert origins["attention"] == ("block_causal", "family")
    assert json.dumps(origins["hidden_size"]) == '[32, "config.json"]'


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_a_drafter_of_pard_drafts_as_in_transformers(family, tmp_path):
    """Turn by turn: masks after the last token, each of which sees those before it."""
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    config = config_of(family) | {"pard_token": MASK, "spd_type": "pard"}
    model = torch_model(tmp_path / "reference", family)
    convert(
        write_checkpoint(tmp_path / "hf", family, config=config),
        tmp_path / "drafter",
        dtype="float32",
    )
    ours, count, budget = load(str(tmp_path / "drafter")), 3, 24
    ids = [EOS, *range(4, 80)]  # that the tokenizer has and ours may write

    def greedy(tokens):
        with torch.no_grad():
            logits = model(torch.tensor([tokens]), use_cache=False).logits[0]
        return [ids[n] for n in logits[:, ids].argmax(dim=-1).tolist()]

    for prompt in ("abc", "dcdcdcdc"):
        given = [*map(int, ours.prompt_ids(prompt))]
        text, turns = given, 0
        while len(text) < len(given) + budget and EOS not in text[len(given) :]:
            drafts = greedy([*text, *[MASK] * (count - 1)])[-count:]
            checked = greedy([*text, *drafts])[-count - 1 :]
            agree = [a == b for a, b in zip(drafts, checked, strict=False)]
            kept = (*agree, False).index(False) + 1
            text, turns = [*text, *checked[:kept]], turns + 1
        found = ours.generate(
            prompt,
            max_new_tokens=budget,
            temperature=0.0,
            speculation={"draft_tokens": count},
        )
        wanted = [*text[len(given) :][:budget], EOS]
        assert found.tokens[0] == wanted[: wanted.index(EOS)]
        assert found.steps == [turns]
        assert turns < len(found.tokens[0])
