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
import jax.numpy as jnp
import numpy as np

from seedjax.batch import Batch
from seedjax.checkpoints.adapters import save_adapter
from seedjax.data.shards import ShardedBatches
from seedjax.diffusion.objective import Stage
from seedjax.files.output import writes
from seedjax.nn.attention_choice import platform_of
from seedjax.nn.layer_loop import with_layer_loop
from seedjax.nn.lora import unstack_adapter
from seedjax.profiling import Profile
from seedjax.progress import Stop, never
from seedjax.sharding import make_mesh
from seedjax.train.config import RunConfig, match_tokenizer, with_vocabulary
from seedjax.train.directory import claim_directory
from seedjax.train.evaluate import evaluate
from seedjax.train.export import export_run
from seedjax.train.fit import Step, fit
from seedjax.train.metrics import Numbers
from seedjax.train.placement import rows_of_processes, to_devices
from seedjax.train.start import initial_params, load_frozen
from seedjax.train.state import (
    TrainState,
    abstract_state,
    initialize,
    state_shardings,
)
from seedjax.train.step import Frozen, StepMetrics, merged_params, train_step
from seedjax.train.utilization import ideal_step_s
from seedjax.typing import Array, Int32


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
    profile: Profile | None = None,
    hang_minutes: float = 0.0,
    checkpoints: str | Path | None = None,
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
      profile: steps to trace.
      hang_minutes: without a step, after which the process ends with the stacks of its
        threads; 0 for never.
      checkpoints: their folder, which may be in a bucket and must be one that all
        processes see; None for a folder in `out`.

    Raises:
      InputError: when `out` holds another run, or the corpus does not fit the recipe.
    """
    out = Path(out)
    run = with_vocabulary(run)
    tokenizer = run.data.tokenizer()
    model = match_tokenizer(run.model, tokenizer, started=bool(run.init_from))
    run = dataclasses.replace(run, model=model)
    device_mesh = make_mesh(mesh)
    platform = platform_of(device_mesh.devices.flat[0].platform)
    model = with_layer_loop(run.model, platform, "training")
    run = dataclasses.replace(run, model=model)
    batch_size, num_shards = run.data.batch_size, run.data.shards
    rows = rows_of_processes(device_mesh, batch_size)
    claim_directory(out, run, resume=resume)
    with jax.set_mesh(device_mesh):
        # Data: every process reads the rows that its devices hold.
        batches = ShardedBatches(
            lambda n: run.data.batches("train", shard=n, num_shards=num_shards),
            batch_size=batch_size,
            num_shards=num_shards,
            rows=rows,
            process=jax.process_index(),
        )

        # State. Where it comes from, first match wins:
        #   1. the newest checkpoint in `out`  (resume)
        #   2. the weights of another model    (init_from)
        #   3. random weights from the seed
        shardings = state_shardings(run, device_mesh)
        abstract = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=sharding
            ),
            abstract_state(run),
            shardings,
        )
        frozen = load_frozen(run, device_mesh)
        load = partial(initial_params, run, device_mesh) if run.init_from else None
        if frozen.base is not None:
            load = partial(lambda base: base, frozen.base)

        # The two stages of the curriculum are two programs.
        programs = {
            stage: jax.jit(
                partial(counted_step, run=run, stage=stage),
                donate_argnums=0,
                out_shardings=(shardings, None, None),
            )
            for stage in ("mask", "edit")
        }

        def step_function(
            state: TrainState, rows: dict[str, np.ndarray], step: int
        ) -> Step:
            stage = "edit" if step >= run.edit_step else "mask"
            batch = to_devices(
                rows, device_mesh, rows=batches.rows, batch_size=batch_size
            )
            state, metrics, tokens = programs[stage](state, batch, frozen)
            shown = stage if stage == "edit" else run.objective.first_stage
            return Step(state, metrics._asdict(), {"stage": shown}, tokens, stage)

        def score(state: TrainState, step: int) -> Numbers:
            params = merged_params(state.ema, frozen, run)
            return evaluate(params, run, tokenizer, device_mesh)

        fitted = fit(
            lambda: initialize(run, device_mesh, load),
            step_function,
            batches,
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
            guard=run.guard,
            ideal_step_s=ideal_step_s(run),
            profile=profile,
            hang_minutes=hang_minutes,
            checkpoints=checkpoints,
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
                params=merged_params(average, frozen, run),
                run=run,
                tokenizer=tokenizer,
                step=fitted.step,
                tokens=fitted.tokens,
            )
    bits_per_byte = float(fitted.scores.get("heldout_bits_per_byte", "nan"))
    return TrainResult(out, fitted.step, fitted.finished, bits_per_byte)


def counted_step(
    state: TrainState, batch: Batch, frozen: Frozen, *, run: RunConfig, stage: Stage
) -> tuple[TrainState, StepMetrics, Int32[Array, ""]]:
    """`train_step`, and the supervised tokens of the batch, of all processes."""
    tokens = jnp.sum(batch.supervised, dtype=jnp.int32)
    return *train_step(state, batch, frozen, run=run, stage=stage), tokens
