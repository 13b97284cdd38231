"""The training loop of every stage: `train`, post-training and the critic.

    restore or initialize ─▶ batch ─▶ step ─▶ metrics ─▶ evaluate, checkpoint ─▶ ...
          ▲                                      │ a bad loss
          └──────────────────────────────────────┘

It knows neither models nor data: a stage passes its state, a step function and its
batches. The run's own files in the output directory are run.json (the resolved recipe),
metrics.jsonl and checkpoints/. Of several processes all take the same steps, save and
stop at the same one (`seedjax.train.agreement`), and the first alone writes and prints.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax

from seedjax.checkpoints.training import TrainingCheckpointer
from seedjax.config import from_dict, to_dict
from seedjax.errors import InputError
from seedjax.files.text import brief, read_json_object, write_json
from seedjax.processes import is_first
from seedjax.profiling import Profile, StepProfiler
from seedjax.progress import Stop, never
from seedjax.train.agreement import Agreement
from seedjax.train.goodput import Goodput
from seedjax.train.guard import BadLossError, LossGuard, LossWatch
from seedjax.train.metrics import (
    JsonlWriter,
    MetricWriter,
    Numbers,
    RunLog,
    TensorBoardWriter,
    TerminalProgress,
    read_jsonl,
)
from seedjax.train.watchdog import watchdog
from seedjax.typing import Array

StateT = TypeVar("StateT")
RecipeT = TypeVar("RecipeT")


class Step(NamedTuple):
    """The result of a step function.

    Attributes:
      state: after the step.
      metrics: float32 scalars on the device, read after the next step is dispatched.
      numbers: on the host; logged with the metrics.
      tokens: supervised tokens of the batch, of all processes; an int32 scalar on the
        device is read with the metrics.
      program: identifies the compiled program; where it changes, the time of
        compilation is left out of the rate.
    """

    state: Any
    metrics: Mapping[str, Array]
    numbers: Numbers = {}
    tokens: int | Array = 0
    program: str = ""


GUARD = LossGuard()

StepFunction = Callable[[StateT, Any, int], Step]
"""Takes a state, a batch and the number of the step, from 0. It may donate the
state."""


class Fitted(NamedTuple):
    """How a run ended.

    Attributes:
      state: after the last step.
      step: steps taken; fewer than `num_steps` if `stop` ended the run.
      finished: whether all steps were taken.
      tokens: supervised tokens seen.
      scores: of the last evaluation in this process; empty if there was none.
    """

    state: Any
    step: int
    finished: bool
    tokens: int
    scores: Numbers


def fit(
    initialize: Callable[[], StateT],
    step_function: StepFunction[StateT],
    batches: Iterator[Any] | Callable[[int], Any],
    *,
    num_steps: int,
    log_every: int,
    out: Path | None = None,
    resume: bool = False,
    abstract_state: StateT | None = None,
    evaluate: Callable[[StateT, int], Numbers] | None = None,
    eval_every: int = 0,
    eval_first: bool = False,
    best: str | None = None,
    stop: Stop = never,
    checkpoint_every_s: float = 180.0,
    keep_latest: int = 2,
    tensorboard: bool = False,
    guard: LossGuard = GUARD,
    ideal_step_s: float = 0.0,
    profile: Profile | None = None,
    hang_minutes: float = 0.0,
    checkpoints: str | Path | None = None,
) -> Fitted:
    """Takes steps until `num_steps` are taken or `stop` returns true.

    A stopped run ends after the current step, with a checkpoint; with `resume` the same
    call continues it with the same batches. No state with a loss or a gradient that is
    not finite is ever saved: a run with an iterator of batches goes back to its last
    checkpoint, and on with the batches after the bad one.

    Args:
      initialize: makes the state before the first step; not called on resuming.
      step_function: takes one step.
      batches: an iterator of Grain or `ShardedBatches`, whose position is saved in each
        checkpoint; or a function of the step number, of which nothing is saved.
      num_steps: in all.
      log_every: steps between lines of metrics.
      out: the run's directory; None logs and saves nothing.
      resume: continue from the newest checkpoint in `out`, if there is one.
      abstract_state: shapes, dtypes and shardings of the state; None takes them from
        `initialize`.
      evaluate: scores the state at a step.
      eval_every: steps between evaluations; the last step is always evaluated.
      eval_first: also evaluate before the first step.
      best: the score by which the best checkpoint (the lowest) is kept, if any.
      stop: called before the first step and after each; true ends the run.
      checkpoint_every_s: seconds between checkpoints; evaluations save one, too.
      keep_latest: checkpoints to keep besides the best.
      tensorboard: also write TensorBoard event files.
      guard: which losses send the run back, and how often.
      ideal_step_s: seconds of a step at the peak of the devices, for the utilization
        in the metrics; 0 where that is unknown.
      profile: steps to trace.
      hang_minutes: without a step, after which the process ends with the stacks of its
        threads; 0 for never.
      checkpoints: their folder, which may be in a bucket; None for one in `out`.

    Raises:
      InputError: if the loss is bad too often, or the checkpoints are of another run.
    """
    with contextlib.ExitStack() as stack:
        alive = stack.enter_context(watchdog(hang_minutes))
        goodput = Goodput()
        checkpointer, state, step = None, None, 0
        if out is not None:
            checkpointer = stack.enter_context(
                TrainingCheckpointer(
                    checkpoints or out / "checkpoints",
                    keep_latest=keep_latest,
                    keep_best_metric="loss" if best else None,
                )
            )
        position = None if callable(batches) else batches

        watch = LossWatch(guard)

        def begin(*, restore: bool, position: Any) -> tuple[int, StateT]:
            """The newest checkpoint, or the state before the first step."""
            with goodput.spent("start"):
                if checkpointer is None or not restore or not checkpointer.steps():
                    return 0, initialize()
                return checkpointer.restore(
                    abstract_state=abstract_state or abstract_of(initialize()),
                    data_iterator=position,
                )

        def open_log(step: int) -> RunLog:
            return RunLog(
                open_writers(out, num_steps, step, tensorboard=tensorboard),
                tokens=tokens_before(out, step) if out and is_first() else 0,
                watch=watch,
                ideal_step_s=ideal_step_s,
            )

        step, state = begin(restore=resume, position=position)
        if out and is_first():
            goodput.resume(read_jsonl(out / "metrics.jsonl"), step, time.time())
        log = open_log(step)
        stack.callback(lambda: log.close())
        profiler = StepProfiler(profile)
        stack.callback(profiler.close)
        start, program, agreement = step, None, Agreement()
        has_saved = resume
        scores: Numbers = {}
        last_checkpoint = time.monotonic()

        if evaluate is not None and eval_first and step == 0:
            with goodput.spent("evaluation"):
                scores = evaluate(state, step)
            log.score(step, scores)
        stopping = agreement.decide(step, save=False, stop=stop()).stop
        while step < num_steps and not stopping:
            try:
                with goodput.spent("data"):
                    batch = batches(step) if callable(batches) else next(batches)
                began = time.monotonic()
                with profiler.step(step):
                    taken = step_function(state, batch, step)
                state, step = taken.state, step + 1
                log.count(step, taken.tokens)
                if taken.program != program:
                    jax.block_until_ready(taken.metrics)
                    goodput.add("compile", time.monotonic() - began)
                    log.restart_clock()
                    watch.forget()
                    program = taken.program
                profiler.finish(taken.metrics)
                alive()

                last = step == num_steps
                evaluated = evaluate is not None and (step % eval_every == 0 or last)
                overdue = time.monotonic() - last_checkpoint > checkpoint_every_s
                due, stopping = agreement.decide(step, save=overdue, stop=stop())
                flushed = evaluated or due or last or stopping
                if step % log_every == 0 or flushed:
                    log.hold(step, taken.metrics, taken.numbers)
                if flushed:
                    log.flush()
                if evaluated:
                    assert evaluate is not None
                    with goodput.spent("evaluation"):
                        scores = evaluate(state, step)
                    log.score(step, scores)
                if checkpointer is not None and (evaluated or due):
                    found = {"loss": float(scores[best])} if evaluated and best else {}
                    with goodput.spent("checkpoint"):
                        checkpointer.save(step, state, position, metrics=found)
                    log.record(step, goodput.line())
                    has_saved, last_checkpoint = True, time.monotonic()
                    alive()
            except BadLossError as error:
                if checkpointer is None or position is None:
                    raise
                watch.rewind(error)
                goodput.lose()
                # The data stay where they are: the batches in between are left out.
                step, state = begin(restore=has_saved, position=None)
                log.close()
                log = open_log(step)
                log.write(
                    step,
                    {
                        "rewind": watch.rewinds,
                        "rewound_from": error.step,
                        "bad_loss": str(error.loss),
                    },
                )
                agreement = Agreement()  # the old one has decided for later steps

        if checkpointer is not None and step > start:
            with goodput.spent("checkpoint"):
                checkpointer.save(step, state, position, wait=True)
            log.record(step, goodput.line())
    return Fitted(state, step, step >= num_steps, log.tokens, scores)


def abstract_of(state: StateT) -> StateT:
    """Shapes, dtypes and shardings of a state."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def open_writers(
    out: Path | None, num_steps: int, start: int, *, tensorboard: bool
) -> list[MetricWriter]:
    """Where numbers go, those of the first process; the terminal comes last."""
    if out is None or not is_first():
        return []
    writers: list[MetricWriter] = [
        JsonlWriter(out / "metrics.jsonl", resume_step=start)
    ]
    if tensorboard:
        writers.append(TensorBoardWriter(out / "tensorboard"))
    writers.append(TerminalProgress(num_steps, start=start))
    return writers


def tokens_before(out: Path, start: int) -> int:
    """Tokens seen by a run before the step that it is resumed from."""
    lines = read_jsonl(out / "metrics.jsonl")
    seen = (line.get("tokens") or 0 for line in lines if line["step"] <= start)
    return int(max(seen, default=0))


def claim_directory(out: Path, run: Any, *, resume: bool) -> None:
    """Writes run.json, or checks that the one found there is of the same recipe. One
    without metrics beside it is of a run that never took a step, and is replaced. The
    first process does so for all.

    Raises:
      InputError: when `out` holds another run, or a run that is not to be resumed.
    """
    if not is_first():
        return
    record = out / "run.json"
    given = to_dict(run)
    if record.exists() and (out / "metrics.jsonl").exists():
        found = read_json_object(record)
        if not resume:
            raise InputError(
                f"{str(out)!r} already holds a run; continue it with --resume or "
                "choose another --out"
            )
        path = first_difference(found, given)
        if path:
            raise InputError(
                f"{str(record)!r} differs from the config at {path}; resume with the "
                "same config, or choose another --out"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    write_json(record, given)


def resumed_recipe(out: str | Path, kind: type[RecipeT]) -> RecipeT:
    """The recipe of the run in `out`.

    Raises:
      InputError: if there is none, or it is no `kind`.
    """
    record = Path(out) / "run.json"
    if not record.exists():
        raise InputError(f"nothing to resume: no run.json in {str(out)!r}")
    return from_dict(kind, read_json_object(record), str(record))


def first_difference(found: Any, given: Any, path: str = "") -> str:
    """Path of the first field in which two recipes differ; empty when they agree."""
    if isinstance(found, dict) and isinstance(given, dict):
        for name in sorted(found.keys() | given.keys()):
            at = f"{path}.{name}" if path else name
            difference = first_difference(found.get(name), given.get(name), at)
            if difference:
                return difference
        return ""
    if found == given:
        return ""
    return f"{path} (run {brief(found)}, config {brief(given)})"
