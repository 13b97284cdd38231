"""Edits of everyday programs: a program, an instruction as people give it, and the
program after that."""

import ast
import io
import random
import re
import tokenize
from collections.abc import Callable
from typing import NamedTuple

from seedjax.tasks.lab.everyday.concepts import Snippet, pool, signature
from seedjax.tasks.lab.everyday.layouts import (
    calls_and_values,
    docstring,
    methods,
    phrases,
    third_person,
)

VALUES = {
    "int": ("0", "1", "2", "3", "5", "10", "100"),
    "float": ("0", "1.0", "0.5", "2", "10"),
    "str": ('""', '"a"', '"-"', "None", '" "'),
    "list": ("None", "()"),
    "dict": ("None",),
}
EMPTY_RESULTS = ("None", "0", '""', "[]", "{}", "False", "True", "-1")


class Edit(NamedTuple):
    """A program before and after an edit, and the instruction for it."""

    kind: str
    before: str
    after: str
    instruction: str


def draw_kind(rng: random.Random) -> str:
    """The name of a kind of edit."""
    return rng.choice(sorted(_FUNCTION | _CLASS))


def draw_edit(
    rng: random.Random, name: str, snippet: Snippet, other: Snippet
) -> Edit | None:
    """An edit of a program; None if the program does not lend itself to it.

    Args:
      rng: chooses.
      name: of the kind of edit.
      snippet: the program.
      other: a further function, for edits that take one away.
    """
    kinds = _CLASS if snippet.concept.kind == "class" else _FUNCTION
    if snippet.concept.kind in ("script", "assign"):
        kinds = _SCRIPT
    made = kinds[name](rng, snippet, other) if name in kinds else None
    if made is None:
        return None
    before, after, slots, *key = made
    chosen = key[0] if key else name
    text = rng.choice(phrases(f"edit {chosen}")).format(**slots)
    if before == after or not _parses(before) or not _parses(after):
        return None
    return Edit(chosen, before, after, text)


_Made = tuple[str, str, dict[str, str]] | tuple[str, str, dict[str, str], str] | None
_Maker = Callable[[random.Random, Snippet, Snippet], _Made]


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


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


def _rename(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
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


def _rename_program(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
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


def _plain_type(annotation: str) -> str:
    return annotation.partition("[")[0]


def _default(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    if not snippet.parameters:
        return None
    name, annotation, _ = snippet.parameters[-1]
    values = VALUES.get(_plain_type(annotation))
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


def _hints(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
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


def _docstring(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    with_it = snippet.head + docstring(rng, snippet) + snippet.body
    if rng.random() < 0.3:
        return with_it, snippet.source, {}, "no_docstring"
    return snippet.source, with_it, {}


def _no_print(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    lines = snippet.body.splitlines(keepends=True)
    names = [name for name, _, _ in snippet.parameters] or ['"here"']
    printed = rng.choice(
        (
            f"print({rng.choice(names)})",
            f'print("{snippet.name} called")',
            f'print("debug:", {rng.choice(names)})',
            f'print(f"{{{rng.choice(names)}}}")' if names[0] != '"here"' else "print()",
        )
    )
    before = f"{snippet.head}    {printed}\n{''.join(lines)}"
    return before, snippet.source, {}


def _return_value(snippet: Snippet) -> tuple[str, str] | None:
    """The body up to a last line that returns an expression, and the expression."""
    *above, last = snippet.body.splitlines(keepends=True)
    found = re.fullmatch(r"    return (.+)\n", last)
    return ("".join(above), found[1]) if found else None


def _print_to_return(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    found = _return_value(snippet)
    if found is None:
        return None
    above, value = found
    if "return" in above:
        return None
    before = f"{snippet.head}{above}    print({value})\n"
    return before, snippet.source, {}


def _constant(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    source = snippet.source
    numbers = re.findall(r"(?<![\w.\"'%])\d+(?![\w.\"'])", snippet.body)
    texts = re.findall(r"(?<![\w\"])\"[^\"\\{}]{1,12}\"", snippet.body)
    olds = [v for v in numbers + texts if source.count(v) == 1]
    if not olds:
        return None
    value = rng.choice(olds)
    if value.isdigit():
        wrong = str(rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 50, 100)))
    else:
        wrong = rng.choice(('"x"', '","', '";"', '"-"', '"a"', '" "', '"no"', '"end"'))
    if wrong in source:
        return None
    return source.replace(value, wrong), source, {"old": wrong, "new": value}


_WORDS = {
    "+": ("add", "adding"),
    "-": ("subtract", "subtracting"),
    "*": ("multiply", "multiplying"),
    "/": ("divide", "dividing"),
}
_COMPARED = (">", ">=", "<", "<=", "==", "!=")


def _operator(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    source, body = snippet.source, snippet.body
    kinds = rng.choice((tuple(_WORDS), _COMPARED))
    places = [
        found
        for found in re.finditer(r"(?<= )(\+|-|\*|/|>=|<=|==|!=|>|<)(?= )", body)
        if found[0] in kinds
    ]
    if len(places) != 1:
        return None
    right = places[0][0]
    wrong = rng.choice([op for op in kinds if op != right])
    at = places[0].start()
    before = snippet.head + body[:at] + wrong + body[at + len(right) :]
    slots = {"old": wrong, "new": right}
    if right in _WORDS:
        verb, _ = _WORDS[right]
        other_verb, gerund = _WORDS[wrong]
        slots |= {
            "verb": verb,
            "Verb": verb.capitalize() if rng.random() < 0.5 else verb,
            "wrong": other_verb,
            "other": gerund,
        }
        return before, source, slots
    # Comparisons have no verb; the last phrases of the table do without.
    return before, source, slots | dict.fromkeys(("verb", "Verb", "wrong", "other"), "")


def _style(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    others = [(s, c) for s, c in snippet.others if s != snippet.style]
    fitting = [(s, c) for s, c in others if s in ("comprehension", "builtin", "loop")]
    if not fitting or snippet.style == "recursion":
        return None
    style, code = rng.choice(fitting)
    if style == "comprehension" and " for " not in code:
        return None
    if style == "builtin" and snippet.style != "loop":
        return None
    call = re.search(
        r"\b(sum|max|min|len|sorted|any|all|set|join|count|replace)\(", code
    )
    if style == "builtin" and call is None:
        return None
    called = f"{call[1]}()" if call else ""
    return snippet.source, snippet.head + code, {"call": called}, style


def _guard(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    if not snippet.parameters:
        return None
    name, annotation, _ = rng.choice(snippet.parameters)
    plain = _plain_type(annotation)
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


def _swap(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    if len(snippet.parameters) != 2 or snippet.style == "recursion":
        return None
    hints = ": " in snippet.head.splitlines()[-1]
    first, second = snippet.parameters
    after = _with_signature(snippet, (second, first), hints=hints) + snippet.body
    names = {"first": first[0], "second": second[0]}
    return snippet.source, after, names, "swap_parameters"


def _round(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    found = _return_value(snippet)
    if found is None or "/" not in snippet.body or "round" in snippet.body:
        return None
    if '"' in found[1] or "//" in found[1]:
        return None
    k = rng.choice("1233")
    above, value = found
    after = f"{snippet.head}{above}    return round({value}, {k})\n"
    return snippet.source, after, {"k": {"1": "one", "2": "two", "3": "3"}[k]}


def _inline(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    found = _return_value(snippet)
    names = [n for n in pool("res") if not re.search(rf"\b{n}\b", snippet.source)]
    if found is None or found[1].isidentifier() or not names or ", " in found[1]:
        return None
    above, value = found
    name = rng.choice(names)
    longer = f"{snippet.head}{above}    {name} = {value}\n    return {name}\n"
    if rng.random() < 0.6:
        return longer, snippet.source, {"name": name}
    return snippet.source, longer, {"name": name}, "extract"


def _parameterize(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
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


def _fstring(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    ways = [snippet.body, *(code for _, code in snippet.others)]
    formatted = [code for code in ways if re.search(r"\bf\"", code)]
    glued = [
        c for c in ways if not re.search(r"\bf\"", c) and re.search(r'" \+|\+ "', c)
    ]
    if not formatted or not glued:
        return None
    return snippet.head + glued[0], snippet.head + formatted[0], {}


def _return_bool(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    found = _return_value(snippet)
    if found is None or found[0]:
        return None
    value = found[1]
    is_test = re.search(r" (==|!=|>=|<=|<|>|in|and|or) |^not |\.startswith|\.is", value)
    if not is_test or " if " in value or " for " in value or " + " in value:
        return None
    branch = rng.choice(
        (
            f"    if {value}:\n        return True\n    else:\n        return False\n",
            f"    if {value}:\n        return True\n    return False\n",
        )
    )
    return snippet.head + branch, snippet.source, {}


def _delete(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    if other.name == snippet.name or other.concept.uses or snippet.concept.uses:
        return None
    pieces = [snippet.source, other.source]
    if rng.random() < 0.5:
        pieces.reverse()
    before = "\n\n".join(pieces)
    return before, snippet.source, {"name": other.name}, "delete_function"


def _skip_first(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    lists = [n for n, a, _ in snippet.parameters if _plain_type(a) == "list"]
    loops = [n for n in lists if re.search(rf"(?m)^    for \w+ in {n}:", snippet.body)]
    if len(loops) != 1:
        return None
    (name,) = loops
    after = snippet.source.replace(f" in {name}:\n", f" in {name}[1:]:\n", 1)
    return snippet.source, after, {}


def _as_set(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    found = re.fullmatch(r"    return \[([^\[\]]+ for [^\[\]]+)\]\n", snippet.body)
    if found is None:
        return None
    after = f"{snippet.head}    return {{{found[1]}}}\n"
    return snippet.source, after, {}


def _encoding(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    if "with open(" not in snippet.body:
        return None
    after = re.sub(r"open\(([^()]*)\)", r'open(\1, encoding="utf-8")', snippet.source)
    return snippet.source, after, {}


def _with(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    found = re.fullmatch(
        r"    with (open\(.+?\)) as (\w+):\n        return (.+)\n", snippet.body
    )
    names = [n for n in pool("res") if not re.search(rf"\b{n}\b", snippet.source)]
    if found is None or not names:
        return None
    call, file, value = found.groups()
    name = rng.choice(names)
    before = (
        f"{snippet.head}    {file} = {call}\n    {name} = {value}\n"
        f"    {file}.close()\n    return {name}\n"
    )
    kept = f"    with {call} as {file}:\n        {name} = {value}\n    return {name}\n"
    return before, snippet.head + rng.choice((kept, snippet.body)), {}


def _add_test(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    values = calls_and_values(snippet)
    if not values:
        return None
    call, value = rng.choice(values)
    example = f"{call} == {value}"
    test = f"def test_{snippet.name}():\n    assert {example}\n"
    return snippet.source, f"{snippet.source}\n\n{test}", {"example": example}


def _method(rng: random.Random, snippet: Snippet, other: Snippet) -> _Made:
    parts = methods(snippet.body)
    if len(parts) < 2:
        return None
    number = rng.randrange(1, len(parts))
    before, body = parts[number]
    name = re.search(r"def (\w+)\(", before)
    docstring = re.search(r'"""(.+?)"""', before)
    if name is None or name[1].startswith("__") or "@" in before:
        return None
    kept = "".join(a + b for n, (a, b) in enumerate(parts) if n < number)
    short = snippet.head + kept
    if rng.random() < 0.35:
        return short + before + body, short, {"name": name[1]}, "remove_method"
    if docstring is None:
        return None
    # The instruction says what the docstring would.
    quiet = re.sub(r' *""".+?"""\n', "", before)
    doc = docstring[1]
    verb = doc[:1].lower() + doc[1:].rstrip(".")
    is_order = re.match(r"(add|remove|return|subtract|multiply|set|put|take) ", verb)
    vps = third_person(verb) if is_order else f"returns {verb}"
    slots = {"name": name[1], "vps": vps, "doc": doc}
    return short, short + quiet + body, slots, "add_method"


_FUNCTION: dict[str, _Maker] = {
    "rename": _rename,
    "rename_more": _rename,  # twice in the table: twice as often
    "rename_function": _rename_program,
    "default": _default,
    "hints": _hints,
    "docstring": _docstring,
    "no_print": _no_print,
    "print_to_return": _print_to_return,
    "constant": _constant,
    "operator": _operator,
    "style": _style,
    "style_more": _style,
    "guard": _guard,
    "guard_more": _guard,
    "swap": _swap,
    "round": _round,
    "inline": _inline,
    "parameterize": _parameterize,
    "fstring": _fstring,
    "return_bool": _return_bool,
    "delete": _delete,
    "skip_first": _skip_first,
    "as_set": _as_set,
    "encoding": _encoding,
    "with": _with,
    "add_test": _add_test,
}
_CLASS: dict[str, _Maker] = {
    "rename": _rename,
    "rename_class": _rename_program,
    "method": _method,
    "method_more": _method,
    "constant": _constant,
    "operator": _operator,
}
_SCRIPT: dict[str, _Maker] = {"rename": _rename, "constant": _constant}
