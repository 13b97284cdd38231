"""Log-probabilities of new tokens, against logits of the whole text."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny
from python_loop import logits_of

from seedjax.errors import InputError
from seedjax.sampling import loop
from seedjax.sampling.ahead import WorkAhead
from seedjax.sampling.canvas import prompt_canvas
from seedjax.sampling.policy import ConfidenceThreshold, LeftToRight
from seedjax.sampling.recipe import SamplerConfig, Speculation
from seedjax.sampling.revision import LevenshteinEdits, Revoke, TokenEdits
from seedjax.sampling.stopping import IgnoreEos
from seedjax.sampling.trace import read_trace

CAUSAL = dataclasses.replace(tiny.CONFIG, attention="causal", logit_alignment="shifted")
SHIFTED = dataclasses.replace(tiny.CONFIG, logit_alignment="shifted")
RECIPE = SamplerConfig(max_new_tokens=9, eos=IgnoreEos(), logprobs=True)
ONE_A_STEP = dataclasses.replace(RECIPE, policy=LeftToRight(threshold=None))
BANNED = [0, 1, 2, 3]  # mask, padding and beginning, and the end, which is ignored


def run(params, config, recipe, prompts):
    canvas = prompt_canvas(prompts, config, recipe)
    keys = loop.row_keys(jax.random.key(0), len(prompts))
    answer = tiny.generate(params, config, recipe, canvas, keys)
    tokens = loop.new_tokens(answer)
    return tokens, loop.new_logprobs(answer, tokens)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    logits[..., BANNED] = -np.inf
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@pytest.mark.representative("block")
@pytest.mark.parametrize("kind", ["block", "causal"])
def test_one_token_a_step_equals_the_log_softmax(params, prompts, kind):
    """At each place: what the model says of it while it is the next to be decided."""
    is_causal = kind == "causal"
    config = CAUSAL if is_causal else tiny.CONFIG
    tokens, found = run(params, config, ONE_A_STEP, prompts)
    for prompt, row, logprobs in zip(prompts, tokens, found, strict=True):
        assert len(row) == len(logprobs) == 9
        for place, token in enumerate(row):
            text = [*prompt, *row[:place]]
            at = len(text) - is_causal
            if not is_causal:
                text += [config.mask_token_id] * (-len(text) % 4 or 4)
            wanted = log_softmax(logits_of(params, config, text)[at])
            np.testing.assert_allclose(logprobs[place], wanted[token], atol=2e-4)
            assert token == wanted.argmax()
    assert -40 < min(map(min, found)) < -0.3


@pytest.mark.slow
def test_a_verifier_says_what_the_autoregressive_sampler_does(params, prompts):
    tokens, wanted = run(params, CAUSAL, RECIPE, prompts)
    recipe = dataclasses.replace(RECIPE, speculation=Speculation(draft_tokens=3))
    again, found = run(params, SHIFTED, recipe, prompts)
    assert again == tokens
    np.testing.assert_allclose(found, wanted, atol=2e-4)


DRAWN = dataclasses.replace(
    RECIPE, temperature=1.0, policy=ConfidenceThreshold(threshold=0.3)
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"revision": TokenEdits(threshold=0.02, extra_steps=3)},
        {"ahead": WorkAhead(open_at=0.3, threshold=0.02)},
        pytest.param(
            {"revision": Revoke(threshold=0.2, extra_steps=3)}, marks=pytest.mark.slow
        ),
    ],
    ids=["edits", "ahead", "revoke"],
)
def test_the_last_change_of_a_token_counts(params, prompts, changes):
    """As the trace says, which is a record of its own."""
    recipe = dataclasses.replace(DRAWN, trace=True, **changes)
    canvas = prompt_canvas(prompts, tiny.CONFIG, recipe)
    keys = loop.row_keys(jax.random.key(0), len(prompts))
    answer = tiny.generate(params, tiny.CONFIG, recipe, canvas, keys)
    tokens = loop.new_tokens(answer)
    found = loop.new_logprobs(answer, tokens)
    decided, times = {}, 0
    for step in read_trace(canvas, answer.trace, 4):
        for place, sure in zip(step.positions, step.confidences, strict=True):
            decided[step.row, place] = sure
            times += 1
    for row, logprobs in enumerate(found):
        sure = [decided[row, place] for place in range(len(tokens[row]))]
        np.testing.assert_allclose(np.exp(logprobs), sure, rtol=1e-5)
    assert (times > len(decided)) == ("revision" in changes)


def test_tokens_that_move_have_none(params, prompts):
    moving = LevenshteinEdits(delete_token_id=60, insert_token_id=61)
    recipe = dataclasses.replace(RECIPE, revision=moving)
    with pytest.raises(InputError, match="drop logprobs or the recipe's revision"):
        run(params, tiny.CONFIG, recipe, prompts[:1])


def test_values_are_finite():
    given = np.array([1.0000001, 1.0, 0.5, 1e-45, 0.0, loop.NOT_DRAWN], np.float32)
    *logprobs, nothing = loop.logprobs_of(given)
    least = float(np.log(np.finfo(np.float32).tiny))
    np.testing.assert_allclose(logprobs, [0, 0, np.log(0.5), least, least])
    assert nothing is None
