"""Runs that are killed at any moment, as a user would start them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

CONFIG = """
import dataclasses
from seedjax.diffusion.objective import BlockDiffusion
from seedjax.tasks.lab.stream import LabConfig
from seedjax.nn.presets import preset
from seedjax.train.config import RunConfig
from seedjax.train.optim import OptimizerConfig


def get_config():
    model = dataclasses.replace(
        preset("mini"), num_layers=1, hidden_size=32, num_heads=2, num_kv_heads=2,
        head_dim=16, mlp_size=48, max_positions=256, block_size=4,
    )
    return RunConfig(
        model=model,
        objective=BlockDiffusion(),
        data=LabConfig(batch_size=2, block_size=4, sequence_length=128),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=2),
        num_steps=NUM_STEPS, log_every=1, eval_every=40, eval_batches=1,
        eval_samples=1, infill_spans=0, weights_dtype="float32",
        checkpoint_every_s=1.0,
    )
"""
NUM_STEPS = 80
DEVICES = "--xla_force_host_platform_device_count="


@pytest.fixture
def start(tmp_path):
    """Starts `seedjax train` with a recipe of so many steps."""
    running = []

    def start(
        out: Path, num_steps: int, *options: str, devices: int = 1
    ) -> subprocess.Popen:
        config = tmp_path / f"config_{num_steps}.py"
        config.write_text(CONFIG.replace("NUM_STEPS", str(num_steps)))
        code = "from seedjax.cli import main; main()"
        command = [sys.executable, "-c", code, "train", "--config", str(config)]
        process = subprocess.Popen(
            [*command, "--out", str(out), *options],
            stdout=subprocess.DEVNULL,
            stderr=(tmp_path / f"stderr_{len(running)}").open("w"),
            env=os.environ
            | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{DEVICES}{devices}"},
        )
        process.said = tmp_path / f"stderr_{len(running)}"
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()


def last_step(out: Path) -> int:
    try:
        lines = (out / "metrics.jsonl").open("rb")
        return sum(b"\n" in line and b'"loss"' in line for line in lines)
    except FileNotFoundError:
        return 0


def wait_for_step(out: Path, step: int, process: subprocess.Popen) -> None:
    began = time.monotonic()
    while last_step(out) < step and process.poll() is None:
        assert time.monotonic() - began < 240
        time.sleep(0.01)


def curve(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    assert len(losses) == len(dict(losses))  # one line a step
    return dict(losses)


def weights(out: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return {
        f"{path.name}:{name}": array
        for path in sorted((out / "params").glob("*.safetensors"))
        for name, array in load_file(path).items()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[int, float]:
    """The losses of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "config.py").write_text(CONFIG.replace("NUM_STEPS", "40"))
    code = "from seedjax.cli import main; main()"
    subprocess.run(
        [
            *(sys.executable, "-c", code, "train"),
            *("--config", folder / "config.py", "--out", folder / "run"),
        ],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{DEVICES}1"},
        check=True,
    )
    return curve(folder / "run")


def kill_after(out: Path, step: int, process: subprocess.Popen) -> None:
    """SIGKILL once a step is logged and a checkpoint is there."""
    wait_for_step(out, step, process)
    while not checkpoints(out) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def checkpoints(out: Path) -> list[Path]:
    """The finished ones, the oldest first."""
    found = [p for p in (out / "checkpoints").glob("*") if p.name.isdecimal()]
    return sorted(found, key=lambda path: int(path.name))


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_costs_the_steps_since_the_one_before(
    tmp_path, start, whole
):
    out = tmp_path / "run"
    process = start(out, 40)
    while len(checkpoints(out)) < 2 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before, newest = checkpoints(out)[-2:]
    largest = max(newest.rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    damaged = bytearray(largest.read_bytes())
    damaged[len(damaged) // 2 :] = b"x" * (len(damaged) - len(damaged) // 2)
    largest.write_bytes(damaged)
    process = start(out, 40, "--resume")
    assert process.wait() == 0, process.said.read_text()
    assert f"taking step {before.name}" in process.said.read_text()
    assert curve(out) == whole


@pytest.mark.slow
def test_a_full_disk_is_a_line_and_the_last_checkpoint_stands(tmp_path, start, whole):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", disk])
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        out = disk / "run"
        process = start(out, 40)
        while not checkpoints(out) and process.poll() is None:
            time.sleep(0.01)
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "filler").write_bytes(b"x" * (free - 100_000))
        assert process.wait(timeout=240) == 2
        said = process.said.read_text()
        assert "Traceback" not in said and "disk full" in said.splitlines()[-1]
        (disk / "filler").unlink()
        process = start(out, 40, "--resume")
        assert process.wait() == 0, process.said.read_text()
        assert curve(out) == whole
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.slow
def test_eight_devices_and_then_two(tmp_path, start, whole):
    """A pod that comes back smaller: the same losses to rounding."""
    out = tmp_path / "run"
    process = start(out, 40, "--mesh", "data=2,fsdp=2,tensor=2", devices=8)
    kill_after(out, 6, process)
    assert last_step(out) < 40
    process = start(out, 40, "--mesh", "fsdp=2", "--resume", devices=2)
    assert process.wait() == 0, process.said.read_text()
    found = curve(out)
    assert found.keys() == whole.keys()
    for step, loss in whole.items():
        assert found[step] == pytest.approx(loss, rel=1e-3), step


@pytest.mark.slow
def test_twenty_kills_and_the_run_is_the_same_bit_for_bit(tmp_path, start):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(whole, NUM_STEPS)
    assert process.wait() == 0, process.said.read_text()
    draws, kills, process = random.Random(0), 0, start(killed, NUM_STEPS)
    while kills < 20:
        # From the start of the process on; mostly after some steps, or while saving.
        if draws.random() < 0.7:
            wait_for_step(killed, last_step(killed) + draws.randint(1, 3), process)
        time.sleep(draws.uniform(0, 1))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        process = start(killed, NUM_STEPS, "--resume")
    assert process.wait() == 0, process.said.read_text()
    assert kills == 20
    assert curve(killed) == curve(whole)
    found, wanted = weights(killed), weights(whole)
    assert found.keys() == wanted.keys() and wanted
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.slow
@pytest.mark.parametrize(
    "signals",
    [
        [signal.SIGINT, signal.SIGINT],
        [signal.SIGTERM, signal.SIGINT],
        [signal.SIGHUP],
        [signal.SIGHUP, signal.SIGINT],
        [signal.SIGTERM],
    ],
    ids=lambda signals: "-".join(s.name for s in signals),
)
def test_after_signals_the_last_checkpoint_stands(tmp_path, start, signals):
    out = tmp_path / "run"
    process = start(out, NUM_STEPS)
    wait_for_step(out, 6, process)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.02)
    code, said = process.wait(timeout=60), process.said.read_text()
    assert "Traceback" not in said and f"{signals[0].name}: saving what is done" in said
    assert code == (130 if len(signals) > 1 and process.returncode else 0), said
    reached = last_step(out)
    process = start(out, NUM_STEPS, "--resume")
    wait_for_step(out, reached + 2, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0, process.said.read_text()
    found = curve(out)
    assert sorted(found) == list(range(1, len(found) + 1)) and len(found) > 6


@pytest.mark.slow
def test_two_runs_in_one_folder(tmp_path, start):
    out = tmp_path / "run"
    first = start(out, 40)
    wait_for_step(out, 5, first)
    for options in (["--resume"], []):
        second = start(out, 40, *options)
        assert second.wait() == 2
        said = second.said.read_text().strip().splitlines()[-1]
        assert options == [] or f"is being written by process {first.pid} on" in said
    assert first.wait() == 0, first.said.read_text()
    assert sorted(curve(out)) == list(range(1, 41))
