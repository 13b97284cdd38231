"""Skeletons joined with leaves: keep, count, sort by, ... over numbers, words, tables.

A skeleton is written once for any element type; `{p}`, `{e}` and `{q}` in its code
stand for the code of its predicate, change or key.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from seedjax.lab import leaves
from seedjax.lab.leaves import Leaf
from seedjax.lab.primitives import Form, Kind, Primitive, forms


@dataclass(frozen=True)
class Elements:
    """What a list is of, in code and in words.

    Attributes:
      many: type of the list.
      one: type of an element.
      nouns: plural nouns for the elements.
      none: what stands for an element that is not there, as code.
      nothing: the same in words.
    """

    many: Kind
    one: Kind
    nouns: tuple[str, ...]
    none: str
    nothing: str


NUMBERS = Elements("ints", "int", ("numbers", "values", "entries"), "0", "zero")
WORDS = Elements(
    "words", "text", ("words", "strings", "names"), '""', "an empty string"
)


def insert(templates: tuple[Form, ...], **codes: str) -> tuple[Form, ...]:
    """Forms with leaf code put in."""
    result = []
    for form in templates:
        code = form.code
        for name, leaf_code in codes.items():
            code = code.replace(f"{{{name}}}", leaf_code)
        result.append(Form(form.style, code))
    return tuple(result)


def spread(frames: Iterable[str], slot: str, fillings: Iterable[str]) -> list[str]:
    """Frames with the fillings put into `{slot}`: the first frame with the first
    filling and so on, as often as the longer list has entries. The last frame meets the
    last filling, so that what is kept from training stays last."""
    frames, fillings = list(frames), list(fillings)
    *frames, last_frame = frames
    *fillings, last_filling = fillings
    count = max(len(frames), len(fillings))
    pairs = [
        (frames[n % len(frames)], fillings[n % len(fillings)]) for n in range(count)
    ]
    pairs.append((last_frame, last_filling))
    return [frame.replace(f"{{{slot}}}", filling) for frame, filling in pairs]


def over_predicate(elements: Elements, leaf: Leaf) -> Iterator[Primitive]:
    """The primitives that a predicate over elements makes."""
    noun, second, third = elements.nouns
    wanted = [
        phrase.format(n=name, k="{k}", c="{c}")
        for phrase, name in zip(leaf.phrases, (noun, noun, second, noun, third, noun))
    ]

    def make(
        verb: str,
        gives: Kind,
        templates: tuple[Form, ...],
        phrases: tuple[str, ...],
        clauses: tuple[str, ...] = (),
    ) -> Primitive:
        return Primitive(
            name=f"{verb}_{leaf.name}_{elements.many}",
            takes=elements.many,
            gives=gives,
            phrases=tuple(spread(phrases, "w", wanted)),
            clauses=tuple(spread(clauses, "w", wanted)) if clauses else (),
            forms=insert(templates, p=leaf.code),
            constants=leaf.constants,
        )

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
            "the {w} of {x}",
            "what {x} holds of {w}",
        ),
        (
            "keep only the {w} of {x}",
            "select the {w} from {x}",
            "filter {x} down to the {w}",
            "pick out the {w} of {x}",
            "keep the {w} in {x}",
            "let nothing but the {w} of {x} pass",
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
            "drop the {w} of {x}",
            "leave out the {w} of {x}",
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
            "how many {w} {x} contains",
            "the quantity of {w} in {x}",
        ),
        (
            "count the {w} in {x}",
            "count how many {w} are in {x}",
            "tally up the {w} of {x}",
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
            "whether {x} consists of {w} only",
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
            f"the first among the {{w}} of {{x}}, or {elements.nothing}",
            f"the earliest of the {{w}} in {{x}}, otherwise {elements.nothing}",
        ),
        (
            "find the first of the {w} in {x}",
            "look for the first among the {w} of {x}",
            "search {x} for the first of the {w}",
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
            "the position of the first among the {w} of {x}, or -1",
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
            f"the last among the {{w}} of {{x}}, or {elements.nothing}",
            f"the latest of the {{w}} in {{x}}, otherwise {elements.nothing}",
        ),
        (
            "find the last of the {w} in {x}",
            "look for the last among the {w} of {x}",
            "search {x} for the last of the {w}",
        ),
    )


def over_change(elements: Elements, leaf: Leaf) -> Iterator[Primitive]:
    """The primitives that a change of elements makes."""
    noun, second, third = elements.nouns
    singular = {"numbers": "number", "words": "word"}[noun]
    holders = [
        f"each {singular} of {{x}}",
        f"every {singular} in {{x}}",
        f"each {singular} in {{x}}",
        f"every {singular} of {{x}}",
        "each element of {x}",
        f"all of the {second} in {{x}} one by one",
    ]
    clauses = [
        phrase.replace("{e}", holder)
        for phrase, holder in zip(leaf.phrases, holders, strict=True)
    ]
    frames = (
        "a list in which you {w}",
        "what you get when you {w}",
        "the list obtained when you {w}",
        "the result when you {w}",
        "what comes out when you {w}",
    )
    yield Primitive(
        name=f"map_{leaf.name}_{elements.many}",
        takes=elements.many,
        gives=elements.many,
        phrases=tuple(spread(frames, "w", clauses)),
        clauses=tuple(clauses),
        forms=insert(
            forms(
                comprehension="[{e} for {i} in {x}]",
                builtin="list(map(lambda {i}: {e}, {x}))",
                loop="{o} = []|for {i} in {x}:|    {o}.append({e})",
            ),
            e=leaf.code,
        ),
        constants=leaf.constants,
    )


def over_both(elements: Elements, test: Leaf, change: Leaf) -> Primitive:
    """Changes the elements that pass a test and leaves the others."""
    noun, second, third = elements.nouns
    change = change.renamed(k="m", d="h", c="d")
    wanted = [
        phrase.format(n=name, k="{k}", c="{c}")
        for phrase, name in zip(test.phrases, (noun, noun, second, noun, third, noun))
    ]
    clauses = [
        f"{order.replace('{e}', f'the {those} in {{x}}')} and {rest}"
        for order, those, rest in zip(
            change.phrases,
            wanted,
            (
                "leave the others as they are",
                "keep the rest",
                "leave the rest alone",
                "keep the others unchanged",
                "leave the others",
                "touch nothing else",
            ),
            strict=True,
        )
    ]
    return Primitive(
        name=f"change_{test.name}_{change.name}_{elements.many}",
        takes=elements.many,
        gives=elements.many,
        phrases=tuple(
            spread(
                ("the list when you {w}", "what you get when you {w}", "{x}: {w}"),
                "w",
                clauses,
            )
        )[:-1]
        + (f"the outcome if you {clauses[-1]}",),
        clauses=tuple(clauses),
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


def over_key(elements: Elements, leaf: Leaf) -> Iterator[Primitive]:
    """The primitives that a sort key makes."""
    noun, second, third = elements.nouns

    def make(
        verb: str,
        gives: Kind,
        templates: tuple[Form, ...],
        phrases: tuple[str, ...],
        clauses: tuple[str, ...] = (),
    ) -> Primitive:
        return Primitive(
            name=f"{verb}_{leaf.name}_{elements.many}",
            takes=elements.many,
            gives=gives,
            phrases=tuple(spread(phrases, "w", leaf.phrases)),
            clauses=tuple(spread(clauses, "w", leaf.phrases)) if clauses else (),
            forms=insert(templates, q=leaf.code),
            constants=leaf.constants,
        )

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
                f"find the element of {{x}} with the {most} {{w}}",
                f"pick the one in {{x}} with the {most} {{w}}",
                f"look up which of {{x}} has the {most} {{w}}",
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
            f"the counts of the {noun} in {{x}} by {{w}}",
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
    yield (
        make(
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
        if elements.many == "words"
        else make(
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
    )


def over_values(kind: Kind, test: Leaf) -> Primitive:
    """Keeps the entries of a dictionary whose value passes a test."""
    wanted = [
        phrase.format(n="values", k="{k}")
        if not phrase.startswith("{n}")
        else phrase.format(n="values", k="{k}")
        for phrase in test.phrases
    ]
    return Primitive(
        name=f"keep_{test.name}_{kind}",
        takes=kind,
        gives=kind,
        phrases=tuple(
            spread(
                (
                    "the entries of {x} whose values are among the {w}",
                    "the part of {x} with {w}",
                    "a dictionary of the entries in {x} that have {w}",
                    "what is in {x} under {w}",
                ),
                "w",
                wanted,
            )
        ),
        clauses=tuple(
            spread(
                (
                    "keep the entries of {x} that have {w}",
                    "keep only the {w} of {x}",
                    "let only {w} stay in {x}",
                ),
                "w",
                wanted,
            )
        ),
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


def over_value_change(kind: Kind, change: Leaf) -> Primitive:
    """Changes every value of a dictionary."""
    holders = (
        "each value of {x}",
        "every value in {x}",
        "each value in {x}",
        "every value of {x}",
        "the value of each key of {x}",
        "whatever value a key of {x} has",
    )
    clauses = [
        phrase.replace("{e}", holder)
        for phrase, holder in zip(change.phrases, holders, strict=True)
    ]
    return Primitive(
        name=f"map_{change.name}_{kind}",
        takes=kind,
        gives=kind,
        phrases=tuple(
            spread(
                (
                    "a dictionary in which you {w}",
                    "what you get when you {w}",
                    "the dictionary that results when you {w}",
                    "what comes out when you {w}",
                ),
                "w",
                clauses,
            )
        ),
        clauses=tuple(clauses),
        forms=insert(
            forms(
                comprehension="{{{j}: {e} for {j}, {i} in {x}.items()}}",
                loop="{o} = {{}}|for {j}, {i} in {x}.items():|    {o}[{j}] = {e}",
            ),
            e=change.code,
        ),
        constants=change.constants,
    )


def all_skeletons() -> Iterator[Primitive]:
    """Every skeleton with every leaf that fits it."""
    for elements, tests, changes, keys in (
        (
            NUMBERS,
            leaves.NUMBER_TESTS,
            leaves.NUMBER_CHANGES,
            leaves.NUMBER_KEYS,
        ),
        (WORDS, leaves.WORD_TESTS, leaves.WORD_CHANGES, leaves.WORD_KEYS),
    ):
        for test in tests:
            yield from over_predicate(elements, test)
        for change in changes:
            yield from over_change(elements, change)
        for key in keys:
            yield from over_key(elements, key)
        for test in tests:
            for change in changes:
                yield over_both(elements, test, change)
    for kind in ("table", "tally"):
        for test in leaves.NUMBER_TESTS:
            yield over_values(kind, test)
        for change in leaves.NUMBER_CHANGES:
            yield over_value_change(kind, change)
