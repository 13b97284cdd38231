"""The loop by itself, with a state of one number."""

import signal

import jax.numpy as jnp
import pytest

from seedjax.checkpoints.training import TrainingCheckpointer
from seedjax.train.fit import Fitted, Step, fit


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
    assert len((run.out / "metrics.jsonl").read_text().splitlines()) == 5


def test_no_signal_handler_is_touched(run):
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    seen = []

    def stop() -> bool:
        seen.append([signal.getsignal(number) for number in numbers])
        return False

    assert run(stop=stop).finished
    assert len(seen) > 5 and all(handlers == before for handlers in seen)
