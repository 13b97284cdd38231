"""A loss that is not finite, or leaps: the run goes back to its last checkpoint and
leaves out the batches since then (as PaLM did, arXiv 2204.02311, section 5.1)."""

import math
import statistics
from collections import deque
from dataclasses import dataclass

from seedjax.config import require
from seedjax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LossGuard:
    """Which losses send a run back, and how often."""

    most_rewinds: int = 3  # of a process; then the run ends with an error
    spike_factor: float = 0.0  # times the median loss; 0: only what is not finite
    window: int = 20  # logged losses that the median is of, once half are there

    def __post_init__(self):
        require(self.most_rewinds >= 0, self, "most_rewinds", "0 or more")
        require(
            self.spike_factor == 0 or self.spike_factor > 1,
            self,
            "spike_factor",
            "above 1, or 0 for none",
        )
        require(self.window >= 2, self, "window", "at least 2")


class BadLossError(InputError):
    """A loss that is not finite or a spike, or a gradient that is not finite."""

    def __init__(self, reason: str, loss: float, step: int):
        super().__init__(
            f"{reason} at step {step}; lower optimizer.learning_rate and resume from "
            "the checkpoint before"
        )
        self.loss, self.step = loss, step


class LossWatch:
    """The last losses of a run, and how often it went back."""

    def __init__(self, guard: LossGuard):
        self.rewinds = 0
        self._guard = guard
        self.forget()

    def forget(self) -> None:
        """Starts anew, for the losses of another objective are of another size."""
        self._losses: deque[float] = deque(maxlen=self._guard.window)

    def check(self, loss: float, step: int, *, grad_norm: float = 0.0) -> None:
        """Raises:
        BadLossError: if loss or gradient are not finite, or the loss is a spike.
        """
        if not math.isfinite(loss):
            raise BadLossError(f"the loss is {loss:.6g}", loss, step)
        if not math.isfinite(grad_norm):
            raise BadLossError(f"the gradient's norm is {grad_norm:.6g}", loss, step)
        if self._guard.spike_factor and 2 * len(self._losses) >= self._guard.window:
            median = statistics.median(self._losses)
            if loss > self._guard.spike_factor * median:
                spike = f"the loss is {loss:.6g} after a median of {median:.6g}"
                raise BadLossError(spike, loss, step)
        self._losses.append(loss)

    def rewind(self, error: BadLossError) -> dict[str, int | str]:
        """Notes that the run goes back; returns the line of metrics that says why.

        Raises:
          BadLossError: if it did so too often.
        """
        if self.rewinds == self._guard.most_rewinds:
            raise error
        self.rewinds += 1
        return {
            "rewind": self.rewinds,
            "rewound_from": error.step,
            "bad_loss": str(error.loss),
        }
