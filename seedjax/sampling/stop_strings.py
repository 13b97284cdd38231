"""Stop strings: where the first of some strings begins, a completion ends.

    generate        device: an automaton ends the row with its block (`stop_automaton`)
                    host:   the text is cut at the exact byte (`conclude`)
    stream, Engine  host, after every block (`readable`, `conclude`)
    suites          text that is there already (`cut_at_stop`)

A stop string is a matter of bytes, for it may begin and end inside of tokens. It is not
part of the completion's text, and neither is anything after it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import AnyStr, Literal, NamedTuple

import numpy as np

from seedjax.errors import InputError
from seedjax.sampling.grammar.build import TokenAutomaton, lift
from seedjax.text.tokenizer import Tokenizer

FinishReason = Literal["stop", "length"]
"""Why a completion ended: an end-of-sequence token or a stop string, or its budget."""

MOST_BYTES = 1024  # of all stop strings of a call
LADDER = 4  # an automaton's states and classes are padded to powers of this


class Conclusion(NamedTuple):
    """A completion that ends at a stop string, an end-of-sequence token or its budget.

    Attributes:
      text: up to the first stop string.
      tokens: those that the text needs. A token that begins before the stop string and
        reaches into it is one of them.
      finish_reason: why it ended.
      stopped: whether a stop string was found.
    """

    text: str
    tokens: list[int]
    finish_reason: FinishReason
    stopped: bool


def conclude(
    tokens: list[int], tokenizer: Tokenizer, stop: Sequence[str], budget: int
) -> Conclusion:
    """The text and tokens of a row, up to the first stop string.

    With stop string "\\n\\n" and pieces "a", ";\\n", "\\nb" the text is "a;", and its
    tokens are the first two.

    Args:
      tokens: up to the end-of-sequence token.
      tokenizer: that the tokens belong to.
      stop: the stop strings.
      budget: most new tokens.
    """
    if stop:
        lengths = [len(tokenizer.pieces[token]) for token in tokens]
        whole = b"".join([tokenizer.pieces[token] for token in tokens])
        text = cut_at_stop(whole, [string.encode() for string in stop])
        if len(text) < len(whole):
            needed = int(np.searchsorted(np.cumsum([0, *lengths]), len(text)))
            decoded = text.decode(errors="replace")
            return Conclusion(decoded, tokens[:needed], "stop", True)
    reason: FinishReason = "stop" if len(tokens) < budget else "length"
    return Conclusion(tokenizer.decode(tokens), tokens, reason, False)


def cut_at_stop(text: AnyStr, stop: Sequence[AnyStr]) -> AnyStr:
    """The text before the first stop string, all of it if there is none."""
    places = [text.find(string) for string in stop]
    return text[: min((place for place in places if place >= 0), default=None)]


def readable(text: AnyStr, stop: Sequence[AnyStr]) -> tuple[int, bool]:
    """How much of a partial completion is final, and whether a stop string ends it
    there whatever follows.

    With stop strings "abcd" and "bc", "ab" gives (0, False), for it may become the
    first; "abc" the same, for "bc" is the first one only if no "d" follows; and "abcx"
    (1, True).

    Args:
      text: a completion so far, or its bytes.
      stop: the stop strings, or their bytes.
    """
    end = len(text)
    longest = max(map(len, stop), default=1) - 1
    for begin in range(max(0, end - longest), end):
        if any(string.startswith(text[begin:]) for string in stop):
            end = begin
            break
    place = len(cut_at_stop(text, stop))
    return (place, True) if place <= end and place < len(text) else (end, False)


def pieces_of(
    completions: Iterable[tuple[str, bool]], stop: Sequence[str]
) -> Iterator[str]:
    """The text that each step adds to the certain part of a completion, up to its stop
    string.

    Args:
      completions: after each step the text so far, and whether it is finished.
      stop: the stop strings.
    """
    sent = 0
    for text, done in completions:
        certain, last = readable(text.rstrip("\ufffd"), stop)
        if not last and done:
            certain, last = len(cut_at_stop(text, stop)), True
        if certain > sent:
            yield text[sent:certain]
            sent = certain
        if last:
            return


def stop_automaton(stop: Sequence[str], pieces: Sequence[bytes]) -> TokenAutomaton:
    """The automaton that finds stop strings in tokens: `distance` is 0 in its last
    state, which is never left, and 1 in all others.

    The automaton over bytes is that of Aho and Corasick (1975): a state is the longest
    end of the text that begins a stop string. States and classes are padded, so that
    most sets of stop strings share a compiled program.

    Args:
      stop: at least one stop string.
      pieces: the bytes of each id, one entry for each of the model's logits; ids
        without bytes leave the state as it is.

    Raises:
      InputError: for stop strings of more than `MOST_BYTES`.
    """
    strings = [string.encode() for string in stop]
    if (size := sum(map(len, strings))) > MOST_BYTES:
        raise InputError(
            f"the stop strings have {size:,} bytes together; give at most "
            f"{MOST_BYTES:,}"
        )
    beginnings = {s[:n] for s in strings for n in range(len(s))}
    number = {beginning: i for i, beginning in enumerate(sorted(beginnings, key=len))}
    found = len(number)
    letters = sorted(set(b"".join(strings)))
    table = np.full((found + 1, 256), found)
    for state, i in number.items():
        # A byte of no stop string leaves nothing pending.
        contained = cut_at_stop(state, strings) != state
        table[i] = found if contained else number[b""]
        for byte in letters:
            read = state + bytes([byte])
            end, is_final = readable(read, strings)
            table[i, byte] = found if is_final else number[read[end:]]
    shown = ", ".join(map(repr, stop))
    classes, transitions = lift(table, pieces, f"the stop strings {shown:.60}")
    transitions[:, 0] = np.arange(len(transitions))  # class 0 has no bytes
    padding = [(0, _padded_size(size) - size) for size in transitions.shape]
    distance = np.ones(_padded_size(len(transitions)), np.int32)
    distance[found] = 0
    return TokenAutomaton(
        classes.astype(np.int32),
        np.pad(transitions, padding).astype(np.int32),
        distance,
    )


def _padded_size(count: int) -> int:
    size = LADDER * LADDER
    while size < count:
        size *= LADDER
    return size
