"""How processes meet, agree and end: real ones over loopback, without any model."""

import os
import socket
import subprocess
import sys
import time

import pytest

from seedjax.errors import InputError
from seedjax.processes import Meeting, find_meeting, is_first, together

BEGIN = """
import sys, time
from seedjax import processes
from seedjax.errors import InputError
from seedjax.train.agreement import Agreement
processes.MEET_S, index = float(sys.argv[3]), int(sys.argv[2])
with processes.together(sys.argv[1], 2, index):
    board = processes.board()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(
    code: str, *, indices=(0, 1), meet_s: float = 60.0
) -> list[tuple[int, str, str, float]]:
    """Exit code, standard output, standard error and seconds of two processes that
    run the same code together."""
    lines = "".join(f"    {line}\n" for line in code.strip().splitlines())
    where, began = f"127.0.0.1:{free_port()}", time.monotonic()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", BEGIN + lines, where, str(index), str(meet_s)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        )
        for index in indices
    ]
    ended = []
    for process in started:
        out, err = process.communicate(timeout=120)
        seconds = time.monotonic() - began
        ended.append((process.returncode, out, err, seconds))
    return ended


def test_processes_share_work_and_stop_at_one_step():
    """Process 1 is slower, and the one that a signal reaches."""
    ended = run(
        """
words = board.share([index, "first"])
assert [board.gather([n, index]) for n in range(3)][2] == [[2, 0], [2, 1]]
squares = sorted(board.work_out(range(5), lambda n: [n * n, index]))
print(words, squares)
agreement, step, saved = Agreement(), 0, []
while True:
    decision = agreement.decide(step, save=step == 4, stop=index == 1 and step == 7)
    if decision.save:
        saved.append(step)
    if decision.stop:
        break
    time.sleep(0.01 + 0.02 * index)
    step += 1
print(step, saved, processes.is_first())
"""
    )
    assert [code for code, *_ in ended] == [0, 0], ended
    (told, zero), (again, one) = (out.splitlines()[-2:] for _, out, _, _ in ended)
    work = "[(0, [0, 0]), (1, [1, 1]), (2, [4, 0]), (3, [9, 1]), (4, [16, 0])]"
    assert told == f"[0, 'first'] {work}" and again == "[0, 'first'] []"
    (first, saved, is_zero), (second, *same) = zero.split(), one.split()
    assert first == second and int(first) >= 7
    assert [saved, "False"] == same and is_zero == "True"


def test_a_fault_of_one_ends_the_other():
    (zero, _, said, _), (one, _, own, _) = run(
        """
if index:
    raise InputError("the bucket cannot be written; name another")
time.sleep(60)
"""
    )
    assert (zero, one) == (2, 2)
    expected = "seedjax: the bucket cannot be written; name another (process 1)"
    assert said.strip().splitlines()[-1] == expected
    assert "InputError: the bucket" in own


@pytest.mark.slow
def test_the_death_of_the_first_ends_the_others_with_a_line():
    """Idle or busy, before JAX aborts them."""
    for work in ("time.sleep(60)", "while True: sum(range(10_000))"):
        (killed, *_), (code, _, said, seconds) = run(
            f"""
board.gather(0)
if index == 0:
    time.sleep(1)
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
{work}
"""
        )
        assert killed == -9 and code == 1, said
        assert "\nseedjax: process 0 is gone: it cannot be reached" in f"\n{said}"
        assert seconds < 60


@pytest.mark.slow
def test_a_process_that_nobody_joins_ends():
    (code, _, said, seconds), (other, _, own, _) = [
        *run("", indices=(0,), meet_s=3.0),
        *run("", indices=(1,), meet_s=3.0),
    ]
    assert code == 2 and "fewer than 2 processes have met" in said and seconds < 30
    assert other == 1 and "no coordinator at 127.0.0.1" in own


SLURM = {
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "8",
    "SLURM_STEP_NODELIST": "node[003-010]",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}
VARIABLES = {
    "JAX_COORDINATOR_ADDRESS": "job-0.svc:1234",
    "JAX_NUM_PROCESSES": "4",
    "JOB_COMPLETION_INDEX": "1",
}


@pytest.mark.parametrize(
    ("given", "environment", "meeting"),
    [
        (("a:1", 3, 2), {}, Meeting("a:1", 3, 2, None, 25.0)),
        (("", None, None), {}, None),
        (("a:1", 1, 0), {}, None),
        (("", None, None), SLURM, Meeting("node003:61441", 8, 2)),
        (
            ("", None, None),
            SLURM | {"SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "2"}
            | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"},
            Meeting("node003:61441", 8, 2, [2]),
        ),
        (("", None, None), SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (("a:1", None, None), OPEN_MPI, Meeting("a:1", 4, 3, None, 25.0)),
        (("", None, None), VARIABLES, Meeting("job-0.svc:1234", 4, 1)),
        (
            ("", None, None),
            {"TPU_WORKER_HOSTNAMES": "WARNING: could not determine, a b"},
            None,
        ),
    ],
)  # fmt: skip
def test_where_processes_meet(given, environment, meeting, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert find_meeting(*given) == meeting


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        (("a:1", None, None), {}, "--processes N and --process-index I is missing"),
        (("", 4, 1), {}, "--coordinator HOST:PORT is missing"),
        (("", None, None), OPEN_MPI, "--coordinator HOST:PORT is missing"),
        (("a", 4, 1), {}, "must be HOST:PORT"),
        (("a:1", 4, 4), {}, "it must be from 0 to 3"),
    ],
)
def test_a_meeting_that_cannot_be_is_refused(given, environment, message):
    with pytest.raises(InputError, match=message):
        find_meeting(*given, environment)


def test_a_process_by_itself_is_the_first():
    with together():
        assert is_first()
