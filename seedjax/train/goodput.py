"""Where the wall time of a run went: in steps, or in what it does besides.

Each line that a checkpoint adds to metrics.jsonl holds the seconds since the one
before. What a process did after its last checkpoint is lost when it dies; the next one
finds out how much from the times of the lines, and writes that.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

Spent = Literal["start", "compile", "data", "evaluation", "checkpoint"]
KINDS: dict[str, str] = {
    "step": "steps",
    "start": "start (restoring or initializing)",
    "compile": "compilation",
    "data": "waiting for data",
    "evaluation": "evaluation",
    "checkpoint": "checkpoints",
    "lost": "steps that were lost",
    "stopped": "stopped between processes",
}


class Goodput:
    """Sums up the seconds of a process by what they went into."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}  # since the last line
        self._earlier: dict[str, float] = {}  # before that, to be in the next line
        self._since = time.monotonic()

    @contextlib.contextmanager
    def spent(self, kind: Spent) -> Iterator[None]:
        """Counts the time of the block."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.add(kind, time.monotonic() - began)

    def add(self, kind: Spent, seconds: float) -> None:
        """Counts seconds that just went by."""
        self._seconds[kind] = self._seconds.get(kind, 0.0) + seconds

    def resume(self, lines: Sequence[Mapping[str, Any]], step: int, now: float) -> None:
        """Counts what was lost since a checkpoint.

        Args:
          lines: all lines of the run's metrics so far.
          step: of the checkpoint that the run goes on from.
          now: seconds since the epoch.
        """
        dated = [line for line in lines if "time" in line]
        times = [line["time"] for line in dated]
        kept = [line["time"] for line in dated if line["step"] <= step]
        if times:
            lost = max(times) - max(kept, default=min(times))
            self._earlier = {"lost": lost, "stopped": max(0.0, now - max(times))}

    def lose(self) -> None:
        """Counts the steps since the last line as lost."""
        seconds = self._take()
        lost = sum(seconds.pop(kind, 0.0) for kind in ("lost", "step", "data"))
        self._earlier = seconds | {"lost": lost}

    def line(self) -> dict[str, float]:
        """The seconds since the last call, by kind."""
        return {f"seconds_{kind}": round(s, 3) for kind, s in self._take().items()}

    def _take(self) -> dict[str, float]:
        """Seconds by kind; the rest of the time went into steps."""
        now = time.monotonic()
        rest = max(0.0, now - self._since - sum(self._seconds.values()))
        taken = _added(self._earlier, self._seconds | {"step": rest})
        self._seconds, self._earlier, self._since = {}, {}, now
        return taken


def _added(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {kind: a.get(kind, 0.0) + b.get(kind, 0.0) for kind in {**a, **b}}


def goodput(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by kind, over all lines of a run's metrics."""
    total = {
        kind: sum(line.get(f"seconds_{kind}", 0.0) for line in lines) for kind in KINDS
    }
    return {kind: round(seconds, 3) for kind, seconds in total.items() if seconds}


def describe_goodput(seconds: Mapping[str, float]) -> str:
    """One line: the share of steps, then the others from the largest."""
    whole = sum(seconds.values())
    if whole == 0:
        return "no time was counted"
    others = sorted((s, kind) for kind, s in seconds.items() if kind != "step")
    parts = [f"{KINDS[kind]} {s / whole:.1%}" for s, kind in reversed(others)]
    share = seconds.get("step", 0.0) / whole
    return "; ".join([f"{share:.1%} of {whole:.0f} s in steps", *parts])
