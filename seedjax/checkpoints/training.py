"""Checkpoints of a training run: the whole state and the place in the data, on Orbax.

    run/checkpoints/400/state   the training state
    run/checkpoints/400/data    where the Grain iterator stood
    run/checkpoints/400/record  shape, dtype and checksum of each array, metrics, recipe

Saving goes on in the background while the next steps run; a save that is cut off leaves
only a temporary directory, which nothing reads. The checksums are there because Orbax
hands back changed bytes without a word.

Not here: the weights that other commands take as `--model` (see `model_directory`).
"""

import contextlib
import functools
import itertools
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from seedjax.checkpoints.manifest import describe, first_mismatch, forms
from seedjax.checkpoints.orbax_faults import (
    DAMAGE,
    explained,
    raise_if_not_damage,
    reason_of,
)
from seedjax.errors import InputError
from seedjax.files.remote import address_of
from seedjax.processes import is_first

logger = logging.getLogger(__name__)

TEMPORARY = "*.orbax-checkpoint-tmp"  # what Orbax calls a save that is not finished


class TrainingCheckpointer:
    """Saves and restores one run's checkpoints.

    The newest `keep_latest` are kept, and the one with the lowest `keep_best_metric`.
    A run that goes on from an earlier step replaces the later ones: the first save
    after a `restore` deletes them.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep_latest: int = 3,
        keep_best_metric: str | None = "loss",
        config: Mapping[str, Any] | None = None,
    ):
        """Opens `directory`, which the first save creates.

        Args:
          directory: where the checkpoints are, one directory a step; may be a bucket.
          keep_latest: how many of the newest to keep, at least 1.
          keep_best_metric: name of the metric whose lowest value is kept too, if any.
          config: the run's recipe as JSON values (`config.to_dict`). It is stored with
            each checkpoint and explains a mismatch on restoring.

        Raises:
          InputError: when `directory` is a file, or `keep_latest` is below 1.
        """
        from etils import epath  # as late as Orbax, which brings it

        if keep_latest < 1:
            raise InputError(f"keep_latest is {keep_latest}; it must be at least 1")
        place = epath.Path(directory).expanduser()
        # Resolving the address of a bucket gives a local path.
        self.directory = place if address_of(directory) else place.resolve()
        if self.directory.exists() and not self.directory.is_dir():
            raise InputError(
                f"{self.directory} is a file; name a directory for the checkpoints"
            )
        self._kept = _LatestAndBest(keep_latest, keep_best_metric)
        self._config = None if config is None else dict(config)
        self._newest: int | None = None  # last step saved or restored by this object
        self._pending: tuple[int, Any] | None = None  # the save that is under way

    @functools.cached_property
    def _orbax(self) -> Any:
        # Orbax takes most of a second to import, and only training needs it.
        from orbax.checkpoint import v1 as ocp

        context = ocp.Context()
        # Weights and moments shrink by a thirteenth, for four times the work of a save.
        context.array.saving.use_compression = False
        registry = ocp.handlers.local_registry()
        registry.add(ocp.handlers.JsonHandler, checkpointable_name="record")
        context.checkpointables.registry = registry
        try:
            opened = ocp.training.Checkpointer(
                self.directory, context=context, preservation_policy=self._kept
            )
        except OSError as error:
            raise explained(error, f"opening {self.directory}") from error
        for checkpoint in opened.checkpoints:
            with contextlib.suppress(*DAMAGE):  # `restore` reports it
                self._kept.note(checkpoint.step, _record(opened, checkpoint.step))
        return opened

    def steps(self) -> tuple[int, ...]:
        """The steps whose checkpoints are complete, ascending."""
        if not self.directory.exists():
            return ()  # asking must not create it, as opening it with Orbax would
        self.wait()
        return tuple(c.step for c in self._orbax.checkpoints)

    def latest_step(self) -> int | None:
        """The newest complete step, None when there is none."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """The step with the lowest `keep_best_metric`, None when none has one."""
        return self._kept.best(self.steps())

    def save(
        self,
        step: int,
        state: Any,
        data_iterator: Any,
        *,
        metrics: Mapping[str, float] | None = None,
        wait: bool = False,
    ) -> None:
        """Saves in the background; the arrays may be donated as soon as this returns.

        Saving the step that was saved or restored last does nothing.

        Args:
          step: number of the step.
          state: tree of arrays.
          data_iterator: the Grain iterator, or None when there is none to resume.
          metrics: what was measured at this step.
          wait: whether to return only when the checkpoint is complete.

        Raises:
          InputError: when the directory holds another run's checkpoints, or the disk is
            full. A failure in the background is raised by the next call.
        """
        existing = self.steps()
        if step == self._newest:
            return
        if existing and self._newest is None:
            raise InputError(
                f"{self.directory} holds an earlier run up to step {existing[-1]}; "
                "resume it, or choose another directory"
            )
        self._make_way(existing)
        record = {
            "leaves": describe(state),
            "metrics": {name: float(value) for name, value in (metrics or {}).items()},
            "config": self._config,
        }
        parts = {"state": state, "record": record}
        if data_iterator is not None:
            parts["data"] = data_iterator
        self._kept.note(step, record)
        try:
            response = self._orbax.save_checkpointables_async(step, parts, force=True)
        except (OSError, ValueError) as error:
            raise self._save_failed(step, error) from error
        self._newest, self._pending = step, (step, response)
        if wait:
            self.wait()

    def _make_way(self, existing: tuple[int, ...]) -> None:
        """Deletes what the run has left: later steps and cut-off saves."""
        for step in existing:
            if step > (self._newest or 0):
                logger.warning("deleting checkpoint %d, which is run anew", step)
                self._orbax.delete(step)
        self._delete_temporary()

    def _delete_temporary(self) -> None:
        if is_first() and self.directory.exists():
            for leftover in self.directory.glob(TEMPORARY):
                leftover.rmtree()

    def wait(self) -> None:
        """Returns when no save is under way.

        Raises:
          InputError: when the last save found the disk full.
        """
        if self._pending is None:
            return
        (step, response), self._pending = self._pending, None
        try:
            response.result()
            self._orbax.wait()
        except (OSError, ValueError) as error:
            raise self._save_failed(step, error) from error

    def _save_failed(self, step: int, error: Exception) -> Exception:
        self._delete_temporary()  # a full disk needs the space back
        # Orbax has struck the checkpoints that this save would have replaced off its
        # list, though they are still there.
        with contextlib.suppress(OSError, ValueError):  # the same failure, once more
            self._orbax.wait()
        self._orbax.reload()
        self._newest = self.latest_step()
        kept = "none is" if self._newest is None else f"step {self._newest} is still"
        return explained(
            error, f"saving checkpoint {step} in {self.directory} ({kept} complete)"
        )

    def restore(
        self, step: int | None = None, *, abstract_state: Any, data_iterator: Any
    ) -> tuple[int, Any]:
        """Reads a checkpoint, and sets `data_iterator` to where it stood.

        Args:
          step: which one; None for the newest. Where the newest cannot be read, the one
            before it is taken, with a warning.
          abstract_state: tree of `jax.ShapeDtypeStruct` like the state that was saved;
            shardings in it say where the arrays go, on any mesh.
          data_iterator: a fresh Grain iterator over the same data, or None to leave the
            data alone.

        Returns:
          The step and the state.

        Raises:
          InputError: when there is no such checkpoint, none can be read, or the state
            has other arrays than `abstract_state`.
        """
        existing = self.steps()
        if not existing:
            raise InputError(
                f"no checkpoint in {self.directory}; start the run anew, or name the "
                "directory of a run that has saved one"
            )
        if step is not None and step not in existing:
            raise InputError(
                f"no checkpoint {step} in {self.directory}; it has {_listed(existing)}"
            )
        unreadable: dict[int, str] = {}
        for candidate in reversed(existing) if step is None else (step,):
            try:
                state = self._load(candidate, abstract_state, data_iterator)
            except InputError:
                raise  # another run's; an earlier checkpoint would not fit either
            except DAMAGE as error:
                raise_if_not_damage(error)
                unreadable[candidate] = reason_of(error)
                time.sleep(0.1)  # reads under way report to a loop that is gone
                continue
            for other, reason in unreadable.items():
                logger.warning(
                    "checkpoint %d in %s cannot be read (%s); taking step %d",
                    other,
                    self.directory,
                    reason,
                    candidate,
                )
            self._newest = candidate
            return candidate, state
        newest, reason = next(iter(unreadable.items()))
        earlier = tuple(s for s in existing if s not in unreadable and s < newest)
        raise InputError(
            f"checkpoint {newest} in {self.directory} cannot be read ({reason}); "
            + (
                f"restore an earlier step: {_listed(earlier)}"
                if earlier
                else "none before it is readable, start anew in another directory"
            )
        )

    def _load(self, step: int, abstract_state: Any, data_iterator: Any) -> Any:
        default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape,
                leaf.dtype,
                sharding=getattr(leaf, "sharding", None) or default,
            ),
            abstract_state,
        )
        parts = {"state": abstract}
        if data_iterator is not None:
            if not (self.directory / str(step) / "data").exists():
                raise ValueError("it was saved without a place in the data")
            parts["data"] = data_iterator
        record = _record(self._orbax, step)
        self._check_structure(step, record, abstract)
        state = self._orbax.load_checkpointables(step, parts)["state"]
        for name, found in describe(state).items():
            if found["checksum"] != record["leaves"][name]["checksum"]:
                raise ValueError(f"{name} is not what was saved")
        return state

    def _check_structure(
        self, step: int, record: Mapping[str, Any], abstract: Any
    ) -> None:
        found = {
            name: (leaf["dtype"], tuple(leaf["shape"]))
            for name, leaf in record["leaves"].items()
        }
        mismatch = first_mismatch(found, forms(abstract))
        if mismatch is None:
            return
        changes = itertools.islice(_differences(record["config"], self._config), 3)
        raise InputError(
            f"checkpoint {step} in {self.directory} is of another run: {mismatch}"
            + "".join(f"; {change}" for change in changes)
            + "; resume with the configuration it was saved with"
        )

    def close(self) -> None:
        """Waits for the last save and lets go of Orbax's threads.

        Raises:
          InputError: when the last save found the disk full.
        """
        try:
            self.wait()
        finally:
            if "_orbax" in self.__dict__:
                self._orbax.close()

    def __enter__(self) -> "TrainingCheckpointer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _LatestAndBest:
    """Which checkpoints to keep; Orbax calls `should_preserve`.

    Orbax's own policies read the metrics from files of their own, and a single damaged
    one of those keeps it from opening the directory at all.
    """

    def __init__(self, num_latest: int, metric: str | None):
        self._num_latest, self._metric = num_latest, metric
        self._values: dict[int, float] = {}  # of the metric, by step

    def note(self, step: int, record: Mapping[str, Any]) -> None:
        value = record["metrics"].get(self._metric, np.nan)
        self._values.pop(step, None)
        if np.isfinite(value):
            self._values[step] = value

    def best(self, steps: Sequence[int]) -> int | None:
        measured = [step for step in steps if step in self._values]
        return min(measured, key=lambda step: self._values[step], default=None)

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> list[bool]:
        del context  # empty, as of Orbax 0.12
        steps = [c.step for c in checkpoints]
        kept = {*sorted(steps)[-self._num_latest :], self.best(steps)}
        return [step in kept for step in steps]


def _record(orbax: Any, step: int) -> Mapping[str, Any]:
    record = orbax.load_checkpointables(step, {"record": None})["record"]
    if not isinstance(record, dict) or record.keys() != {"leaves", "metrics", "config"}:
        raise ValueError("it was not written by seedjax")
    return record


def _differences(stored: Any, current: Any, where: str = "") -> Iterator[str]:
    """Names the fields in which two recipes (JSON values) differ."""
    if isinstance(stored, Mapping) and isinstance(current, Mapping):
        for name in dict.fromkeys((*stored, *current)):
            field = f"{where}.{name}" if where else name
            yield from _differences(stored.get(name), current.get(name), field)
    elif stored != current and where:
        yield f"it was saved with {where}={stored!r}, this run has {current!r}"


def _listed(steps: tuple[int, ...]) -> str:
    return ", ".join(str(s) for s in steps)
