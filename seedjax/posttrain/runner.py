"""What the loops of post-training share: resuming, numbers, checkpoints, signals."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seedjax.checkpoints.model_directory import (
    model_digest,
    read_model_directory,
    resolve_model,
    save_model,
)
from seedjax.checkpoints.training import TrainingCheckpointer
from seedjax.checkpoints.weights import WeightsDType
from seedjax.config import to_dict
from seedjax.errors import InputError
from seedjax.inference.loading import load
from seedjax.inference.model import Model
from seedjax.nn.denoiser import unstack_layers
from seedjax.sampling.policy import Policy
from seedjax.tasks.lab.stream import LabConfig
from seedjax.train.loop import StopSignal
from seedjax.train.metrics import (
    JsonlWriter,
    MetricWriter,
    Numbers,
    TerminalProgress,
)
from seedjax.train.optim import OptimizerConfig, make_optimizer
from seedjax.train.state import TrainState
from seedjax.typing import Params

ReadNumbers = Callable[[], Numbers]
"""The numbers of a step. Reading them waits for the device."""


class Ended(NamedTuple):
    """How a loop ended.

    Attributes:
      state: at the end.
      step: steps taken.
      finished: whether it came to its end, or an evaluation ended it; else a signal.
    """

    state: TrainState
    step: int
    finished: bool


def float32(params: Params) -> Params:
    """The parameters as they are trained."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)


def first_state(
    params: Params, optimizer: OptimizerConfig, num_steps: int
) -> TrainState:
    """The state before the first step, which shares no memory with `params`."""
    return TrainState(
        step=jnp.int32(0),
        params=jax.tree.map(jnp.copy, params),
        ema=jax.tree.map(jnp.copy, params),
        opt_state=make_optimizer(optimizer, num_steps).init(params),
    )


def run_steps(
    out: Path,
    state: TrainState,
    *,
    num_steps: int,
    take: Callable[[TrainState, int], tuple[TrainState, ReadNumbers]],
    evaluate: Callable[[TrainState, int], tuple[Numbers, bool]] | None = None,
    eval_every: int = 0,
    log_every: int,
    checkpoint_every_s: float,
    resume: bool,
) -> Ended:
    """Takes steps until they are all taken, an evaluation ends the run, or a signal
    comes; numbers go to `out/metrics.jsonl` and the terminal, checkpoints to
    `out/checkpoints`.

    Args:
      out: the output directory, which is claimed.
      state: before the first step.
      num_steps: in all.
      take: takes one step, of a number from 0.
      evaluate: scores a state, and says whether the run is over; also asked before the
        first step.
      eval_every: steps between evaluations.
      log_every: steps between lines.
      checkpoint_every_s: seconds between checkpoints.
      resume: whether to go on from the newest checkpoint, if there is one.

    Raises:
      InputError: if the loss is not finite; the checkpoints stay as they are.
    """
    checkpointer = TrainingCheckpointer(
        out / "checkpoints", keep_latest=2, keep_best_metric=None
    )
    if resume and checkpointer.latest_step() is not None:
        wanted = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        _, state = checkpointer.restore(abstract_state=wanted, data_iterator=None)
    step, over = int(state.step), False
    writers: list[MetricWriter] = [
        JsonlWriter(out / "metrics.jsonl", resume_step=step),
        TerminalProgress(num_steps, start=step),
    ]

    def write(numbers: Numbers) -> None:
        for writer in writers:
            writer.write(step, numbers)

    try:
        if evaluate is not None and step == 0:
            scores, over = evaluate(state, step)
            write(scores)
        last_checkpoint = time.monotonic()
        with StopSignal() as stop:
            while step < num_steps and not stop.received and not over:
                state, read = take(state, step)
                step += 1
                if step % log_every == 0 or step == num_steps:
                    write(require_finite(read(), step))
                due = time.monotonic() - last_checkpoint > checkpoint_every_s
                last = step == num_steps or stop.received
                evaluated = evaluate is not None and (
                    step % eval_every == 0 or step == num_steps
                )
                if evaluated:
                    assert evaluate is not None
                    scores, over = evaluate(state, step)
                    write(scores)
                if evaluated or due or last:
                    checkpointer.save(step, state, None)
                    last_checkpoint = time.monotonic()
    finally:
        checkpointer.close()
        for writer in writers:
            writer.close()
    return Ended(state, step, over or step >= num_steps)


def load_for_tasks(name: str, tasks: LabConfig) -> Model:
    """The model of that name, which must have the tokenizer of the tasks.

    Raises:
      InputError: if there is no such model, or it has another tokenizer.
    """
    model = load(name)
    if tasks.tokenizer().fingerprint != model.tokenizer.fingerprint:
        raise InputError(
            f"the tasks are tokenized by {tasks.vocabulary!r}, which is not the "
            f"tokenizer of {name!r}; set tasks.vocabulary to the model"
        )
    return model


def scalars(metrics: Any) -> dict[str, float]:
    """A named tuple of scalars on the device, read."""
    return {name: float(value) for name, value in metrics._asdict().items()}


def require_finite(numbers: Numbers, step: int) -> Numbers:
    """The numbers.

    Raises:
      InputError: if the loss is not finite.
    """
    loss = numbers["loss"]
    if isinstance(loss, float) and not math.isfinite(loss):
        raise InputError(
            f"the loss is {loss} at step {step}; lower optimizer.learning_rate and "
            "resume from the checkpoint before"
        )
    return numbers


def write_model(
    out: str | Path,
    start: Model,
    params: Params,
    *,
    base: str,
    recipe: Mapping[str, Any],
    card: str,
    block_size: int | None = None,
    policy: Policy | None = None,
    weights_dtype: WeightsDType = "bfloat16",
) -> None:
    """Writes a post-trained model as a model directory.

    Args:
      out: the directory.
      start: the model that it came from, for all that has not changed.
      params: its weights.
      base: directory or bundled name of `start`.
      recipe: what was done, as JSON values.
      card: text of README.md.
      block_size: of the model; None is the start's.
      policy: of its default recipe; None is the start's.
      weights_dtype: what to store the weights as.
    """
    directory = resolve_model(base)
    config = start.config
    if config.layer_loop == "scan":
        params = unstack_layers(params)
    sampler = dict(read_model_directory(directory).sampler)
    if policy is not None:
        sampler["policy"] = to_dict(policy)
    save_model(
        out,
        params=jax.tree.map(np.asarray, params),
        denoiser=dataclasses.replace(
            config, block_size=block_size or config.block_size, layer_loop="unroll"
        ),
        tokenizer=start.tokenizer,
        sampler=sampler,
        provenance={
            "recipe": dict(recipe),
            "base": base,
            "base_digest": model_digest(directory),
        },
        card=card,
        weights_dtype=weights_dtype,
    )
