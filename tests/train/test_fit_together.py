"""`fit` in real processes over loopback: the same run as in one process."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fitted import run

from seedjax.sharding import make_mesh

PROGRAM = Path(__file__).with_name("fitted.py")


def start(out: Path, num_steps: int, count: int, *more: str) -> list[subprocess.Popen]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{probe.getsockname()[1]}"
    given = [str(out), str(num_steps), where, str(count)]
    return [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), *given, str(index), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        )
        for index in range(count)
    ]


def finish(processes: list[subprocess.Popen]) -> list[str]:
    """What each printed last, once all have ended well."""
    ended = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(ended), ended
    return [out.splitlines()[-1] for out, _ in ended]


def lines(out: Path) -> dict[int, dict]:
    """The metrics of each step, which has one line."""
    found = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    found = [line for line in found if "loss" in line]
    steps = {line["step"]: line for line in found}
    assert sorted(steps) == list(range(1, len(found) + 1))
    return steps


def assert_same(first: dict[int, dict], second: dict[int, dict]) -> None:
    assert first.keys() == second.keys()
    for step, line in first.items():
        for name in ("loss", "ids", "tokens"):  # ids: none lost, none twice
            np.testing.assert_allclose(line[name], second[step][name], rtol=1e-5)


@pytest.mark.slow
def test_two_processes_fit_as_one_and_one_goes_on_after_a_signal(tmp_path):
    """A signal to the second process stops both, with a checkpoint of that step."""
    out, alone = tmp_path / "two", tmp_path / "one"
    processes = start(out, 10**6, 2)
    began = time.monotonic()
    while not (out / "checkpoints" / "8").exists():
        assert time.monotonic() - began < 200
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGTERM)
    zero, one = finish(processes)
    stopped, finished, _ = zero.split()
    assert zero.split()[:2] == one.split()[:2] and finished == "False"
    step = int(stopped)
    assert step >= 8 and (out / "checkpoints" / stopped).is_dir()

    whole = run(alone, step + 3, make_mesh(""))
    again = run(out, step + 3, make_mesh("data=2,tensor=4"), resume=True)
    assert_same(lines(out), lines(alone))
    np.testing.assert_allclose(again.state, whole.state, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_four_processes_then_two_then_one(tmp_path):
    out, alone = tmp_path / "four", tmp_path / "one"
    assert finish(start(out, 8, 4))[0].split()[:2] == ["8", "True"]
    shutil.rmtree(out / "checkpoints" / "8")
    assert finish(start(out, 12, 2, "--resume"))[0].split()[:2] == ["12", "True"]
    run(out, 14, make_mesh(""), resume=True)
    run(alone, 14, make_mesh(""))
    assert_same(lines(out), lines(alone))


@pytest.mark.slow
@pytest.mark.parametrize("index", [1, 0], ids=["worker", "leader"])
def test_a_kill_of_one_ends_the_other(tmp_path, index):
    out = tmp_path / "run"
    processes = start(out, 10**6, 2)
    began = time.monotonic()
    while not (out / "checkpoints" / "4").exists():
        assert time.monotonic() - began < 200
        time.sleep(0.02)
    processes[index].send_signal(signal.SIGKILL)
    began, other = time.monotonic(), processes[1 - index]
    _, said = other.communicate(timeout=60)
    print(f"SIGKILL of {index}: {other.returncode} in {time.monotonic() - began:.1f} s")
    assert other.returncode == 1
    # JAX, which sees the end of its coordinator as well, may add messages.
    assert f"seedjax: process {index} is gone" in said, said
    before = sorted(
        int(f.name) for f in (out / "checkpoints").iterdir() if f.name.isdigit()
    )
    again = run(out, before[-1] + 2, make_mesh(""), resume=True)
    assert again.finished
    run(tmp_path / "one", before[-1] + 2, make_mesh(""))
    assert_same(lines(out), lines(tmp_path / "one"))


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_by_all(tmp_path):
    out = tmp_path / "run"
    assert finish(start(out, 8, 2))[0].split()[:2] == ["8", "True"]
    files = [f for f in (out / "checkpoints" / "8" / "state").rglob("*") if f.is_file()]
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert finish(start(out, 10, 2, "--resume"))[0].split()[:2] == ["10", "True"]
    run(tmp_path / "one", 10, make_mesh(""))
    assert_same(lines(out), lines(tmp_path / "one"))
