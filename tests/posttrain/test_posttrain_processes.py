"""Stages of post-training as two real processes: what one process gives."""

import json
from pathlib import Path

import numpy as np
import pytest
from many_processes import Processes
from safetensors.numpy import load_file

from seedjax.files.text import read_json_object
from seedjax.train.metrics import read_jsonl

PREFERENCE = ["--set", "pairs=2", "--set", "num_steps=3", "--set", "log_every=1"]
ON_POLICY = """
from seedjax.posttrain.config import OnPolicyConfig, Phase
from seedjax.sampling.policy import LeftToRight
from seedjax.tasks.lab.stream import LabConfig
from seedjax.train.optim import OptimizerConfig


def get_config():
    return OnPolicyConfig(
        init_from="mini",
        tasks=LabConfig(vocabulary="mini", tiers=(1.0, 0.0, 0.0)),
        phases=(Phase(steps=2, policy=LeftToRight(threshold=0.9)),),
        prompts=3, candidates=2, max_new_tokens=32, temperature=0.8,
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=1),
        log_every=1, eval_every=2, eval_tasks=4, tolerance=0.99,
    )
"""


@pytest.fixture
def both(tmp_path):
    """Runs a stage in one process and in two; the folders."""

    def run(stage: str, *options: str, mesh: str = "") -> tuple[Path, Path]:
        folders = []
        for count in (1, 2):
            out = tmp_path / f"{stage}-{count}"
            more = ["--mesh", mesh] if mesh and count == 2 else []
            command = ["posttrain", stage, "--out", str(out), "--json", *options, *more]
            processes = Processes(tmp_path, out.name, count, *command)
            assert processes.wait(900) == [0] * count, processes.said(0)
            assert json.loads(processes.printed(0))["directory"] == str(out)
            if count == 2:
                assert processes.printed(1) == processes.said(1) == ""
            folders.append(out)
        return tuple(folders)

    return run


def assert_same_run(one: Path, two: Path) -> None:
    """Equal metrics, and weights, which are stored as bfloat16."""
    lines, others = (
        [line for line in read_jsonl(out / "metrics.jsonl") if "loss" in line]
        for out in (one, two)
    )
    assert len(lines) == len(others) > 1
    for ours, theirs in zip(lines, others, strict=True):
        for name in ours.keys() - {"time", "tokens_per_second"}:
            assert theirs[name] == pytest.approx(ours[name], rel=1e-4, abs=1e-6), name
    (found,), (expected,) = (
        (out / "params").glob("*.safetensors") for out in (two, one)
    )
    weights = load_file(expected)
    for name, array in load_file(found).items():
        ours, theirs = (np.asarray(x, np.float32) for x in (array, weights[name]))
        np.testing.assert_allclose(ours, theirs, rtol=0.02, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["", "fsdp=2"])
def test_preference(both, tmp_path, lab_model_directory, mesh):
    lines = [
        {"prompt": f"def f{n}():", "accepted": " return 1", "rejected": " pass"}
        for n in range(3)
    ]
    feedback = tmp_path / "feedback.jsonl"
    feedback.write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = ["--model", lab_model_directory, "--feedback", str(feedback), *PREFERENCE]
    assert_same_run(*both("preference", *given, mesh=mesh))


@pytest.mark.slow
def test_preference_refuses_what_does_not_divide(tmp_path, lab_model_directory):
    feedback = tmp_path / "feedback.jsonl"
    feedback.write_text('{"prompt": "a", "accepted": "b", "rejected": "c"}\n')
    command = ["posttrain", "preference", "--model", lab_model_directory]
    command += ["--feedback", str(feedback), "--out", str(tmp_path / "out")]
    processes = Processes(tmp_path, "run", 2, *command, "--set", "pairs=3")
    assert processes.wait() == [2, 2]
    for index in range(2):
        (line,) = processes.said(index).splitlines()
        assert "pairs is 3 rows" in line and "multiple of 2" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_on_policy(both, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(ON_POLICY)
    given = ["--config", str(config), "--accept-weak-isolation"]
    one, two = both("on-policy", *given, mesh="fsdp=2")
    assert_same_run(one, two)
    scores, others = (
        [line for line in read_jsonl(out / "metrics.jsonl") if "pass_at_1" in line]
        for out in (one, two)
    )
    for ours, theirs in zip(scores, others, strict=True):
        for name in ("pass_at_1", "tokens_per_forward", "empty_rate"):
            assert ours[name] == theirs[name]
    assert (two / "speedup.png").exists()


@pytest.mark.slow
def test_critic(both):
    small = ["num_tasks=40", "num_steps=20", "max_new_tokens=48"]
    settings = [word for each in small for word in ("--set", each)]
    one, two = both("critic", *settings, "--accept-weak-isolation")
    ours, theirs = (read_json_object(out / "critic.json") for out in (one, two))
    assert ours["report"] == pytest.approx(theirs["report"], rel=1e-4)
    head, other = (load_file(out / "critic.safetensors") for out in (one, two))
    for name, array in head.items():
        np.testing.assert_allclose(array, other[name], rtol=1e-3, atol=1e-5)
