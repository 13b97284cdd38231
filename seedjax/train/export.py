"""Writes trained models as model directories, with their cards."""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seedjax.checkpoints.model_directory import open_model, save_model
from seedjax.checkpoints.weights import WeightsDType
from seedjax.config import DenoiserConfig, to_dict
from seedjax.files.text import fill_markdown
from seedjax.nn import denoiser
from seedjax.processes import is_first
from seedjax.sampling.policy import LeftToRight, Policy
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
    out: str | Path,
    params: Params,
    *,
    config: DenoiserConfig,
    tokenizer: Tokenizer,
    base: str = "",
    policy: Policy | None = None,
    recipe: Mapping[str, Any],
    card: str,
    weights_dtype: WeightsDType = "bfloat16",
    **measured: Any,
) -> None:
    """Writes a trained model as a model directory.

    Args:
      out: the directory.
      params: its weights.
      config: the denoiser's recipe.
      tokenizer: of the model.
      base: directory or bundled name of the model that it started from, whose sampler
        it keeps if they see alike; empty for none.
      policy: of the default sampler; None is the base's.
      recipe: how it was trained, as JSON values.
      card: text of README.md.
      weights_dtype: what to store the weights as.
      **measured: further provenance, as JSON values.
    """
    # Small models that were trained here write far better from the left.
    sampler = to_dict(SamplerConfig(policy=LeftToRight()))
    origin = {}
    if base:
        start = open_model(base)
        origin = {"base": base, "base_digest": start.digest()}
        if start.denoiser.attention == config.attention:
            sampler = dict(start.sampler)
    if policy is not None:
        sampler["policy"] = to_dict(policy)
    versions = {
        name: importlib.metadata.version(name)
        for name in ("seedjax", "jax", "flax", "optax")
    }
    save_model(
        out,
        params=params,
        denoiser=config,
        tokenizer=tokenizer,
        sampler=sampler,
        provenance={
            "recipe": dict(recipe),
            **origin,
            **measured,
            "tokenizer": tokenizer.fingerprint,
            "versions": versions,
        },
        card=card,
        weights_dtype=weights_dtype,
    )


def export_run(
    out: Path,
    *,
    params: Params,
    run: RunConfig,
    tokenizer: Tokenizer,
    step: int,
    tokens: int,
) -> None:
    """Writes the model of a training run into its directory. All processes must call
    it; the first one writes."""
    scores = heldout_scores(out) if is_first() else {}
    card = fill_markdown(
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
    export_model(
        out,
        params,
        config=run.model,
        tokenizer=tokenizer,
        base=run.init_from,
        recipe=to_dict(run),
        card=card,
        weights_dtype=run.weights_dtype,
        step=step,
        tokens=tokens,
        heldout=scores,
    )


def heldout_scores(out: Path) -> dict[str, float]:
    """The scores of the last evaluation in `metrics.jsonl`; empty if there was none."""
    lines = [
        line
        for line in read_jsonl(out / "metrics.jsonl")
        if "heldout_bits_per_byte" in line
    ]
    if not lines:
        return {}
    return {k: v for k, v in lines[-1].items() if k.startswith(("heldout", "infill"))}
