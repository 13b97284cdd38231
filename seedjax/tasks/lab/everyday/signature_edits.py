"""Edits of names, signatures and the checks that follow them."""

import ast
import io
import random
import re
import tokenize

from seedjax.tasks.lab.everyday.concepts import Snippet, pool, signature
from seedjax.tasks.lab.everyday.layouts import docstring

Rewritten = (
    tuple[str, str, dict[str, str]] | tuple[str, str, dict[str, str], str] | None
)
"""A program before and after, slots of the instruction, and the kind of edit if it is
another than the table's; None if the program does not lend itself to it."""

VALUES = {
    "int": ("0", "1", "2", "3", "5", "10", "100"),
    "float": ("0", "1.0", "0.5", "2", "10"),
    "str": ('""', '"a"', '"-"', "None", '" "'),
    "list": ("None", "()"),
    "dict": ("None",),
}


EMPTY_RESULTS = ("None", "0", '""', "[]", "{}", "False", "True", "-1")


def rename(source: str, old: str, new: str) -> str:
    """A program with a name replaced wherever it is one, not in strings but in the
    fields of f-strings; attributes stay."""
    lines = source.splitlines(keepends=True)
    places = []
    before = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and token.string == old and before != ".":
            places.append((token.start[0] - 1, token.start[1], len(old)))
        elif token.type == tokenize.STRING and token.string[:2] in ('f"', "f'"):
            row, column = token.start[0] - 1, token.start[1]
            for found in re.finditer(rf"(?<=[{{ (\[*+]){old}\b", token.string):
                if token.start[0] == token.end[0]:
                    places.append((row, column + found.start(), len(old)))
        before = token.string
    for row, column, length in sorted(places, reverse=True):
        line = lines[row]
        lines[row] = line[:column] + new + line[column + length :]
    return "".join(lines)


def _variables(source: str) -> list[str]:
    found: dict[str, None] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg) and node.arg not in ("self", "other"):
            found[node.arg] = None
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found[node.id] = None
    found.pop("_", None)
    return list(found)


def _new_name(rng: random.Random, snippet: Snippet, old: str, source: str) -> str:
    slots = [slot for slot, name in snippet.slots.items() if name == old]
    names = [n for slot in slots for n in pool(slot)]
    if not names or rng.random() < 0.4:
        names = list(pool(rng.choice(("item", "numbers", "text", "n", "res", "width"))))
    return rng.choice([n for n in names if not re.search(rf"\b{n}\b", source)] or [""])


def rename_variable(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    source = snippet.source
    names = _variables(source)
    if not names:
        return None
    old = rng.choice(names)
    new = _new_name(rng, snippet, old, source)
    if not new:
        return None
    is_parameter = old in [name for name, _, _ in snippet.parameters]
    kind = "rename_parameter" if is_parameter and rng.random() < 0.5 else "rename"
    return source, rename(source, old, new), {"old": old, "new": new}, kind


def rename_program(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    source, old, new = snippet.source, snippet.name, other.name
    if snippet.concept.kind == "class":
        new = rng.choice("Thing Sample Basket Journal Robot Kite Lamp Song".split())
    if new in source or not new:
        return None
    after = re.sub(rf"\b{old}\b", new, source)
    kind = "rename_class" if snippet.concept.kind == "class" else "rename_function"
    return source, after, {"old": old, "new": new}, kind


def _with_signature(
    snippet: Snippet, parameters: tuple[tuple[str, str, str], ...], *, hints: bool
) -> str:
    *_, line = snippet.head.splitlines(keepends=True)
    start = snippet.head.removesuffix(line)
    return start + signature(snippet.name, parameters, annotated=hints)


def plain_type(annotation: str) -> str:
    return annotation.partition("[")[0]


def add_default(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    if not snippet.parameters:
        return None
    name, annotation, _ = snippet.parameters[-1]
    values = VALUES.get(plain_type(annotation))
    if not values:
        return None
    value = rng.choice(values)
    *_, line = snippet.head.splitlines(keepends=True)
    start = snippet.head.removesuffix(line)
    equals = f" = {value}" if ": " in line else f"={value}"
    changed = line.replace("):\n", f"{equals}):\n")
    body = snippet.body
    return (
        start + line + body,
        start + changed + body,
        {"name": name, "value": value},
    )


def change_hints(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    if not snippet.parameters or not all(a for _, a, _ in snippet.parameters):
        return None
    if any(":" in a or "." in a for _, a, _ in snippet.parameters):
        return None
    plain = _with_signature(snippet, snippet.parameters, hints=False) + snippet.body
    hinted = _with_signature(snippet, snippet.parameters, hints=True) + snippet.body
    types = ", ".join(f"{n}: {a}" for n, a, _ in snippet.parameters)
    if rng.random() < 0.2:
        return hinted, plain, {}, "no_hints"
    return plain, hinted, {"types": types}


def swap_parameters(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    if len(snippet.parameters) != 2 or snippet.style == "recursion":
        return None
    hints = ": " in snippet.head.splitlines()[-1]
    first, second = snippet.parameters
    after = _with_signature(snippet, (second, first), hints=hints) + snippet.body
    names = {"first": first[0], "second": second[0]}
    return snippet.source, after, names, "swap_parameters"


def parameterize(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    numbers = re.findall(r"(?<![\w.\"'%\[:])\d+(?:\.\d+)?(?![\w.\"'\]])", snippet.body)
    values = [v for v in numbers if snippet.source.count(v) == 1]
    names = [
        n
        for n in ("rate", "limit", "factor", "count", "k", "step", "bound", "offset")
        if not re.search(rf"\b{n}\b", snippet.source)
    ]
    if not values or not names or not snippet.parameters:
        return None
    if snippet.style == "recursion":
        return None
    value, name = rng.choice(values), rng.choice(names)
    plain = _with_signature(snippet, snippet.parameters, hints=False)
    more = (*snippet.parameters, (name, "", ""))
    head = _with_signature(snippet, more, hints=False)
    body = re.sub(rf"(?<![\w.]){re.escape(value)}(?![\w.])", name, snippet.body)
    return plain + snippet.body, head + body, {"value": value, "name": name}


def add_guard(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    if not snippet.parameters:
        return None
    name, annotation, _ = rng.choice(snippet.parameters)
    plain = plain_type(annotation)
    if plain in ("int", "float"):
        kind = rng.choice(("guard_zero", "guard_negative", "raise_negative"))
    elif plain in ("str", "list", "dict"):
        kind = rng.choice(("guard_none", "guard_empty", "guard_empty", "raise_empty"))
    else:
        kind = "guard_none"
    test = {
        "guard_zero": f"{name} == 0",
        "guard_negative": f"{name} < 0",
        "raise_negative": f"{name} < 0",
        "guard_none": f"{name} is None",
        "guard_empty": f"not {name}",
        "raise_empty": f"not {name}",
    }[kind]
    value = rng.choice(EMPTY_RESULTS)
    action = f"return {value}"
    if kind.startswith("raise"):
        trouble = "negative" if kind == "raise_negative" else "empty"
        action = f'raise ValueError("{name} must not be {trouble}")'
    if f"if {test}:" in snippet.body:
        return None
    after = f"{snippet.head}    if {test}:\n        {action}\n{snippet.body}"
    return snippet.source, after, {"name": name, "value": value}, kind


def add_docstring(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    with_it = snippet.head + docstring(rng, snippet) + snippet.body
    if rng.random() < 0.3:
        return with_it, snippet.source, {}, "no_docstring"
    return snippet.source, with_it, {}
