"""Signals that end a long command: noted while it works, and at once before that."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from seedjax.cli.stopping import STOPPING, stop_on_signal
from seedjax.train.run import TrainResult

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def in_front():
    """Handlers as a terminal's: behind `&` or nohup signals are ignored."""
    fresh = {number: signal.SIG_DFL for number in STOPPING}
    fresh[signal.SIGINT] = signal.default_int_handler
    before = {number: signal.signal(number, fresh[number]) for number in fresh}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPPING, ids=lambda number: number.name)
def test_the_first_signal_is_noted_and_ctrl_c_after_it_interrupts(number, capfd):
    before = [signal.getsignal(n) for n in STOPPING]
    with pytest.raises(KeyboardInterrupt), stop_on_signal() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop() and stop()
        assert f"{number.name}: saving what is done" in capfd.readouterr().err
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("Ctrl-C was swallowed")
    assert [signal.getsignal(n) for n in STOPPING] == before


def test_ctrl_c_interrupts_work_that_has_not_begun():
    with pytest.raises(KeyboardInterrupt), stop_on_signal():
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("Ctrl-C was swallowed")


@pytest.mark.parametrize("ignored", [False, True])
def test_a_signal_before_the_work_acts_as_without_handlers(ignored):
    code = """
import os, signal, sys
from seedjax.cli.stopping import stop_on_signal
if sys.argv[1] == "True":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
with stop_on_signal() as stop:
    os.kill(os.getpid(), signal.SIGHUP)
    print(stop())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(ignored)], capture_output=True, text=True
    )
    expected = (0, "False\n") if ignored else (-signal.SIGHUP, "")
    assert (done.returncode, done.stdout) == expected


@pytest.mark.parametrize(
    ("finished", "options", "code"),
    [
        (False, ["--stop-code", "75"], 75),
        (False, [], 0),
        (True, ["--stop-code", "75"], 0),
    ],
)
def test_a_scheduler_can_tell_that_a_run_is_not_finished(
    run, tmp_path, monkeypatch, finished, options, code
):
    result = TrainResult(tmp_path, 3, finished, float("nan"))
    monkeypatch.setattr("seedjax.train.run.train", lambda *_, **__: result)
    config = str(ROOT / "configs" / "mini_left.py")
    found = run("train", "--config", config, "--out", str(tmp_path / "out"), *options)
    assert found[0] == code
    assert ("--resume" in found[1]) == (not finished)


def test_logs_of_orbax_are_dropped_while_a_command_saves(caplog):
    from absl import logging

    logger = logging.get_absl_logger()

    def log(path):
        logger.handle(logger.makeRecord("absl", 40, path, 1, path, (), None))

    with stop_on_signal():
        log("site-packages/orbax/checkpoint/futures.py")
        log("site-packages/grain/loader.py")
    log("site-packages/orbax/checkpoint/other.py")
    names = [record.getMessage().rpartition("/")[2] for record in caplog.records]
    assert names == ["loader.py", "other.py"]
