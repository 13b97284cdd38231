"""Canvases, column by column."""

import dataclasses

import numpy as np
import pytest

from seedjax.errors import InputError
from seedjax.sampling.canvas import bucket, prompt_canvas, span_canvas

M, P = 0, 1  # mask and padding


def test_the_picture(config):
    """The one in the module's docstring."""
    prompts = [[11, 12, 13, 14, 15, 16], [21]]
    canvas = prompt_canvas(prompts, config, block_size=4, max_new_tokens=7)
    assert canvas.num_prefix_columns == 4
    np.testing.assert_array_equal(
        canvas.tokens,
        [
            [11, 12, 13, 14] + [15, 16, M, M] + [M] * 8,
            [P, P, P, P] + [21, M, M, M] + [M] * 8,
        ],
    )
    np.testing.assert_array_equal(
        canvas.wanted,
        [
            [0, 0, 1, 1] + [1, 1, 1, 1] + [1, 0, 0, 0],
            [0, 1, 1, 1] + [1, 1, 1, 1] + [0, 0, 0, 0],
        ],
    )
    np.testing.assert_array_equal(
        canvas.layout.positions, [[*range(16)], [0, 0, 0, 0, *range(12)]]
    )
    np.testing.assert_array_equal(
        canvas.layout.segments, [[1] * 16, [0, 0, 0, 0] + [1] * 12]
    )


def test_every_row_keeps_its_own_grid(config, prompts):
    canvas = prompt_canvas(prompts, config, block_size=4, max_new_tokens=5)
    present = np.asarray(canvas.layout.segments) == 1
    columns = np.arange(present.shape[1])
    for row, prompt in enumerate(prompts):
        assert canvas.tokens[row][present[row]].tolist()[: len(prompt)] == prompt
        positions = np.asarray(canvas.layout.positions[row])[present[row]]
        np.testing.assert_array_equal(positions, np.arange(len(positions)))
        # A block of positions is a block of columns.
        np.testing.assert_array_equal(
            positions % 4, columns[present[row]] % 4, err_msg=str(row)
        )
        assert canvas.wanted[row].sum() == 5


def test_a_grid_of_single_tokens(config):
    canvas = prompt_canvas([[7, 8, 9], [5]], config, block_size=1, max_new_tokens=2)
    assert canvas.tokens.tolist() == [[7, 8, 9, M, M], [P, P, 5, M, M]]
    assert canvas.wanted.tolist() == [[True, True]] * 2


def test_a_canvas_that_is_seen_whole(config):
    """The second picture in the module's docstring."""
    prompts = [[11, 12, 13, 14, 15, 16], [21]]
    canvas = prompt_canvas(
        prompts, config, block_size=4, max_new_tokens=7, context="canvas"
    )
    assert canvas.num_prefix_columns == 8
    np.testing.assert_array_equal(
        canvas.tokens,
        [
            [P, P, 11, 12, 13, 14, 15, 16] + [M] * 7 + [P],
            [P] * 7 + [21] + [M] * 7 + [P],
        ],
    )
    np.testing.assert_array_equal(canvas.wanted, [[1] * 7 + [0]] * 2)
    np.testing.assert_array_equal(
        canvas.layout.segments, [[0] * 2 + [1] * 13 + [0], [0] * 7 + [1] * 8 + [0]]
    )
    assert canvas.layout.positions[:, 8].tolist() == [6, 1]


def test_span(config):
    canvas = span_canvas([[11, 12], [21]], [[13], [22, 23, 24]], config, length=2)
    assert canvas.num_prefix_columns == 6
    np.testing.assert_array_equal(
        canvas.tokens[:, 6:], [[11, 12, M, M, 13, P], [21, M, M, 22, 23, 24]]
    )
    np.testing.assert_array_equal(
        canvas.wanted, [[0, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0]]
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
        return prompt_canvas(prompts, config, block_size=4, max_new_tokens=new)

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
