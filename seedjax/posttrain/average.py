"""The mean of several models that were trained one from another.

Where runs end in the same basin, the mean of their weights is often better than each
of them: it takes from both what they were trained on (stochastic weight averaging,
arXiv 1803.05407; model soups, arXiv 2203.05482).
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from seedjax.errors import InputError
from seedjax.files.output import writes
from seedjax.files.text import fill_markdown
from seedjax.inference.loading import load
from seedjax.inference.model import Model
from seedjax.train.config import COMPUTED
from seedjax.train.export import export_model
from seedjax.typing import Params

CARD = """\
# {name}

The mean of the weights of {listed}; made by `seedjax posttrain average`.
"""


def average_params(params: Sequence[Params], shares: Sequence[float]) -> Params:
    """The weighted mean of parameter trees, computed in float32.

    Args:
      params: of models of one shape.
      shares: of each; they count in proportion.

    Raises:
      InputError: for shares that are not one for each, negative, or all 0.
    """
    if len(shares) != len(params) or min(shares) < 0 or not any(shares):
        raise InputError(
            f"{len(params)} models and shares {', '.join(map(str, shares))}; give each "
            "model one, 0 or more, and not 0 to all"
        )
    whole = sum(shares)

    def mean(*leaves):
        parts = [
            share / whole * leaf.astype(jnp.float32)
            for share, leaf in zip(shares, leaves, strict=True)
        ]
        return sum(parts).astype(leaves[0].dtype)

    return jax.tree.map(mean, *params)


# Fields in which models may differ: the first one's are kept. Weights that learned the
# next token (causal) are a start for blocks in a mean with weights that know blocks.
MAY_DIFFER = (*COMPUTED, "dtype", "activation_dtype", "param_dtype", "attention")


@writes("posttrain average", sources=("names",))
def average_models(
    names: Sequence[str], out: str | Path, *, shares: Sequence[float] | None = None
) -> Model:
    """Writes the mean of some models, with all but the weights of the first, and gives
    it back.

    Raises:
      InputError: for fewer than two models, models of different shapes or vocabularies,
        or shares that `average_params` refuses.
    """
    if len(names) < 2:
        raise InputError(f"{len(names)} model to average; give at least two")
    models = [load(name) for name in names]
    first = models[0]
    for name, model in zip(names, models, strict=True):
        kept = {name: getattr(first.config, name) for name in MAY_DIFFER}
        if dataclasses.replace(model.config, **kept) != first.config:
            raise InputError(
                f"{name} has another recipe than {names[0]}, see config.json"
            )
        if model.tokenizer.fingerprint != first.tokenizer.fingerprint:
            raise InputError(f"{name} has another tokenizer than {names[0]}")
    given = [1.0] * len(names) if shares is None else list(shares)
    params = average_params([model.params for model in models], given)
    listed = ", ".join(names)
    export_model(
        out,
        params,
        config=first.config,
        tokenizer=first.tokenizer,
        base=names[0],
        recipe={"average": list(names), "shares": given},
        card=fill_markdown(CARD, name=Path(out).name, listed=listed),
    )
    return first.with_params(params)
