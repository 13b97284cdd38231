"""The most probable admitted string: the one that trying all strings finds, and a text
of the right form however the positions are decided."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.sampling.grammar.decode import (
    Automaton,
    advance_state,
    anything,
    best_string,
    side_by_side,
)

MASK = 0
best = jax.jit(functools.partial(best_string, mask_token_id=MASK))
advance = jax.jit(advance_state)

# The example of `Automaton`: a+b over mask, a, b, end.
A_B = Automaton(
    classes=jnp.array([0, 1, 2, 3], jnp.int32),
    transitions=jnp.array(
        [[-1, 1, -1, -1], [-1, 1, 2, -1], [-1, -1, -1, 3], [3, 3, 3, 3]], jnp.int32
    ),
    distance=jnp.array([2, 1, 0, 0], jnp.int32),
)


def asked(logits, *, current=None, counted=None, state=0, remaining=0):
    """The best string of one row with the example's automaton."""
    length = len(logits)
    found = best(
        A_B,
        jnp.array(logits, jnp.float32)[None],
        jnp.array([current or [MASK] * length], jnp.int32),
        jnp.array([counted or [True] * length]),
        jnp.array([state], jnp.int32),
        jnp.array([remaining], jnp.int32),
    )
    return found.tokens[0].tolist(), bool(found.feasible[0])


NO = -np.inf
EXAMPLE = [[NO, 0.0, -1.0, -9.0], [NO, 0.0, -1.0, -9.0], [NO, 0.0, -1.0, -0.5]]


def test_the_worked_example():
    assert asked(EXAMPLE) == ([1, 1, 2], True)
    assert asked(EXAMPLE, remaining=1) == ([1, 1, 1], True)


def test_what_is_decided_stays_and_the_rest_fits_it():
    assert asked(EXAMPLE, current=[MASK, 2, MASK]) == ([1, 2, 3], True)
    # Behind the end anything stands.
    assert asked(EXAMPLE, current=[MASK, 2, 3]) == ([1, 2, 3], True)
    assert asked(EXAMPLE, current=[2, 3, MASK], state=1) == ([2, 3, 1], True)


def test_without_an_admitted_string_each_position_goes_for_itself():
    assert asked(EXAMPLE, current=[2, MASK, MASK]) == ([2, 1, 1], False)
    assert asked(EXAMPLE, state=-1) == ([1, 1, 1], False)
    assert asked([[NO, 0.0, NO, 0.0]] * 3) == ([1, 1, 1], False)  # b is forbidden


def test_of_equals_the_smallest_ids_win_from_the_left():
    anything = Automaton(
        classes=jnp.array([0, 2, 1, 1], jnp.int32),
        transitions=jnp.array([[-1, 1, 0], [0, 1, 1]], jnp.int32),
        distance=jnp.array([0, 0], jnp.int32),
    )
    one = jnp.ones((1,), jnp.int32)
    equal = jnp.zeros((1, 3, 4), jnp.float32)
    current, counted = jnp.zeros((1, 3), jnp.int32), jnp.ones((1, 3), bool)
    assert best(anything, equal, current, counted, 0 * one, one).tokens.tolist() == [
        [1, 1, 1]
    ]
    assert best(anything, equal, current, counted, one, one).tokens.tolist() == [
        [0, 1, 1]
    ]


def by_trying_all(automaton, logits, current, counted, state, remaining):
    """Tokens and feasibility of one row, from the definition."""
    logits = logits.astype(np.float64)
    classes, transitions, distance = map(np.asarray, automaton)
    length, size = logits.shape
    alone = np.where(current == MASK, logits.argmax(axis=1), current)
    open_places = [i for i in range(length) if current[i] == MASK and counted[i]]
    winner, most = None, -np.inf
    for choice in itertools.product(range(size), repeat=len(open_places)):
        string = alone.copy()
        string[open_places] = choice
        total = logits[open_places, choice].sum()
        place = state
        for i in range(length):
            if counted[i] and place >= 0:
                place = transitions[place, classes[string[i]]]
        if place >= 0 and distance[place] <= remaining and total > most:
            winner, most = string, total
    return (alone, False) if winner is None else (winner, True)


@pytest.mark.parametrize("seed", range(4))
def test_as_trying_all_strings(seed):
    """Random automata and blocks; whole logits, so that sums are exact and tie. Some
    are as large as float32 can tell apart."""
    generator = np.random.default_rng(seed)
    rows, length, size, num_states, num_classes = 32, 4, 5, 6, 4
    transitions = generator.integers(0, num_states, (num_states, num_classes))
    transitions[generator.random(transitions.shape) < 0.4] = -1
    automaton = Automaton(
        jnp.array(generator.integers(0, num_classes, size), jnp.int32),
        jnp.array(transitions, jnp.int32),
        jnp.array(generator.choice([0, 1, 3, 1 << 29], num_states), jnp.int32),
    )
    logits = generator.integers(-3, 3, (rows, length, size)).astype(np.float32)
    largest = seed % 2 * (2.0**24 - 8)
    logits += largest
    logits[generator.random(logits.shape) < 0.15] = -np.inf
    logits[:, :, 1] = largest - 2.0  # something is always allowed
    current = generator.integers(1, size, (rows, length))
    current[generator.random(current.shape) < 0.85] = MASK
    counted = generator.random(current.shape) < 0.9
    state = generator.integers(-1, num_states, rows)
    remaining = generator.integers(0, 4, rows)

    found = best(
        automaton,
        jnp.array(logits),
        jnp.array(current, jnp.int32),
        jnp.array(counted),
        *(jnp.array(x, jnp.int32) for x in (state, remaining)),
    )
    ends = advance(
        automaton, jnp.array(state, jnp.int32), found.tokens, jnp.array(counted)
    )
    seen = set()
    for row in range(rows):
        given = (x[row] for x in (logits, current, counted, state, remaining))
        tokens, feasible = by_trying_all(automaton, *given)
        assert found.tokens[row].tolist() == tokens.tolist()
        assert bool(found.feasible[row]) is feasible
        if feasible:
            assert automaton.distance[ends[row]] <= remaining[row]
        seen.add(feasible)
    assert seen == {True, False}


def test_side_by_side():
    """Each automaton does from its own start what it does alone; the first admits
    everything."""
    generator = np.random.default_rng(0)
    size = len(A_B.classes)
    ends_twice = Automaton(
        np.arange(size, dtype=np.int32)[::-1] % 3,
        np.array([[1, -1, 0], [2, 1, -1], [2, 2, 2]], np.int32),
        np.array([1, 1, 0], np.int32),
    )
    automata = [anything(size), A_B, ends_twice]
    joined, starts = side_by_side(automata)
    assert starts == [0, 1, 1 + len(A_B.distance)]
    assert {*map(len, joined.transitions)} == {4} and len(joined.distance) == 8
    rows = 64
    logits = jnp.array(generator.normal(size=(rows, 3, size)), jnp.float32)
    current = jnp.full((rows, 3), MASK)
    counted = jnp.ones((rows, 3), bool)
    remaining = jnp.array(generator.integers(0, 2, rows), jnp.int32)
    blocks = []
    for automaton, start in zip(automata, starts, strict=True):
        both = [
            best(
                Automaton(*map(jnp.asarray, which)),
                logits,
                current,
                counted,
                jnp.full((rows,), place, jnp.int32),
                remaining,
            )
            for which, place in ((automaton, 0), (joined, start))
        ]
        for alone, beside in zip(*both, strict=True):
            np.testing.assert_array_equal(alone, beside)
        blocks.append(both[0].tokens.tolist())
    assert blocks[0] == jnp.argmax(logits, axis=-1).tolist()
    assert blocks[0] != blocks[1] != blocks[2]


def test_the_state_behind_a_block():
    def read(tokens, counted, state=0):
        arrays = (jnp.array([x]) for x in (tokens, counted))
        return int(advance(A_B, jnp.array([state], jnp.int32), *arrays)[0])

    yes = [True] * 3
    assert read([1, 2, 1], [True, True, False]) == 2
    assert read([1, 2, 1], yes) == -1
    assert read([1, 2, 3], yes) == 3
    assert read([3, MASK, MASK], yes, state=2) == 3  # what stands behind the end
    assert read([1, 1, 1], yes, state=-1) == -1


@pytest.mark.representative("a{3}b{2,3}c{3}")
@pytest.mark.parametrize(
    "pattern", ["a+b", "(ab|ba)*c{2,3}", "a{3}b{2,3}c{3}", "(a|b|c)?", "c[ab]*c"]
)
def test_however_positions_are_decided_the_text_matches(pattern):
    """Four blocks of five with logits that change at every step, and random candidates
    kept: every row is of the pattern's language, within its budget."""
    pytest.importorskip("outlines_core")
    from seedjax.sampling.grammar.build import Regex, build_automaton

    pieces = [b"", b"a", b"b", b"c", b"ab", b"bc", b"cc", b""]
    end, rows, length, num_blocks = 7, 8, 5, 4
    tables = build_automaton(Regex(pattern=pattern), pieces, eos_token_ids=[end])
    automaton = Automaton(*map(jnp.asarray, tables))
    generator = np.random.default_rng(0)
    budget = generator.integers(6, 18, rows)
    in_front = generator.integers(0, length, rows)  # columns of the prompt
    column = np.arange(num_blocks * length)[None, :] - in_front[:, None]
    wanted = (column >= 0) & (column < budget[:, None])
    state = jnp.zeros((rows,), jnp.int32)
    texts = [b""] * rows
    for block in range(num_blocks):
        counted = wanted[:, block * length : (block + 1) * length]
        later = wanted[:, (block + 1) * length :].sum(axis=1)
        current = np.where(counted, MASK, 1)
        while (current == MASK).any():
            logits = generator.normal(size=(rows, length, len(pieces))) * 4
            found = best(
                automaton,
                jnp.array(logits, jnp.float32),
                jnp.array(current, jnp.int32),
                jnp.array(counted),
                state,
                jnp.array(later, jnp.int32),
            )
            assert found.feasible.all()
            kept = generator.random(current.shape) < 0.4
            current = np.where(kept, np.asarray(found.tokens), current)
        state = advance(
            automaton, state, jnp.array(current, jnp.int32), jnp.array(counted)
        )
        for row in range(rows):
            answer = current[row][counted[row]].tolist()
            texts[row] += b"".join(b"$" if t == end else pieces[t] for t in answer)
    answers = [text.partition(b"$")[0].decode() for text in texts]
    assert all(re.fullmatch(pattern, answer) for answer in answers), answers
    assert len(set(answers)) > 1
