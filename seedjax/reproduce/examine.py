"""Examining an arm: all its decode settings on the test split, line by line.

A folder's `scores.jsonl` has one line for each decode setting, slice, kind of task and
tier; a line that is there is not measured again, so an examination that was cut off
goes on where it stopped.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from seedjax.errors import InputError
from seedjax.evaluate.examine import examine
from seedjax.evaluate.score import Score
from seedjax.evaluate.statistics import wilson_interval
from seedjax.files.text import (
    format_json_line,
    open_for_writing,
    read_json_lines,
    write_text,
)
from seedjax.inference.loading import load
from seedjax.inference.model import Model
from seedjax.progress import Progress, Stop, counter, never, silent
from seedjax.reproduce.arms import Budget
from seedjax.sampling.policy import (
    ConfidenceThreshold,
    FixedCount,
    LeftToRight,
    Policy,
)
from seedjax.sampling.trace import to_json_line
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.lab.compose import LONGER, Slice
from seedjax.tasks.lab.tasks import TASKS, TIERS, Task, TaskName, exam, make_task
from seedjax.tasks.suite import Problem
from seedjax.tasks.suites.lab import by_kind

EXAM_SEED = 0
SCORES = "scores.jsonl"
TRACE = "trace.jsonl"

Order = Literal["left", "confidence"]
"""Which tokens are unmasked first: those that follow the prefix, or the most
confident."""

ORDERS: tuple[Order, ...] = get_args(Order)


def policy_of(order: Order, threshold: float | None, block_size: int) -> Policy:
    """The policy of a decode setting: tokens of a confidence of `threshold` at once,
    or, for None, one token per step."""
    if order == "left":
        return LeftToRight(threshold=threshold)
    if threshold is None:
        return FixedCount(steps_per_block=block_size)
    return ConfidenceThreshold(threshold=threshold)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A line of `scores.jsonl`.

    Attributes:
      order: decode setting: which tokens are unmasked first.
      threshold: decode setting; None is one token per step.
      slice: part of the test split.
      task: kind of task.
      tier: number of primitives.
      score: of the completions.
    """

    order: Order
    threshold: float | None
    slice: Slice
    task: TaskName
    tier: int
    score: Score

    @property
    def key(self) -> tuple[Order, float | None, Slice, TaskName, int]:
        return self.order, self.threshold, self.slice, self.task, self.tier


def exam_of(budget: Budget, part: Slice) -> list[Task]:
    """The tasks of a slice, the same for all arms."""
    if part == "standard":
        return exam(budget.tasks, seed=EXAM_SEED)
    return [
        make_task(task, index, split="test", seed=EXAM_SEED, part=part)
        for task in TASKS
        for index in range(budget.slice_tasks)
    ]


class Examiner:
    """Examines models. Those of one shape share their compiled programs."""

    def __init__(
        self,
        budget: Budget,
        sandbox: Sandbox,
        report: Progress = silent,
        stop: Stop = never,
    ):
        self._budget, self._sandbox = budget, sandbox
        self._report, self._stop = report, stop
        self._models: dict[Any, Model] = {}
        self._exams: dict[Slice, list[Task]] = {}

    def examine(self, folder: Path) -> bool:
        """Writes the missing scores of the model in `folder`; False if `stop` ended it
        before all were there."""
        model = self._open(folder)
        causal = model.config.attention == "causal"
        thresholds = (None,) if causal else (None, *self._budget.thresholds)
        orders = ORDERS[:1] if causal else ORDERS
        path = folder / SCORES
        cells = read_scores(path)
        have = {cell.key for cell in cells}
        # Without a last line that was cut off, if there is one.
        write_text(path, "".join(map(to_line, cells)))
        parts: list[Slice] = ["standard", "paraphrase", "longer"]
        for order, threshold in itertools.product(orders, thresholds):
            careful = order == ORDERS[0] and threshold is None
            for part in parts if careful else parts[:1]:
                tasks = self._exam(part)
                setting = order, threshold
                missing = [t for t in tasks if (*setting, *_place(t)) not in have]
                if missing and self._stop():
                    return False
                if missing:
                    self._write(path, model, setting, missing)
        if not causal and not (folder / TRACE).exists():
            write_trace(folder / TRACE, model, self._exam("standard"))
        return True

    def _write(
        self,
        path: Path,
        model: Model,
        setting: tuple[Order, float | None],
        tasks: list[Task],
    ) -> None:
        order, threshold = setting
        how = "one token per step" if threshold is None else f"threshold {threshold}"
        stage = f"{path.parent.name}, {order}, {how}"
        sampler = model.sampler.vary(
            policy=policy_of(order, threshold, model.config.block_size),
            max_new_tokens=self._budget.max_new_tokens,
            trace=False,
        )
        found = examine(
            model,
            by_kind(tasks),
            sampler,
            self._sandbox,
            advance=counter(self._report, stage, len(tasks)),
        )
        places: dict[tuple[Slice, TaskName, int], list[int]] = {}
        for number, task in enumerate(found.problems):
            places.setdefault(_place(task), []).append(number)
        with open_for_writing(path, append=True) as file:
            for (part, kind, tier), chosen in places.items():
                cell = Cell(
                    order=order,
                    threshold=threshold,
                    slice=part,
                    task=kind,
                    tier=tier,
                    score=found.score(chosen),
                )
                file.write(to_line(cell))

    def _open(self, folder: Path) -> Model:
        fresh = load(str(folder))
        return self._models.setdefault(fresh.config, fresh).with_params(fresh.params)

    def _exam(self, part: Slice) -> list[Task]:
        if part not in self._exams:
            self._exams[part] = exam_of(self._budget, part)
        return self._exams[part]


def _place(task: Problem) -> tuple[Slice, TaskName, int]:
    """Where a task counts. The slice of paraphrases has too few for tiers."""
    assert isinstance(task, Task)
    tier = {"standard": task.tier, "paraphrase": 0, "longer": LONGER}[task.slice]
    return task.slice, task.task, tier


_NAMES = ("order", "threshold", "slice", "task", "tier")


def to_line(cell: Cell) -> str:
    """A cell as a line of JSON."""
    values = {name: getattr(cell, name) for name in _NAMES}
    return format_json_line(values | {"score": cell.score.to_dict()})


def read_scores(path: Path) -> list[Cell]:
    """The cells of a `scores.jsonl`; none if there is no file. A last line that was cut
    off is left out.

    Raises:
      InputError: for a line that is no cell.
    """
    if not path.exists():
        return []
    cells = []
    for _, where, found in read_json_lines(path, unfinished=True):
        try:
            score = read_score(found["score"])
            cells.append(Cell(**{name: found[name] for name in _NAMES}, score=score))
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{where}: no score of an examination ({error}); remove the file to "
                "examine the arm again"
            ) from None
    return cells


def read_score(values: dict[str, Any]) -> Score:
    """The score of a cell, also of one that was written before `Score` was that of
    `seedjax eval`."""
    if "tasks" not in values:
        return Score.from_dict(values)
    count, passed = values["tasks"], values["passed"]
    kept = [
        "tokens_per_forward",
        "text_per_forward",
        "tokens_per_second",
        "valid_rate",
        "repetition_rate",
        "empty_rate",
    ]
    return Score(
        suite="lab",
        problems=count,
        samples=1,
        pass_at={1: passed / count},
        intervals={1: wilson_interval(passed, count)},
        reasons={},
        **{name: values[name] for name in kept},
    )


def write_trace(path: Path, model: Model, tasks: Sequence[Task]) -> None:
    """Writes the denoising steps of the first tier-3 generate task."""
    task = next(t for t in tasks if t.task == "generate" and t.tier == TIERS[-1])
    written = model.generate(task.prompt, trace=True, max_new_tokens=96)
    lines = [
        to_json_line(
            step, pieces=[model.tokenizer.decode([token]) for token in step.tokens]
        )
        for step in written.trace or []
    ]
    write_text(path, "".join(f"{line}\n" for line in lines))
