"""The corrupted inputs of a denoiser, with their targets."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from seedjax.batch import Layout


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("tokens", "layout", "targets", "weights", "normalizer"),
    meta_fields=("num_noisy",),
)
@dataclass(frozen=True, eq=False)
class Denoising:
    """Corrupted inputs of a denoiser with their targets.

    The loss is `sum(weights * cross_entropy) / normalizer`.

    A pytree, so that it goes through `jit` and scans; transformations put other things
    in the places of its arrays, hence no array types here.

    Attributes:
      tokens: the inputs, int32 [B, L] (corrupted; for block diffusion the clean and the
        noisy copy side by side, so L may be twice the length of the batch).
      layout: positions, segments and copy of each input token.
      targets: int32 [B, A], the targets at the last A positions (A < L where the row
        starts with a clean copy, which has no loss), already shifted where the model's
        logits are shifted.
      weights: float32 [B, A], loss weight of each of those positions; 0 where there is
        no loss.
      normalizer: float32 scalar, number of clean supervised tokens that the weights
        stand for, so that the loss is in nats per clean token.
      num_noisy: how many of the last tokens are a noisy copy; 0 where there is one
        copy. Static.
    """

    tokens: Any
    layout: Layout
    targets: Any
    weights: Any
    normalizer: Any
    num_noisy: int = 0
