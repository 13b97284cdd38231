"""Skeletons over predicates: keep, drop, count, search, ask whether any or all."""

import functools
from collections.abc import Iterator

from seedjax.tasks.lab.grammar.leaves import Leaf
from seedjax.tasks.lab.grammar.primitives import Kind, Primitive, forms
from seedjax.tasks.lab.grammar.skeletons import (
    Elements,
    insert,
    join,
    of_elements,
    spread,
)


def over_predicate(elements: Elements, leaf: Leaf) -> Iterator[Primitive]:
    """The primitives that a predicate over elements makes."""
    wanted = of_elements(elements, leaf)
    make = functools.partial(join, elements, leaf, "p", wanted)

    yield make(
        "keep",
        elements.many,
        forms(
            comprehension="[{i} for {i} in {x} if {p}]",
            builtin="list(filter(lambda {i}: {p}, {x}))",
            loop="{o} = []|for {i} in {x}:|    if {p}:|        {o}.append({i})",
        ),
        (
            "the {w} in {x}",
            "all {w} from {x}",
            "a list of the {w} in {x}",
            "all of the {w} in {x}",
            "what {x} holds of {w}",
        ),
        (
            "keep only the {w} in {x}",
            "select the {w} from {x}",
            "filter {x} down to the {w}",
            "pick out the {w} in {x}",
            "keep the {w} in {x}",
            "let nothing but the {w} in {x} pass",
        ),
    )
    yield make(
        "drop",
        elements.many,
        forms(
            comprehension="[{i} for {i} in {x} if not ({p})]",
            loop=(
                "{o} = []|for {i} in {x}:|    if {p}:|        continue"
                "|    {o}.append({i})",
                "{o} = []|for {i} in {x}:|    if not ({p}):|        {o}.append({i})",
            ),
        ),
        (
            "{x} without the {w}",
            "everything in {x} but the {w}",
            "{x} with the {w} removed",
            "all of {x} except the {w}",
            "{x} minus the {w}",
        ),
        (
            "remove the {w} from {x}",
            "drop the {w} in {x}",
            "leave out the {w} in {x}",
            "discard the {w} in {x}",
            "delete the {w} from {x}",
            "throw the {w} out of {x}",
        ),
    )
    yield make(
        "count",
        "int",
        forms(
            builtin="sum(1 for {i} in {x} if {p})",
            comprehension="len([{i} for {i} in {x} if {p}])",
            loop="{o} = 0|for {i} in {x}:|    if {p}:|        {o} += 1",
        ),
        (
            "the number of {w} in {x}",
            "how many {w} there are in {x}",
            "the count of {w} in {x}",
            "how many {w} are among {x}",
            "the quantity of {w} in {x}",
        ),
        (
            "count the {w} in {x}",
            "count how many {w} are in {x}",
            "tally up the {w} in {x}",
        ),
    )
    yield make(
        "any",
        "truth",
        forms(
            builtin="any({p} for {i} in {x})",
            loop="for {i} in {x}:|    if {p}:|        return True|return False",
        ),
        (
            "whether there are any {w} in {x}",
            "True if {x} contains {w}",
            "whether {x} has any {w}",
            "True if there are {w} in {x}, otherwise False",
            "whether {w} occur in {x}",
        ),
    )
    yield make(
        "all",
        "truth",
        forms(
            builtin="all({p} for {i} in {x})",
            loop="for {i} in {x}:|    if not ({p}):|        return False|return True",
        ),
        (
            "whether {x} contains only {w}",
            "True if {x} has nothing but {w}",
            "whether {x} consists only of {w}",
            "True if {x} holds only {w}, otherwise False",
            "whether there is nothing besides {w} in {x}",
        ),
    )
    yield make(
        "first",
        elements.one,
        forms(
            builtin=f"next(({{i}} for {{i}} in {{x}} if {{p}}), {elements.none})",
            loop="for {i} in {x}:|    if {p}:|        return {i}"
            f"|return {elements.none}",
        ),
        (
            f"the first of the {{w}} in {{x}}, or {elements.nothing} if there are none",
            f"the first among the {{w}} in {{x}}, or {elements.nothing}",
            f"the earliest of the {{w}} in {{x}}, otherwise {elements.nothing}",
        ),
        (
            f"find the first of the {{w}} in {{x}}, or {elements.nothing}",
            f"look for the first among the {{w}} in {{x}}, or {elements.nothing}",
            f"search {{x}} for the first of the {{w}}, or {elements.nothing}",
        ),
    )
    yield make(
        "index",
        "int",
        forms(
            builtin="next(({j} for {j}, {i} in enumerate({x}) if {p}), -1)",
            loop="for {j}, {i} in enumerate({x}):|    if {p}:|        return {j}"
            "|return -1",
        ),
        (
            "the index of the first of the {w} in {x}, or -1 if there are none",
            "the position of the first among the {w} in {x}, or -1",
            "where the {w} in {x} begin, as an index, or -1",
        ),
    )
    yield make(
        "last",
        elements.one,
        forms(
            builtin=f"next(({{i}} for {{i}} in reversed({{x}}) if {{p}}),"
            f" {elements.none})",
            loop=f"{{o}} = {elements.none}|for {{i}} in {{x}}:|    if {{p}}:"
            "|        {o} = {i}",
        ),
        (
            f"the last of the {{w}} in {{x}}, or {elements.nothing} if there are none",
            f"the last among the {{w}} in {{x}}, or {elements.nothing}",
            f"the latest of the {{w}} in {{x}}, otherwise {elements.nothing}",
        ),
        (
            f"find the last of the {{w}} in {{x}}, or {elements.nothing}",
            f"look for the last among the {{w}} in {{x}}, or {elements.nothing}",
            f"search {{x}} for the last of the {{w}}, or {elements.nothing}",
        ),
    )


def over_values(kind: Kind, test: Leaf) -> Primitive:
    """Keeps the entries of a dictionary whose value passes a test."""
    wanted = [phrase.format(n="values", k="{k}") for phrase in test.phrases]
    phrases = (
        "the entries of {x} whose values are among the {w}",
        "the part of {x} with {w}",
        "a dictionary of the entries in {x} that have {w}",
        "such entries of {x} as have {w}",
    )
    clauses = (
        "keep the entries of {x} that have {w}",
        "keep only the {w} in {x}",
        "let only {w} stay in {x}",
    )
    return Primitive(
        name=f"keep_{test.name}_{kind}",
        takes=kind,
        gives=kind,
        phrases=spread(phrases, wanted),
        clauses=spread(clauses, wanted),
        forms=insert(
            forms(
                comprehension="{{{j}: {i} for {j}, {i} in {x}.items() if {p}}}",
                loop="{o} = {{}}|for {j}, {i} in {x}.items():|    if {p}:"
                "|        {o}[{j}] = {i}",
            ),
            p=test.code,
        ),
        constants=test.constants,
    )
