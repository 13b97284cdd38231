"""Writes what was trained as a model directory, with its card."""

import dataclasses
import importlib.metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seedjax.checkpoints.model_directory import (
    read_model_directory,
    resolve_model,
    save_model,
)
from seedjax.config import to_dict
from seedjax.files.text import fill_markdown
from seedjax.nn import denoiser
from seedjax.sampling.policy import LeftToRight
from seedjax.sampling.recipe import SamplerConfig
from seedjax.text.tokenizer import Tokenizer
from seedjax.train.config import RunConfig
from seedjax.train.metrics import read_jsonl
from seedjax.typing import Params

CARD = """\
# {name}

A {kind} language model for source code, {millions:.1f} M parameters, trained with
seedjax.

| | |
|---|---|
| objective | {objective} |
| attention | {attention}, block size {block_size} |
| data | {corpus} |
| tokens seen | {tokens:,} in {step} of {num_steps} steps |
| held-out | {heldout} |
| started from | {init_from} |

Recipe: `run.json` beside this file, also under `provenance` in `config.json`.
"""


def export_model(
    out: Path,
    *,
    params: Params,
    run: RunConfig,
    tokenizer: Tokenizer,
    step: int,
    tokens: int,
) -> None:
    """Writes the averaged weights, the tokenizer, `config.json` and the card into
    `out`.

    Stored models are unrolled, whatever loop they were trained with.
    """
    if run.model.layer_loop == "scan":
        params = denoiser.unstack_layers(params)
    model = dataclasses.replace(run.model, layer_loop="unroll", remat="none")
    provenance = {
        "recipe": to_dict(run),
        "step": step,
        "tokens": tokens,
        "tokenizer": tokenizer.fingerprint,
        "heldout": heldout_scores(out),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("seedjax", "jax", "flax", "optax")
        },
    }
    save_model(
        out,
        params=jax.tree.map(np.asarray, params),
        denoiser=model,
        tokenizer=tokenizer,
        sampler=default_sampler(run),
        provenance=provenance,
        card=model_card(out, run, step=step, tokens=tokens),
        weights_dtype=run.weights_dtype,
    )


def default_sampler(run: RunConfig) -> dict[str, Any]:
    """The recipe that a model is sampled with unless told otherwise, as JSON values:
    that of the model that it started from, if that was of the same kind."""
    if run.init_from:
        start = read_model_directory(resolve_model(run.init_from))
        if start.denoiser.attention == run.model.attention:
            return dict(start.sampler)
    # Small models that were trained here write far better from the left.
    return to_dict(SamplerConfig(policy=LeftToRight()))


def heldout_scores(out: Path) -> dict[str, float]:
    """The numbers of the last evaluation in `metrics.jsonl`; empty if there was
    none."""
    lines = [
        line
        for line in read_jsonl(out / "metrics.jsonl")
        if "heldout_bits_per_byte" in line
    ]
    if not lines:
        return {}
    return {k: v for k, v in lines[-1].items() if k.startswith(("heldout", "infill"))}


def model_card(out: Path, run: RunConfig, *, step: int, tokens: int) -> str:
    """The README of a model directory: data, steps, measured scores."""
    scores = heldout_scores(out)
    return fill_markdown(
        CARD,
        name=out.name,
        kind="autoregressive" if run.model.attention == "causal" else "diffusion",
        millions=denoiser.num_parameters(run.model) / 1e6,
        objective=type(run.objective).__name__,
        attention=run.model.attention,
        block_size=run.model.block_size,
        corpus=run.data.describe(),
        tokens=tokens,
        step=step,
        num_steps=run.num_steps,
        heldout=", ".join(f"{k} {v:.4g}" for k, v in scores.items()) or "not measured",
        init_from=run.init_from or "random weights",
    )
