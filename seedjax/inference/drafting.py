"""How to draft: as it is fastest on this machine, and not at all where nothing is.

    pass over    rows      tokens of a turn      worth
    a token      1         1                     1 / cost(1)
    lookup, k    1 or k+1  1.60 with k = 4       1.60 / (0.70 cost(1) + 0.30 cost(5))
    one pass, k  (k+1)^2   1 + a1 + ... + ak     (1 + a1 + ... + ak) / cost((k+1)^2)
    both, k      (k+1)^2   look-up's where it finds, else the adapter's

A gated adapter says how often its first, second, ... drafted token is accepted; what
look-up finds was counted once. The cost of a pass is measured, on a few of the model's
layers and its head. With AMX or on a GPU more rows are nearly free; on a CPU with AVX2
a row costs nearly a pass.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seedjax.checkpoints.adapters import DraftFacts
from seedjax.config import DenoiserConfig
from seedjax.nn.cache import create
from seedjax.nn.denoiser import hidden_states, simple_layout, unembed
from seedjax.sampling.recipe import Speculation
from seedjax.sampling.speculative import with_drafts
from seedjax.typing import Array, Params

LAYERS = 4
"""Layers that are timed; all are alike."""

COLUMNS = 256
"""Of the cache that they see."""

ROUNDS = 9

LEAST_GAIN = 1.05
"""By which drafting must be faster, as far as is known beforehand."""


class Rows(NamedTuple):
    """Rows of a pass: so many of text, and after each so many drafts."""

    text: int
    drafts: int = 0

    @property
    def total(self) -> int:
        return self.text * (1 + self.drafts)


ONE = Rows(1)


class Found(NamedTuple):
    """Look-up, by turns.

    Attributes:
      share: of the turns, in which anything is found.
      tokens: that a turn writes, in the mean.
    """

    share: float
    tokens: float


LOOKUP: Mapping[tuple[int, int], Found] = {
    (2, 1): Found(0.43, 1.32),
    (2, 2): Found(0.36, 1.47),
    (2, 3): Found(0.32, 1.55),
    (2, 4): Found(0.30, 1.60),
    (2, 8): Found(0.26, 1.70),
    (1, 8): Found(0.59, 1.87),
}
"""By tokens that agree, and drafted tokens; of 512 greedy completions of MBPP
questions, documented functions and chats by SmolLM2-135M-Instruct, 59,000 tokens. Edits
gain more."""


ALONE = (2, 4, 8)
"""Numbers of drafted tokens that are tried with look-up alone: each is a program."""


def best_speculation(
    params: Params, config: DenoiserConfig, drafts: DraftFacts
) -> Speculation | None:
    """The recipe by which a causal model is fastest here; None where that is token by
    token.

    Args:
      params: the model's, layers apart, with a gated adapter or without.
      config: its recipe.
      drafts: of its adapter; without one, nothing is known.
    """
    recipes = candidates(drafts)
    rows = {ONE} | {rows for _, rows, _ in recipes}
    return choose(pass_costs(params, config, sorted(rows)), recipes)


def candidates(drafts: DraftFacts) -> list[tuple[Speculation, Rows, Found]]:
    """Ways to draft, the rows of a turn in which they do, and what they give."""
    found = [
        (
            Speculation(draft_tokens=count, match_tokens=match, drafts="lookup"),
            Rows(count + 1),
            gain,
        )
        for (match, count), gain in LOOKUP.items()
        if count in ALONE
    ]
    for count in range(1, len(drafts.acceptance) + 1):
        accepted = sum(drafts.acceptance[:count])
        rows = Rows(count + 1, count)
        one_pass = Speculation(
            draft_tokens=count, mode="one_pass", draft_token_id=drafts.draft_token_id
        )
        found.append((one_pass, rows, Found(1.0, 1.0 + accepted)))
        match = one_pass.match_tokens
        if gain := LOOKUP.get((match, count)):
            both = dataclasses.replace(one_pass, drafts="both")
            tokens = gain.tokens + (1.0 - gain.share) * accepted
            found.append((both, rows, Found(1.0, tokens)))
    return found


def choose(
    costs: Mapping[Rows, float], recipes: Sequence[tuple[Speculation, Rows, Found]]
) -> Speculation | None:
    """The recipe of the most tokens per second; None unless it is faster than none by
    `LEAST_GAIN`."""
    best, most = None, LEAST_GAIN / costs[ONE]
    for recipe, rows, gain in recipes:
        seconds = (1.0 - gain.share) * costs[ONE] + gain.share * costs[rows]
        if gain.tokens / seconds > most:
            best, most = recipe, gain.tokens / seconds
    return best


def pass_costs(
    params: Params,
    config: DenoiserConfig,
    passes: Sequence[Rows],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Rows, float]:
    """Seconds of forward passes over so many rows: the shortest of some, taken in
    turns. On a machine that others use, `time.process_time` says more."""
    few = min(LAYERS, config.num_layers)
    small = dataclasses.replace(config, num_layers=few, layer_loop="unroll")
    some = {
        name: leaf
        for name, leaf in params.items()
        if not name.startswith("layers_") or int(name.removeprefix("layers_")) < few
    }
    before = simple_layout(jnp.ones((1, COLUMNS), jnp.int32))
    cache = create(small, 1, COLUMNS)._replace(layout=before)

    def head(params: Params, hidden: Array) -> Array:
        return jnp.argmax(unembed(params, config, hidden), axis=-1)

    calls = []
    for rows in passes:
        layout = simple_layout(jnp.ones((1, rows.text), jnp.int32), start=COLUMNS)
        if rows.drafts:
            layout = with_drafts(layout, rows.drafts)

        def layers(params: Params, tokens: Array, layout=layout) -> Array:
            return hidden_states(params, small, tokens, layout, cache=cache).hidden

        shape = (1, rows.total)
        hidden = jnp.zeros((*shape, config.hidden_size), config.activation_dtype)
        for function, given in ((layers, jnp.zeros(shape, jnp.int32)), (head, hidden)):
            program = jax.jit(function).lower(some, given).compile()
            calls.append((program, given))
    seconds = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for number, (program, given) in enumerate(calls):
            began = clock()
            jax.block_until_ready(program(some, given))
            seconds[number] = min(seconds[number], clock() - began)
    scale = config.num_layers / few
    pairs = zip(seconds[::2], seconds[1::2], strict=True)
    totals = [scale * layers + head for layers, head in pairs]
    return dict(zip(passes, totals, strict=True))
