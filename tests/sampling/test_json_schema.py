"""What a schema or a pattern admits, and what is refused by name."""

import json
import re

import pytest

from seedjax.errors import InputError
from seedjax.sampling.grammar.build import JsonSchema, Regex, build_automaton

BYTES = [bytes([b]) for b in range(256)] + [b""]


def admits(grammar, text):
    """Whether a grammar admits a text, over a vocabulary of bytes."""
    automaton = build_automaton(grammar, BYTES, eos_token_ids=[256])
    state = 0
    for byte in text.encode():
        state = automaton.transitions[state, automaton.classes[byte]]
        if state < 0:
            return False
    return automaton.distance[state] == 0


BIG = 12345678901234567890123


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"const": BIG}, str(BIG), "1.2345678901234568e+22"),
        ({"enum": [-BIG, 1]}, str(-BIG), str(BIG)),
        ({"const": {"a": [BIG]}}, f'{{"a":[{BIG}]}}', '{"a":["ExactInteger"]}'),
        ({"type": "integer", "enum": ["a", 1, 2.5]}, "1", '"a"'),
        ({"type": ["integer", "null"], "enum": ["a", None]}, "null", '"a"'),
        ({"type": "number", "const": 2}, "2", "3"),
        (
            {"type": "object", "properties": {"enum": {"type": "integer"}}},
            '{"enum": 1}',
            '{"enum": "a"}',
        ),
    ],
)
def test_values_are_written_as_they_are_and_of_their_type(schema, good, bad):
    grammar = JsonSchema(schema=json.dumps(schema))
    assert admits(grammar, good) and not admits(grammar, bad)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "integer", "enum": ["a"]}, "no value of the schema is of its type"),
        ({"type": "string", "const": 1}, "no value of the schema is of its type"),
        ({"type": "integer", "const": True}, "no value of the schema is of its type"),
        ({"type": "integer", "minimum": 3}, "['minimum']"),
        ({"type": "string", "pattern": "a"}, "['pattern']"),
        ({"type": "string", "format": "date"}, "['format']"),
        ({"type": "string", "anyOf": [{"const": "a"}]}, "['anyOf']"),
        ({"anyOf": [{"const": 1}], "minLength": 2}, "['anyOf', 'minLength']"),
        ({"allOf": [{"const": 1}]}, "['allOf']"),
        ({"not": {"const": 1}}, "['not']"),
        ({"type": "object", "required": ["a"]}, "required of the schema"),
        ("a" * 5000, "aaa...'; give a JSON object"),
        ({"type": "array", "items": ["b" * 5000]}, "bbb...; give a JSON object"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "are 3 and 2"),
        ({"$ref": "#/$defs/b", "$defs": {}}, "'#/$defs/b', which it does not hold"),
    ],
)
def test_what_is_not_held_to_is_refused_by_name(schema, message):
    with pytest.raises(InputError, match=re.escape(message)):
        JsonSchema(schema=json.dumps(schema))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("[0-9", "unterminated character set at character 0"),
        ("ab(c", "unterminated subpattern at character 2"),
        ("x{2,1}", "min repeat greater than max repeat at character 2"),
        ("ab[z-a]", "bad character range z-a at character 3"),
        ("a(?=b)c", "'(?=' at character 1 is not known"),
        ("(a)-\\1", "'\\\\1' at character 4 is not known"),
        ("a)(b", "unbalanced parenthesis at character 1"),
    ],
)
def test_a_fault_in_a_pattern_is_placed(pattern, message):
    with pytest.raises(InputError, match=re.escape(message)):
        build_automaton(Regex(pattern=pattern), BYTES, eos_token_ids=[256])


def test_what_looks_like_a_fault_is_none():
    for pattern, text in ((r"\\1", "\\1"), (r"[(?=]", "?"), (r"\(?=", "(=")):
        assert admits(Regex(pattern=pattern), text)
