"""The recipe of a training run, and how a config file becomes one."""

import contextlib
import dataclasses
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Literal, TypeVar

from seedjax.checkpoints.model_directory import open_model
from seedjax.config import DenoiserConfig, override, require
from seedjax.data.instructions import InstructionConfig
from seedjax.data.pipeline import DataConfig
from seedjax.data.trajectories import TrajectoryConfig
from seedjax.deadline import OutOfTimeError, deadline
from seedjax.diffusion.constrained_order import ConstrainedOrder
from seedjax.diffusion.loss import CertaintyForcing, Distillation
from seedjax.diffusion.objective import Autoregressive, BlockDiffusion, MaskDiffusion
from seedjax.errors import InputError
from seedjax.nn.lora import LoRA
from seedjax.tasks.lab.stream import LabConfig
from seedjax.text.tokenizer import Tokenizer
from seedjax.train.guard import LossGuard
from seedjax.train.optim import OptimizerConfig

CONFIG_SECONDS = 60.0  # a file may load a tokenizer to describe its run


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines a training run; written beside its checkpoints."""

    model: DenoiserConfig
    objective: Autoregressive | MaskDiffusion | BlockDiffusion | ConstrainedOrder
    data: DataConfig | LabConfig | TrajectoryConfig | InstructionConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    num_steps: int = 1000
    edit_start: float = 0.8  # share of the steps after which the edit stage begins
    accumulate: int = 1  # micro-batches that a batch is split into
    loss_chunk: int = 0  # positions whose logits are alive at once; 0 for all
    seed: int = 0
    init_from: str = ""  # a model directory to start from, instead of random weights
    init_layers: tuple[int, ...] = ()  # of its layers those to start with; () for all
    certainty: CertaintyForcing | None = None  # a further term of the loss
    teacher: str = ""  # a model directory to learn from besides the data
    distillation: Distillation = Distillation()  # how, if there is a teacher
    lora: LoRA | None = None  # train an adapter of init_from instead of its weights
    keep_zeros: bool = False  # of a pruned start: what is zero in a matrix stays zero
    log_every: int = 20  # steps
    eval_every: int = 500  # steps
    eval_batches: int = 8
    eval_samples: int = 4  # Monte-Carlo samples of the likelihood bound, a batch
    infill_spans: int = 16  # held-out spans filled in at each evaluation; 0 for none
    checkpoint_every_s: float = 180.0  # seconds between checkpoints
    keep_latest: int = 3  # checkpoints kept besides the best one
    guard: LossGuard = LossGuard()  # which losses send the run back
    weights_dtype: Literal["float32", "bfloat16", "int8"] = "bfloat16"  # of the model

    def __post_init__(self):
        for name in ("num_steps", "accumulate", "log_every", "eval_every"):
            require(getattr(self, name) >= 1, self, name, "at least 1")
        require(self.eval_batches >= 1, self, "eval_batches", "at least 1")
        require(self.loss_chunk >= 0, self, "loss_chunk", "0 or more")
        require(0.0 <= self.edit_start <= 1.0, self, "edit_start", "in [0, 1]")
        require(
            self.data.batch_size % self.accumulate == 0,
            self,
            "accumulate",
            f"a divisor of data.batch_size={self.data.batch_size}",
        )
        require(
            self.data.sequence_length <= self.model.max_positions,
            self,
            "data",
            f"rows of at most model.max_positions={self.model.max_positions} tokens",
        )
        autoregressive = isinstance(self.objective, Autoregressive)
        if autoregressive != (self.model.attention == "causal"):
            raise InputError(
                f"RunConfig.objective is {type(self.objective).__name__} but "
                f"model.attention is {self.model.attention!r}; causal attention goes "
                "with Autoregressive, and with nothing else"
            )
        if isinstance(self.objective, BlockDiffusion | ConstrainedOrder):
            require(
                self.model.attention == "block_causal",
                self,
                "objective",
                "MaskDiffusion where model.attention is not 'block_causal'",
            )

        for name in ("lora", "keep_zeros", "init_layers"):
            require(
                not getattr(self, name) or self.init_from != "",
                self,
                name,
                "unset where there is no init_from to start from",
            )
        require(
            self.lora is None or not self.keep_zeros,
            self,
            "keep_zeros",
            "False beside lora, which adds to all of a matrix",
        )
        require(
            self.lora is None or not self.lora.gated,
            self,
            "lora",
            "not gated: drafts are trained by `seedjax posttrain draft`",
        )
        require(
            self.init_layers == ()
            or (self.lora is None and len(self.init_layers) == self.model.num_layers),
            self,
            "init_layers",
            f"one for each of model.num_layers={self.model.num_layers}, and no lora",
        )

    @property
    def edit_step(self) -> int:
        """The first step of the edit stage; `num_steps` when the objective has none."""
        edit = getattr(self.objective, "edit", None)
        return (
            self.num_steps if edit is None else round(self.num_steps * self.edit_start)
        )


ConfigT = TypeVar("ConfigT")

COMPUTED = ("layer_loop", "remat", "attention_backend")
"""Fields of a model that change how it is computed, and not what."""


def load_config(
    path: str | Path, assignments: Sequence[str] = (), *, init_from: str = ""
) -> RunConfig:
    """Runs `get_config()` of a Python config file and applies `--set` assignments.

    Args:
      path: the file.
      assignments: `"path.to.field=value"`, applied last.
      init_from: a model to start from, whose shape and semantics take the place of the
        file's; trained weights are float32 whatever they were stored as. How it is
        computed (`COMPUTED`) is as the file says.

    Raises:
      InputError: for a missing file, one without `get_config`, a bad assignment, or a
        start that is no model.
    """
    start = trainable_shape(init_from) if init_from else None
    config = run_config_file(path, RunConfig, start)
    if start is not None:
        computed = {name: getattr(config.model, name) for name in COMPUTED}
        model = dataclasses.replace(start, **computed)
        config = dataclasses.replace(config, model=model, init_from=init_from)
    return override(config, assignments)


def trainable_shape(model: str) -> DenoiserConfig:
    """The shape and semantics of a model as it is trained further.

    Raises:
      InputError: if there is no such model.
    """
    start = open_model(model).denoiser
    return dataclasses.replace(start, param_dtype="float32")


def run_config_file(
    path: str | Path, kind: type[ConfigT], start: DenoiserConfig | None = None
) -> ConfigT:
    """The result of `get_config()` of a Python file. Its prints go to standard
    error. A `get_config` with a parameter gets the model to start from, if
    there is one, so that one file fits models that see in different ways.

    Raises:
      InputError: for a missing file, one that fails, leaves the program or does not
        come to an end, or one that returns something else than a `kind`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no config file {str(path)!r}; see configs/ for examples")
    spec = importlib.util.spec_from_file_location("seedjax_run_config", path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    try:
        with contextlib.redirect_stdout(sys.stderr), deadline(CONFIG_SECONDS):
            spec.loader.exec_module(module)
            takes_start = start is not None and signature(module.get_config).parameters
            config = module.get_config(*([start] if takes_start else []))
    except InputError:
        raise
    except OutOfTimeError:
        raise InputError(
            f"config file {str(path)!r} has not come to an end after "
            f"{CONFIG_SECONDS:.0f} s; get_config() only has to describe a run"
        ) from None
    except SystemExit as error:
        raise InputError(
            f"config file {str(path)!r} leaves the program, with exit code "
            f"{error.code!r}; let get_config() return a {kind.__name__}"
        ) from error
    except Exception as error:
        raise InputError(
            f"config file {str(path)!r} failed: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(config, kind):
        raise InputError(
            f"get_config() of {str(path)!r} did not return a {kind.__name__}"
        )
    return config


def with_vocabulary(run: RunConfig) -> RunConfig:
    """The recipe, its instructions told whose tokenizer they are read with: by default
    that of the model to start from.

    Raises:
      InputError: if there is no such model.
    """
    data = run.data
    if not isinstance(data, InstructionConfig) or data.vocabulary or not run.init_from:
        return run
    folder = open_model(run.init_from).tokenizer
    data = dataclasses.replace(data, vocabulary=str(folder))
    return dataclasses.replace(run, data=data)


def match_tokenizer(
    model: DenoiserConfig, tokenizer: Tokenizer, *, started: bool = False
) -> DenoiserConfig:
    """`model` with the special ids of `tokenizer`.

    Args:
      model: a recipe.
      tokenizer: of the data.
      started: whether the model starts from trained weights: then it keeps its own ids
        of tokens that the tokenizer lacks, and its ends of a text.

    Raises:
      InputError: when the embedding table has fewer rows than the tokenizer has pieces,
        or the tokenizer lacks a token that training takes.
    """
    require(
        model.vocab_size >= tokenizer.vocab_size,
        model,
        "vocab_size",
        f"at least the tokenizer's {tokenizer.vocab_size} pieces",
    )

    def token(name: str) -> int:
        found: int | None = getattr(tokenizer.special, name)
        if found is None and started:
            return int(getattr(model, f"{name}_token_id"))
        return tokenizer.special.require(name, "be trained with")

    eos = tokenizer.special.require("eos", "be trained with")
    keeps_ends = started and eos in model.eos_token_ids
    return dataclasses.replace(
        model,
        mask_token_id=token("mask"),
        pad_token_id=token("pad"),
        bos_token_id=token("bos"),
        eos_token_ids=model.eos_token_ids if keeps_ends else (eos,),
    )
