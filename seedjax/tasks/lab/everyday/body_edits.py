"""Edits of bodies: statements, expressions, methods."""

import random
import re

from seedjax.tasks.lab.everyday.concepts import Snippet, pool
from seedjax.tasks.lab.everyday.layouts import calls_and_values, methods, third_person
from seedjax.tasks.lab.everyday.signature_edits import Rewritten, plain_type


def remove_print(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
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


def return_value(snippet: Snippet) -> tuple[str, str] | None:
    """The body up to a last line that returns an expression, and the expression."""
    *above, last = snippet.body.splitlines(keepends=True)
    found = re.fullmatch(r"    return (.+)\n", last)
    return ("".join(above), found[1]) if found else None


def print_to_return(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    found = return_value(snippet)
    if found is None:
        return None
    above, value = found
    if "return" in above:
        return None
    before = f"{snippet.head}{above}    print({value})\n"
    return before, snippet.source, {}


def change_constant(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
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


def change_operator(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
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


def change_style(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
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


def round_result(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    found = return_value(snippet)
    if found is None or "/" not in snippet.body or "round" in snippet.body:
        return None
    if '"' in found[1] or "//" in found[1]:
        return None
    k = rng.choice("1233")
    above, value = found
    after = f"{snippet.head}{above}    return round({value}, {k})\n"
    return snippet.source, after, {"k": {"1": "one", "2": "two", "3": "3"}[k]}


def inline_result(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    found = return_value(snippet)
    names = [n for n in pool("res") if not re.search(rf"\b{n}\b", snippet.source)]
    if found is None or found[1].isidentifier() or not names or ", " in found[1]:
        return None
    above, value = found
    name = rng.choice(names)
    longer = f"{snippet.head}{above}    {name} = {value}\n    return {name}\n"
    if rng.random() < 0.6:
        return longer, snippet.source, {"name": name}
    return snippet.source, longer, {"name": name}, "extract"


def use_fstring(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    ways = [snippet.body, *(code for _, code in snippet.others)]
    formatted = [code for code in ways if re.search(r"\bf\"", code)]
    glued = [
        c for c in ways if not re.search(r"\bf\"", c) and re.search(r'" \+|\+ "', c)
    ]
    if not formatted or not glued:
        return None
    return snippet.head + glued[0], snippet.head + formatted[0], {}


def return_test(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    found = return_value(snippet)
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


def delete_function(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    if other.name == snippet.name or other.concept.uses or snippet.concept.uses:
        return None
    pieces = [snippet.source, other.source]
    if rng.random() < 0.5:
        pieces.reverse()
    before = "\n\n".join(pieces)
    return before, snippet.source, {"name": other.name}, "delete_function"


def skip_first(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    lists = [n for n, a, _ in snippet.parameters if plain_type(a) == "list"]
    loops = [n for n in lists if re.search(rf"(?m)^    for \w+ in {n}:", snippet.body)]
    if len(loops) != 1:
        return None
    (name,) = loops
    after = snippet.source.replace(f" in {name}:\n", f" in {name}[1:]:\n", 1)
    return snippet.source, after, {}


def return_set(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    found = re.fullmatch(r"    return \[([^\[\]]+ for [^\[\]]+)\]\n", snippet.body)
    if found is None:
        return None
    after = f"{snippet.head}    return {{{found[1]}}}\n"
    return snippet.source, after, {}


def name_encoding(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    if "with open(" not in snippet.body:
        return None
    after = re.sub(r"open\(([^()]*)\)", r'open(\1, encoding="utf-8")', snippet.source)
    return snippet.source, after, {}


def use_with(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
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


def add_test(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
    values = calls_and_values(snippet)
    if not values:
        return None
    call, value = rng.choice(values)
    example = f"{call} == {value}"
    test = f"def test_{snippet.name}():\n    assert {example}\n"
    return snippet.source, f"{snippet.source}\n\n{test}", {"example": example}


def change_method(rng: random.Random, snippet: Snippet, other: Snippet) -> Rewritten:
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
