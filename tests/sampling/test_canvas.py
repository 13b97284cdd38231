"""Canvases, column by column."""

import dataclasses

import numpy as np
import pytest

from seedjax.errors import InputError
from seedjax.sampling.ahead import WorkAhead
from seedjax.sampling.canvas import bucket, prompt_canvas, span_canvas
from seedjax.sampling.policy import FixedCount
from seedjax.sampling.recipe import SamplerConfig

M, P = 0, 1  # mask and padding


def canvas_of(prompts, config, **recipe):
    sampler = SamplerConfig(policy=FixedCount(), **recipe)
    return prompt_canvas(prompts, config, sampler)


def test_the_picture(config):
    """The one in the module's docstring."""
    prompts = [[11, 12, 13, 14, 15, 16], [21]]
    canvas = canvas_of(prompts, config, max_new_tokens=7)
    assert canvas.num_prefix_columns == 8
    np.testing.assert_array_equal(
        canvas.tokens,
        [[P] * 4 + prompts[0] + [M] * 10, [P] * 4 + prompts[1] + [M] * 15],
    )
    assert canvas.start.tolist() == [8, 4]
    np.testing.assert_array_equal(
        canvas.generation_mask,
        [
            [0, 0, 1, 1] + [1, 1, 1, 1] + [1, 0, 0, 0],
            [0, 1, 1, 1] + [1, 1, 1, 1] + [0, 0, 0, 0],
        ],
    )
    np.testing.assert_array_equal(
        canvas.layout.positions, [[0, 0, 0, 0, *range(16)]] * 2
    )
    np.testing.assert_array_equal(canvas.layout.segments, [[0] * 4 + [1] * 16] * 2)


def test_every_row_keeps_its_own_grid(config, prompts):
    canvas = canvas_of(prompts, config, max_new_tokens=5)
    for row, prompt in enumerate(prompts):
        start = int(canvas.start[row])
        # A block of positions is a block of columns, and the prompt's end is in the
        # first working block, or in front of it if it fills its last one.
        assert start % 4 == 0 and start - 4 <= len(prompt) < start
        wanted = np.flatnonzero(np.asarray(canvas.generation_mask[row])) + start
        assert wanted.tolist() == list(range(4 + len(prompt), 9 + len(prompt)))
        assert canvas.tokens[row, 4 : 4 + len(prompt)].tolist() == prompt


def test_a_grid_of_single_tokens(config):
    causal = dataclasses.replace(config, attention="causal", logit_alignment="shifted")
    canvas = canvas_of([[7, 8, 9], [5]], causal, max_new_tokens=2)
    assert canvas.tokens.tolist() == [[P, 7, 8, 9, M, M], [P, 5, M, M, M, M]]
    assert canvas.start.tolist() == [4, 2]
    assert canvas.generation_mask.tolist() == [[True, True]] * 2


def test_a_canvas_that_is_seen_whole(config):
    """The second picture in the module's docstring."""
    prompts = [[11, 12, 13, 14, 15, 16], [21]]
    free = dataclasses.replace(config, attention="bidirectional")
    canvas = canvas_of(prompts, free, max_new_tokens=7, context="canvas")
    assert canvas.start.tolist() == [10, 5]
    np.testing.assert_array_equal(
        canvas.tokens,
        [[P] * 4 + prompts[0] + [M] * 7 + [P] * 3, [P] * 4 + [21] + [M] * 7 + [P] * 8],
    )
    np.testing.assert_array_equal(canvas.generation_mask, [[1] * 7 + [0]] * 2)
    np.testing.assert_array_equal(
        canvas.layout.segments,
        [[0] * 4 + [1] * 13 + [0] * 3, [0] * 4 + [1] * 8 + [0] * 8],
    )
    assert canvas.layout.positions[:, 10].tolist() == [6, 6]


def test_budgets_of_rows_and_room_to_work_ahead(config):
    sampler = SamplerConfig(max_new_tokens=7, ahead=WorkAhead(blocks=2))
    canvas = prompt_canvas([[5], [6]], config, sampler, max_new_tokens=[7, 3])
    assert canvas.generation_mask.shape == (2, 12 + 8)
    assert canvas.generation_mask.sum(axis=1).tolist() == [7, 3]


def test_span(config):
    canvas = span_canvas([[11, 12], [21]], [[13], [22, 23, 24]], config, length=2)
    assert canvas.num_prefix_columns == 6 and canvas.start.tolist() == [6, 6]
    np.testing.assert_array_equal(
        canvas.tokens[:, 6:], [[11, 12, M, M, 13, P], [21, M, M, 22, 23, 24]]
    )
    np.testing.assert_array_equal(
        canvas.generation_mask, [[0, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0]]
    )
    np.testing.assert_array_equal(
        canvas.layout.segments[:, 6:], [[1, 1, 1, 1, 1, 0], [1] * 6]
    )
    assert not canvas.layout.segments[:, :6].any()
    np.testing.assert_array_equal(canvas.layout.positions[0, 6:], range(6))


def test_buckets():
    assert [bucket(n) for n in range(1, 14)] == [1, 2, 3, 4, 6, 6, 8, 8, *[12] * 4, 16]


def test_what_does_not_fit_is_refused(config):
    def build(prompts, new):
        return canvas_of(prompts, config, max_new_tokens=new)

    assert build([[5] * 40], 8).tokens.shape[0] == 1  # exactly max_positions=48
    with pytest.raises(InputError, match="41 given and 8 new tokens are 49"):
        build([[5], [5] * 41], 8)
    with pytest.raises(InputError, match="the prompt is empty"):
        build([[5], []], 8)
    with pytest.raises(InputError, match="no prompts"):
        build([], 8)
    small = dataclasses.replace(config, max_positions=4)
    with pytest.raises(InputError, match="the model holds 4"):
        span_canvas([[5, 6]], [[7]], small, length=2)
