"""Automata of grammars: what they admit is what matches, token by token."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from published_tokenizers import MAKERS

import seedjax
from seedjax.config import coerce
from seedjax.errors import InputError
from seedjax.sampling.grammar import build as grammar
from seedjax.sampling.grammar.build import Grammar, JsonSchema, Regex, build_automaton
from seedjax.text.huggingface import HuggingFaceTokenizer
from seedjax.text.loading import load_tokenizer

pytest.importorskip("outlines_core")

END = 9
BYTES = [*(bytes([byte]) for byte in range(256)), b""]
# With a letter in two halves, a piece twice, and the end.
PIECES = [b"", b"a", b"b", b"ab", b"\xc3", b"\xa9", "é".encode(), b"a", b"\n", b""]


def walk(automaton, tokens) -> int:
    """The state behind some tokens, -1 where they are not admitted."""
    state = 0
    for token in tokens:
        if state >= 0:
            state = automaton.transitions[state, automaton.classes[token]]
    return int(state)


def is_admitted(automaton, tokens) -> bool:
    state = walk(automaton, tokens)
    return bool(state >= 0 and automaton.distance[state] == 0)


def text_of(tokens) -> str | None:
    try:
        return b"".join(PIECES[token] for token in tokens).decode()
    except UnicodeDecodeError:
        return None


STRINGS = [
    string
    for length in range(5)
    for string in itertools.product(range(1, 9), repeat=length)
]


@pytest.mark.parametrize(
    "pattern",
    [
        *("a+b", "a|ab", "a*?b?", "", "(a|b)*", "^ab$", "(ab){2}", "[^a]*", ".", ".*"),
        *("é+|aé", "(?i)AB*", r"\w\s", "[ab]{1,3}\n?", "(a|aa)(b|é)"),
    ],
)
def test_admits_what_matches(pattern):
    """All strings of up to four tokens, and how far each is from a match that is among
    them."""
    automaton = build_automaton(Regex(pattern=pattern), PIECES, eos_token_ids=[END])
    texts = {string: text_of(string) for string in STRINGS}
    matches = {
        string
        for string, text in texts.items()
        if text is not None and re.fullmatch(pattern, text)
    }
    assert matches
    nearest = dict.fromkeys(STRINGS, 5)
    for match in matches:
        for length in range(len(match) + 1):
            way = len(match) - length
            nearest[match[:length]] = min(nearest[match[:length]], way)
    for string in STRINGS:
        state = walk(automaton, string)
        assert (string in matches) == (state >= 0 and automaton.distance[state] == 0)
        if nearest[string] + len(string) <= 4:
            assert automaton.distance[state] == nearest[string]
        elif state >= 0:
            assert automaton.distance[state] + len(string) > 4


def test_the_end_stands_behind_a_match_only_and_is_final():
    automaton = build_automaton(Regex(pattern="a+b"), PIECES, eos_token_ids=[END])
    assert automaton.transitions.shape == (4, 5)  # a, b, ab, the end, all others
    assert automaton.classes[1] == automaton.classes[7]
    assert automaton.classes[0] == automaton.classes[8]
    assert walk(automaton, [END]) == walk(automaton, [1, END]) == -1
    ended = walk(automaton, [1, 2, END])
    assert ended == 3 and automaton.distance[ended] == 0
    assert walk(automaton, [3, END, 0, END, 8]) == ended
    assert walk(automaton, [1, 0]) == -1  # a special token
    assert automaton.distance.tolist()[0] == 1  # "ab"
    assert all(array.dtype == np.int32 for array in automaton)


def test_states_that_no_token_reaches_or_finishes_are_left_out():
    """Without "b" in the vocabulary only one branch can be taken."""
    pieces = [b"" if b"b" in piece else piece for piece in PIECES]
    automaton = build_automaton(Regex(pattern="a{3}|ab"), pieces, eos_token_ids=[END])
    assert automaton.transitions.shape == (5, 3)
    # No token leads between "a" and "b", though one leads on from there.
    pieces = [b"" if piece == b"a" else piece for piece in PIECES]
    twice = build_automaton(Regex(pattern="(ab){2}"), pieces, eos_token_ids=[END])
    assert twice.distance.tolist() == [2, 1, 0, 0]
    pieces = [b"" if b"b" in piece else piece for piece in PIECES]
    with pytest.raises(InputError, match="nothing that this tokenizer can write"):
        build_automaton(Regex(pattern="ab+"), pieces, eos_token_ids=[END])


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "ages": {"type": "array", "items": {"type": "integer"}, "minItems": 1},
        "kind": {"enum": ["cat", "cats", 1, 12, None]},
        "next": {"anyOf": [{"$ref": "#/$defs/point"}, {"type": "null"}]},
    },
    "required": ["name", "kind"],
    "$defs": {
        "point": {
            "type": "object",
            "properties": {"x": {"type": "number"}},
            "required": ["x"],
            "additionalProperties": False,
        }
    },
}


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(Path(seedjax.__file__).parent / "bundled/mini/tokenizer")


@pytest.fixture(scope="module")
def of_schema(tokenizer):
    return build_automaton(
        JsonSchema(schema=json.dumps(SCHEMA)),
        tokenizer.pieces,
        eos_token_ids=[tokenizer.special.eos],
    )


@pytest.mark.parametrize(
    ("text", "admitted"),
    [
        ('{"name": "Zoë", "kind": "cats"}', True),
        ('{"name":"","ages":[1, -20],"kind":12,"next":{"x":1.5e+3}}', True),
        ('{"name": "\\n", "kind": null, "next": null}', True),
        ('{"name": "a", "ages": [], "kind": 1}', False),
        ('{"name": "a", "kind": "dog"}', False),
        ('{"kind": 1, "name": "a"}', False),
        ('{"name": "a", "kind": 1', False),
        ('{"name": "much too long for it", "kind": 1}', False),
    ],
)
def test_json_of_a_schema(tokenizer, of_schema, text, admitted):
    assert is_admitted(of_schema, tokenizer.encode(text)) is admitted
    ended = [*tokenizer.encode(text), tokenizer.special.eos]
    assert is_admitted(of_schema, ended) is admitted


def test_whatever_is_admitted_is_json_of_the_schema(tokenizer, of_schema):
    """Random walks that go home when they have gone on for long."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        state, tokens = 0, []
        while of_schema.distance[state] > 0:
            following = of_schema.transitions[state, of_schema.classes]
            fine = following >= 0
            if len(tokens) > 30:
                fine &= of_schema.distance[following] < of_schema.distance[state]
            tokens.append(int(generator.choice(np.flatnonzero(fine))))
            state = following[tokens[-1]]
        found = json.loads(tokenizer.decode(tokens))
        assert {"name", "kind"} <= found.keys() <= SCHEMA["properties"].keys()
        assert len(found["name"]) <= 12 and found["kind"] in [
            "cat",
            "cats",
            1,
            12,
            None,
        ]
        assert all(type(age) is int for age in found.get("ages", [0]))


@pytest.mark.parametrize("name", MAKERS)
def test_published_tokenizers(name):
    published = HuggingFaceTokenizer(MAKERS[name]())
    pieces = published.pieces
    end = published.special.eos
    automaton = build_automaton(
        Regex(pattern=" *[\\w ]+ = 'é+'\n"), pieces, eos_token_ids=[end]
    )
    for text in ("one two = 'ééé'\n", "x_1 = 'é'\n"):
        tokens = published.encode(text)
        assert is_admitted(automaton, [*tokens, end])
        assert not is_admitted(automaton, tokens[:-1])
    assert walk(automaton, published.encode("x = 'e")) == -1
    assert walk(automaton, [end]) == -1


@pytest.mark.parametrize(
    "pattern",
    ["(", "[a", "(?=a)b", r"(a)\1", r"\p{Nope}", "[a&&b]", "\ud800", "a{3,2}", "*"],
)
def test_a_pattern_that_cannot_be_used_is_an_input_error(pattern):
    with pytest.raises(InputError, match="cannot be used"):
        build_automaton(Regex(pattern=pattern), PIECES, eos_token_ids=[END])


@pytest.mark.parametrize("pattern", ["a$b", "a|^b", r"\bfoo", "a^", r"\Aa\z", "(a$)"])
def test_an_anchor_inside_is_an_input_error(pattern):
    with pytest.raises(InputError, match="leave it out"):
        Regex(pattern=pattern)


def test_anchors_around_and_escaped_ones_are_fine():
    for pattern in (r"a\$", r"[^$]\^", r"^a\$$", r"\\$", "[]$^]"):
        automaton = build_automaton(Regex(pattern=pattern), BYTES, eos_token_ids=[256])
        for text in ("a$", "a^", "\\", "$", "a"):
            found = is_admitted(automaton, text.encode())
            assert found == bool(re.fullmatch(pattern, text)), (pattern, text)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "not JSON"),
        ("3", "give a JSON object"),
        ({"type": "foo"}, "type of the schema is 'foo'"),
        ({"type": "integer", "minimum": 3}, r"\['minimum'\]"),
        ({"type": "string", "pattern": "a"}, "pattern"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "maxLength"),
        ({"type": "string", "minLength": -1}, "minLength"),
        ({"allOf": [{"type": "string"}]}, "allOf"),
        ({"not": {}}, "not"),
        ({"anyOf": []}, "anyOf"),
        ({"enum": []}, "enum"),
        ({"anyOf": [{"type": "null"}], "type": "null"}, "anyOf"),
        ({"type": "array", "items": {"type": "object", "not": {}}}, "items of the"),
        ({"type": "object", "required": ["a"]}, "required"),
        ({"type": "object", "properties": {'"': {"type": "null"}}}, "escapes"),
        ({"type": "object", "properties": {"a": True}}, "'a' of the schema is True"),
        ({"type": "object", "additionalProperties": False}, "additionalProperties"),
        ({"const": {'"': 1}}, "escapes"),
        ("[" * 100_000, "too deep"),
        ({"$ref": "#/$defs/a"}, "does not hold"),
        ({"$ref": "http://a"}, "does not hold"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, "recursion"),
    ],
)
def test_a_schema_that_would_not_be_held_to_is_an_input_error(schema, message):
    with pytest.raises(InputError, match=message):
        JsonSchema(schema=schema if isinstance(schema, str) else json.dumps(schema))


def test_a_reference_may_be_used_twice():
    shared = {"$ref": "#/$defs/flag"}
    JsonSchema(
        schema=json.dumps(
            {
                "type": "object",
                "properties": {"a": shared, "b": shared},
                "$defs": {"flag": {"type": "boolean"}},
            }
        )
    )


def test_what_takes_too_long_is_an_input_error():
    slow = Regex(pattern="(a{1000}){1000}")
    with pytest.raises(InputError, match="not built in 0.5 s"):
        build_automaton(slow, PIECES, eos_token_ids=[END], timeout_s=0.5)


def test_what_is_too_large_is_an_input_error(monkeypatch):
    monkeypatch.setattr(grammar, "MOST_ENTRIES", 20)
    with pytest.raises(InputError, match="simpler"):
        build_automaton(Regex(pattern="a{9}"), PIECES, eos_token_ids=[END])


def test_without_the_library_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(grammar.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"seedjax\[grammar\]"):
        build_automaton(Regex(pattern="a"), PIECES, eos_token_ids=[END])


def test_recipes_come_from_json():
    found = coerce(Grammar, {"kind": "Regex", "pattern": "a"}, "grammar")
    assert found == Regex(pattern="a") and hash(found) == hash(Regex(pattern="a"))
    schema = {"kind": "JsonSchema", "schema": '{"type": "null"}'}
    assert coerce(Grammar, schema, "grammar").schema == schema["schema"]
