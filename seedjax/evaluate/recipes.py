"""Named decode settings, frozen: what `--recipe` takes.

A suite says how many samples of which temperature and length its score is made of; the
model's directory holds the decode settings that its authors publish. A recipe says
which of these hold, so that a name is all that has to be told beside a score.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from seedjax.errors import InputError, did_you_mean
from seedjax.inference.model import Model
from seedjax.sampling.policy import (
    ConfidenceThreshold,
    FixedCount,
    LeftToRight,
    Policy,
)
from seedjax.sampling.recipe import SamplerConfig
from seedjax.tasks.suite import Suite


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a suite's questions are put.

    Attributes:
      name: what `--recipe` takes.
      title: one line for the report.
      decode: "own" is the policy of the model's directory, "single" one token a step,
        "threshold" all tokens that the model is at least `threshold` sure of.
      threshold: a probability.
      temperature: "suite" or "model": whose it is; or the temperature itself. With the
        suite's goes its top-p.
      samples: answers a problem; None is the suite's number.
    """

    name: str
    title: str
    decode: Literal["own", "single", "threshold"] = "own"
    threshold: float | None = None
    temperature: Literal["suite", "model"] | float = "suite"
    samples: int | None = None


_ALL = (
    Recipe(
        name="paper",
        title="the suite's samples, temperature and top-p, the policy that the "
        "model's authors publish",
    ),
    Recipe(
        name="careful",
        title="the suite's samples, temperature and top-p, one token a step",
        decode="single",
    ),
    Recipe(
        name="fast",
        title="one greedy sample, all tokens at once that are 0.9 sure",
        decode="threshold",
        threshold=0.9,
        temperature=0.0,
        samples=1,
    ),
    Recipe(
        name="default",
        title="one sample, decoded as the model's directory says",
        temperature="model",
        samples=1,
    ),
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
      InputError: if there is none; names the nearest.
    """
    if name in RECIPES:
        return RECIPES[name]
    hint = did_you_mean(name, RECIPES) or f"; there are {', '.join(RECIPES)}"
    raise InputError(f"there is no recipe {name!r}{hint}")


def at_threshold(threshold: float | None) -> Recipe:
    """A point of a sweep: one greedy sample at a threshold, one token a step for None.

    Raises:
      InputError: for a threshold that is no probability.
    """
    if threshold is None:
        return Recipe(
            name="single",
            title="one greedy sample, one token a step",
            decode="single",
            temperature=0.0,
            samples=1,
        )
    if not 0.0 <= threshold <= 1.0:
        raise InputError(f"the threshold is {threshold}; it must be in [0, 1]")
    return Recipe(
        name=f"threshold-{threshold:g}",
        title=f"one greedy sample, all tokens at once that are {threshold:g} sure",
        decode="threshold",
        threshold=threshold,
        temperature=0.0,
        samples=1,
    )


def sampler_for(
    recipe: Recipe, model: Model, suite: Suite, *, temperature: float | None = None
) -> SamplerConfig:
    """The sampler's whole recipe for a suite.

    Args:
      recipe: a named one.
      model: whose own settings hold where the recipe does not say.
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
    if recipe.decode != "own" and model.config.attention != "causal":
        changes["policy"] = _policy(model, recipe.threshold)
        if recipe.decode == "single":
            changes |= {"ahead": None, "speculation": None, "credit": None}
    return model.sampler.vary(**changes)


def _policy(model: Model, threshold: float | None) -> Policy:
    """One that keeps the model's order of decisions, where it has one."""
    own = model.sampler.policy
    if isinstance(own, LeftToRight):
        return dataclasses.replace(own, threshold=threshold)
    if threshold is None:
        size = model.sampler.tokens_per_block(model.config)
        return FixedCount(steps_per_block=size)
    return ConfidenceThreshold(threshold=threshold)
