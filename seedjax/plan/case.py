"""Programs to compile and their targets: cases, and the models that they name."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from seedjax.chips import chip_of
from seedjax.config import DenoiserConfig, DType, LayerLoop
from seedjax.config.denoiser import Remat
from seedjax.data.pipeline import DataConfig
from seedjax.diffusion.objective import Autoregressive, BlockDiffusion, MaskDiffusion
from seedjax.errors import InputError, did_you_mean
from seedjax.files.package import package_table
from seedjax.nn.attention_choice import platform_of
from seedjax.nn.layer_loop import Purpose, with_layer_loop
from seedjax.nn.lora import LoRA
from seedjax.nn.presets import preset
from seedjax.plan.programs import Weights
from seedjax.train.config import RunConfig, load_config

ProgramName = Literal["train", "block", "ar", "sampler"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """The programs to compile, and their targets. For 0 or "", the model or the
    platform decides.

    Attributes:
      program: a step of training; a forward pass over a block; one of autoregressive
        decoding; or a whole decode.
      model: a preset.
      config: a config file of training, whose recipe takes the preset's place.
      layer_loop: "auto" leaves it to `nn.layer_loop`.
      prefix: tokens before the completion.
      block_size: tokens of a block when sampling.
      length: tokens of a row of training.
      batch_size: rows, over all devices.
      lora_rank: of an adapter that is trained in place of the weights; 0 for none.
      loss_chunk: positions whose logits are alive at once, a row.
    """

    program: ProgramName = "block"
    model: str = "stable_diffcoder_8b"
    config: str = ""
    num_layers: int = 0
    layer_loop: LayerLoop = "auto"
    topology: str = "v5e:2x4"
    mesh: str = "tensor=8"
    weights: Weights = "bfloat16"
    prefix: int = 2048
    block_size: int = 32
    max_new_tokens: int = 256
    batch_size: int = 1
    length: int = 2048
    lora_rank: int = 0
    remat: Remat = "layer"
    loss_chunk: int = 512


def named_cases(name: str) -> list[Case]:
    """The cases of a plan in plans.toml; one for sampling compares a forward pass over
    a block with one of autoregressive decoding.

    Raises:
      InputError: for a name that is not there.
    """
    plans = package_table("seedjax.plan", "plans.toml")
    if name not in plans:
        hint = did_you_mean(name, plans) or f"; there are {', '.join(plans)}"
        raise InputError(f"no plan {name!r}{hint}")
    fields = dict(plans[name])
    return cases_of(fields.pop("program"), fields)


def cases_of(program: str, fields: dict[str, Any]) -> list[Case]:
    """One case, or for "sample" those of a block and of autoregressive decoding."""
    programs = ("block", "ar") if program == "sample" else (program,)
    return [Case(program=each, **fields) for each in programs]  # type: ignore[arg-type]


def denoiser_of(case: Case) -> DenoiserConfig:
    """The model of a case, as it is compiled."""
    sampling = case.program != "train"
    config = load_config(case.config).model if case.config else preset(case.model)
    config = dataclasses.replace(config, layer_loop=case.layer_loop)
    if config.layer_loop == "auto":
        platform = platform_of(chip_of(case.topology).platform)
        purpose: Purpose = "decoding" if sampling else "training"
        config = with_layer_loop(config, platform, purpose)
    if case.config:
        layers = case.num_layers or config.num_layers
        return dataclasses.replace(config, num_layers=layers, remat=case.remat)
    config = dataclasses.replace(
        config,
        num_layers=case.num_layers or config.num_layers,
        remat=case.remat,
        max_positions=max(
            config.max_positions, case.length, case.prefix + case.max_new_tokens
        ),
    )
    if sampling:
        size = 1 if case.program == "ar" else case.block_size
        return dataclasses.replace(config, attention="block_causal", block_size=size)
    dtype: DType = "bfloat16" if case.lora_rank else "float32"
    return dataclasses.replace(config, param_dtype=dtype)


def run_of(case: Case) -> RunConfig:
    """The recipe of a case of training: its config file's, or one with the objective
    that its model's attention goes with."""
    config = denoiser_of(case)
    if case.config:
        run = load_config(case.config)
        return dataclasses.replace(
            run,
            model=config,
            data=dataclasses.replace(
                run.data, sequence_length=case.length, batch_size=case.batch_size
            ),
            loss_chunk=case.loss_chunk,
        )
    objectives = {
        "causal": Autoregressive,
        "bidirectional": MaskDiffusion,
        "block_causal": BlockDiffusion,
    }
    adapter = LoRA(rank=case.lora_rank) if case.lora_rank else None
    return RunConfig(
        model=config,
        objective=objectives[config.attention](),
        data=DataConfig(sequence_length=case.length, batch_size=case.batch_size),
        loss_chunk=case.loss_chunk,
        lora=adapter,
        init_from=case.model if adapter else "",
    )


def case_of_config(path: str) -> Case:
    """The case of a config file of training, with its shapes.

    Raises:
      InputError: for a file that is no such config.
    """
    run = load_config(path)
    return Case(
        program="train",
        model="",
        config=path,
        num_layers=run.model.num_layers,
        layer_loop=run.model.layer_loop,
        mesh="",
        batch_size=run.data.batch_size,
        length=run.data.sequence_length,
        lora_rank=0 if run.lora is None else run.lora.rank,
        remat=run.model.remat,
        loss_chunk=run.loss_chunk,
    )
