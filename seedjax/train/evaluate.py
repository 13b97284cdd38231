"""Held-out scores of a model in training: likelihood, and lines filled in."""

import dataclasses
import math
from collections.abc import Iterator
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh

from seedjax.batch import Batch
from seedjax.data.pipeline import DataConfig
from seedjax.data.records import Corpus
from seedjax.diffusion.denoising import Denoising
from seedjax.diffusion.likelihood import block_elbo, mask_elbo
from seedjax.diffusion.loss import score_tokens
from seedjax.diffusion.objective import Autoregressive, MaskDiffusion
from seedjax.inference.model import Model
from seedjax.nn import denoiser
from seedjax.text.tokenizer import Tokenizer
from seedjax.train.config import RunConfig
from seedjax.train.placement import to_devices
from seedjax.train.step import answer_loss, hidden_at_targets
from seedjax.typing import Array, Float32, Params, PRNGKey

LONGEST_LINE = 32  # tokens of a line that is filled in


def evaluate(
    params: Params, run: RunConfig, tokenizer: Tokenizer, mesh: Mesh
) -> dict[str, float]:
    """Scores on held-out text, the same text every time, which every process reads
    whole.

    Returns:
      `heldout_nats_per_token` and `heldout_bits_per_byte` on the first
      `run.eval_batches` batches: exact for an autoregressive model, otherwise an upper
      bound (Monte-Carlo, `run.eval_samples` forward passes a batch). On a single device
      and a corpus also `infill_accuracy`, see there.
    """
    nats = tokens = num_bytes = 0.0
    for index, rows in enumerate(heldout_rows(run)):
        batch = to_devices(rows, mesh)
        key = jax.random.fold_in(jax.random.key(run.seed), index)
        nats += float(heldout_nats(params, batch, key, run=run))
        tokens += float(np.sum(rows["supervised"]))
        num_bytes += float(np.sum(rows["bytes"]))
    # Completions of a model that has learned little may be ends of text alone.
    num_bytes = max(num_bytes, 1.0)
    scores = {
        "heldout_nats_per_token": nats / tokens,
        "heldout_bits_per_byte": nats / math.log(2) / num_bytes,
    }
    if run.infill_spans and mesh.size == 1 and isinstance(run.data, DataConfig):
        scores["infill_accuracy"] = infill_accuracy(params, run, tokenizer)
    return scores


def heldout_rows(run: RunConfig) -> Iterator[dict[str, np.ndarray]]:
    """The first `run.eval_batches` batches of the held-out split."""
    iterator = iter(run.data.batches("heldout", num_epochs=1))
    try:
        for _, rows in zip(range(run.eval_batches), iterator, strict=False):
            yield rows
    finally:
        iterator.close()


@partial(jax.jit, static_argnames="run")
def heldout_nats(
    params: Params, batch: Batch, key: PRNGKey, *, run: RunConfig
) -> Float32[Array, ""]:
    """Nats that the model needs for the supervised tokens of a batch, in all."""
    if isinstance(run.objective, Autoregressive):
        inputs = run.objective.corrupt(key, batch, model=run.model)
        plain = dataclasses.replace(run, lora=None, certainty=None)
        loss, _ = answer_loss(params, inputs, plain)
        return loss * inputs.normalizer

    def denoise(inputs: Denoising) -> Float32[Array, "B A"]:
        return score_tokens(
            hidden_at_targets(params, inputs, run.model),
            inputs.targets,
            unembed=denoiser.gathered_head(params, run.model, inputs.targets.shape[0]),
            chunk_size=run.loss_chunk,
            forbidden_token_id=run.model.mask_token_id,
        ).nll

    in_rows = isinstance(run.objective, MaskDiffusion)
    bound = mask_elbo if in_rows else block_elbo
    likelihood = bound(
        key, batch, denoise=denoise, model=run.model, num_samples=run.eval_samples
    )
    return likelihood.nll.sum()


def infill_accuracy(params: Params, run: RunConfig, tokenizer: Tokenizer) -> float:
    """Share of the tokens of held-out lines that the model fills in right at
    temperature 0, given the rest of the function, through its fill-in-the-middle form.

    `run.infill_spans` lines, each from another document; a line's end is not given
    away, so the first n tokens of the answer are compared with the line's n.
    """
    assert isinstance(run.data, DataConfig)
    prefixes, lines, suffixes = [], [], []
    for document in Corpus(run.data.corpus).documents("heldout"):
        text = document.text.splitlines(keepends=True)
        middle = len(text) // 2
        line = tokenizer.encode(text[middle].strip())
        room = run.data.sequence_length - LONGEST_LINE - 8
        if not 4 <= len(line) <= LONGEST_LINE or len(document.tokens) > room:
            continue
        indent = len(text[middle]) - len(text[middle].lstrip())
        prefixes.append("".join(text[:middle]) + text[middle][:indent])
        lines.append(line)
        suffixes.append("\n" + "".join(text[middle + 1 :]))
        if len(lines) == run.infill_spans:
            break
    if not lines:
        return 0.0
    model = Model(params, run.model, tokenizer)
    answers = model.infill(prefixes, suffixes, length=LONGEST_LINE).tokens
    right = [
        sum(a == b for a, b in zip(answer, line, strict=False))
        for answer, line in zip(answers, lines, strict=True)
    ]
    return sum(right) / sum(len(line) for line in lines)
