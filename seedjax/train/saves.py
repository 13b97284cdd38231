"""The checkpoints of one run: which step it begins at, when to save, the way back."""

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax

from seedjax.checkpoints.training import TrainingCheckpointer
from seedjax.train.goodput import Goodput

StateT = TypeVar("StateT")


class Saves(contextlib.AbstractContextManager, Generic[StateT]):
    """Saves a run every so often, and restores it. A run without a folder begins at
    step 0 and saves nothing."""

    def __init__(
        self,
        folder: str | Path | None,
        initialize: Callable[[], StateT],
        abstract_state: StateT | None,
        position: Any,
        goodput: Goodput,
        *,
        every_s: float,
        keep_latest: int,
        best: str | None,
    ):
        """Args:
        folder: of the checkpoints, which may be in a bucket; None saves nothing.
        initialize: makes the state before the first step.
        abstract_state: shapes, dtypes and shardings of the state; None takes them from
          `initialize`.
        position: the iterator whose position is saved; None where there is none.
        goodput: counts the time that is spent here.
        every_s: seconds between saves.
        keep_latest: checkpoints to keep besides the best.
        best: the score by which the best one (the lowest) is kept, if any.
        """
        self._checkpointer = None
        if folder is not None:
            self._checkpointer = TrainingCheckpointer(
                folder,
                keep_latest=keep_latest,
                keep_best_metric="loss" if best else None,
            )
        self._initialize, self._abstract_state = initialize, abstract_state
        self._position, self._goodput = position, goodput
        self._every_s, self._best = every_s, best
        self._last_s, self._has_saved = time.monotonic(), False

    def __exit__(self, *raised: Any) -> None:
        if self._checkpointer is not None:
            self._checkpointer.__exit__(*raised)

    def begin(self, *, restore: bool) -> tuple[int, StateT]:
        """The step and the state to begin at: the newest checkpoint's, if there is one
        and `restore` says so."""
        self._has_saved = restore
        return self._begin(self._position)

    def rewind(self) -> tuple[int, StateT]:
        """The last step and state of this run that were saved. The data stay where they
        are: the batches in between are left out."""
        return self._begin(None)

    def _begin(self, position: Any) -> tuple[int, StateT]:
        checkpointer = self._checkpointer
        with self._goodput.spent("start"):
            if checkpointer is None or not self._has_saved or not checkpointer.steps():
                return 0, self._initialize()
            return checkpointer.restore(
                abstract_state=self._abstract_state or abstract_of(self._initialize()),
                data_iterator=position,
            )

    def overdue(self) -> bool:
        """Whether the last save was too long ago."""
        return time.monotonic() - self._last_s > self._every_s

    def save(
        self,
        step: int,
        state: StateT,
        scores: Mapping[str, Any] = {},
        *,
        wait: bool = False,
    ) -> None:
        """Saves a state, in the background unless it is to `wait`.

        Args:
          step: steps taken.
          state: the state after them.
          scores: of the state; empty where it was not evaluated.
          wait: whether to return only when the checkpoint is complete.
        """
        if self._checkpointer is None:
            return
        metrics = {"loss": float(scores[self._best])} if scores and self._best else {}
        with self._goodput.spent("checkpoint"):
            self._checkpointer.save(
                step, state, self._position, metrics=metrics, wait=wait
            )
        self._has_saved, self._last_s = True, time.monotonic()


def abstract_of(state: StateT) -> StateT:
    """Shapes, dtypes and shardings of a state."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
