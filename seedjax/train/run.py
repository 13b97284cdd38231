"""A training run, to be read top to bottom.

    config ─▶ mesh ─▶ data ─▶ state (resume, init_from or random) ─▶ fit ─▶ model

The output directory is a model directory (config.json, tokenizer/, params/, README.md)
with the run's own files beside it (`seedjax.train.fit`).
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from seedjax.batch import Batch
from seedjax.checkpoints.adapters import save_adapter
from seedjax.errors import InputError
from seedjax.files.output import writes
from seedjax.nn.lora import unstack_adapter
from seedjax.progress import Stop, never
from seedjax.sharding import batch_sharding, make_mesh
from seedjax.train.config import RunConfig, match_tokenizer
from seedjax.train.evaluate import evaluate
from seedjax.train.export import export_run
from seedjax.train.fit import Step, claim_directory, fit
from seedjax.train.metrics import Numbers
from seedjax.train.start import initial_params, load_frozen
from seedjax.train.state import (
    TrainState,
    abstract_state,
    initialize,
    state_shardings,
)
from seedjax.train.step import model_params, train_step


class TrainResult(NamedTuple):
    """How a run ended.

    Attributes:
      directory: the output directory, now a model directory.
      step: steps taken, fewer than planned if `stop` ended the run.
      finished: whether all steps were taken.
      heldout_bits_per_byte: at the last evaluation; NaN if there was none.
    """

    directory: Path
    step: int
    finished: bool
    heldout_bits_per_byte: float


@writes("train", sources=("run.init_from", "run.teacher"))
def train(
    run: RunConfig,
    out: str | Path,
    *,
    resume: bool = False,
    mesh: str = "",
    tensorboard: bool = False,
    stop: Stop = never,
) -> TrainResult:
    """Trains a model and writes it to `out`.

    Where `stop` ends the run early, a checkpoint and the model so far are written, and
    `resume=True` continues later with the same batches.

    Args:
      run: the recipe.
      out: output directory.
      resume: continue from the newest checkpoint in `out`.
      mesh: mesh description, see `sharding.make_mesh`.
      tensorboard: write TensorBoard event files too.
      stop: ends the run after the current step when it returns true.

    Raises:
      InputError: when `out` holds another run, or the corpus does not fit the recipe.
    """
    out = Path(out)
    tokenizer = run.data.tokenizer()
    run = dataclasses.replace(run, model=match_tokenizer(run.model, tokenizer))
    device_mesh = make_mesh(mesh)
    claim_directory(out, run, resume=resume)
    with jax.set_mesh(device_mesh):
        # Data: every process reads its own rows.
        dataset = run.data.batches(
            "train",
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

        # State. Where it comes from, first match wins:
        #   1. the newest checkpoint in `out`  (resume)
        #   2. the weights of another model    (init_from)
        #   3. random weights from the seed
        load = partial(initial_params, run) if run.init_from else None
        shardings = state_shardings(run, device_mesh)
        abstract = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=sharding
            ),
            abstract_state(run),
            shardings,
        )
        frozen = load_frozen(run, device_mesh)

        # The two stages of the curriculum are two programs.
        programs = {
            stage: jax.jit(
                partial(train_step, run=run, stage=stage),
                donate_argnums=0,
                out_shardings=(shardings, None),
            )
            for stage in ("mask", "edit")
        }

        def step_function(
            state: TrainState, rows: dict[str, np.ndarray], step: int
        ) -> Step:
            stage = "edit" if step >= run.edit_step else "mask"
            state, metrics = programs[stage](
                state, to_devices(rows, device_mesh), frozen
            )
            shown = stage if stage == "edit" else run.objective.first_stage
            tokens = int(rows["supervised"].sum()) * jax.process_count()
            return Step(state, metrics._asdict(), {"stage": shown}, tokens, stage)

        def score(state: TrainState, step: int) -> Numbers:
            params = model_params(state.ema, frozen, run)
            return evaluate(params, run, tokenizer, device_mesh)

        fitted = fit(
            lambda: initialize(run, device_mesh, load),
            step_function,
            iter(dataset),
            num_steps=run.num_steps,
            log_every=run.log_every,
            out=out,
            resume=resume,
            abstract_state=abstract,
            evaluate=score,
            eval_every=run.eval_every,
            best="heldout_bits_per_byte",
            stop=stop,
            checkpoint_every_s=run.checkpoint_every_s,
            keep_latest=run.keep_latest,
            tensorboard=tensorboard,
        )
        average = fitted.state.ema
        if run.lora is not None:
            moe = run.model.moe
            apart = 0 if moe is None else moe.num_dense_layers
            adapter = unstack_adapter(dict(average), apart)
            save_adapter(out / "adapter", adapter, run.lora, base=run.init_from)
        if run.lora is None or run.lora.merge:
            export_run(
                out,
                params=model_params(average, frozen, run),
                run=run,
                tokenizer=tokenizer,
                step=fitted.step,
                tokens=fitted.tokens,
            )
    bits_per_byte = float(fitted.scores.get("heldout_bits_per_byte", "nan"))
    return TrainResult(out, fitted.step, fitted.finished, bits_per_byte)


def to_devices(host_batch: dict[str, np.ndarray], mesh: Mesh) -> Batch:
    """The rows of all processes as arrays over the whole mesh.

    Args:
      host_batch: the rows of this process, as many as each of the others has; they
        follow those of the processes before it.
      mesh: where to.

    Raises:
      InputError: if a device of this process holds rows that another process read.
    """
    count, process = jax.process_count(), jax.process_index()
    arrays = {}
    for name in Batch._fields:
        if name in host_batch:
            local = host_batch[name]
            shape = (count * len(local), *local.shape[1:])
            whole = jax.ShapeDtypeStruct(shape, local.dtype)
            sharding = batch_sharding(mesh, whole)
            first = process * len(local)
            read_part = partial(rows_of_device, local, first=first, total=shape[0])
            arrays[name] = jax.make_array_from_callback(shape, sharding, read_part)
    return Batch(**arrays)


def rows_of_device(
    local: np.ndarray, index: tuple[slice, ...], *, first: int, total: int
) -> np.ndarray:
    """The part of a batch that a device holds.

    Args:
      local: the rows of this process.
      index: which part of the whole batch.
      first: number of the first of the local rows in the whole batch.
      total: rows of the whole batch.

    Raises:
      InputError: if the part is not among the local rows.
    """
    start, stop, _ = index[0].indices(total)
    if first <= start and stop <= first + len(local):
        return local[start - first : stop - first]
    raise InputError(
        f"the mesh gives a device the rows {start} to {stop - 1} of a batch, but its "
        f"process has only read {first} to {first + len(local) - 1}; give as "
        "data.batch_size, which is of each process, a multiple of the devices of a "
        "process, and axes such as tensor that lie within one process"
    )
