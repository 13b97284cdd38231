"""How many tokens to draft: as many as pay on this machine, none where none do.

    drafted   rows of a pass    tokens of a pass        worth
    0          1                1                       1 / cost(1)
    1          4                1 + a1                  (1 + a1) / cost(4)
    2          9                1 + a1 + a2             (1 + a1 + a2) / cost(9)

A gated adapter says how often its first, second, ... drafted token is accepted; what a
pass over so many rows costs is measured, on a few of the model's layers and its head.
With AMX or on a GPU more rows are nearly free; on a CPU with AVX2 a row costs nearly a
pass.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

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


def best_speculation(
    params: Params, config: DenoiserConfig, acceptance: Sequence[float]
) -> Speculation | None:
    """The recipe by which a model with a gated adapter is fastest here; None where that
    is token by token.

    Args:
      params: the model's, gated, layers apart.
      config: its recipe.
      acceptance: shares of turns that accept the first, the second, ... drafted token.
    """
    if not acceptance:
        return None
    counts = range(len(acceptance) + 1)
    costs = pass_costs(params, config, [num_rows(count) for count in counts])
    count = best_count(costs, acceptance)
    return Speculation(draft_tokens=count, mode="one_pass") if count else None


def num_rows(count: int) -> int:
    """Rows of a pass that checks `count` drafts and drafts as many after each."""
    return (count + 1) ** 2


def best_count(costs: Mapping[int, float], acceptance: Sequence[float]) -> int:
    """The number of drafted tokens that gives the most tokens per second; 0 unless one
    is faster than none by `LEAST_GAIN`.

    Costs 10, 12 and 16 ms of 1, 4 and 9 rows, acceptance 0.6 and 0.3: 100, 133 and 119
    tokens per second, so 1.
    """
    rates = [
        (1.0 + sum(acceptance[:count])) / costs[num_rows(count)]
        for count in range(len(acceptance) + 1)
    ]
    best = max(range(len(rates)), key=rates.__getitem__)
    return best if rates[best] > LEAST_GAIN * rates[0] else 0


def pass_costs(
    params: Params, config: DenoiserConfig, rows: Sequence[int]
) -> dict[int, float]:
    """Seconds of a forward pass over so many rows, of which all but the first few are
    drafts: the shortest of some, taken in turns."""
    few = min(LAYERS, config.num_layers)
    small = dataclasses.replace(config, num_layers=few, layer_loop="unroll")
    some = {
        name: leaf
        for name, leaf in params.items()
        if not name.startswith("layers_") or int(name.removeprefix("layers_")) < few
    }
    layout = simple_layout(jnp.ones((1, COLUMNS), jnp.int32))
    cache = create(small, 1, COLUMNS)._replace(layout=layout)

    def layers(params: Params, tokens: Array) -> Array:
        text = round(tokens.shape[1] ** 0.5)
        layout = simple_layout(tokens[:, :text], start=COLUMNS)
        if text > 1:
            layout = with_drafts(layout, text - 1)
        return hidden_states(params, small, tokens, layout, cache=cache).hidden

    def head(params: Params, hidden: Array) -> Array:
        return jnp.argmax(unembed(params, config, hidden), axis=-1)

    calls = []
    for count in rows:
        tokens = jnp.zeros((1, count), jnp.int32)
        hidden = jnp.zeros((1, count, config.hidden_size), config.activation_dtype)
        for function, given in ((layers, tokens), (head, hidden)):
            program = jax.jit(function).lower(some, given).compile()
            calls.append((program, given))
    seconds = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for number, (program, given) in enumerate(calls):
            began = time.perf_counter()
            jax.block_until_ready(program(some, given))
            seconds[number] = min(seconds[number], time.perf_counter() - began)
    scale = config.num_layers / few
    return {
        count: scale * seconds[2 * i] + seconds[2 * i + 1]
        for i, count in enumerate(rows)
    }
