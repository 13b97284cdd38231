"""Processes agree on when to save and when to stop, at the same step.

A signal reaches one process, and every process has a clock of its own; but saving and
stopping are collective. So the first process decides for all, once a second or so: at a
step that all know, it says whether to save or to stop there, and which step is next to
be decided at.

    step      1 2 3 4 5 6 7 8 9
    decided   ^     ^       ^        the first process's word, which the others wait for

A wish to stop, of any process, is on the board (`seedjax.processes`) until then.
"""

import json
import time
from typing import NamedTuple

from seedjax import processes

EVERY_S = 1.0  # between decisions
KEPT = 1000  # decisions; no process is that far after the first


class Decision(NamedTuple):
    """A common action of all processes at a step."""

    save: bool
    stop: bool


class Agreement:
    """Decides for one process by itself, or agrees with the others."""

    def __init__(self) -> None:
        self._board = processes.board()
        self._name = self._board.new_name("run") if self._board else ""
        self._next, self._number = -1, 0
        self._wished = False
        self._time, self._step = time.monotonic(), 0

    def decide(self, step: int, *, save: bool, stop: bool) -> Decision:
        """The action at a step.

        Args:
          step: number of steps taken; alike in all processes.
          save: whether this process finds a checkpoint due; the first one's counts.
          stop: whether this process is to stop.
        """
        if self._board is None:
            return Decision(save, stop)
        if stop and not self._wished:
            self._wished = True
            self._board.put(f"{self._name}/stop/{self._board.index}", "")
        if step < self._next:
            return Decision(save=False, stop=False)
        key = f"{self._name}/decision/{self._number}"
        if self._board.index == 0:
            stop = bool(self._board.all(f"{self._name}/stop"))
            words = {"save": save, "stop": stop, "next": step + self._window(step)}
            self._board.put(key, json.dumps(words))
            if self._number >= KEPT:
                self._board.drop(f"{self._name}/decision/{self._number - KEPT}")
        words = json.loads(self._board.wait(key))
        self._next, self._number = words["next"], self._number + 1
        return Decision(words["save"], words["stop"])

    def _window(self, step: int) -> int:
        """Steps of about `EVERY_S`, by the time of the last ones."""
        now = time.monotonic()
        pace = (step - self._step) / max(now - self._time, 1e-3)
        self._time, self._step = now, step
        return max(1, int(pace * EVERY_S))
