"""Completions that match a grammar: the most probable block that an automaton admits.

A block's positions are unmasked in any order and several at once, so a regular
expression or a schema is no mask over the vocabulary of one position. It is a condition
on a whole string for the block, and among all strings the most probable one is found by
dynamic programming over positions and states, from right to left. (DINGO, arXiv
2505.23061, goes from left to right. In this direction nothing has to be scattered, and
where the completion may end is where one begins.) Its tokens become the candidates.
Whichever of them a policy keeps, the others are still there to complete them, so the
text can always be finished.

    value[L, q] = 0 if the completion can be finished from q, else minus infinity
    value[i, q] = max over tokens t of  logits[i, t] + value[i + 1, next(q, t)]

Not here: where automata come from (`seedjax.sampling.grammar.build`), and what
only a parser of nested structure can tell.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from seedjax.sampling.grammar.build import FAR
from seedjax.typing import Array, Bool, Float32, Int32


class Automaton(NamedTuple):
    """A finite automaton over token ids, the start in state 0. Tokens that lead to the
    same place from every state form a class.

    Ids 0 (mask), 1 "a", 2 "b", 3 (end) and the pattern `a+b`, states 0 nothing yet, 1
    some a, 2 the b, 3 ended:

        classes      0 1 2 3
        transitions  -1  1 -1 -1        distance  2
                     -1  1  2 -1                  1
                     -1 -1 -1  3                  0
                      3  3  3  3                  0

    Attributes:
      classes: the class of each id.
      transitions: the next state by state and class, -1 where the class is forbidden.
      distance: fewest tokens that finish the completion from each state; 0 where it
        may end, and after its end.
    """

    classes: Int32[Array, "V"]
    transitions: Int32[Array, "Q C"]
    distance: Int32[Array, "Q"]


def anything(vocab_size: int) -> Automaton:
    """The automaton that admits every completion."""
    shapes = (vocab_size,), (1, 1), (1,)
    return Automaton(*(jnp.zeros(shape, jnp.int32) for shape in shapes))


def side_by_side(
    automata: Sequence[Automaton], least: tuple[int, int] = (1, 1)
) -> tuple[Automaton, list[int]]:
    """One automaton that holds several, and the state in which each of them starts. One
    more at the end leaves the states of those before it as they are.

    There are at least so many states and classes, and their numbers are rounded up to
    powers of two, so that few programs are compiled.
    """
    classes = np.stack([np.asarray(automaton.classes) for automaton in automata])
    kinds, of_token = np.unique(classes, axis=1, return_inverse=True)
    starts: list[int] = []
    tables: list[np.ndarray] = []
    for automaton, kind in zip(automata, kinds, strict=True):
        starts.append(sum(len(table) for table in tables))
        table = np.asarray(automaton.transitions)[:, kind]
        tables.append(np.where(table >= 0, table + starts[-1], -1))
    table = np.concatenate(tables)
    sizes = map(max, table.shape, least)
    num_states, num_classes = (1 << (size - 1).bit_length() for size in sizes)
    transitions = np.full((num_states, num_classes), -1, np.int32)
    transitions[: table.shape[0], : table.shape[1]] = table
    distance = np.full(num_states, FAR, np.int32)
    distance[: len(table)] = np.concatenate([a.distance for a in automata])
    classes = of_token.reshape(-1).astype(np.int32)
    return Automaton(*map(jnp.asarray, (classes, transitions, distance))), starts


class BestString(NamedTuple):
    """The most likely admissible content of a block.

    Attributes:
      tokens: the most probable string, unmasked tokens included; the most probable
        token of each position by itself where no string is admitted.
      feasible: whether one is.
    """

    tokens: Int32[Array, "B L"]
    feasible: Bool[Array, "B"]


def best_string(
    automaton: Automaton,
    logits: Float32[Array, "B L V"],
    current: Int32[Array, "B L"],
    counted: Bool[Array, "B L"],
    state: Int32[Array, "B"],
    remaining: Int32[Array, "B"],
    *,
    mask_token_id: int,
) -> BestString:
    """The jointly most probable string of each row's block, among those that keep its
    unmasked tokens, that the automaton admits and that can be finished in time. Of
    equally probable ones the first in the order of ids, compared from the left.

    With the automaton of `Automaton`, a masked block of three, nothing remaining
    and logits of "a", "b" and the end

        0.0 -1.0 -9.0     the most probable tokens are a a a; the strings that match
        0.0 -1.0 -9.0     are a a b (-1.0) and a b end (-1.5)
        0.0 -1.0 -0.5

    the result is a a b. If one token remained, a a a would do.

    To draw instead of taking the best, add Gumbel noise to `logits / temperature`
    first. Where every string is admitted that draws from the model's distribution;
    under a constraint it is a close relative of it (perturb and maximize). Filters such
    as top-k may leave no string: give what they drop a large finite penalty.

    The cost is that of B * L * Q * C sums and one read of the logits for each of two
    passes; the memory beside the logits, B * L * (Q + C) floats.

    Args:
      automaton: the constraint, one for all rows.
      logits: minus infinity on what may not be drawn.
      current: the block; the mask token at masked positions.
      counted: columns of the completion. The others leave the state as it is.
      state: before the block (`advance_state`); -1 where the completion so far is none
        that the automaton admits, and then no string is.
      remaining: tokens that the completion may have after the block.
      mask_token_id: of the model.
    """
    classes, transitions, distance = automaton
    num_columns = current.shape[1]
    unmasked = current != mask_token_id
    highest = jnp.max(logits, axis=-1)
    highest = jnp.where(jnp.isfinite(highest), highest, 0.0)  # sums stay near 0

    shape = (*current.shape, transitions.shape[1])
    scores = jnp.full(shape, -jnp.inf).at[:, :, classes].max(logits)
    scores -= highest[:, :, None]
    standing = jnp.arange(shape[2])[None, None, :] == classes[current][:, :, None]
    forced = jnp.where(standing, 0.0, -jnp.inf)
    scores = jnp.where(unmasked[:, :, None], forced, scores)

    def prepend(
        values: Float32[Array, "B R"], column: Int32[Array, ""]
    ) -> tuple[Array, Array]:
        ahead = values[:, transitions]
        before = jnp.max(scores[:, column][:, None, :] + ahead, axis=-1)
        return jnp.where(counted[:, column][:, None], _and_dead(before), values), values

    in_time = distance[None, :] <= remaining[:, None]
    values, following = lax.scan(
        prepend,
        _and_dead(jnp.where(in_time, 0.0, -jnp.inf)),
        jnp.arange(num_columns),
        reverse=True,
    )
    best = jnp.take_along_axis(values, state[:, None], axis=1)[:, 0]
    feasible = jnp.isfinite(best)

    def follow(
        place: Int32[Array, "B"], column: Int32[Array, ""]
    ) -> tuple[Array, Array]:
        # By token, not by class, so that of equals the smallest id is found.
        ahead = jnp.take_along_axis(following[column], transitions[place], axis=1)
        bound = (feasible & counted[:, column])[:, None]
        of_row = logits[:, column] - highest[:, column][:, None]
        of_row += jnp.where(bound, ahead, 0.0)[:, classes]
        token = jnp.argmax(of_row, axis=-1).astype(jnp.int32)
        token = jnp.where(unmasked[:, column], current[:, column], token)
        return _step(automaton, place, token, counted[:, column]), token

    _, tokens = lax.scan(follow, state, jnp.arange(num_columns))
    return BestString(tokens.T, feasible)


def advance_state(
    automaton: Automaton,
    state: Int32[Array, "B"],
    tokens: Int32[Array, "B L"],
    counted: Bool[Array, "B L"],
) -> Int32[Array, "B"]:
    """The state after a finished block, -1 where the automaton does not admit it.

    With the automaton of `Automaton`, tokens "a" "b" "a" from state 0 give 2 if the
    last one is not counted, -1 if it is.

    Args:
      automaton: the constraint.
      state: before the block; 0 before the completion.
      tokens: the block. What follows an end is not read.
      counted: columns of the completion.
    """

    def read(state: Int32[Array, "B"], column: Int32[Array, ""]) -> tuple[Array, None]:
        token, is_counted = tokens[:, column], counted[:, column]
        return _step(automaton, state, token, is_counted), None

    return lax.scan(read, state, jnp.arange(tokens.shape[1]))[0]


def _step(
    automaton: Automaton,
    state: Int32[Array, "B"],
    token: Int32[Array, "B"],
    counted: Bool[Array, "B"],
) -> Int32[Array, "B"]:
    following = automaton.transitions[state, automaton.classes[token]]
    return jnp.where(counted & (state >= 0), following, state)


def _and_dead(values: Float32[Array, "B Q"]) -> Float32[Array, "B Q+1"]:
    """Values with one more at the end, where the index -1 finds that nothing goes on
    from a forbidden token."""
    return jnp.pad(values, ((0, 0), (0, 1)), constant_values=-jnp.inf)
