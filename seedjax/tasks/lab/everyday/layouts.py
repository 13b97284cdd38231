"""Prompts: how people ask for a snippet: in signatures, docstrings and
comments."""

import ast
import random
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from seedjax.tasks.lab.blocks import data_lists, data_phrases
from seedjax.tasks.lab.everyday.concepts import PACKAGE, Snippet, fill, signature

WIDTH = 84  # columns of docstrings and comments
GENERIC = 0.4  # how often a sentence says "a list" for the parameter's name
FULL_STOP = 0.7
UNFINISHED_LINE = 0.25  # prompts that end without a line break


class Prompted(NamedTuple):
    """A prompt and what completes it to a program."""

    prompt: str
    answer: str

    @property
    def source(self) -> str:
        return self.prompt + self.answer


def phrases(name: str) -> tuple[str, ...]:
    """The phrases for a purpose, such as "repair"."""
    return data_phrases(PACKAGE)[name]


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def third_person(verb_phrase: str) -> str:
    """A verb phrase in the imperative, as `he, she, it` has it."""
    verb, blank, rest = verb_phrase.partition(" ")
    if verb.endswith(("s", "x", "ch", "sh")):
        verb += "es"
    elif verb.endswith("y") and verb[-2:-1] not in "aeiou":
        verb = f"{verb[:-1]}ies"
    else:
        verb += "s"
    return verb + blank + rest


def worded(rng: random.Random, snippet: Snippet, choices: Sequence[str]) -> str:
    """One of some phrases of a concept, with some parameters called by what they
    are."""
    slots = dict(snippet.slots)
    nouns = data_lists(PACKAGE, "nouns.txt", "|")
    used: set[str] = set()
    for _, _, slot in snippet.parameters:
        words = [word for word in nouns.get(slot, ()) if word not in used]
        if words and rng.random() < GENERIC:
            slots[slot] = rng.choice(words)
            used.add(slots[slot])
    return fill(rng.choice(choices), slots)


def sentence(rng: random.Random, snippet: Snippet) -> str:
    """A sentence on the program's purpose, which may lack a full stop."""
    concept = snippet.concept
    if concept.sentences:
        text = capital(worded(rng, snippet, concept.sentences))
    elif concept.nouns and (not concept.verbs or rng.random() < 0.55):
        np = worded(rng, snippet, concept.nouns)
        text = rng.choice(phrases("noun phrase")).format(np=np, Np=capital(np))
    else:
        vp = worded(rng, snippet, concept.verbs)
        vps = third_person(vp)
        text = rng.choice(phrases("verb phrase")).format(
            vp=vp, Vp=capital(vp), vps=vps, Vps=capital(vps)
        )
    stop = rng.random() < FULL_STOP or text.endswith('"')
    return text if not stop or text.endswith(".") else f"{text}."


def comment(text: str, indent: str = "") -> str:
    """A text as comment lines."""
    lines = textwrap.wrap(text, WIDTH - len(indent), break_on_hyphens=False)
    return "".join(f"{indent}# {line}\n" for line in lines)


def docstring(rng: random.Random, snippet: Snippet, indent: str = "    ") -> str:
    """A docstring of a function or class: a line, or with arguments or examples."""
    text = _wrapped(sentence(rng, snippet), indent)
    kind = rng.random()
    more = ""
    if snippet.concept.kind == "function":
        if kind < 0.14:
            more = _google(rng, snippet, indent)
        elif kind < 0.19:
            more = _fields(snippet, indent)
        elif kind < 0.36:
            more = _examples(snippet, indent)
    if more:
        return f'{indent}"""{text}\n\n{more}{indent}"""\n'
    return f'{indent}"""{text}"""\n'


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent="", subsequent_indent=indent, break_on_hyphens=False
    )


def _described(snippet: Snippet) -> list[tuple[str, str]]:
    known = data_lists(PACKAGE, "arguments.txt", "|")
    found = []
    for name, _, slot in snippet.parameters:
        texts = known.get(slot) or known.get(slot.rstrip("0123456789"))
        found.append((name, texts[0] if texts else "the input"))
    return found


def _google(rng: random.Random, snippet: Snippet, indent: str) -> str:
    listed = "".join(f"{indent}    {n}: {t}.\n" for n, t in _described(snippet))
    text = f"{indent}Args:\n{listed}" if listed else ""
    if snippet.concept.nouns:
        np = fill(rng.choice(snippet.concept.nouns), snippet.slots)
        gives = rng.choice(phrases("returns")).format(np=np, Np=capital(np))
        text += ("\n" if text else "") + f"{indent}Returns:\n{indent}    {gives}\n"
    return text


def _fields(snippet: Snippet, indent: str) -> str:
    return "".join(f"{indent}:param {n}: {t}\n" for n, t in _described(snippet))


def _examples(snippet: Snippet, indent: str) -> str:
    """Checks that compare a call with a literal, as doctests."""
    lines = []
    for call, value in calls_and_values(snippet)[:2]:
        lines += [f"{indent}>>> {call}\n", f"{indent}{value}\n"]
    return "".join(lines)


def calls_and_values(snippet: Snippet) -> list[tuple[str, str]]:
    """Calls of the function in its checks, and the literals that they return, both as
    source: the elements of a set stand as they were written."""
    found = []
    for check in snippet.checks:
        node = ast.parse(check, mode="eval").body
        if not isinstance(node, ast.Compare) or len(node.ops) != 1:
            continue
        if not isinstance(node.ops[0], ast.Eq) or not isinstance(node.left, ast.Call):
            continue
        function = node.left.func
        if not isinstance(function, ast.Name) or function.id != snippet.name:
            continue
        try:
            value = ast.literal_eval(node.comparators[0])
        except ValueError:  # not a literal, such as "a" + mark
            continue
        if value is not None:
            found.append((ast.unparse(node.left), ast.unparse(node.comparators[0])))
    return found


def documented(rng: random.Random, snippet: Snippet) -> str:
    """The head of a program with a docstring or a comment."""
    *_, line = snippet.head.splitlines(keepends=True)
    start = snippet.head.removesuffix(line)
    kind = rng.random()
    if kind < 0.16 and snippet.concept.kind == "function":
        return snippet.head + comment(sentence(rng, snippet), "    ")
    if kind < 0.3 and snippet.concept.kind == "function":
        return start + comment(sentence(rng, snippet)) + line
    gap = "\n" if snippet.concept.kind == "class" else ""
    return snippet.head + docstring(rng, snippet) + gap


def ask_function(rng: random.Random, snippet: Snippet) -> Prompted:
    """A function from its signature and its description, from its name alone, or
    from a request for it."""
    kind = rng.random()
    if snippet.concept.bare and kind < 0.3:
        return _cut_line(rng, Prompted(snippet.head, snippet.body))
    if kind < 0.08:
        return _cut_line(rng, _request(rng, snippet))
    return _cut_line(rng, Prompted(documented(rng, snippet), snippet.body))


def _request(rng: random.Random, snippet: Snippet) -> Prompted:
    *_, line = snippet.head.splitlines(keepends=True)
    start = snippet.head.removesuffix(line)
    listed = ", ".join(name for name, _, _ in snippet.parameters)
    concept = snippet.concept
    np = fill(rng.choice(concept.nouns or concept.verbs), snippet.slots)
    vp = fill(rng.choice(concept.verbs or concept.nouns), snippet.slots)
    forms = phrases("request")
    if not concept.nouns:
        forms = tuple(form for form in forms if "{np}" not in form)
    text = rng.choice(forms).format(
        sig=f"{snippet.name}({listed})",
        name=snippet.name,
        np=np,
        vp=vp,
        vps=third_person(vp),
    )
    plain = signature(snippet.name, snippet.parameters, annotated=False)
    return Prompted(start + comment(text), plain + snippet.body)


def _cut_line(rng: random.Random, prompted: Prompted) -> Prompted:
    """Sometimes moves the line break at the prompt's end into the answer."""
    if rng.random() < UNFINISHED_LINE and prompted.prompt.endswith("\n"):
        return Prompted(prompted.prompt[:-1], f"\n{prompted.answer}")
    return prompted


def ask_class(rng: random.Random, snippet: Snippet) -> Prompted:
    """A class up to one of its methods' bodies, which is to be written; or its head,
    and all of it is."""
    head = documented(rng, snippet)
    parts = methods(snippet.body)
    if rng.random() < 0.3 or not parts:
        return _cut_line(rng, Prompted(head, snippet.body))
    number = rng.randrange(len(parts))
    known = "".join(before + body for before, body in parts[:number])
    before, body = parts[number]
    return Prompted(head + known + before, body)


def methods(body: str) -> list[tuple[str, str]]:
    """The methods of a class, each as the text up to its body and the body."""
    tree = ast.parse(f"class C:\n{body}")
    lines = body.splitlines(keepends=True)
    found, start = [], 0
    (made,) = tree.body
    assert isinstance(made, ast.ClassDef)
    for node in made.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        first = node.body[0]
        if ast.get_docstring(node) is not None:
            if len(node.body) == 1:
                continue
            first = node.body[1]
        stop = (node.end_lineno or first.lineno) - 1
        begin = first.lineno - 2
        found.append(("".join(lines[start:begin]), "".join(lines[begin:stop])))
        start = stop
    return found


def ask_script(rng: random.Random, snippet: Snippet) -> Prompted:
    """A script from its data and a comment; an assignment may be begun."""
    sentence = worded(rng, snippet, snippet.concept.verbs)
    sentence = capital(sentence) if rng.random() < 0.4 else sentence
    prompt = snippet.head + comment(sentence)
    if snippet.style == "assign" and rng.random() < 0.7:
        name, sign, value = snippet.body.partition(" =")
        return Prompted(prompt + name + sign, value)
    return _cut_line(rng, Prompted(prompt, snippet.body))


def ask_test(rng: random.Random, snippet: Snippet) -> Prompted | None:
    """A test of a function that stands above; None without checks that can be told."""
    values = calls_and_values(snippet)
    if not values:
        return None
    sentence = rng.choice(phrases("test")).format(name=snippet.name)
    note = f'    """{sentence}"""\n' if sentence else ""
    above = documented(rng, snippet) if rng.random() < 0.3 else snippet.head
    prompt = f"{above}{snippet.body}\n\ndef test_{snippet.name}():\n{note}"
    lines = []
    for call, value in values:
        if value in ("True", "False"):
            lines.append(f"    assert {'' if value == 'True' else 'not '}{call}\n")
        else:
            lines.append(f"    assert {call} == {value}\n")
    return Prompted(prompt, "".join(lines))
