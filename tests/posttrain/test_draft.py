"""Gated adapters: what they are trained on, and that they change no text."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import write_checkpoint

from seedjax.checkpoints.adapters import draft_facts, load_adapter
from seedjax.checkpoints.model_directory import open_model
from seedjax.convert.importing import convert
from seedjax.convert.peft import export_adapter, import_adapter, merge
from seedjax.errors import InputError
from seedjax.inference.loading import load
from seedjax.nn.adapted import is_gated
from seedjax.nn.lora import LoRA
from seedjax.posttrain.completions import (
    FILE,
    OwnCompletion,
    read_own_completions,
    write_own_completions,
)
from seedjax.posttrain.draft import (
    DraftConfig,
    acceptance,
    draft_batch,
    draft_rows,
    learn_drafts,
)
from seedjax.sampling.recipe import Speculation
from seedjax.train.config import run_config_file
from seedjax.train.optim import OptimizerConfig


def test_rows_of_a_batch():
    depth, anchor = draft_rows(10, 2, 0.7)
    assert depth.tolist() == [0] * 10 + [1] * 7
    assert anchor.tolist() == [*range(10), *range(7)]
    config = DraftConfig(anchors=10, blocks=(2,), sequence_length=16)
    model = load("mini").config
    rows = [
        OwnCompletion([5, 6, 7], [*range(10, 18)]),
        OwnCompletion([5] * 40, [9] * 8),
    ]
    batch = draft_batch(rows, config, model, 2, np.random.default_rng(0))
    # From the last token of the prompt to two in front of the end, each once.
    used = [a for a in batch.anchors[0, :10].tolist() if a >= 0]
    assert sorted(used) == [*range(2, 9)]
    assert batch.anchors[0, 10:].tolist() == batch.anchors[0, :7].tolist()
    # Of a long prompt the end is kept.
    assert (
        batch.lengths.tolist() == [11, 16] and batch.tokens[1, 8:].tolist() == [9] * 8
    )


def test_acceptance_counts_runs_from_the_first():
    depth, _ = draft_rows(3, 2, 1.0)
    agrees = jnp.array([[True, True, False, False, True, True]])
    rates = acceptance(agrees, jnp.ones((1, 6)), depth)
    np.testing.assert_allclose(rates, [2 / 3, 1 / 3])


def test_the_shipped_config_loads(request):
    path = request.config.rootpath / "configs" / "draft.py"
    config = run_config_file(path, DraftConfig)
    assert [config.block(step) for step in (0, 474, 475, 949)] == [2, 2, 4, 4]


def test_faults(tmp_path):
    file = tmp_path / FILE
    with pytest.raises(InputError, match="posttrain completions"):
        read_own_completions(file, 64)
    file.write_text('{"prompt_tokens": [1], "tokens": [64]}\n')
    with pytest.raises(InputError, match=r":1: give `prompt_tokens`.*from 0 to 63"):
        read_own_completions(file, 64)
    with pytest.raises(InputError, match="merged, it would change the text"):
        LoRA(gated=True)
    with pytest.raises(InputError, match="not all of them 0"):
        DraftConfig(total_variation=0.0, divergence=0.0, cross_entropy=0.0)
    file.write_text('{"prompt_tokens": [1], "tokens": [6, 7, 8, 9]}\n')
    config = DraftConfig(model="mini", completions=str(tmp_path))
    with pytest.raises(InputError, match="drafts are for a causal model"):
        learn_drafts(config, tmp_path.parent / "out")


@pytest.mark.slow
def test_a_model_drafts_for_itself_and_writes_the_same(tmp_path):
    base = str(tmp_path / "base")
    convert(write_checkpoint(tmp_path / "hf", "llama"), base, dtype="float32")
    model = load(base)
    prompts = tmp_path / "prompts.jsonl"
    texts = ["abc", "def", "dcdcdcdc", "ababab", "bad", "a", "ee", "face"]
    prompts.write_text("".join(json.dumps({"prompt": t}) + "\n" for t in texts))
    own = tmp_path / "own"
    own.mkdir()
    assert write_own_completions(model, prompts, own, max_new_tokens=20) == 8
    first = (own / FILE).read_text()
    # What was cut short is written again.
    (own / FILE).write_text(first[:-10])
    assert write_own_completions(model, prompts, own, max_new_tokens=20) == 8
    assert (own / FILE).read_text() == first

    recipe = DraftConfig(
        model=base,
        completions=str(own),
        lora=LoRA(rank=2, alpha=4.0, merge=False, gated=True),
        blocks=(1, 2),
        anchors=8,
        batch_size=2,
        sequence_length=32,
        draft_token_id=7,
        num_steps=8,
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=1),
        dtype="float32",
    )
    steps = iter([False] * 4 + [True])
    out = tmp_path / "out"
    assert learn_drafts(recipe, out, stop=lambda: next(steps)).step == 4
    assert learn_drafts(recipe, out, resume=True).finished
    whole = tmp_path / "whole"
    learn_drafts(recipe, whole)
    again, straight = (
        load_adapter(folder / "adapter", open_model(base))[0] for folder in (out, whole)
    )
    for name, pair in again.items():
        np.testing.assert_allclose(pair.up, straight[name].up, atol=1e-6)
        assert np.abs(pair.up).max() > 0

    facts = draft_facts(out / "adapter")
    assert facts is not None and facts.draft_token_id == 7
    drafting = load(base, adapter=str(out / "adapter"))
    assert is_gated(drafting.params)
    one_pass = Speculation(draft_tokens=2, mode="one_pass", draft_token_id=7)
    for warm in ({"temperature": 0.0}, {"temperature": 1.0}):
        wanted = model.generate(texts, max_new_tokens=20, **warm)
        for speculation in (
            None,
            one_pass,
            dataclasses.replace(one_pass, drafts="both"),
        ):
            found = drafting.generate(
                texts, max_new_tokens=20, speculation=speculation, **warm
            )
            assert found.tokens == wanted.tokens
    eight = load(base, adapter=str(out / "adapter"), quantization="int8")
    same = [
        eight.generate(texts, max_new_tokens=20, speculation=s).tokens
        for s in (None, one_pass)
    ]
    assert same[0] == same[1]

    peft = export_adapter(out / "adapter", tmp_path / "peft", base=base)
    assert json.loads((peft / "adapter_config.json").read_text())["gated"] is True
    back = import_adapter(peft, tmp_path / "back", base=base)
    assert back.config == dataclasses.replace(recipe.lora, targets=back.config.targets)
    with pytest.raises(InputError, match="it acts on drafts alone"):
        merge(base, out / "adapter", tmp_path / "merged")
    with pytest.raises(InputError, match="not on a mesh"):
        load(base, adapter=str(out / "adapter"), mesh="data=8")
