import dataclasses

import jax
import numpy as np
import pytest

from seedjax.checkpoints.model_directory import open_model
from seedjax.errors import InputError
from seedjax.inference.loading import load
from seedjax.posttrain import critic as critic_module
from seedjax.posttrain.config import OnPolicyConfig
from seedjax.posttrain.critic import (
    CriticConfig,
    answer_features,
    chance,
    fit_temperature,
    learn_critic,
    load_critic,
    report,
    save_critic,
    train_critic,
)
from seedjax.posttrain.on_policy import verifier_of
from seedjax.posttrain.verifiers import Submission
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.lab.tasks import make_task

CONFIG = CriticConfig(width=8, num_steps=200)


def outcomes(count=600, seed=0):
    """Features of which a direction predicts the outcome, with some noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 6)).astype(np.float32)
    logits = 2.0 * features[:, 0] - 2.0 * features[:, 1]
    return features, rng.random(count) < 1 / (1 + np.exp(-logits))


def test_a_head_learns_what_can_be_foretold():
    features, passed = outcomes()
    head, result = train_critic(features, passed, CONFIG)
    assert result.answers == 75
    assert result.accuracy > 0.7 and result.auc > 0.8
    fresh, truth = outcomes(seed=1)
    said = np.asarray(chance(head, jax.numpy.asarray(fresh)))
    again = report(said, truth)
    assert again.auc > 0.8 and again.calibration_error < 0.1
    # Against the outcomes of others it is no better than chance.
    shuffled = report(said, np.random.default_rng(2).permutation(truth))
    assert shuffled.auc < 0.6


def test_the_report_against_plain_counting():
    said = np.array([0.05, 0.15, 0.15, 0.75, 0.75, 0.95])
    passed = np.array([False, False, True, True, False, True])
    result = report(said, passed)
    assert result.accuracy == pytest.approx(4 / 6)
    pairs = [(g > b) + 0.5 * (g == b) for g in said[passed] for b in said[~passed]]
    assert result.auc == pytest.approx(np.mean(pairs))
    gaps = 1 * 0.05 + 2 * abs(0.15 - 0.5) + 2 * abs(0.75 - 0.5) + 1 * 0.05
    assert result.calibration_error == pytest.approx(gaps / 6)


def test_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=4000) * 2
    passed = rng.random(4000) < 1 / (1 + np.exp(-logits))
    assert fit_temperature(4.0 * logits, passed) == pytest.approx(4.0, rel=0.2)


@pytest.fixture(scope="module")
def submissions(lab_tokenizer):
    from seedjax.tasks.lab.stream import task_prompt

    tasks = [make_task("generate", n, split="train", tier=1, seed=5) for n in range(5)]
    return [
        Submission(
            task,
            task.reference,
            [
                *task_prompt(task, lab_tokenizer),
                *lab_tokenizer.encode(task.reference),
            ],
        )
        for task in tasks
    ]


def test_features_do_not_depend_on_the_batch(lab_model, submissions):
    together = answer_features(lab_model, submissions, rows=8)
    alone = answer_features(lab_model, submissions[2:3], rows=1)
    np.testing.assert_allclose(together[2], alone[0], rtol=1e-4, atol=1e-5)
    assert len({row.tobytes() for row in together}) == 5


def test_a_critic_is_kept_for_its_model(lab_model, submissions, tmp_path):
    features = answer_features(lab_model, submissions * 8)
    passed = np.arange(len(features)) % 2 == 0
    head, result = train_critic(features, passed, CONFIG)
    save_critic(tmp_path, head, CONFIG, result, model_digest="abc")
    critic = load_critic(tmp_path, lab_model, model_digest="abc")
    values = critic.judge(submissions)
    wanted = np.asarray(chance(head, jax.numpy.asarray(features[:5])))
    np.testing.assert_allclose(values, wanted, rtol=1e-4)
    with pytest.raises(InputError, match="another model's"):
        load_critic(tmp_path, lab_model, model_digest="def")
    with pytest.raises(InputError, match="no file"):
        load_critic(tmp_path / "nowhere", lab_model, model_digest="abc")


@pytest.mark.slow
def test_from_a_model_to_a_verifier(lab_model_directory, tmp_path, monkeypatch):
    recipe = CriticConfig(
        model=lab_model_directory,
        **{"num_tasks": 32, "max_new_tokens": 8, "width": 4, "num_steps": 5},
    )
    with pytest.raises(InputError, match="0 of 32 answers passed"):
        learn_critic(recipe, tmp_path)  # the model is random
    examine = critic_module.examine

    def half(*given, **more):
        found = examine(*given, **more)
        verdicts = [
            dataclasses.replace(verdict, passed=n % 2 == 0)
            for n, verdict in enumerate(found.verdicts)
        ]
        return found._replace(verdicts=verdicts)

    monkeypatch.setattr(critic_module, "examine", half)
    done = []
    result = learn_critic(recipe, tmp_path, advance=done.append)
    assert result.answers == 4 and sum(done) == 32
    on_policy = OnPolicyConfig(
        init_from=lab_model_directory, critic=str(tmp_path), critic_weight=3.0
    )
    task = make_task("generate", 0, split="train", tier=1, seed=5)
    model = load(lab_model_directory)
    tokens = model.tokenizer.encode(task.prompt + task.reference)
    submissions = [Submission(task, task.reference, tokens)]
    with Sandbox(1) as sandbox:
        (value,) = verifier_of(on_policy, sandbox).judge(submissions)
    foretold = load_critic(
        tmp_path, model, model_digest=open_model(lab_model_directory).digest()
    ).judge(submissions)
    assert value == pytest.approx((1.0 + 3.0 * foretold[0]) / 4.0, abs=1e-5)


def test_a_recipe_without_a_verifier_is_refused():
    with pytest.raises(InputError, match="tests_weight"):
        OnPolicyConfig(tests_weight=0.0)
    assert OnPolicyConfig(tests_weight=0.0, critic="runs/critic")


def test_a_critic_needs_both_kinds():
    features = np.zeros((20, 3), np.float32)
    with pytest.raises(InputError, match="0 of 20 answers passed"):
        train_critic(features, np.zeros(20, bool), CONFIG)
