"""Taking turns: every line is measured in every round, so that noise hits all alike.

    warm up   a        b        c
    round 1   a a a a  b b b b  c
    round 2   a a a a  b b b b  c

A turn of a short program is many calls, of which the median counts. Its first calls are
not timed. On two CPU cores, the first one after a turn of PyTorch's was found to take
two to six times as long as the rest (other threads still spin, the caches hold other
weights), the third a third more; no longer in one process than in two, and after mere
sleep up to twice as long. So both libraries stay in one process.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from seedjax.progress import Progress, silent

TURN_SECONDS = 0.2
SETTLE_SECONDS = 0.05
LONG = 40


Calls = list[tuple[float, float]]
"""Wall and CPU seconds of each."""


class Produced(NamedTuple):
    """The result of a call.

    Attributes:
      tokens: new tokens of each row, without prompt and padding.
      forwards: passes through the network, prefill and commits included.
    """

    tokens: list[list[int]]
    forwards: int


Run = Callable[[], Produced | None]
"""A call that is to be timed; it returns when its result is there."""


class Timing(NamedTuple):
    """Measurements of one program.

    Attributes:
      seconds: of a call, one number a round.
      cpu_seconds: of all threads of this process, likewise.
      best: seconds of the fastest call of all.
      produced: by the first call.
    """

    seconds: list[float]
    cpu_seconds: list[float]
    best: float
    produced: Produced | None

    @property
    def median(self) -> float:
        """Seconds of a call: the median of the rounds."""
        return statistics.median(self.seconds)


def take_turns(
    runs: Sequence[Run],
    rounds: int,
    *,
    turn_seconds: float = TURN_SECONDS,
    settle_seconds: float = SETTLE_SECONDS,
    report: Progress = silent,
) -> list[Timing]:
    """Measures programs in turn.

    Args:
      runs: the programs.
      rounds: how many turns each has.
      turn_seconds: a turn is made of calls until so long has passed, at least one.
      settle_seconds: before that, calls are not timed until so long has passed; left
        out for a program whose one call takes `LONG` times that.
      report: called with the progress.
    """
    produced, warm = [], []
    for number, run in enumerate(runs):
        report("warming up", number, len(runs))
        began = time.perf_counter()
        produced.append(run())
        warm.append(time.perf_counter() - began)
        if warm[-1] < LONG * settle_seconds:
            warm[-1] = _repeat(run, 0.0)[0][0]
    turns: list[list[Calls]] = [[] for _ in runs]
    for round_number in range(rounds):
        for number, run in enumerate(runs):
            report(f"round {round_number + 1} of {rounds}", number, len(runs))
            if warm[number] < LONG * settle_seconds:
                _repeat(run, settle_seconds)
            turns[number].append(_repeat(run, turn_seconds))
    return [
        Timing(
            seconds=[statistics.median(wall for wall, _ in calls) for calls in own],
            cpu_seconds=[statistics.median(cpu for _, cpu in calls) for calls in own],
            best=min(wall for calls in own for wall, _ in calls),
            produced=first,
        )
        for own, first in zip(turns, produced, strict=True)
    ]


def _repeat(run: Run, seconds: float) -> Calls:
    """The calls until `seconds` have passed."""
    calls: Calls = []
    end = time.perf_counter() + seconds
    while not calls or time.perf_counter() < end:
        began, cpu = time.perf_counter(), time.process_time()
        run()
        calls.append((time.perf_counter() - began, time.process_time() - cpu))
    return calls


def median_ratio(seconds: Sequence[float], reference: Sequence[float]) -> float:
    """The median over the rounds of one program's seconds over another's: both sides of
    each ratio met the same noise.

    Seconds 2, 6, 3 over 1, 2, 3: ratios 2, 3, 1, median 2.
    """
    return statistics.median(
        mine / other for mine, other in zip(seconds, reference, strict=True)
    )
