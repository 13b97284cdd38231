"""What crosses between the two sides: plain data, exactly, and nothing else."""

import collections
import enum
import math

import pytest

from seedjax.sandbox.containment.wire import decode, encode


def refuse(value):
    raise AssertionError(f"{value!r} is plain")


def there_and_back(value):
    return decode(encode(value, refuse), refuse)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**63,
        0.1,
        math.inf,
        "",
        "é\n\x00",
        "\ud800",
        b"\x00\xff",
        bytearray(b"ab"),
        1 - 2j,
        [],
        (),
        {},
        set(),
        frozenset({1, (2, 3)}),
        [1, (2, [3.5, {"a": {4: None}}])],
        {(1, 2): [True], None: {1}},
        int,
        ["list", [1]],  # looks like the encoding of a list
    ],
)
def test_plain_data_comes_back_as_it_was(value):
    again = there_and_back(value)
    assert again == value and type(again) is type(value)


def test_long_integers_come_back():
    assert there_and_back(-(10**6000)) == -(10**6000)


def test_not_a_number_and_signed_zero_come_back():
    assert math.isnan(there_and_back(math.nan))
    assert math.copysign(1, there_and_back(-0.0)) == -1


class Agreeable(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


class Colour(enum.IntEnum):
    RED = 1


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Agreeable(7), 7),
        (Colour.RED, 1),
        (Point(1, 2), (1, 2)),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
        ([Agreeable(7)], [7]),
    ],
)
def test_subclasses_come_back_as_the_plain_type(value, plain):
    again = there_and_back(value)
    assert type(again) is type(plain) and plain == again
    assert not (type(again) is int and again == 8)


def test_other_objects_get_a_number():
    things = []
    data = encode(
        [1, test_plain_data_comes_back_as_it_was, len],
        lambda v: things.append(v) or len(things),
    )
    assert things == [test_plain_data_comes_back_as_it_was, len]
    assert decode(data, lambda number: f"object {number}") == [
        1,
        "object 1",
        "object 2",
    ]


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        ["list"],
        ["list", 1],
        ["pickle", "gASV"],
        ["int", 7],
        ["int", "zz"],
        ["bytes", "0"],
        ["complex", [1]],
        ["complex", ["a", 1]],
        ["dict", [[1]]],
        ["set", [["list", []]]],
        ["type", "eval"],
        [[], 1],
    ],
)
def test_what_is_no_encoding_is_refused(data):
    with pytest.raises((ValueError, TypeError, LookupError)):
        decode(data, refuse)
