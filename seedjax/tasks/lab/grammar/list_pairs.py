"""Primitives over two lists of numbers."""

from seedjax.tasks.lab.grammar.primitives import primitive

LIST_PAIRS = (
    primitive(
        "common",
        "ints",
        "ints",
        "the elements of {x} that are also in {y}",
        "those of {x} that {y} contains too",
        "what {x} has in common with {y}, in order",
        "all elements of {x} that occur in {y}",
        "the numbers in both {x} and {y}, in the order of {x}",
        "the part of {x} shared with {y}",
        also="ints",
        code=dict(
            comprehension="[{i} for {i} in {x} if {i} in {y}]",
            loop="{o} = []|for {i} in {x}:|    if {i} in {y}:|        {o}.append({i})",
        ),
    ),
    primitive(
        "missing",
        "ints",
        "ints",
        "the elements of {x} that are not in {y}",
        "those of {x} that {y} does not contain",
        "{x} without the elements of {y}",
        "all elements of {x} that do not occur in {y}",
        "the numbers of {x} that {y} lacks",
        "the part of {x} that is foreign to {y}",
        also="ints",
        code=dict(
            comprehension="[{i} for {i} in {x} if {i} not in {y}]",
            loop="{o} = []|for {i} in {x}:|    if {i} not in {y}:"
            "|        {o}.append({i})",
        ),
    ),
    primitive(
        "pairwise_sum",
        "ints",
        "ints",
        "the sums of {x} and {y} element by element up to the shorter one's end",
        "{x} plus {y} element by element as far as both go",
        "the elementwise sums of {x} and {y} up to the shorter length",
        "a list with the sum of each pair that zip makes of {x} and {y}",
        "{x} and {y} added position by position as far as both go",
        "{x} with {y} laid on top and added up where both have a number",
        also="ints",
        code=dict(
            comprehension="[{i} + {j} for {i}, {j} in zip({x}, {y})]",
            loop="{o} = []|for {i}, {j} in zip({x}, {y}):|    {o}.append({i} + {j})",
        ),
    ),
    primitive(
        "pairwise_max",
        "ints",
        "ints",
        "the larger of {x} and {y} element by element up to the shorter one's end",
        "the elementwise maximum of {x} and {y} up to the shorter length",
        "a list with the larger of each pair that zip makes of {x} and {y}",
        "whichever is larger of {x} and {y} at each position that both have",
        "the maximum of {x} and {y} position by position as far as both go",
        "the winner of {x} and {y} at each place that both have",
        also="ints",
        code=dict(
            comprehension="[max({i}, {j}) for {i}, {j} in zip({x}, {y})]",
            loop="{o} = []|for {i}, {j} in zip({x}, {y}):"
            "|    {o}.append(max({i}, {j}))",
        ),
    ),
    primitive(
        "dot",
        "ints",
        "int",
        "the dot product of {x} and {y} up to the shorter length",
        "the sum of the products of {x} and {y} element by element as far as both go",
        "the scalar product of {x} and {y} as far as both go",
        "the inner product of {x} and {y} up to the shorter one's end",
        "the sum of the products of the pairs that zip makes of {x} and {y}",
        "what {x} times {y} adds up to where both have a number",
        also="ints",
        code=dict(
            builtin="sum({i} * {j} for {i}, {j} in zip({x}, {y}))",
            loop="{o} = 0|for {i}, {j} in zip({x}, {y}):|    {o} += {i} * {j}",
        ),
    ),
    primitive(
        "merge",
        "ints",
        "ints",
        "the numbers of {x} and {y} together in ascending order",
        "{x} and {y} merged and sorted",
        "the sorted union of {x} and {y} with duplicates",
        "all elements of {x} and {y} sorted",
        "{x} joined with {y} and sorted",
        "{x} and {y} blended in rising order",
        also="ints",
        code=dict(
            builtin="sorted({x} + {y})",
            loop="{o} = {x} + {y}|{o}.sort()",
        ),
    ),
)
