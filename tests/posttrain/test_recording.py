"""Recording decodes: what is kept, that it goes on, that it does not depend on the
batch."""

import dataclasses

import jax
import numpy as np
import pytest

from seedjax.checkpoints.model_directory import open_model
from seedjax.data.trajectories import Trajectories, Trajectory
from seedjax.errors import InputError
from seedjax.posttrain import recording
from seedjax.posttrain.recording import (
    Candidate,
    RecordConfig,
    Recorder,
    choose,
    draw_prompt,
    record,
)
from seedjax.posttrain.trajectories import to_block_end
from seedjax.sampling.policy import FixedCount, StochasticOrder
from seedjax.sharding import make_mesh
from seedjax.tasks.lab.stream import LabConfig, task_prompt


@pytest.fixture(scope="module")
def config(lab_model_directory) -> RecordConfig:
    return RecordConfig(
        model=lab_model_directory,
        tasks=LabConfig(),
        num_prompts=6,
        candidates=2,
        rows=4,
        verify=False,
        policy=StochasticOrder(policy=FixedCount(steps_per_block=2)),
        temperature=2.0,  # so that some answers end
        max_new_tokens=24,
    )


def candidate(sample, likelihood, steps, answer=(1, 2)) -> Candidate:
    return Candidate(
        Trajectory(
            sample=sample,
            prompt=np.array([7], np.int32),
            answer=np.array(answer, np.int32),
            order=np.arange(len(answer), dtype=np.int32),
            log_likelihood=likelihood,
            passed=None,
        ),
        steps,
    )


def test_the_best_candidates_are_kept():
    candidates = [
        candidate(0, -3.0, 4),
        candidate(0, -1.0, 9, (1, 3)),
        candidate(0, -0.5, 8, (1, 4)),
        candidate(1, -9.0, 5, (2, 2, 2, 2)),
        candidate(1, -8.0, 5),
        candidate(2, -1.0, 5),
    ]
    verdicts = [True, True, False, True, True, False]

    def kept(**changes):
        config = RecordConfig(candidates=8, **changes)
        found = choose(candidates, config, verdicts)
        assert all(each.passed for each in found)
        return [(each.sample, each.log_likelihood) for each in found]

    assert kept() == [(0, -1.0), (1, -8.0)]
    assert kept(keep=2) == [(0, -1.0), (0, -3.0), (1, -8.0), (1, -9.0)]
    assert kept(criterion="fewest_steps")[0] == (0, -3.0)
    assert kept(criterion="likelihood_per_token")[1] == (1, -9.0)


def test_candidates_that_would_all_be_the_same_are_refused(lab_model):
    one = RecordConfig()
    assert one.sampler(lab_model).policy == lab_model.sampler.policy
    assert dataclasses.replace(one, candidates=2, temperature=0.5).sampler(lab_model)
    with pytest.raises(InputError, match="StochasticOrder"):
        dataclasses.replace(one, candidates=2).sampler(lab_model)


def test_equal_decodes_are_kept_once():
    twice = [candidate(0, -1.0, 4), candidate(0, -1.0, 4)]
    assert len(choose(twice, RecordConfig(candidates=2, keep=2), [None, None])) == 1


def test_answers_are_closed():
    tokens, order = to_block_end(2, np.array([5, 6, 9]), np.array([0, 0, 1]), 9, 4)
    assert tokens.tolist() == [5, 6, 9, 9, 9, 9]
    assert order.tolist() == [0, 0, 1, 1, 1, 1]


@pytest.mark.slow
def test_candidates_do_not_depend_on_their_batch(lab_model, config):
    tasks = [draw_prompt(config, n) for n in range(4)]
    mesh = make_mesh("data=1", jax.devices()[:1])

    def all_of(changed):
        recorder = Recorder(lab_model, changed, mesh)
        found = {}
        for chosen in recorder.batches(tasks):
            for each in recorder.candidates(tasks, chosen, first=0):
                trajectory = each.trajectory
                assert trajectory.sample in chosen
                found.setdefault(trajectory.sample, []).append(
                    (trajectory.answer.tobytes(), trajectory.order.tobytes())
                )
        return found

    few = all_of(config)
    assert few == all_of(dataclasses.replace(config, rows=8))
    assert any(len(set(each)) == 2 for each in few.values())


@pytest.mark.slow
def test_recording_can_be_cut_off(config, tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "PART_PROMPTS", 3)
    whole = record(config, tmp_path / "whole")
    assert whole.prompts == 6 and len(whole.parts) == 2
    assert whole.trajectories > 0
    assert whole.model == open_model(config.model).digest()
    half = dataclasses.replace(config, num_prompts=3)
    record(half, tmp_path / "parts")
    done = []
    record(config, tmp_path / "parts", report=lambda *told: done.append(told))
    assert done[0] == ("decoding", 3, 6) and done[-1] == ("decoding", 6, 6)
    pairs = zip(
        Trajectories(tmp_path / "whole"), Trajectories(tmp_path / "parts"), strict=True
    )
    for a, b in pairs:
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    other = dataclasses.replace(config, temperature=1.0)
    with pytest.raises(InputError, match="another settings"):
        record(other, tmp_path / "parts")


@pytest.mark.slow
def test_trajectories_are_whole_blocks(config, tmp_path):
    record(config, tmp_path)
    for each in Trajectories(tmp_path):
        assert (len(each.prompt) + len(each.answer)) % 4 == 0
        assert each.log_likelihood < 0
        assert len(each.order) == len(each.answer)
        steps = np.unique(each.order)
        assert steps.tolist() == list(range(len(steps)))


@pytest.mark.slow
def test_references_stand_in_where_nothing_passes(config, tmp_path):
    """Random weights solve nothing: all that is kept are the tasks' own answers."""
    asked = dataclasses.replace(config, verify=True, references=True)
    assert record(asked, tmp_path).trajectories == 6
    tokenizer = asked.tasks.tokenizer()
    for each in Trajectories(tmp_path):
        task = draw_prompt(asked, each.sample)
        assert each.prompt.tolist() == task_prompt(task, tokenizer)
        text = tokenizer.encode(task.reference)
        assert each.answer[: len(text)].tolist() == text
        assert set(each.answer[len(text) :]) == {tokenizer.special.eos}
        assert each.order.tolist() == list(range(len(each.answer)))
        assert (len(each.prompt) + len(each.answer)) % 4 == 0
        assert np.isnan(each.log_likelihood) and each.passed is None


def test_refusals():
    with pytest.raises(InputError, match="keep"):
        RecordConfig(keep=9, candidates=8)
    with pytest.raises(InputError, match="rows"):
        RecordConfig(candidates=8, rows=63)
