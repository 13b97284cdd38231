"""Skeletons over changes: of all elements, of those that pass a test, of values."""

from seedjax.tasks.lab.grammar.leaves import Leaf
from seedjax.tasks.lab.grammar.primitives import Kind, Primitive, forms
from seedjax.tasks.lab.grammar.skeletons import Elements, insert, of_elements, spread


def over_change(elements: Elements, change: Leaf) -> Primitive:
    """Changes every element."""
    noun, second, _ = elements.nouns
    singular = {"numbers": "number", "words": "word"}[noun]
    clauses = _orders(
        change,
        f"each {singular} of {{x}}",
        f"every {singular} in {{x}}",
        f"each {singular} in {{x}}",
        f"every {singular} of {{x}}",
        "each element of {x}",
        f"each single one of the {second} in {{x}}",
    )
    frames = (
        "a list in which you {w}",
        "what you get when you {w}",
        "the list obtained when you {w}",
        "the result when you {w}",
        "what comes out when you {w}",
    )
    return Primitive(
        name=f"map_{change.name}_{elements.many}",
        takes=elements.many,
        gives=elements.many,
        phrases=spread(frames, clauses),
        clauses=clauses,
        forms=insert(
            forms(
                comprehension="[{e} for {i} in {x}]",
                builtin="list(map(lambda {i}: {e}, {x}))",
                loop="{o} = []|for {i} in {x}:|    {o}.append({e})",
            ),
            e=change.code,
        ),
        constants=change.constants,
    )


def over_both(elements: Elements, test: Leaf, change: Leaf) -> Primitive:
    """Changes the elements that pass a test and leaves the others."""
    change = change.renamed(k="m", d="h", c="d")
    wanted = of_elements(elements, test)
    orders = _orders(change, *(f"each of the {those} in {{x}}" for those in wanted))
    rests = (
        "leave the others as they are",
        "keep the rest",
        "leave the rest alone",
        "keep the others unchanged",
        "leave the others",
        "touch nothing else",
    )
    clauses = tuple(
        f"{order} and {rest}" for order, rest in zip(orders, rests, strict=True)
    )
    frames = (
        "the list when you {w}",
        "what you get when you {w}",
        "the outcome if you {w}",
    )
    return Primitive(
        name=f"change_{test.name}_{change.name}_{elements.many}",
        takes=elements.many,
        gives=elements.many,
        phrases=spread(frames, clauses),
        clauses=clauses,
        forms=insert(
            forms(
                comprehension="[{e} if {p} else {i} for {i} in {x}]",
                loop="{o} = []|for {i} in {x}:|    if {p}:|        {o}.append({e})"
                "|    else:|        {o}.append({i})",
            ),
            p=test.code,
            e=change.code,
        ),
        constants=test.constants | change.constants,
        size=2,
    )


def over_value_change(kind: Kind, change: Leaf) -> Primitive:
    """Changes every value of a dictionary."""
    clauses = _orders(
        change,
        "each value of {x}",
        "every value in {x}",
        "each value in {x}",
        "every value of {x}",
        "the value of each key of {x}",
        "whatever value a key of {x} has",
    )
    frames = (
        "a dictionary in which you {w}",
        "what you get when you {w}",
        "the dictionary that results when you {w}",
        "what comes out when you {w}",
    )
    return Primitive(
        name=f"map_{change.name}_{kind}",
        takes=kind,
        gives=kind,
        phrases=spread(frames, clauses),
        clauses=clauses,
        forms=insert(
            forms(
                comprehension="{{{j}: {e} for {j}, {i} in {x}.items()}}",
                loop="{o} = {{}}|for {j}, {i} in {x}.items():|    {o}[{j}] = {e}",
            ),
            e=change.code,
        ),
        constants=change.constants,
    )


def _orders(change: Leaf, *changed: str) -> tuple[str, ...]:
    """The phrases of a change, each about other words for what is changed."""
    return tuple(
        phrase.replace("{e}", words)
        for phrase, words in zip(change.phrases, changed, strict=True)
    )
