"""Wide canvases for few programs: what is generated is what exact shapes give."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from seedjax.sampling import loop
from seedjax.sampling.canvas import prompt_canvas, rung, span_canvas
from seedjax.sampling.policy import ConfidenceThreshold
from seedjax.sampling.recipe import SamplerConfig, Speculation

FREE = {"attention": "bidirectional"}
CAUSAL = {"attention": "causal", "logit_alignment": "shifted"}


@pytest.mark.parametrize(
    "columns, size, limit, every_step, held",
    [
        (1, 1, 8192, False, 64),
        (64, 8, 8192, False, 64),
        (65, 8, 8192, False, 256),
        (257, 8, 8192, False, 1024),
        (2049, 8, 8192, False, 4096),
        (5000, 8, 8192, False, 8192),
        (1, 8, 8192, True, 128),
        (129, 8, 8192, True, 256),
        (520, 8, 1000, False, 1000),  # no more than the model holds
        (520, 48, 1000, False, 1008),  # whole blocks
        (16385, 32, 40960, False, 32768),  # twice at most where memory counts
    ],
)
def test_rungs(columns, size, limit, every_step, held):
    assert rung(columns, size, limit, every_step=every_step) == held


def test_every_length_fits_its_rung():
    for columns in range(1, 5000, 7):
        for every_step in (False, True):
            width = rung(columns, 4, 4999, every_step=every_step)
            assert columns <= width <= 5000 and width % 4 == 0


@pytest.mark.representative("bidirectional-canvas_dual_cache")
@pytest.mark.parametrize(
    "model, recipe",
    [
        ({}, {"temperature": 1.0}),
        pytest.param({}, {}, marks=pytest.mark.slow),
        (FREE, {"context": "canvas", "temperature": 1.0}),
        pytest.param(FREE, {"context": "canvas_prefix_cache"}, marks=pytest.mark.slow),
        (FREE, {"context": "canvas_dual_cache"}),
        pytest.param(CAUSAL, {"temperature": 1.0}, marks=pytest.mark.slow),
        (CAUSAL, {"speculation": Speculation(draft_tokens=2)}),
    ],
    ids=lambda given: "-".join(map(str, given.values())) if given else "plain",
)
def test_wide_canvases_give_the_same_answers(params, prompts, model, recipe):
    """Three prompts of three lengths, of 1 to 12 tokens, on canvases for 48."""
    config = dataclasses.replace(tiny.CONFIG, **model)
    fields = {"max_new_tokens": 9, "policy": ConfidenceThreshold(threshold=0.3)}
    sampler = SamplerConfig(**fields | recipe)
    keys = loop.row_keys(jax.random.key(3), 3)
    given = [prompts[n] for n in (0, 6, 11)]
    exact = prompt_canvas(given, config, sampler)
    wide = prompt_canvas(given, config, sampler, few_shapes=True)
    assert wide.tokens.shape[1] > exact.tokens.shape[1]
    got = tiny.generate(params, config, sampler, wide, keys)
    wanted = tiny.generate(params, config, sampler, exact, keys)
    assert loop.new_tokens(got) == loop.new_tokens(wanted)
    assert got.steps.tolist() == wanted.steps.tolist()
    assert int(got.forwards) == int(wanted.forwards)


@pytest.mark.slow
def test_a_wide_span_is_filled_the_same(params, prompts):
    config = dataclasses.replace(tiny.CONFIG, **FREE)
    program = jax.jit(loop.generate, **tiny.STATIC)
    keys = loop.row_keys(jax.random.key(0), 1)
    answers = []
    for few_shapes in (False, True):
        canvas = span_canvas(
            [prompts[4]], [prompts[6]], config, length=5, few_shapes=few_shapes
        )
        recipe = SamplerConfig(policy=ConfidenceThreshold(threshold=0.3))
        recipe = recipe.for_span(5, canvas.generation_mask.shape[1])
        answer = program(params, config, recipe, canvas, keys)
        answers.append((canvas.generation_mask.shape[1], loop.new_tokens(answer)))
    (narrow, wanted), (wide, got) = answers
    assert narrow < wide and got == wanted


@pytest.mark.slow
def test_a_padded_prompt_is_taken_in_by_the_pieces_it_has(params):
    """Canvases of 256 columns for 100 and 250 tokens, one and two pieces of 128; one of
    1024 for 300, two pieces of 256."""
    config = dataclasses.replace(tiny.CONFIG, max_positions=1536)
    sampler = SamplerConfig(max_new_tokens=4, policy=ConfidenceThreshold(threshold=0.0))
    drawn = np.random.default_rng(0).integers(4, 64, 300).tolist()
    program = jax.jit(loop.generate, **tiny.STATIC)
    keys, found = loop.row_keys(jax.random.key(0), 1), []
    for length in (100, 250, 300):
        canvas = prompt_canvas([drawn[:length]], config, sampler, few_shapes=True)
        assert canvas.num_prefix_columns == (1028 if length == 300 else 260)
        answer = program(params, config, sampler, canvas, keys)
        found.append(int(answer.forwards) - int(answer.steps[0]))
        exact = prompt_canvas([drawn[:length]], config, sampler)
        wanted = tiny.generate(params, config, sampler, exact, keys)
        assert loop.new_tokens(answer) == loop.new_tokens(wanted)
    assert found == [1, 2, 2]
