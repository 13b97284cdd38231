"""Slots whose finished rows are replaced: a request gets what `generate` gives."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
import tiny

from seedjax.errors import InputError
from seedjax.sampling import loop, slots
from seedjax.sampling.canvas import (
    num_prefill_columns,
    pad_prompts,
    prompt_canvas,
)
from seedjax.sampling.policy import ConfidenceThreshold
from seedjax.sampling.recipe import SamplerConfig

CAUSAL = dataclasses.replace(tiny.CONFIG, attention="causal", logit_alignment="shifted")
DRAWN = SamplerConfig(
    max_new_tokens=14, policy=ConfidenceThreshold(threshold=0.3), temperature=1.0
)
admit = jax.jit(slots.admit, **tiny.STATIC)
advance = jax.jit(slots.advance, **tiny.STATIC)


def serve(params, config, prompts, *, num_slots: int, size: int):
    """The answers of all prompts, and how many turns they took."""
    state = jax.jit(slots.empty, static_argnums=(0, 1, 2, 3))(
        config, DRAWN, num_slots, 12
    )
    waiting, running, rows, turns = list(enumerate(prompts)), {}, {}, 0
    while len(rows) < len(prompts):
        for slot in range(num_slots):
            if slot not in running and waiting:
                number, prompt = waiting.pop(0)
                in_front = num_prefill_columns(len(prompt), size, "decided")
                request = slots.Request(
                    jnp.asarray(pad_prompts([prompt], in_front + size)),
                    jnp.int32(len(prompt)),
                    jnp.int32(14 - number),
                    jnp.zeros((1, 14), jnp.int32),
                    jnp.int32(0),
                    jax.random.key(number),
                )
                state = admit(params, config, DRAWN, state, jnp.int32(slot), request)
                running[slot] = number
        state, answer = advance(params, config, DRAWN, state)
        turns += 1
        for slot in [s for s in running if state.state.done[s]]:
            length = int(answer.lengths[slot])
            rows[running.pop(slot)] = answer.tokens[slot, :length].tolist()
    return rows, turns


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(tiny.CONFIG, id="block"),
        pytest.param(CAUSAL, id="causal", marks=pytest.mark.slow),
    ],
)
def test_each_request_gets_what_generate_gives(params, prompts, config):
    causal = config.attention == "causal"
    rows, turns = serve(params, config, prompts, num_slots=3, size=1 if causal else 4)
    numbers = range(len(prompts))
    canvas = prompt_canvas(
        prompts, config, DRAWN, max_new_tokens=[14 - number for number in numbers]
    )
    keys = jnp.stack([jax.random.key(number) for number in numbers])
    answer = tiny.generate(params, config, DRAWN, canvas, keys)
    assert [rows[number] for number in numbers] == loop.new_tokens(answer)
    # Answers end at different times, and slots are used again at once.
    assert len({len(row) for row in rows.values()}) > 3
    assert turns < len(prompts) / 3 * 4


def test_faults():
    recipe = dataclasses.replace(DRAWN, trace=True)
    with pytest.raises(InputError, match="keeps no record of its slots"):
        slots.empty(tiny.CONFIG, recipe, 2, 8)
