"""Blocks that are worked on before it is their turn."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from python_loop import logits_of

from seedjax.errors import InputError
from seedjax.sampling import trace
from seedjax.sampling.ahead import WorkAhead
from seedjax.sampling.check import block_denoiser
from seedjax.sampling.policy import ConfidenceThreshold
from seedjax.sampling.proposal import Proposal
from seedjax.sampling.recipe import SamplerConfig

AHEAD = WorkAhead(blocks=2, open_at=0.5, threshold=0.35)
RECIPE = SamplerConfig(
    max_new_tokens=14, policy=ConfidenceThreshold(threshold=0.3), ahead=AHEAD
)


def test_the_example():
    undecided = jnp.array([[0, 1, 1, 1, 1, 1]], bool)
    sure = jnp.ones((1, 6), jnp.float32)
    proposal = Proposal(
        jnp.zeros((1, 6), jnp.int32), *[sure] * (len(Proposal._fields) - 1)
    )
    ahead = WorkAhead(blocks=2, open_at=0.5, threshold=0.9)
    assert ahead.accept(proposal, undecided, 2).tolist() == [[0, 0, 1, 1, 0, 0]]
    shy = dataclasses.replace(ahead, open_at=0.6)
    assert not shy.accept(proposal, undecided, 2).any()
    unsure = proposal._replace(confidence=sure * 0.8)
    assert not ahead.accept(unsure, undecided, 2).any()


def decode_row(params, config, sampler: SamplerConfig, prompt: list[int]):
    """Greedy, by looking at the whole text up to the last open block at every step."""
    config = block_denoiser(config, sampler)
    size, mask, eos = config.block_size, config.mask_token_id, config.eos_token_ids[0]
    begin, end = len(prompt), len(prompt) + sampler.max_new_tokens
    tokens = list(prompt) + [mask] * (sampler.max_new_tokens + 3 * size)
    steps = 0
    for start in range(begin // size * size, end, size):
        hole = range(max(start, begin), min(start + size, end))
        first = True
        while True:
            open_ = range(start, min(start + 3 * size, end))
            ends = [i for i in open_ if i >= begin and tokens[i] == eos][:1] or [end]
            waiting = [
                i for i in open_ if i >= begin and tokens[i] == mask and i < ends[0]
            ]
            if not first and not set(waiting) & set(hole):
                break
            logits = logits_of(params, config, tokens[: start + 3 * size])[
                start : start + 3 * size
            ].astype(np.float64)
            logits[:, [0, 1, 2]] = -np.inf
            best = {i: int(logits[i - start].argmax()) for i in waiting}
            sure = {
                i: 1 / np.exp(logits[i - start] - logits[i - start].max()).sum()
                for i in waiting
            }
            leading = [i for i in waiting if i in hole]
            accepted = {i for i in leading if sure[i] >= 0.3}
            if leading:
                accepted.add(max(leading, key=lambda i: (sure[i], -i)))
            for number in (1, 2):
                before = range(start + (number - 1) * size, start + number * size)
                share = sum(i in waiting for i in before) / size
                if 1 - share >= 0.5:
                    own = range(before.stop, before.stop + size)
                    accepted |= {i for i in waiting if i in own and sure[i] >= 0.35}
            for i in accepted:
                tokens[i] = best[i]
            steps, first = steps + 1, False
        if eos in tokens[hole.start : hole.stop]:
            break
    answer = tokens[begin:end]
    return answer[: answer.index(eos)] if eos in answer else answer, steps


def test_equals_a_python_loop(params, config, prompts, decode):
    _, answer, rows = decode(prompts, RECIPE)
    for row, prompt in enumerate(prompts):
        wanted, steps = decode_row(params, config, RECIPE, prompt)
        assert rows[row] == wanted, f"row {row}"
        assert answer.steps[row] == steps
    alone = dataclasses.replace(RECIPE, ahead=None)
    _, slower, others = decode(prompts, alone)
    # It can fail: the blocks ahead take part, and that saves steps.
    assert rows != others
    assert answer.steps.sum() < slower.steps.sum()


@pytest.mark.slow
def test_cache_batch_and_trace(prompts, decode, config):
    canvas, answer, rows = decode(prompts, dataclasses.replace(RECIPE, trace=True))
    without = dataclasses.replace(RECIPE, cache=False)
    assert decode(prompts, without)[2] == rows
    for row in (0, 5, 11):
        assert decode(prompts[row : row + 1], RECIPE)[2] == [rows[row]]
    steps = trace.read_trace(canvas, answer.trace, 4)
    for row, wanted in enumerate(rows):
        assert trace.replay(steps, config.eos_token_ids, row=row) == wanted
    assert any(max(s.positions) - min(s.positions) > 4 for s in steps)


@pytest.mark.slow
def test_with_nothing_sure_it_is_block_by_block(prompts, decode):
    never = dataclasses.replace(RECIPE, ahead=WorkAhead(threshold=1.0))
    _, answer, rows = decode(prompts, never)
    _, plain, wanted = decode(prompts, dataclasses.replace(RECIPE, ahead=None))
    # The mask of a block's successor is not seen by it, so nothing else changes.
    assert rows == wanted
    np.testing.assert_array_equal(answer.steps, plain.steps)


def test_faults(config, prompts):
    for wrong in ({"blocks": 0}, {"open_at": 1.5}, {"threshold": -0.1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            WorkAhead(**wrong)
    free = dataclasses.replace(tiny.CONFIG, attention="bidirectional")
    with pytest.raises(InputError, match="ahead is for context 'decided' only"):
        block_denoiser(free, dataclasses.replace(RECIPE, context="canvas"))
