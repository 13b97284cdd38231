"""The autoregressive sampler against a loop that looks at the whole text every time."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from seedjax.errors import InputError
from seedjax.nn import denoiser
from seedjax.sampling import loop, trace
from seedjax.sampling.canvas import prompt_canvas
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.stopping import IgnoreEos, StopAtEos

CAUSAL = dataclasses.replace(tiny.CONFIG, attention="causal", logit_alignment="shifted")
GREEDY = SamplerConfig(max_new_tokens=14)
DRAWN = dataclasses.replace(GREEDY, temperature=1.0, top_k=20, top_p=0.9)
generate = jax.jit(loop.generate, **tiny.STATIC)


def sample(params, prompts, recipe, keys, config=CAUSAL):
    canvas = prompt_canvas(prompts, config, recipe)
    answer = generate(params, config, recipe, canvas, keys)
    return canvas, answer, loop.new_tokens(answer)


def keys_of(count: int):
    return loop.row_keys(jax.random.key(1), count)


@functools.partial(jax.jit, static_argnames="config")
def last_logits(params, config, tokens, length):
    layout = denoiser.simple_layout(tokens)
    return denoiser.logits(params, config, tokens, layout)[0, length - 1]


def greedy_loop(params, config, prompt, *, new, ends, least=0) -> list[int]:
    answer: list[int] = []
    while len(answer) < new:
        text = prompt + answer
        tokens = jnp.asarray([text + [0] * (48 - len(text))], jnp.int32)
        logits = np.array(last_logits(params, config, tokens, len(text)))
        logits[:3] = -np.inf
        if not ends or len(answer) < least:
            logits[3] = -np.inf
        token = int(logits.argmax())
        if token == 3:
            break
        answer.append(token)
    return answer


@pytest.mark.representative("eos0")
@pytest.mark.parametrize("eos", [StopAtEos(min_new_tokens=2), IgnoreEos()])
def test_equals_a_loop_without_cache(params, prompts, eos):
    recipe = dataclasses.replace(GREEDY, eos=eos)
    ends = isinstance(eos, StopAtEos)
    # A model that likes to end: the embedding of the end is made larger.
    params = params | {"embedding": params["embedding"].at[3].multiply(2.0)}
    _, answer, rows = sample(params, prompts, recipe, keys_of(12))
    for row, prompt in enumerate(prompts):
        wanted = greedy_loop(params, CAUSAL, prompt, new=14, ends=ends, least=2)
        assert rows[row] == wanted, f"row {row}"
        assert answer.steps[row] == min(len(wanted) + 1, 14)
    assert answer.forwards == 1 + max(answer.steps)
    assert (len({len(row) for row in rows}) > 1) == ends


@pytest.mark.slow
def test_a_row_does_not_depend_on_its_batch(params, prompts):
    keys = keys_of(4)
    rows = [prompts[i] for i in (3, 11, 6, 9)]  # 6, 8 and 12 columns of prefix
    _, _, together = sample(params, rows, DRAWN, keys)
    _, _, (alone,) = sample(params, rows[2:3], DRAWN, keys[2:3])
    assert alone == together[2]
    _, _, again = sample(params, rows, DRAWN, keys_of(4))
    assert again == together
    other = loop.row_keys(jax.random.key(2), 4)
    assert sample(params, rows, DRAWN, other)[2] != together


@pytest.mark.slow
def test_a_single_row_in_bfloat16_is_shown_a_second_column(params, prompts):
    """Which must not change what is drawn (compared by confidence: rounding may differ
    between products of one row and of two)."""
    narrow = dataclasses.replace(CAUSAL, dtype="bfloat16")
    recipe = dataclasses.replace(GREEDY, eos=IgnoreEos(), trace=True)
    _, one, (alone,) = sample(params, prompts[7:8], recipe, keys_of(1), narrow)
    _, two, together = sample(params, prompts[7:8] * 2, recipe, keys_of(2), narrow)
    assert alone == together[0]
    np.testing.assert_allclose(
        one.trace.confidence[:, 0, 0], two.trace.confidence[:, 0, 0], atol=1e-2
    )


@pytest.mark.slow
def test_piece_by_piece_and_traced(params, prompts):
    recipe = dataclasses.replace(DRAWN, max_new_tokens=20, trace=True)
    keys = keys_of(4)
    canvas, answer, rows = sample(params, prompts[4:8], recipe, keys)
    state = jax.jit(loop.start, **tiny.STATIC)(params, CAUSAL, recipe, canvas)
    advance = jax.jit(loop.advance, **tiny.STATIC)
    pieces = 0
    while not state.done.all():
        state = advance(params, CAUSAL, recipe, canvas, keys, state)
        pieces += 1
    assert pieces == 2  # of 16 tokens at most
    last = loop.finish(CAUSAL, canvas, state)
    assert loop.new_tokens(last) == rows
    assert state.forwards == answer.forwards
    steps = trace.read_trace(canvas, answer.trace, 1)
    for row in range(4):
        assert trace.replay(steps, CAUSAL.eos_token_ids, row=row) == rows[row]


def test_a_causal_model_predicts_the_next_token(params, prompts):
    config = dataclasses.replace(CAUSAL, logit_alignment="same_position")
    with pytest.raises(InputError, match="'same_position': give 'shifted'"):
        sample(params, prompts, GREEDY, keys_of(12), config)


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_lowers_for_accelerators(prompts, platform):
    canvas = prompt_canvas(prompts, CAUSAL, DRAWN)
    lowered = generate.trace(
        denoiser.abstract_params(CAUSAL), CAUSAL, DRAWN, canvas, keys_of(12)
    ).lower(lowering_platforms=(platform,))
    assert "while" in lowered.as_text()
