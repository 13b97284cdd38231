"""Named decode settings, frozen: what `--recipe` takes, and the points of a sweep.

A suite says how many completions of which temperature and length its score is made of;
the model's directory holds the decode settings that its authors publish. A recipe says
which of these hold, so that a name is all that has to stand beside a score.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from seedjax.checkpoints.model_directory import read_model_directory, resolve_model
from seedjax.config import DenoiserConfig
from seedjax.errors import InputError, did_you_mean
from seedjax.inference.model import Model
from seedjax.sampling.ahead import WorkAhead
from seedjax.sampling.policy import (
    ConfidenceThreshold,
    EntropyBound,
    FixedCount,
    LeftToRight,
)
from seedjax.sampling.recipe import SamplerConfig, Speculation
from seedjax.sampling.revision import Revoke, TokenEdits
from seedjax.tasks.suite import Suite

Decode = Mapping[str, Any]
"""Fields of the sampler's recipe."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a suite's requests are decoded.

    Attributes:
      name: what `--recipe` takes.
      title: one line for the report.
      decode: gives the fields that take the place of the model's own.
      temperature: "suite" or "model": whose it is; or the temperature itself. With the
        suite's goes its top-p.
      samples: completions of a problem; None is the suite's number.
      curve: the policy of whose sweep it is a point, if of one.
    """

    name: str
    title: str
    decode: Callable[[SamplerConfig, DenoiserConfig], Decode] | None = None
    temperature: Literal["suite", "model"] | float = "suite"
    samples: int | None = None
    curve: str | None = None


def own_order(
    threshold: float | None,
) -> Callable[[SamplerConfig, DenoiserConfig], Decode]:
    """All tokens at once whose confidence is at least `threshold`, or one per step for
    None, in the order in which the model's own policy unmasks."""

    def decode(own: SamplerConfig, config: DenoiserConfig) -> Decode:
        if isinstance(own.policy, LeftToRight):
            return {"policy": dataclasses.replace(own.policy, threshold=threshold)}
        if threshold is not None:
            return {"policy": ConfidenceThreshold(threshold=threshold)}
        return {"policy": FixedCount(steps_per_block=own.tokens_per_block(config))}

    return decode


def _single(own: SamplerConfig, config: DenoiserConfig) -> Decode:
    alone = {"ahead": None, "speculation": None}
    return {**own_order(None)(own, config), **alone}


_ALL = (
    Recipe(
        name="paper",
        title="the suite's samples, temperature and top-p, the policy that the "
        "model's authors publish",
    ),
    Recipe(
        name="careful",
        title="the suite's samples, temperature and top-p, one token per step",
        decode=_single,
    ),
    Recipe(
        name="fast",
        title="one greedy sample, all tokens at once of confidence 0.9",
        decode=own_order(0.9),
        temperature=0.0,
        samples=1,
    ),
    Recipe(
        name="default",
        title="one sample, decoded as the model's directory says",
        temperature="model",
        samples=1,
    ),
    Recipe(
        name="single",
        title="one greedy sample, one token per step",
        decode=_single,
        temperature=0.0,
        samples=1,
    ),
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}

_CONFIDENCES = (0.99, 0.95, 0.9, 0.8, 0.6)


def _confidence(value: float) -> ConfidenceThreshold:
    return ConfidenceThreshold(threshold=value)


CURVES: dict[str, tuple[Sequence[float | int], Callable[[float], Decode]]] = {
    "left-to-right": (
        _CONFIDENCES,
        lambda value: {"policy": LeftToRight(threshold=value)},
    ),
    "fixed-count": (
        (8, 4, 2),
        lambda value: {"policy": FixedCount(steps_per_block=int(value))},
    ),
    "confidence": (_CONFIDENCES, lambda value: {"policy": _confidence(value)}),
    "margin": (
        _CONFIDENCES,
        lambda value: {"policy": ConfidenceThreshold(threshold=value, by="margin")},
    ),
    "entropy-bound": (
        (0.02, 0.1, 0.3, 0.8),
        lambda value: {"policy": EntropyBound(bound=value)},
    ),
    "token-edits": (
        _CONFIDENCES[1:],
        lambda value: {
            "policy": _confidence(value),
            "revision": TokenEdits(threshold=0.9, extra_steps=2),
        },
    ),
    "revoke": (
        _CONFIDENCES[1:],
        lambda value: {
            "policy": _confidence(value),
            "revision": Revoke(threshold=0.1, extra_steps=2),
        },
    ),
    "block-ahead": (
        _CONFIDENCES[:4],
        lambda value: {
            "policy": LeftToRight(threshold=value),
            "ahead": WorkAhead(threshold=0.95),
        },
    ),
    "speculation": (
        (2, 4, 8),
        lambda value: {"speculation": Speculation(draft_tokens=int(value))},
    ),
}
"""Policies by name: the values of their one number that a sweep tries, and the fields
that such a value sets."""


def find_recipe(name: str) -> Recipe:
    """The recipe of that name: of a table above, or a point of a sweep such as
    `threshold-0.9` and `revoke-0.8`.

    Raises:
      InputError: if there is none; names the nearest.
    """
    if name in RECIPES:
        return RECIPES[name]
    kind, _, text = name.rpartition("-")
    if kind == "threshold" or kind in CURVES:
        try:
            return point(kind, float(text))
        except ValueError as error:
            raise InputError(f"the recipe {name!r}: {error}") from None
    known = (*RECIPES, *(f"{kind}-VALUE" for kind in ("threshold", *CURVES)))
    hint = did_you_mean(name, RECIPES) or f"; there are {', '.join(known)}"
    raise InputError(f"there is no recipe {name!r}{hint}")


def point(kind: str, value: float | int | None) -> Recipe:
    """A point of a sweep: one greedy sample under a policy of `CURVES`, or for
    "threshold" in the model's own order; one token per step for None.

    Raises:
      ValueError: for a value that the policy does not take.
    """
    if value is None:
        return RECIPES["single"]
    if kind == "threshold":
        if not 0.0 <= value <= 1.0:
            raise InputError(f"the threshold is {value}; it must be in [0, 1]")
        title = f"all tokens at once of confidence {value:g}"
        decode: Callable[[SamplerConfig, DenoiserConfig], Decode] = own_order(value)
    else:
        fields = CURVES[kind][1](value)
        title, decode = f"{kind.replace('-', ' ')} {value:g}", lambda *_: fields
    return Recipe(
        name=f"{kind}-{value:g}",
        title=f"one greedy sample, {title}",
        decode=decode,
        temperature=0.0,
        samples=1,
        curve=None if kind == "threshold" else kind,
    )


def points_for(names: str, model: str) -> list[Recipe]:
    """The points of the policies in a list with commas: a policy of `CURVES` at all of
    its values, a single point such as `revoke-0.5`, or "all" that the model takes.

    Raises:
      InputError: for another name, for none, and for a causal model.
    """
    config = read_model_directory(resolve_model(model)).denoiser
    if config.attention == "causal":
        raise InputError("a causal model has no policies; give a diffusion model")
    shifted = config.logit_alignment == "shifted"  # or drafts cannot be checked
    every = [kind for kind in CURVES if shifted or kind != "speculation"]
    found: dict[str, Recipe] = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        kinds = every if name == "all" else [name] if name in CURVES else []
        chosen = [point(kind, value) for kind in kinds for value in CURVES[kind][0]]
        found |= {recipe.name: recipe for recipe in chosen or [find_recipe(name)]}
    if not found:
        raise InputError(f"no policy was named; there are all, {', '.join(CURVES)}")
    return [*found.values()]


def sampler_for(
    recipe: Recipe, model: Model, suite: Suite, *, temperature: float | None = None
) -> SamplerConfig:
    """The sampler's whole recipe for a suite.

    Args:
      recipe: a named one.
      model: whose own settings hold where the recipe has none.
      suite: whose budget, temperature and top-p hold.
      temperature: in place of the recipe's; None leaves it.

    Raises:
      InputError: for a temperature below 0.
    """
    changes: dict[str, Any] = {"max_new_tokens": suite.max_new_tokens, "trace": False}
    if recipe.temperature == "suite":
        changes["top_p"] = suite.top_p
    if temperature is None:
        temperature = {
            "suite": suite.temperature,
            "model": model.sampler.temperature,
        }.get(recipe.temperature, recipe.temperature)  # type: ignore[arg-type, assignment]
    changes["temperature"] = temperature
    if recipe.decode is not None and model.config.attention != "causal":
        changes |= recipe.decode(model.sampler, model.config)
    return model.sampler.vary(**changes)
