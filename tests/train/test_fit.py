"""The loop by itself, with a state of one number."""

import json
import signal
import subprocess
import sys
import time

import grain
import jax.numpy as jnp
import pytest

from seedjax.checkpoints.training import TrainingCheckpointer
from seedjax.profiling import Profile
from seedjax.train.fit import Fitted, Step, fit
from seedjax.train.goodput import describe_goodput, goodput
from seedjax.train.guard import BadLossError, LossGuard, LossWatch
from seedjax.train.metrics import read_jsonl


@pytest.fixture
def run(tmp_path):
    """Adds up the numbers of its batches: 1, 2, 3 ..."""

    def run(**options) -> Fitted:
        return fit(
            lambda: jnp.float32(0.0),
            lambda state, batch, step: Step(state + batch, {"loss": state}),
            lambda step: jnp.float32(step + 1),
            num_steps=5,
            log_every=1,
            out=tmp_path,
            **options,
        )

    run.out = tmp_path
    return run


def test_a_stopped_run_saves_and_goes_on(run):
    calls = iter([False] * 3 + [True])  # before the first step and after each
    first = run(stop=lambda: next(calls))
    assert (first.step, first.finished, float(first.state)) == (3, False, 6.0)
    with TrainingCheckpointer(run.out / "checkpoints") as saved:
        assert saved.latest_step() == 3
    second = run(resume=True)
    assert (second.step, second.finished, float(second.state)) == (5, True, 15.0)
    lines = [line for line in read_jsonl(run.out / "metrics.jsonl") if "loss" in line]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]


def test_no_signal_handler_is_touched(run):
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    seen = []

    def stop() -> bool:
        seen.append([signal.getsignal(number) for number in numbers])
        return False

    assert run(stop=stop).finished
    assert len(seen) > 5 and all(handlers == before for handlers in seen)


@pytest.fixture
def guarded(tmp_path):
    """Adds up the batches 1, 2, 3 ..., whose losses a function says; a checkpoint at
    every step. Gives the sum, and the lines of the metrics."""

    def run(loss, *, num_steps=5, **options) -> tuple[float, list[dict]]:
        fitted = fit(
            lambda: jnp.float32(0.0),
            lambda state, batch, step: Step(
                state + batch, {"loss": jnp.float32(loss(int(batch)))}, tokens=1
            ),
            iter(grain.MapDataset.range(1, 100).to_iter_dataset()),
            num_steps=num_steps,
            log_every=1,
            out=tmp_path,
            checkpoint_every_s=options.pop("checkpoint_every_s", 0.0),
            **options,
        )
        assert fitted.finished
        return float(fitted.state), read_jsonl(tmp_path / "metrics.jsonl")

    run.out = tmp_path
    return run


def test_a_batch_with_a_bad_loss_is_left_out(guarded):
    total, lines = guarded(lambda batch: float("nan") if batch == 3 else 1.0)
    assert total == 1 + 2 + 4 + 5 + 6
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5]
    (back,) = (line for line in lines if "rewind" in line)
    assert (back["step"], back["rewound_from"], back["bad_loss"]) == (2, 3, "nan")
    assert max(line.get("tokens", 0) for line in lines) == 5


def test_without_a_checkpoint_the_run_begins_anew(guarded):
    total, _ = guarded(
        lambda batch: float("inf") if batch == 2 else 1.0, checkpoint_every_s=60.0
    )
    # The third batch was on its way when the loss of the second was read.
    assert total == 4 + 5 + 6 + 7 + 8


def test_a_loss_that_stays_bad_ends_the_run(guarded):
    with pytest.raises(BadLossError, match="loss is nan at step 3; lower"):
        guarded(lambda batch: float("nan") if batch >= 3 else 1.0)
    with TrainingCheckpointer(guarded.out / "checkpoints") as saved:
        assert saved.latest_step() == 2


def test_a_spike_is_a_bad_loss_if_the_recipe_says_so(guarded):
    def loss(batch: int) -> float:
        return 50.0 if batch == 7 else 1.0 + batch / 100

    guard = LossGuard(spike_factor=3.0, window=8)
    total, lines = guarded(loss, num_steps=8, guard=guard)
    assert total == sum(range(1, 10)) - 7
    assert [line["bad_loss"] for line in lines if "rewind" in line] == ["50.0"]


def test_losses_before_the_window_is_half_full_are_no_spikes():
    watch = LossWatch(LossGuard(spike_factor=2.0, window=4))
    watch.check(1.0, 1)
    watch.check(9.0, 2)
    with pytest.raises(BadLossError, match="a median of 5"):
        watch.check(11.0, 3)
    watch.forget()
    watch.check(99.0, 4)
    with pytest.raises(BadLossError, match="norm is inf"):
        watch.check(1.0, 5, grad_norm=float("inf"))


def test_a_function_of_the_step_has_no_batches_to_leave_out(tmp_path):
    with pytest.raises(BadLossError):
        fit(
            lambda: jnp.float32(0.0),
            lambda state, batch, step: Step(state, {"loss": jnp.float32("nan")}),
            lambda step: step,
            num_steps=3,
            log_every=1,
            out=tmp_path,
        )


def test_the_seconds_of_all_processes_are_told_apart(guarded):
    def slow(state, step):
        time.sleep(0.2)
        return {"score": 1.0}

    began = time.monotonic()
    guarded(lambda batch: 1.0, num_steps=2, evaluate=slow, eval_every=1)
    elapsed = time.monotonic() - began
    seconds = goodput(read_jsonl(guarded.out / "metrics.jsonl"))
    assert seconds.keys() >= {"step", "evaluation", "checkpoint"}
    assert not seconds.keys() & {"lost", "stopped"}
    assert 0.399 <= seconds["evaluation"] < sum(seconds.values()) < elapsed + 0.01
    # A process that died 3 s after its last checkpoint, and 2 s before the next starts.
    lines = read_jsonl(guarded.out / "metrics.jsonl")
    died = {"step": 9, "loss": 1.0, "time": max(line["time"] for line in lines) + 3.0}
    with (guarded.out / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(died) + "\n")
    time.sleep(5.0 - 3.0)
    guarded(lambda batch: 1.0, num_steps=3, resume=True)
    seconds = goodput(read_jsonl(guarded.out / "metrics.jsonl"))
    assert seconds["lost"] == pytest.approx(3.0, abs=0.01)
    said = describe_goodput({"step": 60.0, "lost": 10.0, "evaluation": 30.0})
    assert (
        said == "60.0% of 100 s in steps; evaluation 30.0%; steps that were lost 10.0%"
    )


def test_utilization_is_the_ideal_over_the_real_time(guarded):
    def loss(batch: int) -> float:
        time.sleep(0.05)
        return 1.0

    _, lines = guarded(loss, ideal_step_s=0.01, checkpoint_every_s=60.0)
    # The last line is written as soon as its step is dispatched, where this one sleeps.
    shares = [line["mfu"] for line in lines if "mfu" in line and line["step"] < 5]
    assert shares and all(0.0 < share <= 0.2 for share in shares)


def test_a_profile_of_some_steps(guarded):
    trace = guarded.out / "trace"
    guarded(lambda batch: 1.0, profile=Profile(str(trace), 2, 3))
    assert len(list(trace.rglob("*.xplane.pb"))) == 1


def test_a_run_that_hangs_ends_with_its_stacks():
    code = """
import time
from seedjax.train.watchdog import watchdog
def wait_for_a_lost_device():
    time.sleep(60)
with watchdog(0.2 / 60) as alive:
    for _ in range(5):
        time.sleep(0.1)
        alive()
    print("alive", flush=True)
    wait_for_a_lost_device()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stdout) == (1, "alive\n")
    assert "Timeout" in done.stderr and "wait_for_a_lost_device" in done.stderr
