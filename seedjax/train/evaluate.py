"""Held-out scores of a model in training."""

import math
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh

from seedjax.batch import Batch
from seedjax.data.pipeline import make_dataset
from seedjax.tokenizer import Tokenizer
from seedjax.train.config import RunConfig
from seedjax.train.step import answer_loss
from seedjax.typing import Array, Float32, Params, PRNGKey


@partial(jax.jit, static_argnames="run")
def heldout_nats(
    params: Params, batch: Batch, key: PRNGKey, *, run: RunConfig
) -> Float32[Array, ""]:
    """Nats that the model needs for the supervised tokens of a batch, in all."""
    question = run.objective.question(key, batch, model=run.model)
    loss, _ = answer_loss(params, question, run)
    return loss * question.normalizer


def evaluate(
    params: Params, run: RunConfig, tokenizer: Tokenizer, mesh: Mesh
) -> dict[str, float]:
    """Scores on the first `run.eval_batches` held-out batches, the same every time.

    Returns:
      `heldout_nats_per_token` and `heldout_bits_per_byte`.
    """
    dataset = make_dataset(run.data, split="heldout", num_epochs=1)
    nats = tokens = num_bytes = 0.0
    iterator = iter(dataset)
    for index, rows in zip(range(run.eval_batches), iterator, strict=False):
        batch = Batch(*(jax.numpy.asarray(rows[name]) for name in Batch._fields))
        key = jax.random.fold_in(jax.random.key(run.seed), index)
        nats += float(heldout_nats(params, batch, key, run=run))
        tokens += float(np.sum(rows["supervised"]))
        num_bytes += float(np.sum(rows["bytes"]))
    iterator.close()
    return {
        "heldout_nats_per_token": nats / tokens,
        "heldout_bits_per_byte": nats / math.log(2) / num_bytes,
    }
