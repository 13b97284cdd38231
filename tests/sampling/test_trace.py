"""A trace tells the whole decode."""

import dataclasses

import jax
import numpy as np
import pytest

from seedjax.sampling import trace
from seedjax.sampling.policy import ConfidenceThreshold
from seedjax.sampling.recipe import SamplerConfig

PLAIN = SamplerConfig(
    max_new_tokens=14, policy=ConfidenceThreshold(threshold=0.3), temperature=1.0
)
TRACED = dataclasses.replace(PLAIN, trace=True)


def test_a_trace_replays_to_the_answer(prompts, decode, config):
    canvas, answer, rows = decode(prompts, TRACED)
    steps = trace.read_trace(canvas, answer.trace, 4)
    for row, wanted in enumerate(rows):
        assert trace.replay(steps, config.eos_token_ids, row=row) == wanted
        own = [step for step in steps if step.row == row]
        # A step that only unmasks what is cut off leaves no record.
        assert 0 <= answer.steps[row] - len(own) <= 2
        # In order, and every position decided once.
        assert [(s.block, s.step) for s in own] == sorted(
            (s.block, s.step) for s in own
        )
        decided = [position for step in own for position in step.positions]
        assert len(decided) == len(set(decided))
    assert len({len(step.positions) for step in steps}) > 1
    lines = [trace.to_json_line(step) for step in steps]
    assert [trace.from_json_line(line) for line in lines] == steps


@pytest.mark.slow
def test_tracing_changes_nothing(prompts, decode):
    _, traced, rows = decode(prompts, TRACED)
    _, plain, wanted = decode(prompts, PLAIN)
    assert rows == wanted
    assert plain.trace is None
    np.testing.assert_array_equal(traced.steps, plain.steps)


def test_confidences_say_why_a_token_was_accepted(prompts, decode):
    """All but the surest of a step are above the threshold."""
    canvas, answer, _ = decode(prompts, TRACED)
    steps = trace.read_trace(canvas, answer.trace, 4)
    several = [step for step in steps if len(step.positions) > 1]
    assert several
    for step in several:
        assert sorted(step.confidences)[0] >= 0.3
    assert min(min(step.confidences) for step in steps) < 0.3


def test_the_buffer_keeps_no_logits(prompts, decode):
    _, answer, _ = decode(prompts, TRACED)
    assert {leaf.shape for leaf in jax.tree.leaves(answer.trace)} == {(6, 4, 12, 4)}
