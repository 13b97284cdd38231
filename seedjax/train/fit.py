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
from seedjax.train.saves import Saves
from seedjax.train.watchdog import watchdog
from seedjax.typing import Array

StateT = TypeVar("StateT")


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
    position = None if callable(batches) else batches
    with contextlib.ExitStack() as stack:
        alive = stack.enter_context(watchdog(hang_minutes))
        profiler = stack.enter_context(contextlib.closing(StepProfiler(profile)))
        goodput, watch, agreement = Goodput(), LossWatch(guard), Agreement()
        program: str | None = None
        saves = stack.enter_context(
            Saves(
                (checkpoints or out / "checkpoints") if out else None,
                initialize,
                abstract_state,
                position,
                goodput,
                every_s=checkpoint_every_s,
                keep_latest=keep_latest,
                best=best,
            )
        )

        def open_log(step: int) -> RunLog:
            if out is None or not is_first():
                return RunLog([], watch=watch)
            return RunLog(
                open_writers(out, step, tensorboard=tensorboard),
                TerminalProgress(num_steps, start=step),
                tokens=tokens_before(out, step),
                watch=watch,
                ideal_step_s=ideal_step_s,
            )

        def take_step(state: StateT, step: int) -> Step:
            """One step; the first of a program is waited for, as it is compiled."""
            nonlocal program
            with goodput.spent("data"):
                batch = batches(step) if callable(batches) else next(batches)
            began = time.monotonic()
            with profiler.step(step):
                taken = step_function(state, batch, step)
            log.count(step + 1, taken.tokens)
            if taken.program != program:
                jax.block_until_ready(taken.metrics)
                goodput.add("compile", time.monotonic() - began)
                log.restart_clock()
                watch.forget()
                program = taken.program
            profiler.finish(taken.metrics)
            alive()
            return taken

        def score(state: StateT, step: int) -> Numbers:
            assert evaluate is not None
            with goodput.spent("evaluation"):
                scores = evaluate(state, step)
            log.score(step, scores)
            return scores

        start, state = saves.begin(restore=resume)
        if out and is_first():
            goodput.resume(read_jsonl(out / "metrics.jsonl"), start, time.time())
        log = open_log(start)
        stack.callback(lambda: log.close())
        step = start
        scores: Numbers = {}
        if evaluate is not None and eval_first and step == 0:
            scores = score(state, step)
        stopping = agreement.decide(step, save=False, stop=stop()).stop
        while step < num_steps and not stopping:
            try:
                taken = take_step(state, step)
                state, step = taken.state, step + 1
                last = step == num_steps
                scored = evaluate is not None and (step % eval_every == 0 or last)
                due, stopping = agreement.decide(
                    step, save=saves.overdue(), stop=stop()
                )
                # A state is scored and saved only when its loss is known to be good.
                flushed = scored or due or last or stopping
                if flushed or step % log_every == 0:
                    log.hold(step, taken.metrics, taken.numbers)
                if flushed:
                    log.flush()
                if scored:
                    scores = score(state, step)
                if scored or due:
                    saves.save(step, state, scores if scored else {})
                    log.record(step, goodput.line())
                    alive()
            except BadLossError as error:
                if out is None or position is None:
                    raise
                reason = watch.rewind(error)
                goodput.lose()
                step, state = saves.rewind()
                log.close()
                log = open_log(step)
                log.write(step, reason)
                agreement = Agreement()  # the old one has decided for later steps
        if step > start:
            saves.save(step, state, wait=True)
            log.record(step, goodput.line())
    return Fitted(state, step, step >= num_steps, log.tokens, scores)


def open_writers(out: Path, start: int, *, tensorboard: bool) -> list[MetricWriter]:
    """The files of metrics in `out`."""
    writers: list[MetricWriter] = [
        JsonlWriter(out / "metrics.jsonl", resume_step=start)
    ]
    if tensorboard:
        writers.append(TensorBoardWriter(out / "tensorboard"))
    return writers


def tokens_before(out: Path, start: int) -> int:
    """Tokens seen by a run before the step that it is resumed from."""
    lines = read_jsonl(out / "metrics.jsonl")
    seen = (line.get("tokens") or 0 for line in lines if line["step"] <= start)
    return int(max(seen, default=0))
