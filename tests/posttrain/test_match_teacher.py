"""A student that starts from an autoregressive teacher's weights learns its
distributions on what it decodes itself."""

import dataclasses

import jax
import lab_model as random_model
import numpy as np
import pytest

from seedjax.errors import InputError
from seedjax.inference.loading import load
from seedjax.posttrain.match_teacher import (
    MatchTeacherConfig,
    match_loss,
    match_teacher,
    student_of,
)
from seedjax.posttrain.on_policy_batch import lay_out_rows
from seedjax.train.metrics import read_jsonl
from seedjax.train.optim import OptimizerConfig


@pytest.fixture(scope="module")
def teacher(lab_tokenizer, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model") / "teacher"
    return random_model.save(folder, lab_tokenizer, attention="causal")


@pytest.fixture(scope="module")
def config(teacher) -> MatchTeacherConfig:
    return MatchTeacherConfig(
        teacher=teacher,
        prompts=4,
        max_new_tokens=12,
        temperature=2.0,
        num_steps=4,
        eval_every=4,
        eval_tasks=1,
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0, weight_decay=0.0),
    )


loss_in_one_program = jax.jit(match_loss, static_argnums=(4, 5, 6))


def loss_of(config: MatchTeacherConfig, seed: int = 0) -> float:
    """The loss of the student before the first step, on random rows."""
    teacher = load(config.teacher)
    student = student_of(config, teacher)
    rng = np.random.default_rng(seed)
    size = config.block_size
    prompts = [rng.integers(10, 40, 5).tolist() for _ in range(2)]
    completions = [rng.integers(10, 40, 6).astype(np.int32) for _ in range(2)]
    orders = np.tile(np.arange(6, dtype=np.int32), (2, 1))
    batch = jax.device_put(lay_out_rows(prompts, completions, orders, size, 1))
    loss, count = loss_in_one_program(
        *(student.params, teacher.params, batch, jax.random.key(seed)),
        *(student.config, teacher.config, 0),
    )
    assert count > 0
    return float(loss)


def test_with_blocks_of_one_the_student_is_the_teacher(config):
    """Shifted, it then sees what the teacher sees: all tokens before."""
    alone = dataclasses.replace(config, block_size=1, logit_alignment="shifted")
    assert loss_of(alone) == pytest.approx(0.0, abs=1e-5)
    # It is no more with tokens masked in front, or with the mask in the token's place.
    assert loss_of(dataclasses.replace(alone, block_size=4)) > 1e-3
    assert loss_of(dataclasses.replace(alone, logit_alignment="same_position")) > 1e-3


def test_models_that_do_not_fit_are_refused(config, lab_model_directory):
    with pytest.raises(InputError, match="'causal'"):
        loss_of(dataclasses.replace(config, teacher=lab_model_directory))
    eos = load(config.teacher).config.eos_token_ids[0]
    for mask in (eos, 10**6):
        with pytest.raises(InputError, match=f"mask_token_id is {mask}"):
            loss_of(dataclasses.replace(config, mask_token_id=mask))
    with pytest.raises(InputError, match="logit_alignment 'shifted'"):
        loss_of(dataclasses.replace(config, init_from=lab_model_directory))


def test_a_student_goes_on_with_longer_blocks(config, lab_model_directory):
    shifted = dataclasses.replace(config, logit_alignment="shifted", block_size=8)
    shifted = dataclasses.replace(shifted, init_from=lab_model_directory)
    student = student_of(shifted, load(config.teacher))
    assert student.config.block_size == 8 > load(lab_model_directory).config.block_size


@pytest.mark.slow
def test_a_run_learns_and_goes_on(config, tmp_path):
    config = dataclasses.replace(config, num_steps=40, eval_every=40)
    assert match_teacher(config, tmp_path / "whole").finished
    lines = read_jsonl(tmp_path / "whole" / "metrics.jsonl")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
    kept = load(str(tmp_path / "whole"))
    assert kept.config.attention == "block_causal" and kept.config.block_size == 4
    assert kept.sampler.policy == config.policy

    taken = iter(range(20))
    halted = match_teacher(
        config, tmp_path / "two", stop=lambda: next(taken, None) is None
    )
    assert not halted.finished and 0 < halted.step < 40
    assert match_teacher(config, tmp_path / "two", resume=True).finished
    resumed = read_jsonl(tmp_path / "two" / "metrics.jsonl")
    assert [line["loss"] for line in resumed if "loss" in line] == losses
