"""JSON schemas as `seedjax.sampling.grammar.build` takes them: which keywords are
known, which are refused by name, and what the library needs in other words to
hold to it.

Not here: how a schema becomes an automaton.
"""

import json
import math
import re
from typing import Any

from seedjax.errors import InputError

FAR = (1 << 31) - 1  # a length that no text has

# What the library takes into account in a schema. It passes over the rest, which would
# give completions that the schema does not admit.
NOTES = frozenset({"title", "description", "default", "examples", "deprecated"}) | {
    *("$schema", "$id", "$comment", "$defs", "definitions", "readOnly", "writeOnly")
}
WITH_TYPE = {
    "string": {"minLength", "maxLength"},
    "array": {"items", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties"},
    **{name: set() for name in ("integer", "number", "boolean", "null")},
}
# The library reads integers beyond 64 bits as floats; they go by it as texts.
INTEGER = "ExactInteger"
INTEGERS = re.compile(f'"{INTEGER}(N?)([0-9]+)"')


def exact_schema(schema: Any) -> Any:
    """A schema whose values the library writes as they are."""
    if not isinstance(schema, dict):
        return schema
    exact = dict(schema)
    for word in ("const", "enum"):
        if word in exact:
            exact[word] = _exact_value(exact[word])
    if "enum" in exact and "type" in exact:  # of which the library takes the enum only
        kept = [v for v in schema["enum"] if _is_of_type(v, schema["type"])]
        exact["enum"] = _exact_value(kept)
    for word in ("items", "additionalProperties"):
        if word in exact:
            exact[word] = exact_schema(exact[word])
    for word in ("anyOf", "oneOf", "prefixItems"):
        if word in exact:
            exact[word] = [exact_schema(part) for part in exact[word]]
    for word in ("properties", "$defs", "definitions"):
        if isinstance(exact.get(word), dict):
            exact[word] = {k: exact_schema(part) for k, part in exact[word].items()}
    return exact


def _exact_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _exact_value(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_exact_value(part) for part in value]
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return f"{INTEGER}{'N' if value < 0 else ''}{abs(value)}"
    return value


def _is_of_type(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of a type, or of one of several."""
    if isinstance(kind, list):
        return any(_is_of_type(value, name) for name in kind)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {
        "string": isinstance(value, str),
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
        "boolean": isinstance(value, bool),
        "null": value is None,
        "number": number,
        "integer": number and value == int(value),
    }.get(kind, False)


def _check_values(schema: dict[str, Any], where: str) -> None:
    """Raises `InputError` if no value of a schema's `const` or `enum` is of its
    type."""
    values = schema["enum"] if "enum" in schema else [schema["const"]]
    for value in values:
        _require(
            not isinstance(value, float) or math.isfinite(value),
            f"{where} has the number {value}, which is out of a float's range",
        )
    _require(
        "type" not in schema or any(_is_of_type(v, schema["type"]) for v in values),
        f"no value of {where} is of its type {schema.get('type')!r}: got "
        f"{short(json.dumps(values))}",
    )


def with_plain_names(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a schema. The library would put its names between quotation marks as
    they are."""
    for name, _ in members:
        _require(
            json.dumps(name, ensure_ascii=False) == f'"{name}"',
            f"the name {short(name)} in the schema takes escapes in JSON; give a "
            "plain one",
        )
    return dict(members)


def check_schema(schema: Any, root: Any, done: dict[str, bool], where: str) -> None:
    """Raises `InputError` for what the library would not hold to.

    Args:
      schema: a part of `root`.
      root: the whole.
      done: references met so far, and whether the check of what they name is over.
      where: a name for the part.
    """
    _require(
        isinstance(schema, dict), f"{where} is {short(schema)}; give a JSON object"
    )
    words, kind = schema.keys() - NOTES, schema.get("type")
    if words == {"$ref"}:
        name = schema["$ref"]
        target = _find(name, root, where)
        _require(
            done.get(name, True), f"{where} holds itself ({name}); leave recursion out"
        )
        if name not in done:
            done[name] = False
            check_schema(target, root, done, name)
            done[name] = True
    elif words in ({"anyOf"}, {"oneOf"}, {"prefixItems"}, {"prefixItems", "type"}):
        (word,) = words - {"type"}
        choices = schema[word]
        _require(
            isinstance(choices, list) and choices and kind in (None, "array"),
            f"{word} of {where} is {short(choices)}; give an array that is not empty",
        )
        for i, choice in enumerate(choices):
            check_schema(choice, root, done, f"{word}[{i}] of {where}")
    elif words in ({"enum"}, {"enum", "type"}):
        _require(
            isinstance(schema["enum"], list) and schema["enum"],
            f"enum of {where} is {schema['enum']!r}; give an array that is not empty",
        )
        _check_values(schema, where)
    elif words == {"type"} and isinstance(kind, list) and kind:
        for name in kind:
            check_schema({"type": name}, root, done, where)
    elif "type" in words and words != {"const", "type"}:
        _require(
            isinstance(kind, str) and kind in WITH_TYPE,
            f"type of {where} is {short(kind)}; give one of {', '.join(WITH_TYPE)}",
        )
        unknown = sorted(words - {"type"} - WITH_TYPE[kind])
        _require(
            not unknown,
            f"{where} has {short(unknown)}, unknown beside type {short(kind)}; leave "
            "them out",
        )
        _check_parts(schema, root, done, where)
    else:
        unknown = sorted(words - {"const", "type"})
        _require(
            not unknown,
            f"{where} has {unknown}; known without a type are const and enum, and by "
            "themselves anyOf, oneOf, prefixItems and $ref; leave the others out",
        )
        if "const" in schema:
            _check_values(schema, where)


def _check_parts(
    schema: dict[str, Any], root: Any, done: dict[str, bool], where: str
) -> None:
    """Raises `InputError` for what a schema with a type says of lengths and parts."""
    for noun in ("Length", "Items"):
        least, most = schema.get(f"min{noun}", 0), schema.get(f"max{noun}", FAR)
        _require(
            type(least) is type(most) is int and 0 <= least <= most,
            f"min{noun} and max{noun} of {where} are {least} and {most}; give the less "
            "one first, from 0",
        )
    if "items" in schema:
        check_schema(schema["items"], root, done, f"items of {where}")
    members, others = schema.get("properties"), schema.get("additionalProperties", True)
    if members is None and others is not True:
        check_schema(others, root, done, f"additionalProperties of {where}")
    members = {} if members is None else members
    _require(isinstance(members, dict), f"properties of {where} are no JSON object")
    for name, member in members.items():
        check_schema(member, root, done, f"{short(name)} of {where}")
    required = schema.get("required", [])
    _require(
        isinstance(required, list) and all(name in members for name in required),
        f"required of {where} is {short(required)}; give names among its properties",
    )


def _find(name: Any, root: Any, where: str) -> Any:
    """The part of a schema that a reference names."""
    try:
        start, *path = name.split("/")
        target = root
        for part in path:
            target = target[int(part)] if isinstance(target, list) else target[part]
    except (AttributeError, LookupError, TypeError, ValueError):
        start = None
    _require(
        start == "#",
        f"{where} refers to {short(name)}, which it does not hold; give a path such as "
        "'#/$defs/name'",
    )
    return target


def _require(condition: Any, message: str) -> None:
    if not condition:
        raise InputError(message)


def short(value: object) -> str:
    """`repr(value)`, short enough for a line."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def restore_integers(pattern: str) -> str:
    """The pattern of `exact_schema` with its integers as numbers."""
    return INTEGERS.sub(lambda found: ("\\-" if found[1] else "") + found[2], pattern)
