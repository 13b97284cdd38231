"""Orders and likelihoods of decodes, against the trace read step by step and against a
plain pass over every state."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.errors import InputError
from seedjax.inference.model import Model
from seedjax.nn import denoiser
from seedjax.posttrain.trajectories import draw_on_device
from seedjax.sampling import loop, trace
from seedjax.sampling.canvas import prompt_canvas
from seedjax.sampling.policy import FixedCount, LeftToRight
from seedjax.sampling.recipe import SamplerConfig, Speculation
from seedjax.sampling.revision import TokenEdits
from seedjax.sampling.stopping import StopAtEos
from seedjax.sampling.vocabulary import table_of_ids

RECIPE = SamplerConfig(
    max_new_tokens=14,
    policy=FixedCount(steps_per_block=3),
    temperature=1.0,
    eos=StopAtEos(fill=False),
    trace=True,
)
run = jax.jit(draw_on_device, static_argnames=("config", "sampler"))
generate = jax.jit(loop.generate, static_argnames=("config", "sampler"))


@jax.jit(static_argnums=1)
def all_logits(params, config, tokens):
    return denoiser.logits(params, config, tokens, denoiser.simple_layout(tokens))


@pytest.fixture
def prompts():
    rng = np.random.default_rng(0)
    return [rng.integers(20, 600, n).tolist() for n in (1, 3, 4, 9)]


def decoded(lab_model, prompts, recipe=RECIPE):
    config = lab_model.config
    canvas = prompt_canvas(prompts, config, recipe)
    keys = loop.row_keys(jax.random.key(1), len(prompts))
    return canvas, keys, run(lab_model.params, config, recipe, canvas, keys)


def test_orders_are_those_of_the_trace(lab_model, prompts):
    canvas, keys, decodes = decoded(lab_model, prompts)
    answer = generate(lab_model.params, lab_model.config, RECIPE, canvas, keys)
    steps = trace.read_trace(canvas, answer.trace, lab_model.config.block_size)
    several = set()
    for row in range(len(prompts)):
        mine = [step for step in steps if step.row == row]
        for number, step in enumerate(mine):
            for place, token in zip(step.positions, step.tokens, strict=True):
                if place < decodes.lengths[row]:
                    assert decodes.order[row, place] == number
                    assert decodes.tokens[row, place] == token
        assert decodes.steps[row] == len(mine)
        length = int(answer.lengths[row])
        ended = length < 14
        assert decodes.finished[row] == ended
        assert decodes.lengths[row] == length + ended
        several |= {len(step.positions) for step in mine}
    assert len(several) > 1


@pytest.mark.representative("block_causal")
@pytest.mark.parametrize("attention", ["block_causal", "causal"])
def test_the_likelihood_is_that_of_every_state(lab_model, prompts, attention):
    """Each token given what had been decided before its step: a pass a state."""
    config = dataclasses.replace(lab_model.config, attention=attention)
    params = lab_model.params
    _, _, decodes = decoded(
        Model(params, config, lab_model.tokenizer, lab_model.sampler), prompts
    )
    banned = table_of_ids(config.vocab_size, RECIPE.banned_ids(config))
    for row, prompt in enumerate(prompts):
        length = int(decodes.lengths[row])
        answer = np.asarray(decodes.tokens[row, :length])
        order = np.asarray(decodes.order[row, :length])
        if attention == "causal":
            assert order.tolist() == list(range(length))
        total = 0.0
        for step in range(int(order.max()) + 1):
            chosen = np.flatnonzero(order == step)
            if not len(chosen):
                continue
            # Blocks behind the one in which this step decided are not seen by it.
            shown = np.where(order < step, answer, config.mask_token_id)
            tokens = np.full(24, config.mask_token_id, np.int32)
            tokens[: len(prompt) + length] = np.concatenate([prompt, shown])
            logits = all_logits(params, config, jnp.asarray(tokens)[None])[0]
            logits = jnp.where(jnp.asarray(banned), -jnp.inf, logits)
            log_p = jax.nn.log_softmax(logits, axis=-1)
            for place in chosen:
                total += float(log_p[len(prompt) + place - 1, answer[place]])
        assert decodes.log_likelihood[row] == pytest.approx(total, rel=1e-4)


@pytest.mark.slow
def test_what_was_revised_is_decided_when_it_last_changed(lab_model, prompts):
    recipe = RECIPE.vary(
        revision=TokenEdits(threshold=0.0, most=2, extra_steps=2), temperature=0.0
    )
    canvas, _, decodes = decoded(lab_model, prompts, recipe)
    plain = decoded(lab_model, prompts, RECIPE.vary(temperature=0.0))[2]
    later = np.asarray(decodes.order) > np.asarray(plain.order)
    assert later.any()


def test_only_traced_blocks_one_by_one(lab_model, prompts):
    refused = ({"trace": False}, {"guidance": 1.0}, {"speculation": Speculation()})
    for change in refused:
        with pytest.raises(InputError, match="trace=True"):
            decoded(lab_model, prompts, RECIPE.vary(**change))


@pytest.mark.slow
def test_from_the_left_orders_go_up(lab_model, prompts):
    recipe = RECIPE.vary(policy=LeftToRight(threshold=0.2))
    decodes = decoded(lab_model, prompts, recipe)[2]
    for row in range(len(prompts)):
        order = np.asarray(decodes.order[row, : int(decodes.lengths[row])])
        assert (np.diff(order) >= 0).all()
