"""Primitives over dictionaries with either kind of key."""

from seedjax.tasks.lab.grammar.primitives import Kind, Primitive, primitive


def of_dictionaries(kind: Kind) -> tuple[Primitive, ...]:
    """What can be done with dictionaries of either kind of key."""
    keys: Kind = "words" if kind == "table" else "ints"
    one: Kind = "text" if kind == "table" else "int"
    none = '""' if kind == "table" else "0"
    nothing = "an empty string" if kind == "table" else "zero"
    return (
        primitive(
            f"values_{kind}",
            kind,
            "ints",
            "the values of {x} as a list",
            "a list of the values in {x}",
            "the values that {x} holds",
            "the list of values of {x}",
            "all values of {x}",
            "what the keys of {x} lead to",
            clauses=(
                "list the values of {x}",
                "take the values of {x}",
                "collect what the keys of {x} lead to",
            ),
            code=dict(
                builtin="list({x}.values())",
                comprehension="[{x}[{i}] for {i} in {x}]",
                loop="{o} = []|for {i} in {x}.values():|    {o}.append({i})",
            ),
        ),
        primitive(
            f"keys_{kind}",
            kind,
            keys,
            "the keys of {x} in sorted order",
            "the sorted keys of {x}",
            "a sorted list of the keys in {x}",
            "all keys of {x}, sorted",
            "the list of keys of {x} in ascending order",
            "what {x} can be asked for, in order",
            clauses=(
                "sort the keys of {x}",
                "list the keys of {x} in sorted order",
                "put in order what {x} can be asked for",
            ),
            code=dict(
                builtin=("sorted({x})", "sorted({x}.keys())"),
                loop="{o} = list({x})|{o}.sort()",
            ),
        ),
        primitive(
            f"total_{kind}",
            kind,
            "int",
            "the sum of the values of {x}",
            "the total of all values in {x}",
            "the values of {x} added up",
            "the sum over the values in {x}",
            "all values of {x} summed",
            "what the values of {x} come to",
            clauses=(
                "add up the values of {x}",
                "sum the values of {x}",
                "see what the values of {x} come to",
            ),
            code=dict(
                builtin="sum({x}.values())",
                loop="{o} = 0|for {i} in {x}.values():|    {o} += {i}",
            ),
        ),
        primitive(
            f"size_{kind}",
            kind,
            "int",
            "the number of entries in {x}",
            "how many keys {x} has",
            "the size of {x} as a dictionary",
            "how many entries there are in {x}",
            "the count of keys in {x}",
            "how much {x} keeps, in entries",
            code=dict(builtin="len({x})", loop="{o} = 0|for {i} in {x}:|    {o} += 1"),
        ),
        primitive(
            f"top_{kind}",
            kind,
            one,
            f"the key of {{x}} with the largest value, or {nothing} if it is empty",
            f"the key of the maximum in {{x}}, or {nothing}",
            f"which key of {{x}} has the highest value, or {nothing}",
            f"the key with the greatest value in {{x}}, or {nothing}",
            f"the key in {{x}} whose value is largest, or {nothing}",
            f"the winner among the keys of {{x}}, otherwise {nothing}",
            code=dict(
                builtin=f"max({{x}}, key={{x}}.get, default={none})",
                loop=f"if not {{x}}:|    return {none}"
                "|return max({x}, key={x}.get)",
            ),
        ),
        primitive(
            f"ranked_{kind}",
            kind,
            keys,
            "the keys of {x} sorted by value",
            "the keys of {x} in order of their values",
            "a list of the keys in {x} by ascending value",
            "all keys of {x} ordered by value",
            "the keys of {x} from the smallest value to the largest",
            "the keys of {x} ranked from the bottom up",
            clauses=(
                "sort the keys of {x} by value",
                "order the keys of {x} by their values",
                "rank the keys of {x} from the bottom up",
            ),
            code=dict(
                builtin=(
                    "sorted({x}, key={x}.get)",
                    "sorted({x}, key=lambda {i}: {x}[{i}])",
                ),
            ),
        ),
        primitive(
            f"rich_{kind}",
            kind,
            keys,
            "the keys of {x} whose value is greater than {k}",
            "all keys of {x} with a value above {k}",
            "a list of the keys in {x} with values above {k}",
            "those keys of {x} that have a value of more than {k}",
            "the keys in {x} whose value exceeds {k}",
            "the keys of {x} worth more than {k}",
            clauses=(
                "list the keys of {x} whose value is greater than {k}",
                "find all keys of {x} with a value above {k}",
                "see which keys of {x} are worth more than {k}",
            ),
            code=dict(
                comprehension="[{j} for {j}, {i} in {x}.items() if {i} > {k}]",
                loop="{o} = []|for {j}, {i} in {x}.items():|    if {i} > {k}:"
                "|        {o}.append({j})",
            ),
            constants=dict(k=(2, 3, 4, 5)),
        ),
    )


DICTIONARIES = of_dictionaries("table") + of_dictionaries("tally")
