"""The canvas: given tokens, and masks where an answer is wanted.

Two rows with blocks of four; `p` is a given token, `_` a mask that is wanted, `m` a
mask that is not (behind the budget), `.` padding that nothing sees:

            prefix blocks     working blocks
    row 0   . . . . p p p p | p p _ _  _ _ _ _  _ m m m     6 given, 7 wanted
    row 1   . . . . . . . . | p _ _ _  _ _ _ _  m m m m     1 given, 7 wanted

Each row keeps its own block grid, which starts at its own first token: whole blocks of
padding in front make all rows begin to work in the same column, so a row's answer does
not depend on its neighbours. There is always a prefix block in front of the working
ones, if only of padding.

Where every block is to see the whole canvas (`context`), no mask may stand on it that
is not wanted, and blocks begin with the answer, as in the reference samplers of models
that were trained on whole sequences:

    row 0   . . p p p p p p | _ _ _ _  _ _ _ .     6 given, 7 wanted
    row 1   . . . . . . . p | _ _ _ _  _ _ _ .     1 given, 7 wanted
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jax import lax

from seedjax.batch import Layout
from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.sampling.recipe import Context
from seedjax.typing import Array, Bool, Int32

Rows = Sequence[Sequence[int]]
TreeT = TypeVar("TreeT")


class Canvas(NamedTuple):
    """What a sampler starts from. The last W columns are the working blocks.

    Attributes:
      tokens: prefix and working columns.
      layout: positions and segments of all columns; segment 0 is padding.
      wanted: which working columns the answer is to be written into.
    """

    tokens: Int32[Array, "B T"]
    layout: Layout
    wanted: Bool[Array, "B W"]

    @property
    def num_prefix_columns(self) -> int:
        """Columns in front of the working blocks."""
        return self.tokens.shape[1] - self.wanted.shape[1]


def prompt_canvas(
    prompts: Rows,
    config: DenoiserConfig,
    *,
    block_size: int,
    max_new_tokens: int,
    context: Context = "decided",
) -> Canvas:
    """A canvas that continues prompts, for a recipe with this context.

    The number of prefix blocks is rounded up (`bucket`), so that prompts of similar
    length share a compiled program. A causal model takes `block_size=1`.

    Raises:
      InputError: if there is no prompt, one is empty, or one does not leave room for
        the answer.
    """
    if not prompts:
        raise InputError("no prompts; give at least one")
    for prompt in prompts:
        check_length(len(prompt), max_new_tokens, config)
    lengths = np.array([len(prompt) for prompt in prompts])
    if context == "decided":
        tails, longest_tail = lengths % block_size, block_size - 1
    else:
        tails, longest_tail = np.zeros_like(lengths), 0
    in_front = lengths - tails
    num_prefix = bucket(max(1, -(-int(in_front.max()) // block_size))) * block_size
    num_working = -(-(longest_tail + max_new_tokens) // block_size) * block_size

    shape = (len(prompts), num_prefix + num_working)
    tokens = np.full(shape, config.mask_token_id, np.int32)
    positions = np.arange(shape[1])[None, :] - (num_prefix - in_front)[:, None]
    present = positions >= 0
    if context != "decided":
        present[:, num_prefix + max_new_tokens :] = False
    tokens[~present] = config.pad_token_id
    wanted = np.zeros((len(prompts), num_working), bool)
    for row, prompt in enumerate(prompts):
        start = num_prefix - int(in_front[row])
        tokens[row, start : start + len(prompt)] = prompt
        wanted[row, tails[row] : tails[row] + max_new_tokens] = True
    return _canvas(tokens, positions, present, wanted)


def span_canvas(
    prefixes: Rows, suffixes: Rows, config: DenoiserConfig, *, length: int
) -> Canvas:
    """A canvas with a hole of `length` tokens between what is given, as one working
    block: for a bidirectional model, which sees both sides of the hole.

    The block size to sample it with is the number of its working columns.

    Raises:
      InputError: if there are no rows, or a row is too long for the model.
    """
    if not prefixes:
        raise InputError("nothing to fill in; give at least one prefix and suffix")
    rows = list(zip(prefixes, suffixes, strict=True))
    for prefix, suffix in rows:
        check_length(len(prefix) + len(suffix), length, config)
    longest = max(len(prefix) + length + len(suffix) for prefix, suffix in rows)
    size = bucket(longest)

    shape = (len(rows), 2 * size)
    tokens = np.full(shape, config.pad_token_id, np.int32)
    positions = np.broadcast_to(np.arange(-size, size)[None, :], shape)
    present = np.zeros(shape, bool)
    wanted = np.zeros((len(rows), size), bool)
    for row, (prefix, suffix) in enumerate(rows):
        whole = [*prefix, *[config.mask_token_id] * length, *suffix]
        tokens[row, size : size + len(whole)] = whole
        present[row, size : size + len(whole)] = True
        wanted[row, len(prefix) : len(prefix) + length] = True
    return _canvas(tokens, positions, present, wanted)


def check_length(num_given: int, num_new: int, config: DenoiserConfig) -> None:
    """Raises `InputError` if given and new tokens are more than the model can hold, or
    nothing is given."""
    if num_given == 0:
        raise InputError("the prompt is empty; give at least one token")
    if num_given + num_new > config.max_positions:
        raise InputError(
            f"{num_given} given and {num_new} new tokens are "
            f"{num_given + num_new}; the model holds {config.max_positions}: shorten "
            "the text or max_new_tokens"
        )


def bucket(count: int) -> int:
    """`count` rounded up to 1, 2, 3, 4, 6, 8, 12, 16, ...: at most half too much, and
    few different programs to compile."""
    power = 1
    while power < count:
        power *= 2
    return power * 3 // 4 if power >= 4 and power * 3 // 4 >= count else power


def window(tree: TreeT, start: int | Int32[Array, ""], length: int) -> TreeT:
    """`length` columns of every [B, ...] array of a tree."""
    return jax.tree.map(
        lambda x: lax.dynamic_slice_in_dim(x, start, length, axis=1), tree
    )


def _canvas(
    tokens: np.ndarray, positions: np.ndarray, present: np.ndarray, wanted: np.ndarray
) -> Canvas:
    layout = Layout(
        positions=jax.device_put(np.maximum(positions, 0).astype(np.int32)),
        segments=jax.device_put(present.astype(np.int32)),
        noisy=jax.device_put(np.zeros(positions.shape, bool)),
    )
    return Canvas(jax.device_put(tokens), layout, jax.device_put(wanted))
