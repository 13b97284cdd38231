"""A whole on-policy run in miniature: it learns from rollouts, stops in good order,
resumes, and stops itself when quality falls."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.errors import InputError
from seedjax.inference.loading import load
from seedjax.posttrain import on_policy
from seedjax.posttrain.config import OnPolicyConfig, Phase
from seedjax.posttrain.held_out import held_out_tasks
from seedjax.posttrain.on_policy import Keeper, learn_on_policy, require_accepted
from seedjax.sampling.policy import FixedCount, LeftToRight
from seedjax.tasks.lab.stream import LabConfig
from seedjax.train.metrics import RunLog, read_jsonl


class ShortAnswers:
    """Accepts what is shorter than the others: something that a model without any
    skill can learn."""

    def judge(self, submissions):
        lengths = np.array([len(each.text) for each in submissions])
        return (lengths <= np.median(lengths)).astype(np.float32)


@pytest.fixture
def config(lab_model_directory) -> OnPolicyConfig:
    return OnPolicyConfig(
        init_from=lab_model_directory,
        tasks=LabConfig(),
        phases=(
            Phase(steps=2, policy=LeftToRight(threshold=0.3)),
            Phase(steps=2, policy=LeftToRight(threshold=0.2), block_size=8),
        ),
        prompts=2,
        candidates=2,
        max_new_tokens=12,
        temperature=2.0,
        log_every=1,
        eval_every=2,
        eval_tasks=1,
        patience=2,
    )


@pytest.fixture(autouse=True)
def verifier(monkeypatch):
    monkeypatch.setattr(
        on_policy, "verifier_of", lambda config, sandbox: ShortAnswers()
    )


def test_the_exam_asks_what_is_trained_on():
    tasks = LabConfig(generate=0.5, infill=0.0, repair=0.5, edit=0.0)
    asked = held_out_tasks(tasks, 6)
    assert [task.task for task in asked] == ["generate", "repair"] * 3
    assert [task.tier for task in asked] == [1, 1, 2, 2, 3, 3]


@pytest.mark.slow
def test_a_run(config, tmp_path):
    result = learn_on_policy(config, tmp_path / "whole")
    assert result.finished and not result.collapsed and result.step == 4
    assert (tmp_path / "whole" / "speedup.png").read_bytes()[:4] == b"\x89PNG"
    lines = read_jsonl(tmp_path / "whole" / "metrics.jsonl")
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert [line["phase"] for line in steps] == [0, 0, 1, 1]
    for name in (
        *("inverse_length", "divergence", "cross_entropy"),
        *("entropy", "value", "empty_rate"),
    ):
        assert name in steps[0]
    assert [line["step"] for line in lines if "pass_at_1" in line] == [0, 2, 4]
    kept = load(str(tmp_path / "whole"))
    assert kept.config.block_size == 8
    assert kept.sampler.policy == LeftToRight(threshold=0.2)


@pytest.mark.slow
def test_a_run_can_be_cut_off(config, tmp_path):
    learn_on_policy(config, tmp_path / "whole")
    # After the third step: it is called before the first and after each.
    answers = iter([False] * 3 + [True])
    first = learn_on_policy(config, tmp_path / "parts", stop=lambda: next(answers))
    assert not first.finished and 0 < first.step < 4
    with pytest.raises(InputError, match="already holds a run"):
        learn_on_policy(config, tmp_path / "parts")
    second = learn_on_policy(config, tmp_path / "parts", resume=True)
    assert second.finished
    steps, again = (
        [
            line
            for line in read_jsonl(tmp_path / name / "metrics.jsonl")
            if "loss" in line
        ]
        for name in ("whole", "parts")
    )
    for a, b in zip(steps, again, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


def keeper(config, tmp_path, *scores) -> Keeper:
    kept = Keeper(tmp_path, config, load(config.init_from))
    for step, (quality, speed) in enumerate(scores):
        found = {"pass_at_1": quality, "tokens_per_forward": speed}
        kept.consider(step, found, kept._start.params)
    return kept


def test_the_fastest_that_still_passes_is_kept(config, tmp_path):
    kept = keeper(config, tmp_path, (0.8, 1.0), (0.79, 2.0), (0.5, 4.0), (0.79, 1.5))
    assert kept.best_step == 1 and not kept.collapsed
    card = (tmp_path / "README.md").read_text()
    assert "0.800" in card and "0.790" in card and "2.00" in card


def test_a_run_whose_quality_falls_stops(config, tmp_path):
    fallen = ((0.8, 1.0), (0.7, 2.0), (0.6, 3.0))
    assert keeper(config, tmp_path, *fallen).collapsed
    assert not keeper(config, tmp_path, *fallen[:2]).collapsed
    assert not keeper(config, tmp_path, *fallen, (0.8, 1.0)).collapsed


def test_a_step_without_any_good_answer_ends_the_run():
    require_accepted(np.array([0.0, 1.0]), 3)
    with pytest.raises(InputError, match="every answer of step 3 fails"):
        require_accepted(np.zeros(4), 3)


def test_a_loss_that_is_not_finite_ends_the_run():
    log = RunLog([])
    log.hold(7, {"loss": jnp.float32("nan")}, {})
    with pytest.raises(InputError, match="the loss is nan at step 7"):
        log.flush()


def test_refusals(config):
    with pytest.raises(InputError, match="policy"):
        Phase(policy=FixedCount())
    with pytest.raises(InputError, match="candidates"):
        dataclasses.replace(config, candidates=1)
    with pytest.raises(InputError, match="to explore"):
        dataclasses.replace(config, temperature=0.0)
    assert [config.phase(step) for step in (0, 1, 2, 9)] == [
        *config.phases[:1] * 2,
        *config.phases[1:] * 2,
    ]
