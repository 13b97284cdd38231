"""Where stop strings end a text, by bytes, by tokens and in a text that goes on."""

import random

import numpy as np
import pytest

from seedjax.errors import InputError
from seedjax.sampling.stop_strings import (
    conclude,
    cut_at_stop,
    readable,
    stop_automaton,
)


class Letters:
    """Pieces of up to three bytes, id 0 without any."""

    pieces = (b"", b"a", b"b", b"ab", b"bca", "é".encode(), b"\xc3", b"\xa9", b"c")

    def decode(self, tokens) -> str:
        return b"".join(self.pieces[t] for t in tokens).decode(errors="replace")

    def __getattr__(self, name):
        """Whatever else a tokenizer has, which nothing here calls."""
        return self.decode


def first_by_hand(text: bytes, stop: list[str]) -> int | None:
    for place in range(len(text)):
        if any(text.startswith(string.encode(), place) for string in stop):
            return place
    return None


STOPS = [["ab"], ["c"], ["bca", "aa"], ["abca", "bc"], ["é"], ["bé", "éa", "cc"]]


@pytest.mark.parametrize("stop", STOPS)
def test_an_automaton_finds_what_a_search_of_the_bytes_finds(stop):
    """Token by token: the row ends as soon as nothing later can change where."""
    table = stop_automaton(stop, Letters.pieces)
    assert table.transitions.shape[0] == 16 and (table.distance == 0).sum() == 1
    draws, found = random.Random(0), 0
    for _ in range(30):
        tokens = [draws.randrange(len(Letters.pieces)) for _ in range(12)]
        state, settled = 0, None
        for count, token in enumerate(tokens, 1):
            state = table.transitions[state, table.classes[token]]
            if settled is None and table.distance[state] == 0:
                settled = count
        whole = b"".join(Letters.pieces[t] for t in tokens)
        place = first_by_hand(whole, stop)
        if settled is not None:
            found += 1
            assert place is not None
            read = b"".join(Letters.pieces[t] for t in tokens[:settled])
            assert first_by_hand(read, stop) == place
            earlier = b"".join(Letters.pieces[t] for t in tokens[: settled - 1])
            assert not readable(earlier, [s.encode() for s in stop])[1]
        else:
            assert not readable(whole, [s.encode() for s in stop])[1]
        row = conclude(tokens, Letters(), stop, 12)
        assert row.text == whole[:place].decode(errors="replace")
        assert (row.finish_reason == "stop") == (place is not None) == row.stopped
        needed = sum(len(Letters.pieces[t]) for t in row.tokens)
        before = sum(len(Letters.pieces[t]) for t in row.tokens[:-1])
        if place is not None:
            assert needed >= place and (place == 0 or before < place)
    assert found >= 5


def test_what_is_readable_stays():
    assert readable("ab", ["abcd", "bc"]) == (0, False)
    assert readable("abc", ["abcd", "bc"]) == (0, False)
    assert readable("abcx", ["abcd", "bc"]) == (1, True)
    assert readable("abcd", ["abcd", "bc"]) == (0, True)
    assert readable("x\n\n", ["\n\n", "\n\n\n"]) == (1, True)
    assert readable("plain", []) == (5, False)
    draws = random.Random(1)
    for _ in range(300):
        text = "".join(draws.choices("ab", k=8))
        stop = ["".join(draws.choices("ab", k=draws.randrange(1, 5))) for _ in "12"]
        whole = cut_at_stop(text, stop)
        for count in range(len(text)):
            certain, is_final = readable(text[:count], stop)
            assert whole.startswith(text[:certain])
            assert not is_final or len(whole) == certain


def test_tokens_that_the_text_needs():
    def rows(tokens, stop, budget=9):
        row = conclude(tokens, Letters(), stop, budget)
        return row.text, row.tokens, row.finish_reason

    assert rows([1, 4, 2], ["ca"]) == ("ab", [1, 4], "stop")  # cut inside of a token
    assert rows([1, 4, 2], ["bc"]) == ("a", [1], "stop")  # at its border
    assert rows([1, 4, 2], ["a"]) == ("", [], "stop")
    assert rows([1, 6, 7], ["é"]) == ("a", [1], "stop")  # bytes of one character
    assert rows([1, 2], ["c"]) == ("ab", [1, 2], "stop")  # ended by itself
    assert rows([1, 2], ["c"], 2) == ("ab", [1, 2], "length")
    assert rows([1, 6], [], 2) == ("a\ufffd", [1, 6], "length")


def test_few_shapes():
    """Stop strings of other lengths share the shapes of their tables."""
    pieces = [bytes([b]) for b in range(256)]
    small = [stop_automaton(s, pieces) for s in (["\n\n"], ["def ", "\n#"], ["é!"])]
    assert len({tuple(np.shape(x) for x in table) for table in small}) == 1
    large = stop_automaton(["\n\nclass ", "\nif __name__", "\nprint("], pieces)
    assert large.transitions.shape == (64, 64)


def test_too_many():
    with pytest.raises(InputError, match="1,200 bytes together; give at most 1,024"):
        stop_automaton(["a" * 600, "b" * 600], [b"a"])
