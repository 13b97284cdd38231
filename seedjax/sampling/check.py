"""Which model, recipe and surface go together: the one place that refuses."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal

from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.revision import LevenshteinEdits

Surface = Literal[
    "generate",
    "stream",
    "engine",
    "exported",
    "evaluation",
    "checked",
    "infill",
    "orders",
]
"""The user of a recipe: `Model.generate` and its kin, `Model.stream`, `Engine`,
`export_sampler`, a run of `seedjax.evaluate`, `seedjax.inference.checked`, a hole of
known length filled in place, and the orders that post-training keeps."""


def block_denoiser(config: DenoiserConfig, sampler: SamplerConfig) -> DenoiserConfig:
    """The denoiser as the block sampler runs it: block-causal on the sampler's grid, or
    bidirectional where the recipe shows it the whole canvas.

    A bidirectional model takes any grid (Seed Diffusion does no block-specific
    training). A block-causal one takes its own block size, which is exact, and its
    divisors, which is an approximation: a token then sees less of what follows it than
    in training, but never more.

    Raises:
      InputError: for a causal model, and as `check_recipe`.
    """
    if config.attention == "causal":
        raise InputError(
            "a causal model writes token by token and has no blocks; give one whose "
            "attention is block_causal or bidirectional"
        )
    check_recipe(config, sampler)
    return dataclasses.replace(
        config,
        attention="block_causal" if sampler.context == "decided" else "bidirectional",
        block_size=sampler.tokens_per_block(config),
    )


def check_recipe(
    config: DenoiserConfig,
    sampler: SamplerConfig,
    surface: Surface = "generate",
    *,
    grammar: bool = False,
    forced_tokens: bool = False,
    stop: bool = False,
) -> None:
    """Refuses what does not go together: the one place that does.

    Args:
      config: the model.
      sampler: the recipe.
      surface: what the recipe is for.
      grammar: whether the completions must match one.
      forced_tokens: whether tokens of the completions are given.
      stop: whether there are stop strings.

    Raises:
      InputError: for the first pair that does not go together, with the remedy.
    """
    given = {"grammar": grammar, "forced_tokens": forced_tokens, "stop": stop}
    for is_refused, line in (
        *_refused_on_surface(sampler, surface, given),
        *_refused_of_model(config, sampler),
        *_refused_of_recipe(config, sampler, given),
    ):
        if is_refused:
            raise InputError(line)


Refusals = Iterator[tuple[bool, str]]


def _refused_of_model(config: DenoiserConfig, sampler: SamplerConfig) -> Refusals:
    """Objections of a model to a recipe."""
    size, speculates = (
        sampler.tokens_per_block(config),
        bool(sampler.speculation),
    )
    on_grid = config.attention == "block_causal" and not speculates
    yield (
        on_grid and config.block_size % size != 0,
        f"block size {size} is one that the model cannot take: it was trained with "
        f"blocks of {config.block_size}; give that or a divisor of it",
    )
    yield (
        sampler.context != "decided" and config.attention != "bidirectional",
        f"context {sampler.context!r} shows a model what is still to be written, which "
        f"takes a bidirectional one, and this one's attention is {config.attention}; "
        "give context 'decided'",
    )
    yield (
        speculates and config.logit_alignment != "shifted",
        "speculation takes a model with shifted logits, which can predict the "
        f"next token; this one's logit_alignment is {config.logit_alignment!r}: drop "
        "speculation",
    )
    ids = (
        *sampler.forbidden_token_ids,
        *sampler.last_token_ids,
        *sampler.control_ids,
        *sampler.drafted_ids,
    )
    yield (
        max(ids, default=0) >= config.vocab_size,
        f"the recipe names the token id {max(ids, default=0)}, and the model's ids end "
        f"at {config.vocab_size - 1}; give ids of this model",
    )


def _refused_of_recipe(
    config: DenoiserConfig, sampler: SamplerConfig, given: Mapping[str, bool]
) -> Refusals:
    """Fields of a recipe that do not go together."""
    yield (
        sampler.context == "decided" and sampler.block_size == "answer",
        "block_size 'answer' is for a context that shows the whole canvas, and the "
        "recipe has context 'decided'; give a number of tokens",
    )
    yield (
        sampler.context != "decided" and sampler.ahead is not None,
        f"ahead is for context 'decided' only, and the recipe has context "
        f"{sampler.context!r}; drop one of them",
    )
    yield (
        sampler.int8_cache and (sampler.context == "canvas" or not sampler.cache),
        "int8_cache is for a recipe that keeps a cache, and this one has context "
        f"{sampler.context!r} and cache={sampler.cache}; drop int8_cache",
    )
    speculates = sampler.speculation is not None
    yield (
        speculates and sampler.trace,
        "speculation keeps no trace, and the recipe has trace=True; drop one of them",
    )
    one_by_one = "speculation writes" if speculates else "a causal model writes"
    of_blocks = {
        "ahead": sampler.ahead,
        "revision": sampler.revision,
        "context": None if sampler.context == "decided" else sampler.context,
        "cache": None if sampler.cache else "False",
    }
    for name, value in of_blocks.items():
        yield (
            value is not None and (speculates or config.attention == "causal"),
            f"{one_by_one} tokens one after the other, with a cache, and {name} is for "
            f"blocks; drop {name}" + (" or speculation" if speculates else ""),
        )
    shifts = isinstance(sampler.revision, LevenshteinEdits)
    for name, is_present in (
        ("ahead", sampler.ahead is not None),
        ("logprobs", sampler.logprobs),
        ("forced_tokens", given["forced_tokens"]),
    ):
        yield (
            shifts and is_present,
            f"LevenshteinEdits moves tokens, which {name} takes to stay in their "
            f"places; drop {name} or the recipe's revision",
        )
    yield (
        given["grammar"] and sampler.revision is not None,
        "a grammar counts on unmasked tokens to stay; drop the recipe's revision "
        f"({type(sampler.revision).__name__}), or the grammar",
    )
    yield (
        given["grammar"] and speculates,
        "a grammar is not known to the drafts of speculation; drop speculation, or the "
        "grammar",
    )
    yield (
        given["grammar"] and given["stop"],
        "a stop string would cut completions that have to match a grammar; drop stop, "
        "for a grammar defines where they end, or the grammar",
    )
    yield (
        config.attention == "causal" and config.logit_alignment != "shifted",
        "a causal model predicts the next token, which takes shifted logits; this "
        f"one's logit_alignment is {config.logit_alignment!r}: give 'shifted'",
    )


def _refused_on_surface(
    sampler: SamplerConfig, surface: Surface, given: Mapping[str, bool]
) -> Refusals:
    """Objections of a surface to a recipe."""
    for other, name in (
        ("stream", "a stream hands out text alone"),
        ("engine", "an Engine keeps no record of its slots"),
        ("exported", "an exported sampler returns tokens alone"),
        ("checked", "a check of the syntax throws blocks away"),
    ):
        yield (
            sampler.trace and surface == other,
            f"{name}, and the recipe has trace=True; drop trace, or use generate",
        )
        yield (
            sampler.logprobs and surface == other and other in ("stream", "exported"),
            f"{name}, and the recipe has logprobs=True; drop logprobs, or use generate",
        )
    yield (
        surface == "checked" and sampler.speculation is not None,
        "a check of the syntax decodes again block by block, and speculation has no "
        "blocks; drop speculation, or the check",
    )
    yield (
        surface == "infill" and sampler.speculation is not None,
        "speculation writes from left to right, and a hole of known length has text on "
        "both sides; drop speculation or length",
    )
    for name, is_present in given.items():
        yield (
            surface == "evaluation" and is_present,
            f"an evaluation takes suites as they are, without {name}; drop {name}, or "
            "use generate",
        )
    together = sampler.ahead or sampler.speculation or sampler.guidance
    yield (
        surface == "orders" and (not sampler.trace or bool(together)),
        "orders are kept of a recipe with trace=True and without ahead, speculation "
        "and guidance; change these",
    )
