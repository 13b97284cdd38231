"""`seedjax train` as several real processes over loopback.

Each process has one device. Losses and weights are those of one process; a run goes on
with another number of processes; signals and kills end all of them.
"""

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from many_processes import Processes

from seedjax.train.config import load_config
from seedjax.train.run import train

CONFIG = """
import dataclasses
from seedjax.diffusion.objective import Autoregressive
from seedjax.tasks.lab.stream import LabConfig
from seedjax.nn.presets import preset
from seedjax.train.config import RunConfig
from seedjax.train.optim import OptimizerConfig


def get_config():
    model = dataclasses.replace(
        preset("mini"), num_layers=1, hidden_size=16, num_heads=2, num_kv_heads=2,
        head_dim=8, mlp_size=32, max_positions=128, block_size=4, attention="causal",
        logit_alignment="shifted",
    )
    return RunConfig(
        model=model,
        objective=Autoregressive(),
        data=LabConfig(batch_size=8, block_size=4, sequence_length=128, shards=4),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=2),
        num_steps=6, log_every=1, eval_every=3, eval_batches=1,
        eval_samples=1, infill_spans=0, weights_dtype="float32",
        checkpoint_every_s=1000.0,
    )
"""


@pytest.fixture
def start(tmp_path):
    """Starts `seedjax train` in so many processes."""
    config = tmp_path / "config.py"
    config.write_text(CONFIG)
    started = []

    def start(out: Path, count: int, *options: str) -> Processes:
        command = ["train", "--config", str(config), "--out", str(out), *options]
        name = f"{out.name}-{len(started)}"
        started.append(Processes(tmp_path, name, count, *command))
        return started[-1]

    yield start
    for processes in started:
        processes.kill()


def by_one_process(out: Path, tmp_path: Path, **options) -> Path:
    run = load_config(tmp_path / "config.py", [*options.pop("assignments", [])])
    train(run, out, **options)
    return out


def curve(out: Path) -> dict[int, tuple[float, int]]:
    """Loss and tokens by step; a step has one line."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    found = [(n["step"], (n["loss"], n["tokens"])) for n in lines if "loss" in n]
    assert len(found) == len(dict(found))
    return dict(found)


def weights(out: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    files = sorted((out / "params").glob("*.safetensors"))
    return {name: x for file in files for name, x in load_file(file).items()}


def assert_same(first: Path, second: Path) -> None:
    losses, others = curve(first), curve(second)
    assert losses.keys() == others.keys()
    for step, (loss, tokens) in losses.items():
        assert abs(loss - others[step][0]) < 1e-5 and tokens == others[step][1]
    found, expected = weights(first), weights(second)
    assert found.keys() == expected.keys() and expected
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-5)


def forget(out: Path, step: int) -> None:
    """Goes back to an earlier checkpoint, as after a fault."""
    for folder in (out / "checkpoints").iterdir():
        if int(folder.name) > step:
            shutil.rmtree(folder)


def saved(out: Path) -> list[int]:
    """Steps of the checkpoints."""
    folder = out / "checkpoints"
    return [int(f.name) for f in folder.iterdir() if f.name.isdigit()]


def wait_for_step(out: Path, step: int, processes: Processes) -> None:
    began = time.monotonic()
    while time.monotonic() - began < 300:
        if (out / "metrics.jsonl").exists() and len(curve(out)) >= step:
            return
        assert all(each.poll() is None for each in processes.all), processes.said(0)
        time.sleep(0.05)
    raise AssertionError(f"no step {step}: {processes.said(0)}")


@pytest.mark.slow
def test_two_processes_are_one_and_another_number_goes_on(tmp_path, start):
    out = tmp_path / "two"
    processes = start(out, 2, "--mesh", "fsdp=2")
    assert processes.wait() == [0, 0], processes.said(0) + processes.said(1)
    assert processes.printed(1) == processes.said(1) == ""
    assert "trained 6 steps" in processes.printed(0)
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["3", "6"]

    one = by_one_process(tmp_path / "one", tmp_path)
    assert_same(out, one)

    forget(out, 3)
    by_one_process(out, tmp_path, resume=True)
    assert_same(out, one)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["data=4", "fsdp=2,tensor=2"])
def test_four_processes_and_two_go_on(tmp_path, start, mesh):
    out = tmp_path / "four"
    processes = start(out, 4, "--mesh", mesh)
    assert processes.wait() == [0] * 4, processes.said(0)
    one = by_one_process(tmp_path / "one", tmp_path)
    assert_same(out, one)
    forget(out, 3)
    processes = start(out, 2, "--mesh", "data=2", "--resume")
    assert processes.wait() == [0, 0], processes.said(0)
    assert_same(out, one)


LONG = ["--set", "num_steps=100000", "--set", "eval_every=100000", "--json"]


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_a_signal_to_one_saves_on_all(tmp_path, start, index):
    out = tmp_path / "run"
    processes = start(out, 2, *LONG)
    wait_for_step(out, 5, processes)
    began = time.monotonic()
    processes.all[index].send_signal(signal.SIGTERM)
    assert processes.wait(120) == [0, 0], processes.said(0) + processes.said(1)
    print(f"SIGTERM to {index}: both ended after {time.monotonic() - began:.1f} s")
    result = json.loads(processes.printed(0))
    assert not result["finished"] and max(curve(out)) == result["step"]
    assert (out / "checkpoints" / str(result["step"]) / "state").is_dir()
    assert "SIGTERM" in processes.said(index)


@pytest.mark.slow
@pytest.mark.parametrize("index", [1, 0], ids=["worker", "leader"])
def test_a_kill_of_one_ends_all_and_nothing_is_lost(tmp_path, start, index):
    out = tmp_path / "run"
    often = ["--set", "checkpoint_every_s=0"]
    processes = start(out, 2, *LONG, *often)
    wait_for_step(out, 8, processes)
    while not any(step >= 6 for step in saved(out)):
        assert all(each.poll() is None for each in processes.all), processes.said(0)
        time.sleep(0.05)
    began = time.monotonic()
    processes.all[index].send_signal(signal.SIGKILL)
    other = processes.all[1 - index]
    other.wait(60)
    print(
        f"SIGKILL of {index}: the other ended with {other.returncode} after "
        f"{time.monotonic() - began:.1f} s: {processes.said(1 - index)[-600:]}"
    )
    assert other.returncode == 1
    # JAX, which sees the end of its coordinator as well, may add messages.
    lines = processes.said(1 - index).splitlines()
    assert any(line.startswith(f"seedjax: process {index} is gone") for line in lines)
    steps = saved(out)
    reached = max(curve(out)) + 4
    by_one_process(
        tmp_path / "one",
        tmp_path,
        assignments=["num_steps=100000", "eval_every=100000"],
        stop=stop_after(reached),
    )
    run = load_config(
        tmp_path / "config.py",
        ["num_steps=100000", "eval_every=100000", "checkpoint_every_s=0"],
    )
    train(run, out, resume=True, stop=stop_after(reached - max(steps)))
    again, whole = curve(out), curve(tmp_path / "one")
    for step, (loss, tokens) in again.items():
        assert abs(loss - whole[step][0]) < 1e-4 and tokens == whole[step][1]


def stop_after(steps: int):
    calls = iter(range(steps))
    return lambda: next(calls, None) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mesh", "data=3"], "needs 3 devices"),
        (["--set", "data.batch_size=1", "--set", "data.shards=1"], "batch_size is 1"),
        (["--set", "data.shards=3"], "shards is 3"),
        (["--set", "modle.num_layers=1"], "modle"),
    ],
)
def test_what_is_at_fault_ends_all_with_one_line(tmp_path, start, options, message):
    processes = start(tmp_path / "run", 2, *options)
    assert processes.wait(120) == [2, 2]
    for index in range(2):
        assert message in processes.said(index).splitlines()[-1]
        assert len(processes.said(index).splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_ends_all(tmp_path, start):
    (tmp_path / "file").write_text("")
    processes = start(tmp_path / "file" / "run", 2)
    assert processes.wait(120) == [2, 2]
    for index in range(2):
        assert "cannot make" in processes.said(index), processes.said(index)
