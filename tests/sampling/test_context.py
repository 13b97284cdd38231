"""Blocks that see the whole canvas, computed anew at every step or in part: against a
plain loop over a plain network."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny
from python_loop import decode_row
from tiny import STATIC

from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.nn import denoiser
from seedjax.sampling import context as contexts
from seedjax.sampling import loop, trace
from seedjax.sampling.canvas import prompt_canvas, span_canvas
from seedjax.sampling.check import block_denoiser
from seedjax.sampling.policy import ConfidenceThreshold, FixedCount
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.stopping import IgnoreEos
from seedjax.sharding import batch_sharding, make_mesh, tree_shardings

FREE = dataclasses.replace(tiny.CONFIG, attention="bidirectional")
SHIFTED = dataclasses.replace(FREE, logit_alignment="shifted")
WHOLE = ("canvas", "canvas_prefix_cache", "canvas_dual_cache")

# Four blocks, the last one not whole. All tests share these programs.
DRAWN = SamplerConfig(
    max_new_tokens=14,
    context="canvas",
    policy=ConfidenceThreshold(threshold=0.3),
    temperature=1.0,
    trace=True,
)
COUNTED = dataclasses.replace(
    DRAWN, policy=FixedCount(steps_per_block=3), temperature=0.0, eos=IgnoreEos()
)


@pytest.mark.representative("drawn-canvas_dual_cache")
@pytest.mark.parametrize("context", WHOLE)
@pytest.mark.parametrize(
    ("recipe", "config"), [(DRAWN, FREE), (COUNTED, SHIFTED)], ids=["drawn", "shifted"]
)
def test_equals_a_python_loop(params, prompts, decode, context, recipe, config):
    """Prompts of every length in one batch."""
    recipe = dataclasses.replace(recipe, context=context)
    canvas, answer, rows = decode(prompts, recipe, config=config)
    keys = loop.row_keys(jax.random.key(0), len(prompts))
    slowest = np.zeros((len(prompts), 4), int)
    traced = trace.read_trace(canvas, answer.trace, 4)
    for row, prompt in enumerate(prompts):
        wanted, steps = decode_row(params, config, recipe, prompt, keys[row])
        assert rows[row] == wanted, f"row {row}"
        assert trace.replay(traced, config.eos_token_ids, row=row) == wanted
        assert answer.lengths[row] == len(wanted)
        assert answer.steps[row] == sum(steps)
        slowest[row, : len(steps)] = steps
    # One denoiser call a step, that over the whole canvas included; nothing besides.
    assert answer.forwards == slowest.max(axis=0).sum()
    # The test can fail: rows differ, several steps are taken, some rows end before
    # their budget if they may, and the contexts differ.
    assert len({tuple(row) for row in rows}) > 6
    assert slowest.max() > 1
    assert len({len(row) for row in rows}) > 1 or isinstance(recipe.eos, IgnoreEos)
    other = WHOLE[WHOLE.index(context) - 1]
    varied = dataclasses.replace(recipe, context=other)
    assert decode(prompts, varied, config=config)[2] != rows, other


@pytest.mark.slow
@pytest.mark.parametrize("context", ["canvas", "canvas_dual_cache"])
def test_a_row_does_not_depend_on_its_batch(prompts, decode, context):
    recipe = dataclasses.replace(COUNTED, context=context)
    canvas, answer, together = decode(prompts, recipe, config=SHIFTED)
    alone_canvas, alone, (tokens,) = decode(prompts[6:7], recipe, config=SHIFTED)
    assert canvas.num_prefix_columns == 16 and alone_canvas.num_prefix_columns == 12
    assert tokens == together[6]
    assert alone.forwards == alone.steps[0] == answer.steps[6]


@pytest.mark.slow
@pytest.mark.parametrize("context", WHOLE[1:])
def test_with_one_step_a_block_nothing_is_reused(params, prompts, decode, context):
    exact = dataclasses.replace(COUNTED, policy=FixedCount(steps_per_block=1))
    recipe = dataclasses.replace(exact, context=context)
    _, answer, rows = decode(prompts, recipe, config=SHIFTED)
    assert answer.forwards == 4
    keys = loop.row_keys(jax.random.key(0), len(prompts))
    for prompt, key, row in zip(prompts, keys, rows, strict=True):
        assert row == decode_row(params, SHIFTED, exact, prompt, key)[0]


@pytest.mark.slow
def test_one_block_makes_both_caches_one(params, prompts, decode):
    """With the whole answer in one block, all but the block is the prompt."""
    prompts = prompts[4:8]
    several = dataclasses.replace(COUNTED, block_size=14)
    answers = []
    for context in WHOLE[1:]:
        recipe = dataclasses.replace(several, context=context)
        _, answer, rows = decode(prompts, recipe, config=SHIFTED)
        assert answer.forwards == 3
        answers.append(rows)
    assert answers[0] == answers[1]
    keys = loop.row_keys(jax.random.key(0), 4)
    for prompt, key, row in zip(prompts, keys, answers[0], strict=True):
        assert row == decode_row(params, SHIFTED, recipe, prompt, key)[0]


def test_the_first_block_of_a_row_is_a_whole_one(prompts, decode):
    """Its size does not depend on where the prompt ends."""
    canvas, answer, _ = decode(prompts, COUNTED, config=SHIFTED)
    steps = trace.read_trace(canvas, answer.trace, 4)
    assert {step.row for step in steps} == set(range(len(prompts)))
    for step in steps:
        assert set(step.positions) <= set(range(4 * step.block, 4 * step.block + 4))
        # Three steps: the remainder of four goes to the first.
        last = 4 * step.block + 4 > 14
        assert len(step.positions) == [2, 0 if last else 1, 0 if last else 1][step.step]


@pytest.mark.slow
def test_block_by_block_is_the_same(params, prompts, decode):
    recipe = dataclasses.replace(DRAWN, context="canvas_dual_cache")
    keys = loop.row_keys(jax.random.key(0), len(prompts))
    canvas, answer, rows = decode(prompts, recipe, config=FREE)
    state = jax.jit(loop.start, **STATIC)(params, FREE, recipe, canvas)
    assert state.cache is None and state.forwards == 0
    advance = jax.jit(loop.advance, **STATIC)
    while not state.done.all():
        state = advance(params, FREE, recipe, canvas, keys, state)
    last = loop.finish(FREE, canvas, state)
    assert loop.new_tokens(last) == rows
    assert last.forwards == answer.forwards


@pytest.mark.slow
def test_a_block_that_holds_the_whole_text_has_one_context(params):
    """Which is why `for_span` chooses the one that computes least."""
    canvas = span_canvas(
        [[11, 12, 13], [21]], [[14, 15], [22, 23, 24, 25, 26]], SHIFTED, length=5
    )
    keys = loop.row_keys(jax.random.key(0), 2)
    span = DRAWN.for_span(5, canvas.generation_mask.shape[1])
    assert span.context == "decided"
    rows = []
    for context in ("decided", "canvas"):
        recipe = dataclasses.replace(span, context=context)
        answer = tiny.generate(params, SHIFTED, recipe, canvas, keys)
        rows.append(loop.new_tokens(answer))
    assert [len(row) for row in rows[0]] == [5, 5]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("context", WHOLE)
def test_only_bidirectional_models_see_what_is_to_come(params, prompts, context):
    recipe = dataclasses.replace(DRAWN, context=context)
    with pytest.raises(InputError, match="attention is block_causal; give context"):
        block_denoiser(tiny.CONFIG, recipe)
    causal = dataclasses.replace(SHIFTED, attention="causal")
    canvas = prompt_canvas(prompts, causal, DRAWN)
    with pytest.raises(InputError, match="attention is causal; give context"):
        loop.start(params, causal, recipe, canvas)
    assert block_denoiser(FREE, recipe).attention == "bidirectional"
    with pytest.raises(InputError, match="context is 'canvass'; expected one of"):
        recipe.vary(context="canvass")


@pytest.mark.slow
def test_sharded_is_the_same(params, prompts, decode):
    recipe = dataclasses.replace(COUNTED, context="canvas_dual_cache")
    _, single, rows = decode(prompts, recipe, config=SHIFTED)
    mesh = make_mesh("data=2,fsdp=2,tensor=2")
    shardings = tree_shardings(mesh, denoiser.logical_axes(SHIFTED), params)
    canvas = canvas_of(prompts, recipe, SHIFTED)
    with jax.set_mesh(mesh):
        spread = jax.device_put(params, shardings)
        canvas = jax.device_put(canvas, batch_sharding(mesh, canvas))
        keys = loop.row_keys(jax.random.key(0), len(prompts))
        answer = jax.jit(loop.generate, **STATIC)(spread, SHIFTED, recipe, canvas, keys)
    assert loop.new_tokens(answer) == rows
    assert answer.forwards == single.forwards


def canvas_of(prompts, recipe: SamplerConfig, config: DenoiserConfig):
    return prompt_canvas(prompts, config, recipe)


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_lowers_for_accelerators(prompts, platform):
    config = dataclasses.replace(
        SHIFTED, dtype="bfloat16", activation_dtype="bfloat16", layer_loop="scan"
    )
    recipe = dataclasses.replace(DRAWN, context="canvas_dual_cache")
    program = jax.jit(loop.generate, **STATIC)
    lowered = program.trace(
        denoiser.abstract_params(config),
        config,
        recipe,
        canvas_of(prompts, recipe, config),
        loop.row_keys(jax.random.key(0), len(prompts)),
    ).lower(lowering_platforms=(platform,))
    assert "while" in lowered.as_text()


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["bidirectional", "block_causal", "causal"])
def test_a_prompt_can_be_taken_in_by_pieces(params, prompts, monkeypatch, attention):
    """Pieces of two blocks, the first of one: the same answers, in more passes."""
    config = dataclasses.replace(tiny.CONFIG, attention=attention)
    if attention == "causal":
        config = dataclasses.replace(config, logit_alignment="shifted")
    recipe = dataclasses.replace(COUNTED, context="decided", trace=False)
    # Up to six blocks long, beside a row that begins behind the first piece.
    given = [prompts[9] + prompts[11], prompts[11] + prompts[11], prompts[1]]
    canvas = prompt_canvas(given, config, recipe)
    keys = loop.row_keys(jax.random.key(0), len(given))

    def decode():
        # Nothing is remembered of a function that is new.
        program = jax.jit(
            lambda *args: loop.generate(args[0], config, recipe, *args[1:])
        )
        return program(params, canvas, keys)

    whole = decode()
    monkeypatch.setattr(contexts, "PREFILL_PIECE", 2 * config.block_size)
    pieces = decode()
    assert loop.new_tokens(pieces) == loop.new_tokens(whole)
    assert pieces.forwards - whole.forwards == 2
