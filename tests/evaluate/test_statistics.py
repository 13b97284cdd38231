"""pass@k against all draws, Wilson's interval against printed ones, AUP by hand."""

import itertools
import math

import pytest

from seedjax.errors import InputError
from seedjax.evaluate.statistics import (
    accuracy_under_parallelism,
    pass_at_k,
    wilson_interval,
)


@pytest.mark.parametrize("num_samples", [1, 2, 5, 7])
def test_pass_at_k_is_the_share_of_draws_with_a_pass(num_samples):
    for passed, k in itertools.product(range(num_samples + 1), range(1, 8)):
        if k > num_samples:
            continue
        verdicts = [n < passed for n in range(num_samples)]
        draws = [any(draw) for draw in itertools.combinations(verdicts, k)]
        wanted = sum(draws) / len(draws)
        assert pass_at_k(num_samples, passed, k) == pytest.approx(wanted, abs=1e-12)


def test_pass_at_k_of_many_samples():
    # The product form of the HumanEval harness.
    wanted = 1 - math.prod(1 - 10 / n for n in range(200 - 3 + 1, 201))
    assert pass_at_k(200, 3, 10) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((3, 4, 1), "4 of 3"), ((3, 1, 4), "at least 4"), ((3, 1, 0), "k from 1")],
)
def test_impossible_numbers_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        pass_at_k(*arguments)


@pytest.mark.parametrize(
    ("passed", "count", "low", "high"),
    [  # Newcombe 1998, table I, method 3; the first two of the end points by hand
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval(passed, count, low, high):
    assert wilson_interval(passed, count) == pytest.approx((low, high), abs=1e-4)


def test_an_interval_is_never_empty():
    for count in (1, 2, 64, 1000):
        for passed in range(0, count + 1, max(1, count // 7)):
            low, high = wilson_interval(passed, count)
            assert 0.0 <= low < high <= 1.0 and low <= passed / count <= high
    assert wilson_interval(0, 0) == (0.0, 1.0)
    # A mean of shares lies between those of the counts around it.
    assert wilson_interval(3, 9) < wilson_interval(3.5, 9) < wilson_interval(4, 9)
    with pytest.raises(InputError, match="11 of 10"):
        wilson_interval(11, 10)


def test_aup_is_a_plain_area_while_nothing_is_lost():
    assert accuracy_under_parallelism([(1.0, 1.0)]) == pytest.approx(100)
    # 1 x 50, then a trapezium of height 50 and width 2; order does not matter.
    assert accuracy_under_parallelism([(3.0, 0.5), (1.0, 0.5)]) == pytest.approx(150)


def test_aup_weighs_what_is_lost():
    lost = 48 * math.exp(-3 * (1 - 48 / 50))
    wanted = 50 + (2 - 1) * (50 + lost) / 2
    points = [(1.0, 0.50), (2.0, 0.48), (9.0, 0.44)]  # the last is too bad to count
    assert accuracy_under_parallelism(points) == pytest.approx(wanted)
    # Beside a better system, all of it counts less.
    assert accuracy_under_parallelism(points, best=0.9) < wanted
    assert accuracy_under_parallelism([(1.0, 0.0), (2.0, 0.0)]) == 0.0


def test_aup_takes_points_that_there_are():
    with pytest.raises(InputError, match="no points"):
        accuracy_under_parallelism([])
    with pytest.raises(InputError, match="above 0"):
        accuracy_under_parallelism([(0.0, 0.5)])
