"""Fine-tuning on prompts and responses, from the config file to the tuned model."""

import dataclasses
import functools
import json

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_tokenizers import MAKERS

from seedjax.batch import Batch
from seedjax.checkpoints.model_directory import open_model, save_model
from seedjax.cli.train import show_instructions
from seedjax.config import to_dict
from seedjax.data.instructions import InstructionConfig
from seedjax.diffusion.edit_stage import EditStage
from seedjax.diffusion.objective import Autoregressive, BlockDiffusion, MaskDiffusion
from seedjax.errors import InputError
from seedjax.sampling.recipe import SamplerConfig
from seedjax.text.loading import load_tokenizer
from seedjax.train.config import load_config, match_tokenizer, with_vocabulary
from seedjax.train.metrics import read_jsonl
from seedjax.train.run import train

OBJECTIVES = {
    "causal": Autoregressive(),
    "block_causal": BlockDiffusion(weighting="uniform"),
    "bidirectional": MaskDiffusion(),
}


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """A random model of each way to see, with the tokenizer of a chat model. It has no
    mask token of its own: the diffusion models have an id without a piece."""
    from seedjax.config import DenoiserConfig

    folder = tmp_path_factory.mktemp("starts")
    for file, content in MAKERS["qwen"]().items():
        (folder / file).write_bytes(content)
    tokenizer = load_tokenizer(folder)
    size = tokenizer.vocab_size
    made, params = {}, None
    for attention in OBJECTIVES:
        # As SmolLM2's: padding and the id that stands for a mask are EOS.
        mask = tokenizer.special.eos if attention == "causal" else size
        config = DenoiserConfig(
            vocab_size=size + 1,
            hidden_size=32,
            num_layers=2,
            num_heads=2,
            num_kv_heads=2,
            head_dim=16,
            mlp_size=48,
            max_positions=256,
            block_size=4,
            attention=attention,
            logit_alignment="shifted" if attention == "causal" else "same_position",
            mask_token_id=mask,
            pad_token_id=tokenizer.special.eos,
            eos_token_ids=(tokenizer.special.eos, 0),
        )
        if params is None:  # the same whatever is seen
            params = compiled.init(jax.random.key(0), config)
        made[attention] = folder / attention
        save_model(
            made[attention],
            params=params,
            denoiser=config,
            tokenizer=tokenizer,
            sampler=to_dict(SamplerConfig()),
            provenance={},
            card="# random\n",
        )
    return made


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [{"prompt": f"Say {n}.", "response": "yes it is"} for n in range(30)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def recipe(starts, pairs, attention, *assignments, config="sft"):
    name = f"{__file__.partition('/tests/')[0]}/configs/{config}.py"
    few = ["num_steps=2", "eval_every=2", "log_every=1", "eval_batches=1"]
    few += [f"data.path={pairs}", "data.sequence_length=32", "data.batch_size=4"]
    few += ["data.heldout_fraction=0.3", "eval_samples=1", "loss_chunk=0"]
    return load_config(name, [*few, *assignments], init_from=str(starts[attention]))


@pytest.mark.parametrize("attention", OBJECTIVES)
def test_the_objective_follows_the_start(starts, pairs, attention):
    run = recipe(starts, pairs, attention)
    assert type(run.objective) is type(OBJECTIVES[attention])
    assert run.data.block_size == (4 if attention == "block_causal" else 1)
    run = with_vocabulary(run)
    assert run.data.vocabulary == str(starts[attention] / "tokenizer")
    model = match_tokenizer(run.model, run.data.tokenizer(), started=True)
    assert model.eos_token_ids == open_model(starts[attention]).denoiser.eos_token_ids
    assert model.mask_token_id == run.model.mask_token_id
    with pytest.raises(InputError, match="no mask token"):
        match_tokenizer(run.model, run.data.tokenizer())


@pytest.mark.parametrize("stage", ["mask", "edit"])
@pytest.mark.parametrize("attention", OBJECTIVES)
def test_prompts_weigh_nothing_and_stay_as_they_are(starts, pairs, attention, stage):
    """For every objective, with masks, complementary masks and edits."""
    run = with_vocabulary(recipe(starts, pairs, attention))
    rows = next(iter(run.data.batches("train")))
    batch = Batch(**{name: jnp.asarray(rows[name]) for name in Batch._fields[:4]})
    objectives = [run.objective]
    if attention != "causal":
        edit = EditStage(first_token_id=10, stop_token_id=390, alpha_max=0.5)
        kind = type(run.objective)
        objectives = [dataclasses.replace(run.objective, edit=edit)]
        if stage == "mask":
            objectives.append(kind(weighting="uniform", complementary=True))
    given = np.array(~batch.supervised & (batch.segments > 0))
    length = given.shape[1]
    for objective in objectives:
        corrupt = functools.partial(objective.corrupt, model=run.model, stage=stage)
        shown = jax.jit(corrupt)(jax.random.key(1), batch)
        copies = len(shown.tokens) // len(given)
        noisy = np.array(shown.tokens)[:, -length:]
        prompts = np.tile(given, (copies, 1))
        clean = np.tile(np.array(batch.tokens), (copies, 1))
        np.testing.assert_array_equal(noisy[prompts], clean[prompts])
        weights = np.array(shown.weights)[:, -length:]
        if attention == "causal":  # a position answers for the next one
            weights = np.pad(weights, ((0, 0), (1, 0)))[:, :-1]
        assert (weights[prompts] == 0).all() and weights.sum() > 0


def losses(out):
    return [
        line["loss"] for line in read_jsonl(out / "metrics.jsonl") if "loss" in line
    ]


@pytest.mark.slow
def test_an_adapter_of_a_model_whose_mask_is_its_end(starts, pairs, tmp_path):
    """`sft_lora.py` on an autoregressive start: losses are finite although EOS is a
    target, and the tuned model keeps its ends."""
    run = recipe(starts, pairs, "causal", "lora.rank=2", config="sft_lora")
    assert train(run, tmp_path / "tuned").finished
    assert np.isfinite(losses(tmp_path / "tuned")).all()
    tuned = open_model(tmp_path / "tuned").denoiser
    assert tuned.eos_token_ids == open_model(starts["causal"]).denoiser.eos_token_ids
    assert (tmp_path / "tuned" / "adapter").is_dir()
    # The recipe on disk names the tokenizer, so that the run can be resumed.
    assert train(run, tmp_path / "tuned", resume=True).finished


@pytest.mark.slow
def test_micro_batches_and_meshes_change_nothing(starts, pairs, tmp_path):
    run = recipe(starts, pairs, "causal", "lora.rank=2", config="sft_lora")
    train(run, tmp_path / "whole")
    train(
        dataclasses.replace(run, accumulate=2),
        tmp_path / "halves",
        mesh="data=4,tensor=2",
    )
    found, again = losses(tmp_path / "whole"), losses(tmp_path / "halves")
    np.testing.assert_allclose(found, again, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["block_causal", "bidirectional"])
def test_diffusion_models_are_tuned(starts, pairs, tmp_path, attention):
    run = recipe(
        starts, pairs, attention, "num_steps=60", "optimizer.learning_rate=0.01"
    )
    train(run, tmp_path / "tuned", mesh="fsdp=4,tensor=2")
    found = losses(tmp_path / "tuned")
    assert np.mean(found[-10:]) < 0.5 * np.mean(found[:5])


def test_instructions_need_a_start(pairs, tmp_path):
    with pytest.raises(InputError, match="this model has no chat template"):
        train(recipe({"mini": "mini"}, pairs, "mini"), tmp_path / "out")
    assert isinstance(InstructionConfig().describe(), str)


def test_the_command_says_which_rows_it_uses(starts, pairs, tmp_path, capsys):
    run = recipe(starts, pairs, "causal")
    assert show_instructions(run) == with_vocabulary(run)
    assert capsys.readouterr().err.startswith(f"{pairs}: 30 rows: ")
    (tmp_path / "bad.jsonl").write_text("no JSON\n")
    with pytest.raises(InputError, match="bad.jsonl:1: "):
        show_instructions(recipe(starts, tmp_path / "bad.jsonl", "causal"))
