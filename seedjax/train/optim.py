"""AdamW with warm-up and cosine decay, as one optax chain."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from seedjax.config import require
from seedjax.typing import Array, Float32, Int32, Params


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Recipe of the optimizer and of the averaged weights."""

    learning_rate: float = 3e-3  # at the end of the warm-up
    warmup_steps: int = 100
    final_fraction: float = 0.1  # of the learning rate, at the last step
    weight_decay: float = 0.1  # on matrices only
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    clip_norm: float = 1.0  # global gradient norm
    ema_decay: float = 0.999  # of the averaged weights

    def __post_init__(self):
        require(self.learning_rate > 0, self, "learning_rate", "above 0")
        require(self.warmup_steps >= 0, self, "warmup_steps", "0 or more")
        require(self.clip_norm > 0, self, "clip_norm", "above 0")
        require(0 <= self.ema_decay < 1, self, "ema_decay", "in [0, 1)")


def learning_rate_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Step -> learning rate: linear warm-up from 0, then cosine decay."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=max(num_steps, config.warmup_steps + 1),
        end_value=config.learning_rate * config.final_fraction,
    )


def make_optimizer(
    config: OptimizerConfig, num_steps: int
) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW. Norm scales and biases are not decayed."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate_schedule(config, num_steps),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=matrices,
        ),
    )


def matrices(params: Params) -> Params:
    """Which parameters are matrices, as a tree of booleans; the others are the scales
    of norms and biases."""
    # By name, not by rank: scanned layers give norm scales a leading layer axis too.
    names = ("kernel", "embedding", "head", "gate", "up", "down")

    def is_matrix(path: Any, _: Any) -> bool:
        *_, name = jax.tree_util.keystr(path, simple=True, separator=".").split(".")
        return name in names

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def ema_decay(decay: float, step: Int32[Array, ""]) -> Float32[Array, ""]:
    """Decay of the averaged weights at `step`: ramps up from 0.1, so that the random
    start is forgotten early."""
    ramp = (1.0 + step) / (10.0 + step)
    return jnp.minimum(jnp.float32(decay), ramp.astype(jnp.float32))
