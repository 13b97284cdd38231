"""The training loop, to be read top to bottom.

    config ─▶ mesh ─▶ data ─▶ state (resume, init_from or random) ─▶ steps ─▶ model

The output directory is a model directory (config.json, tokenizer/, params/, README.md)
with the run's own files beside it: run.json (the resolved recipe), metrics.jsonl,
checkpoints/.
"""

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from seedjax.batch import Batch
from seedjax.checkpoints.adapters import save_adapter
from seedjax.checkpoints.model_directory import (
    load_model,
    model_digest,
    read_model_directory,
    resolve_model,
)
from seedjax.checkpoints.training import TrainingCheckpointer
from seedjax.config import DenoiserConfig, from_dict, to_dict
from seedjax.data.trajectories import TrajectoryConfig
from seedjax.errors import InputError
from seedjax.files.output import writes
from seedjax.files.text import brief, read_json_object, write_json
from seedjax.nn import denoiser
from seedjax.nn.lora import unstack_adapter
from seedjax.sharding import batch_sharding, make_mesh
from seedjax.text.loading import load_tokenizer
from seedjax.train.config import RunConfig, match_tokenizer
from seedjax.train.evaluate import evaluate
from seedjax.train.export import export_model
from seedjax.train.metrics import (
    JsonlWriter,
    MetricWriter,
    RunLog,
    TensorBoardWriter,
    TerminalProgress,
    read_jsonl,
)
from seedjax.train.state import (
    abstract_state,
    initialize,
    params_shardings,
    state_shardings,
)
from seedjax.train.step import Frozen, Teacher, model_params, train_step
from seedjax.typing import Params


class TrainResult(NamedTuple):
    """How a run ended.

    Attributes:
      directory: the output directory, now a model directory.
      step: steps taken, fewer than asked when a signal stopped the run.
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
) -> TrainResult:
    """Trains a model and writes it to `out`.

    SIGTERM and Ctrl-C end the run after the step in hand: a checkpoint and the model so
    far are written, and `resume=True` continues later with the same batches.

    Args:
      run: the recipe.
      out: output directory.
      resume: continue from the newest checkpoint in `out`.
      mesh: mesh description, see `sharding.make_mesh`.
      tensorboard: write TensorBoard event files too.

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
        iterator = iter(dataset)

        # State. Where it comes from, first match wins:
        #   1. the newest checkpoint in `out`  (resume)
        #   2. the weights of another model    (init_from)
        #   3. random weights from the seed
        checkpointer = TrainingCheckpointer(
            out / "checkpoints", keep_latest=run.keep_latest, keep_best_metric="loss"
        )
        shardings = state_shardings(run, device_mesh)
        if resume and checkpointer.latest_step() is not None:
            wanted = jax.tree.map(
                lambda leaf, sharding: jax.ShapeDtypeStruct(
                    leaf.shape, leaf.dtype, sharding=sharding
                ),
                abstract_state(run),
                shardings,
            )
            start, state = checkpointer.restore(
                abstract_state=wanted, data_iterator=iterator
            )
        else:
            load = partial(initial_params, run) if run.init_from else None
            start, state = 0, initialize(run, device_mesh, load)
        frozen = load_frozen(run, device_mesh)

        # The two stages of the curriculum are two programs.
        steps = {
            stage: jax.jit(
                partial(train_step, run=run, stage=stage),
                donate_argnums=0,
                out_shardings=(shardings, None),
            )
            for stage in ("mask", "edit")
        }

        log = RunLog(open_writers(run, out, start, tensorboard=tensorboard))
        log.tokens = tokens_before(out, start)
        bits_per_byte, step, compiled = float("nan"), start, ""
        last_checkpoint = time.monotonic()
        with StopSignal() as stop:
            while step < run.num_steps and not stop.received:
                stage = "edit" if step >= run.edit_step else "mask"
                shown = stage if stage == "edit" else run.objective.first_stage
                rows = next(iterator)
                state, metrics = steps[stage](
                    state, to_devices(rows, device_mesh), frozen
                )
                step += 1
                log.count(step, int(rows["supervised"].sum()) * jax.process_count())
                if stage != compiled:
                    jax.block_until_ready(metrics)
                    log.restart_clock()
                    compiled = stage

                evaluated = step % run.eval_every == 0 or step == run.num_steps
                due = time.monotonic() - last_checkpoint > run.checkpoint_every_s
                if step % run.log_every == 0 or evaluated or due or stop.received:
                    log.hold(step, metrics, shown)
                if evaluated:
                    log.flush()
                    params = model_params(state.ema, frozen, run)
                    scores = evaluate(params, run, tokenizer, device_mesh)
                    bits_per_byte = scores["heldout_bits_per_byte"]
                    log.write(step, {"tokens": log.tokens, **scores})
                    log.restart_clock()
                if evaluated or due:
                    numbers = {"loss": bits_per_byte} if evaluated else None
                    checkpointer.save(step, state, iterator, metrics=numbers)
                    last_checkpoint = time.monotonic()

            log.flush()
            if step > start and checkpointer.latest_step() != step:
                checkpointer.save(step, state, iterator, wait=True)
            checkpointer.close()
            if run.lora is not None:
                moe = run.model.moe
                apart = 0 if moe is None else moe.num_dense_layers
                adapter = unstack_adapter(dict(state.ema), apart)
                save_adapter(out / "adapter", adapter, run.lora, base=run.init_from)
            if run.lora is None or run.lora.merge:
                export_model(
                    out,
                    params=model_params(state.ema, frozen, run),
                    run=run,
                    tokenizer=tokenizer,
                    step=step,
                    tokens=log.tokens,
                )
        log.close()
    return TrainResult(out, step, step >= run.num_steps, bits_per_byte)


def claim_directory(out: Path, run: Any, *, resume: bool) -> None:
    """Writes run.json, or checks that the one found there is of the same recipe. One
    without metrics beside it is of a run that never took a step, and is replaced.

    Raises:
      InputError: when `out` holds another run, or a run that is not to be resumed.
    """
    record = out / "run.json"
    wanted = to_dict(run)
    if record.exists() and (out / "metrics.jsonl").exists():
        found = read_json_object(record)
        if not resume:
            raise InputError(
                f"{str(out)!r} already holds a run; continue it with --resume or "
                "choose another --out"
            )
        path = first_difference(found, wanted)
        if path:
            raise InputError(
                f"{str(record)!r} differs from the config at {path}; resume with the "
                "same config, or choose another --out"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    write_json(record, wanted)


def resumed_config(out: str | Path) -> RunConfig:
    """The recipe of the run in `out`, for `--resume` without `--config`."""
    record = Path(out) / "run.json"
    if not record.exists():
        raise InputError(f"nothing to resume: no run.json in {str(out)!r}")
    return from_dict(RunConfig, read_json_object(record), str(record))


def first_difference(found: Any, wanted: Any, path: str = "") -> str:
    """Path of the first field in which two recipes differ; empty when they agree."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in sorted(found.keys() | wanted.keys()):
            at = f"{path}.{name}" if path else name
            difference = first_difference(found.get(name), wanted.get(name), at)
            if difference:
                return difference
        return ""
    if found == wanted:
        return ""
    return f"{path} (run {brief(found)}, config {brief(wanted)})"


def initial_params(run: RunConfig) -> Params:
    """Weights of the model that the run starts from, in the layer layout of the run.

    Raises:
      InputError: when its shapes or its tokenizer are not those of the run.
    """
    directory = resolve_model(run.init_from)
    check_tokenizer(run, "init_from", directory)
    if isinstance(run.data, TrajectoryConfig):
        run.data.check_model(model_digest(directory))
    if not run.init_layers:
        return read_params(directory, run.model)
    depth = read_model_directory(directory).denoiser.num_layers
    if not all(0 <= layer < depth for layer in run.init_layers):
        raise InputError(
            f"init_layers is {run.init_layers}; {run.init_from!r} has the layers 0 to "
            f"{depth - 1}"
        )
    whole = dataclasses.replace(run.model, num_layers=depth, layer_loop="unroll")
    params = choose_layers(read_params(directory, whole), run.init_layers)
    scanned = run.model.layer_loop == "scan"
    return denoiser.stack_layers(params) if scanned else params


def choose_layers(params: Params, layers: Sequence[int]) -> Params:
    """A denoiser of the chosen layers, in their order, from one with unrolled layers;
    what is not a layer stays."""
    rest = {n: v for n, v in params.items() if not n.startswith("layers_")}
    chosen = {f"layers_{n}": params[f"layers_{old}"] for n, old in enumerate(layers)}
    return rest | chosen


def check_tokenizer(run: RunConfig, name: str, directory: Path) -> None:
    """Raises:
    InputError: when a model's tokenizer is not that of the data.
    """
    theirs = load_tokenizer(directory / "tokenizer")
    if theirs.fingerprint != run.data.tokenizer().fingerprint:
        raise InputError(
            f"{name} {getattr(run, name)!r} was trained with another tokenizer than "
            f"the data, {run.data.describe()}; build a corpus with --tokenizer "
            f"{str(directory / 'tokenizer')!r}"
        )


def read_params(directory: Path, model: DenoiserConfig) -> Params:
    """A model directory's weights, in the layer layout and the dtype of `model`."""
    unrolled = dataclasses.replace(model, layer_loop="unroll")
    _, params = load_model(
        directory,
        dtype=model.param_dtype,
        abstract_params=denoiser.abstract_params(unrolled),
    )
    return denoiser.stack_layers(params) if model.layer_loop == "scan" else params


def load_frozen(run: RunConfig, mesh: Mesh) -> Frozen:
    """What the steps of a run read and do not change, on `mesh`.

    Raises:
      InputError: when a model is missing, or the teacher answers other questions than
        the student is asked.
    """
    base = teacher = None
    if run.lora is not None:
        params = initial_params(run)
        base = jax.device_put(params, params_shardings(run.model, mesh))
    if run.teacher:
        directory = resolve_model(run.teacher)
        check_tokenizer(run, "teacher", directory)
        config = read_model_directory(directory).denoiser
        for name in ("attention", "logit_alignment", "block_size", "vocab_size"):
            theirs, ours = getattr(config, name), getattr(run.model, name)
            if theirs != ours:
                raise InputError(
                    f"the teacher {run.teacher!r} has {name} {theirs!r} and the "
                    f"student {ours!r}; both are asked the same, so they must agree"
                )
        params = jax.device_put(
            read_params(directory, config), params_shardings(config, mesh)
        )
        teacher = Teacher(params, config)
    return Frozen(base, teacher)


def to_devices(host_batch: dict[str, np.ndarray], mesh: Mesh) -> Batch:
    """The rows of this process as arrays over the whole mesh."""
    local = {name: host_batch[name] for name in Batch._fields if name in host_batch}
    arrays = jax.tree.map(
        jax.make_array_from_process_local_data, batch_sharding(mesh, local), local
    )
    return Batch(**arrays)


def open_writers(
    run: RunConfig, out: Path, start: int, *, tensorboard: bool
) -> list[MetricWriter]:
    """All places that numbers go to; the terminal comes last."""
    writers: list[MetricWriter] = [
        JsonlWriter(out / "metrics.jsonl", resume_step=start)
    ]
    if tensorboard:
        writers.append(TensorBoardWriter(out / "tensorboard"))
    writers.append(TerminalProgress(run.num_steps, start=start))
    return writers


def tokens_before(out: Path, start: int) -> int:
    """Tokens seen by a run before the step that it is resumed from."""
    lines = read_jsonl(out / "metrics.jsonl")
    seen = (line.get("tokens") or 0 for line in lines if line["step"] <= start)
    return max(seen, default=0)


class StopSignal:
    """Notes SIGTERM, SIGHUP (the terminal is gone) and the first Ctrl-C, so that the
    loop can end in good order; a Ctrl-C after any of them interrupts at once, which
    leaves the checkpoint before as it is."""

    received = False

    def __enter__(self) -> "StopSignal":
        self._before = {
            number: signal.signal(number, self._note)
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
            if signal.getsignal(number) != signal.SIG_IGN  # as by nohup
        }
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        first, self.received = not self.received, True
        name = signal.Signals(number).name
        if first:
            # Not `print`: the loop may be in the middle of one.
            text = f"{name}: saving a checkpoint, then stopping\n"
            with contextlib.suppress(OSError):
                os.write(2, text.encode())

    def __exit__(self, *exception) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
