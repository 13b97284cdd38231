"""Turns."""

import itertools
import time

import pytest

from seedjax.bench.measure import Produced, median_ratio, take_turns


class Recorder:
    """Programs that note when they are called."""

    def __init__(self):
        self.calls = []

    def program(self, name: str, seconds: float = 0.0):
        def run() -> Produced:
            self.calls.append(name)
            time.sleep(seconds)
            return Produced([[len(self.calls)]], 1)

        return run

    def order(self) -> str:
        """Each stretch of calls of one program, once."""
        return "".join(name for name, _ in itertools.groupby(self.calls))


def test_programs_take_turns_in_every_round():
    recorder = Recorder()
    runs = [recorder.program(name) for name in "abc"]
    timings = take_turns(runs, 3, turn_seconds=0.002, settle_seconds=0.001)
    assert recorder.order() == "abc" * 4  # once to warm up
    assert [len(timing.seconds) for timing in timings] == [3, 3, 3]
    assert recorder.calls.count("a") > 12  # a turn is many calls


def test_a_long_program_runs_once_a_turn():
    recorder = Recorder()
    runs = [recorder.program("a", 0.01), recorder.program("b", 0.01)]
    take_turns(runs, 2, turn_seconds=0.001, settle_seconds=0.0001)
    assert recorder.calls == list("ababab")


def test_seconds_are_those_of_a_call_and_the_first_answer_is_kept():
    recorder = Recorder()
    slow, fast = recorder.program("a", 0.02), recorder.program("b", 0.0)
    first, second = take_turns([slow, fast], 2, turn_seconds=0.05, settle_seconds=0.01)
    assert min(first.seconds) >= first.best >= 0.02
    assert min(second.seconds) >= second.best > 0
    assert first.produced == Produced([[1]], 1)
    assert len(first.cpu_seconds) == 2
    assert min(first.seconds) <= first.median <= max(first.seconds)


def test_progress_is_reported():
    reports = []
    take_turns(
        [lambda: None],
        2,
        turn_seconds=0.0,
        settle_seconds=0.0,
        report=lambda *progress: reports.append(progress),
    )
    assert reports == [
        ("warming up", 0, 1),
        ("round 1 of 2", 0, 1),
        ("round 2 of 2", 0, 1),
    ]


def test_ratios_are_of_the_same_round():
    # A round in which everything took ten times as long changes nothing.
    assert median_ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == pytest.approx(2.0)
    assert median_ratio([2.0, 6.0, 3.0], [1.0, 2.0, 3.0]) == pytest.approx(2.0)
