"""Skeletons over sort keys: sort, take the extremes, group and tally."""

import functools
from collections.abc import Iterator

from seedjax.tasks.lab.grammar.leaves import Leaf
from seedjax.tasks.lab.grammar.primitives import Primitive, forms
from seedjax.tasks.lab.grammar.skeletons import Elements, join


def over_key(elements: Elements, leaf: Leaf) -> Iterator[Primitive]:
    """The primitives that a sort key makes."""
    noun, second, _ = elements.nouns
    make = functools.partial(join, elements, leaf, "q", leaf.phrases)

    yield make(
        "sort",
        elements.many,
        forms(
            builtin="sorted({x}, key=lambda {i}: {q})",
            loop="{o} = list({x})|{o}.sort(key=lambda {i}: {q})",
        ),
        (
            "{x} sorted by {w}",
            f"the {noun} of {{x}} in order of {{w}}",
            "{x} in ascending order of {w}",
            f"the {second} in {{x}} ordered by {{w}}",
            "{x} arranged by increasing {w}",
        ),
        (
            "sort {x} by {w}",
            "order {x} by {w}",
            "put {x} in order of {w}",
            "arrange {x} by {w}",
            "bring {x} into order of {w}",
        ),
    )
    yield make(
        "fall",
        elements.many,
        forms(
            builtin="sorted({x}, key=lambda {i}: {q}, reverse=True)",
            loop="{o} = list({x})|{o}.sort(key=lambda {i}: {q}, reverse=True)",
        ),
        (
            "{x} sorted by {w} in descending order",
            f"the {noun} of {{x}} in descending order of {{w}}",
            "{x} ordered by {w}, largest first",
            f"the {second} in {{x}} from largest to smallest {{w}}",
            "{x} arranged by decreasing {w}",
        ),
        (
            "sort {x} by {w} in descending order",
            "order {x} by {w}, largest first",
            "arrange {x} by {w} from largest to smallest",
            "bring {x} into falling order of {w}",
        ),
    )
    for verb, most, function, sign in (
        ("max", "largest", "max", ">"),
        ("min", "smallest", "min", "<"),
    ):
        yield make(
            verb,
            elements.one,
            forms(
                builtin=f"{function}({{x}}, key=lambda {{i}}: {{q}}, "
                f"default={elements.none})",
                loop="if not {x}:|    return "
                + elements.none
                + "|{o} = {x}[0]|for {i} in {x}:|    if {q} "
                + sign
                + " "
                + leaf.code.replace("{i}", "{o}")
                + ":|        {o} = {i}",
            ),
            (
                f"the element of {{x}} with the {most} {{w}}, or {elements.nothing} if"
                " it is empty",
                f"the one in {{x}} with the {most} {{w}}, or {elements.nothing}",
                f"which of {{x}} has the {most} {{w}}, otherwise {elements.nothing}",
            ),
            (
                f"find the element of {{x}} with the {most} {{w}}, or"
                f" {elements.nothing}",
                f"pick the one in {{x}} with the {most} {{w}}, or {elements.nothing}",
                f"look up which of {{x}} has the {most} {{w}}, or {elements.nothing}",
            ),
        )
    yield make(
        "tally",
        "tally",
        forms(
            loop="{o} = {{}}|for {i} in {x}:|    {j} = {q}"
            "|    {o}[{j}] = {o}.get({j}, 0) + 1",
        ),
        (
            f"a dictionary from {{w}} to the number of {noun} in {{x}} that have it",
            f"how many {noun} of {{x}} there are for each {{w}}, as a dictionary",
            f"a dictionary with the counts of the {noun} in {{x}} by {{w}}",
            "a dictionary that says how many of {x} share each {w}",
        ),
        (
            f"count the {noun} of {{x}} by {{w}}",
            "count {x} by {w}",
            "make a tally of {x} by {w}",
        ),
    )
    if elements.many == "ints":
        yield make(
            "totals",
            "tally",
            forms(
                loop="{o} = {{}}|for {i} in {x}:|    {j} = {q}"
                "|    {o}[{j}] = {o}.get({j}, 0) + {i}",
            ),
            (
                f"a dictionary from {{w}} to the sum of the {noun} in {{x}} that have"
                " it",
                f"the sums of the {noun} in {{x}} by {{w}}, as a dictionary",
                f"the total of the {noun} of {{x}} for each {{w}}",
                "a dictionary that says what those of {x} with each {w} add up to",
            ),
            (
                f"sum the {noun} of {{x}} by {{w}}",
                "add up {x} by {w}",
                "total {x} by {w}",
            ),
        )
        yield make(
            "spread",
            "int",
            forms(
                builtin="len(set({q} for {i} in {x}))",
                loop="{o} = set()|for {i} in {x}:|    {o}.add({q})|return len({o})",
            ),
            (
                f"how many different values of {{w}} the {noun} in {{x}} have",
                "the number of distinct values of {w} in {x}",
                "how many different values of {w} occur in {x}",
                "the number of unequal values of {w} that {x} shows",
            ),
        )
    else:
        yield make(
            "keyed",
            "ints",
            forms(
                comprehension="[{q} for {i} in {x}]",
                loop="{o} = []|for {i} in {x}:|    {o}.append({q})",
                builtin="list(map(lambda {i}: {q}, {x}))",
            ),
            (
                f"a list with the {{w}} for each of the {noun} in {{x}}",
                "for each element of {x}, the {w}",
                "the list that gives the {w} for each element of {x}",
                f"for every one of the {second} in {{x}}, the {{w}}",
            ),
            (
                "list the {w} for each element of {x}",
                "replace each element of {x} with the {w}",
                "note down the {w} for every element of {x}",
            ),
        )
