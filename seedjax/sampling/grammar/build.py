"""The form of a completion, as an automaton over the ids of a tokenizer.

    pattern ─▶ automaton over bytes ─▶ the smallest such ─▶ automaton over tokens

The library `outlines_core` turns a schema into a pattern and a pattern into an
automaton. It does so in a process of its own, because some short patterns have
automata that no machine holds, and nothing else could stop it. How the tokens move
through the automaton is worked out here, from their bytes: tokens that do the same from
every state form a class, and there are few of those.

Not here: how the automaton is held to while a completion is sampled
(`seedjax.sampling.grammar.decode`).
"""

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from seedjax.errors import InputError
from seedjax.sampling.grammar.json_schema import (
    check_schema,
    exact_schema,
    restore_integers,
    short,
    with_plain_names,
)

FAR = np.iinfo(np.int32).max // 2  # a distance that no completion is long enough for
MOST_ENTRIES = 1 << 22  # of a table of transitions: 16 MiB
MOST_STATES = 1 << 16  # of an automaton over bytes
MOST_BYTES = 4 << 30  # address space of the process that compiles a pattern
# Appended to every pattern. The library leaves a text alone once it has found a match,
# so that `a|ab` would not match "ab": with this, only the whole completion is a match.
# The last code point is one that no text uses.
END = "\U0010ffff"
PARTS_OF_PATTERN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
ANCHORS = {"^", "$", r"\A", r"\z", r"\b", r"\B"}


@dataclass(frozen=True, kw_only=True)
class Regex:
    r"""Completions that match a regular expression as a whole.

    The syntax is that of Rust's `regex`, which is Python's but for look-around, back
    references and word boundaries. `^` at the start and `$` at the end are allowed, and
    mean nothing.
    """

    pattern: str

    def __post_init__(self):
        parts = PARTS_OF_PATTERN.findall(self.bare_pattern)
        if anchors := sorted(ANCHORS.intersection(parts)):
            raise InputError(
                f"the pattern {self.pattern!r} holds {anchors[0]}, which is not known "
                "inside of a pattern; the whole answer is matched, so leave it out"
            )
        # Within the group that the library is given, `a)(b` would be two whole parts.
        fault = _fault_of_syntax(self.bare_pattern)
        if fault.startswith("unbalanced parenthesis"):
            raise InputError(f"the pattern {self.pattern!r} cannot be used: {fault}")

    @property
    def bare_pattern(self) -> str:
        """The pattern without the anchors around it."""
        pattern = self.pattern.removeprefix("^")
        backslashes = len(pattern) - 1 - len(pattern[:-1].rstrip("\\"))
        if pattern.endswith("$") and backslashes % 2 == 0:
            return pattern[:-1]
        return pattern


@dataclass(frozen=True, kw_only=True)
class JsonSchema:
    """Completions that are JSON of a schema, with at most one space between their
    parts, and the members of an object in the order of the schema.

    Known are `type`, `enum`, `const`, `anyOf`, `oneOf` (taken as `anyOf`), `$ref`
    without recursion, `items`, `prefixItems`, `properties`, `required`, and the least
    and greatest length of strings and arrays. Members that the schema does not name are
    not written.
    """

    schema: str  # JSON

    def __post_init__(self):
        try:
            root = json.loads(self.schema, object_pairs_hook=with_plain_names)
            check_schema(root, root, {}, "the schema")
        except json.JSONDecodeError as error:
            raise InputError(
                f"the schema {short(self.schema)} is not JSON ({error}); give an object"
            ) from None
        except RecursionError:
            raise InputError(
                f"the schema {short(self.schema)} is nested too deep; give a "
                "flatter one"
            ) from None


Grammar = Regex | JsonSchema


class TokenAutomaton(NamedTuple):
    """The arrays of `seedjax.sampling.grammar.decode.Automaton`, on the host.

    Attributes:
      classes: the class of each id, int32 [V].
      transitions: the next state by state and class, -1 where that is forbidden, int32
        [Q, C]. The start is state 0; the last state is after the end, and never left.
      distance: fewest tokens that finish the completion, int32 [Q]; no state is without
        a way to finish.
    """

    classes: np.ndarray
    transitions: np.ndarray
    distance: np.ndarray


def is_available() -> bool:
    """Whether the library that grammars need is installed."""
    return importlib.util.find_spec("outlines_core") is not None


def build_automaton(
    grammar: Grammar,
    pieces: Sequence[bytes],
    *,
    eos_token_ids: Collection[int],
    timeout_s: float = 60.0,
) -> TokenAutomaton:
    """The automaton of a grammar for a vocabulary.

    An id that ends completions may stand where the completion is complete, and after
    it anything. Of the pattern `a+b` and pieces "", "a", "b", "ab" and the end, there
    are the states nothing, some a, b and ended.

    Args:
      grammar: what to admit.
      pieces: the bytes that each id stands for, one entry for each of the model's
        logits; empty for special ids and all others that may not be drawn.
      eos_token_ids: ids that end a completion.
      timeout_s: for turning the pattern into an automaton over bytes.

    Raises:
      InputError: if `outlines_core` is missing, the pattern or schema is none that it
        knows, nothing can be written that matches, or the automaton is too large.
    """
    shown = short(grammar.pattern if isinstance(grammar, Regex) else grammar.schema)
    table, accepting = _smallest(*_byte_automaton(grammar, shown, timeout_s))
    classes, transitions = lift(table, pieces, shown)
    edges = _edges(transitions)
    start = np.arange(len(transitions)) == 0
    distance = _fewest_steps(edges, accepting)
    found = _fewest_steps(edges[:, ::-1], start)
    alive = (distance < FAR) & (found < FAR)
    if not alive[0]:
        raise InputError(
            f"nothing that this tokenizer can write matches {shown}; give another"
        )
    transitions, accepting = _restrict(transitions, alive), accepting[alive]

    ended = len(transitions)
    end = np.where(accepting, ended, -1)[:, None]
    transitions = np.hstack([transitions, end])
    transitions = np.vstack([transitions, np.full_like(transitions[:1], ended)])
    classes[list(eos_token_ids)] = transitions.shape[1] - 1
    transitions, same = np.unique(transitions, axis=1, return_inverse=True)
    return TokenAutomaton(
        same.reshape(-1).astype(np.int32)[classes],
        transitions.astype(np.int32),
        np.append(distance[alive], 0).astype(np.int32),
    )


def _byte_automaton(
    grammar: Grammar, shown: str, timeout_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Transitions [Q, 256] from state 0, -1 where there is none, and which states
    accept [Q]."""
    if not is_available():
        raise InputError(
            "a grammar needs outlines_core: pip install 'seedjax[grammar]'"
        )
    if isinstance(grammar, Regex):
        request = {"pattern": grammar.bare_pattern}
    else:
        request = {"schema": json.dumps(exact_schema(json.loads(grammar.schema)))}
    try:
        run = subprocess.run(
            [sys.executable, "-P", "-m", "seedjax.sampling.grammar.build"],
            input=json.dumps(request).encode(),
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "OPENBLAS_NUM_THREADS": "1",  # each would take of its memory
            },
            capture_output=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"the automaton of {shown} was not built in {timeout_s:g} s; give a "
            "simpler one"
        ) from None
    if run.returncode:
        raise InputError(
            f"the automaton of {shown} is larger than {MOST_BYTES >> 30} GiB or could "
            f"not be built (exit code {run.returncode}: "
            f"{run.stderr.decode(errors='replace')[-200:].strip()!r}); give a simpler "
            "one"
        )
    answer = json.loads(run.stdout)
    if "error" in answer:
        reason = answer["error"].partition("\n")[0]
        if isinstance(grammar, Regex):
            reason = _fault_of_syntax(grammar.bare_pattern) or reason
        raise InputError(
            f"{shown} cannot be used ({reason}); give a simpler one, without "
            "look-around and back references, that something matches"
        )
    edges = np.array(answer["edges"], np.int64)
    names, numbered = np.unique(edges[:, [0, 2]], return_inverse=True)
    sources, targets = numbered.reshape(-1, 2).T
    # The start takes number 0 from whatever has it.
    order = np.arange(len(names))
    start = np.searchsorted(names, answer["start"])
    order[[0, start]] = order[[start, 0]]
    table = np.full((len(names), 256), -1)
    table[order[sources], edges[:, 1]] = order[targets]
    padded, place = _padded(table), np.arange(len(names))
    for byte in END.encode():
        place = padded[place, byte]
    final = order[np.searchsorted(names, answer["final"])]
    return table, np.isin(place, final)


def _smallest(
    table: np.ndarray, accepting: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same automaton without states that lead nowhere or do what another does."""
    alive = _fewest_steps(_edges(table), accepting) < FAR
    alive[0] = True
    table, accepting = _restrict(table, alive), accepting[alive]
    kinds = np.unique(table, axis=1)  # bytes that do the same need one scan
    label, count = accepting.astype(np.int64), 0
    while True:  # states are split by where they lead, until nothing changes
        rows = np.column_stack([label, np.append(label, -1)[kinds]])
        _, first, label = np.unique(
            rows, axis=0, return_index=True, return_inverse=True
        )
        label = label.reshape(-1)
        if len(first) == count:
            break
        count = len(first)
    order = np.argsort(first)  # the start stays in front
    number = np.append(np.argsort(order)[label], -1)
    return number[table[first[order]]], accepting[first[order]]


def lift(
    table: np.ndarray, pieces: Sequence[bytes], shown: str
) -> tuple[np.ndarray, np.ndarray]:
    """From bytes to tokens: the class of each piece [V], and transitions [Q, C]. Class
    0 is forbidden everywhere, and that of empty pieces."""
    num_states = len(table)
    padded = _padded(table)
    # What the bytes read so far do, as the state that they lead to from each state.
    columns = [np.full(num_states, -1), np.arange(num_states)]
    number_of = {column.tobytes(): i for i, column in enumerate(columns)}
    lengths = np.array([len(piece) for piece in pieces])
    begin = np.cumsum(lengths) - lengths
    letters = np.frombuffer(b"".join(pieces), np.uint8).astype(np.int64)
    classes = np.where(lengths > 0, 1, 0)
    for depth in range(max(lengths, default=0)):
        growing = np.flatnonzero((lengths > depth) & (classes > 0))
        steps = classes[growing] * 256 + letters[begin[growing] + depth]
        different, which = np.unique(steps, return_inverse=True)
        for i, step in enumerate(different.tolist()):
            column = padded[columns[step // 256], step % 256]
            number = number_of.setdefault(column.tobytes(), len(columns))
            if number == len(columns):
                columns.append(column)
            different[i] = number
        if num_states * len(columns) > MOST_ENTRIES:
            raise InputError(
                f"the automaton of {shown} has {num_states} states and "
                f"{len(columns)} classes of tokens or more, and there may be "
                f"{MOST_ENTRIES} transitions; give a simpler one"
            )
        classes[growing] = different[which]
    used = np.unique(np.append(classes, 0))
    return np.searchsorted(used, classes), np.stack(columns)[used].T


def _padded(table: np.ndarray) -> np.ndarray:
    """A table with a row more, in which the index -1 finds -1."""
    return np.append(table, np.full_like(table[:1], -1), axis=0)


def _edges(transitions: np.ndarray) -> np.ndarray:
    """Different pairs of a state and one that follows it, [N, 2]."""
    sources, places = np.nonzero(transitions >= 0)
    size = len(transitions)
    pairs = np.unique(sources * size + transitions[sources, places])
    return np.column_stack(np.divmod(pairs, size))


def _fewest_steps(edges: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Fewest edges from each state to one of the goals [Q], `FAR` if there is no
    way."""
    steps = np.where(goals, 0, FAR)
    while True:
        fewer = steps.copy()
        np.minimum.at(fewer, edges[:, 0], steps[edges[:, 1]] + 1)
        if (fewer == steps).all():
            return steps
        steps = fewer


def _restrict(transitions: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Transitions among some of the states, numbered anew in their order."""
    number = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)
    return number[transitions[kept]]


def _fault_of_syntax(pattern: str) -> str:
    """The fault of a regular expression, and its character; empty if
    Python's `re` finds nothing. The library does not say."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of Python's own syntax
            re.compile(pattern)
    except re.error as error:
        place = error.pos or 0
        near = pattern[place : place + 8] or "its end"
        return f"{error.msg} at character {place}, near {near!r}"
    except (OverflowError, RecursionError) as error:
        return str(error)
    for found in UNKNOWN_PARTS.finditer(pattern):
        if found["unknown"]:
            return f"{found['unknown']!r} at character {found.start()} is not known"
    return ""


# Look-around and back references; what a backslash takes away, and sets, are passed by.
UNKNOWN_PARTS = re.compile(
    r"(?P<unknown>\\[1-9]|\(\?(?:<?[=!]|P=))|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL
)


def _compile() -> None:
    """Reads a pattern or schema from standard input and writes the automaton over bytes
    to standard output, as JSON. Ends with a crash where memory does."""
    import outlines_core

    # Some systems know no such limit; the time limit has to do there.
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        allowed = (
            MOST_BYTES if most == resource.RLIM_INFINITY else min(most, MOST_BYTES)
        )
        resource.setrlimit(resource.RLIMIT_AS, (allowed, most))
    request = json.load(sys.stdin)
    pattern = request.get("pattern")
    try:
        if pattern is None:
            pattern = outlines_core.json_schema.build_regex_from_schema(
                request["schema"]
            )
            pattern = restore_integers(pattern)
        vocabulary = outlines_core.Vocabulary(
            256, {bytes([b]): [b] for b in range(256)}
        )
        index = outlines_core.Index(f"(?:{pattern}){END}", vocabulary)
        transitions = index.get_transitions()
        if len(transitions) > MOST_STATES:
            raise ValueError(f"its automaton has more than {MOST_STATES} states")
    except (TypeError, ValueError) as error:
        json.dump({"error": str(error)}, sys.stdout)
        return
    edges = [
        (source, byte, target)
        for source, row in transitions.items()
        for byte, target in row.items()
        if byte < 256  # the library's own end
    ]
    json.dump(
        {
            "start": index.get_initial_state(),
            "final": list(index.get_final_states()),
            "edges": edges,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    _compile()
