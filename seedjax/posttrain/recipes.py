"""The stages of post-training that are runs of the ordinary trainer.

constrained order   kept decodes, in their own order
sharpening          the same, with more confidence where it is right
distillation        the lab's tasks, with a teacher
pruned              the lab's tasks, zeros stay zeros
supervised          the lab's tasks and nothing else: what as many steps alone do
"""

import dataclasses

from seedjax.config import DenoiserConfig
from seedjax.data.trajectories import TrajectoryConfig, read_manifest
from seedjax.diffusion.constrained_order import ConstrainedOrder
from seedjax.diffusion.loss import CertaintyForcing, Distillation
from seedjax.diffusion.objective import Autoregressive, BlockDiffusion
from seedjax.errors import InputError
from seedjax.tasks.lab.stream import LabConfig
from seedjax.train.config import RunConfig, trainable_shape
from seedjax.train.optim import OptimizerConfig

OPTIMIZER = OptimizerConfig(
    learning_rate=5e-4, warmup_steps=50, weight_decay=0.01, ema_decay=0.99
)


def constrained_order(model: str, trajectories: str) -> RunConfig:
    """Fine-tuning on kept decodes (Seed Diffusion, arXiv 2508.02193, section 3.2), in
    blocks of the size that they were decoded in. A causal model, which has one order,
    learns their next tokens: rejection sampling (arXiv 2304.06767).

    Raises:
      InputError: if there is no such model, or there are no trajectories.
    """
    size = read_manifest(trajectories).block_size
    shape = dataclasses.replace(trainable_shape(model), block_size=size)
    in_order = ConstrainedOrder(
        weighting="share", first_token_id=_first_ordinary(shape)
    )
    return RunConfig(
        model=shape,
        objective=Autoregressive() if shape.attention == "causal" else in_order,
        data=TrajectoryConfig(path=trajectories, block_size=size, batch_size=8),
        optimizer=OPTIMIZER,
        num_steps=1200,
        init_from=model,
        eval_every=600,
        infill_spans=0,
    )


def sharpening(model: str, trajectories: str) -> RunConfig:
    """Certainty-forcing on kept decodes (dParallel, arXiv 2509.26488).

    Raises:
      InputError: as `constrained_order`.
    """
    run = constrained_order(model, trajectories)
    return dataclasses.replace(run, certainty=CertaintyForcing())


def supervised(model: str) -> RunConfig:
    """More of what the model was trained on, for comparison.

    Raises:
      InputError: if there is no such model.
    """
    shape = trainable_shape(model)
    causal = shape.attention == "causal"
    return RunConfig(
        model=shape,
        objective=Autoregressive() if causal else BlockDiffusion(weighting="uniform"),
        data=LabConfig(vocabulary=model, batch_size=8, block_size=shape.block_size),
        optimizer=OPTIMIZER,
        num_steps=1200,
        init_from=model,
        eval_every=600,
        infill_spans=0,
    )


def distillation(teacher: str, *, num_layers: int | None = None) -> RunConfig:
    """A student of the teacher's shape but with fewer layers (half of them by
    default): at the start, evenly spaced ones of the teacher's own, as in DistilBERT
    (arXiv 1910.01108).

    Raises:
      InputError: if there is no such model, or the student would be deeper.
    """
    shape = trainable_shape(teacher)
    layers = max(shape.num_layers // 2, 1) if num_layers is None else num_layers
    if layers > shape.num_layers:
        raise InputError(
            f"a student of {layers} layers cannot start from {teacher!r}, which has "
            f"{shape.num_layers}; give at most that many"
        )
    return dataclasses.replace(
        supervised(teacher),
        model=dataclasses.replace(shape, num_layers=layers),
        init_layers=tuple(n * shape.num_layers // layers for n in range(layers)),
        teacher=teacher,
        distillation=Distillation(),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=100),
        num_steps=2000,
        eval_every=1000,
    )


def pruned(model: str) -> RunConfig:
    """Training what pruning has left.

    Raises:
      InputError: if there is no such model.
    """
    return dataclasses.replace(supervised(model), keep_zeros=True)


def _first_ordinary(shape: DenoiserConfig) -> int:
    special = (shape.mask_token_id, shape.pad_token_id, shape.bos_token_id)
    return max(*special, *shape.eos_token_ids) + 1
