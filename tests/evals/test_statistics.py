"""pass@k against all draws, the bootstrap against the normal interval, AUP by hand."""

import itertools
import math

import pytest

from seedjax.errors import InputError
from seedjax.evals.statistics import (
    accuracy_under_parallelism,
    bootstrap_interval,
    pass_at_k,
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


def test_bootstrap_is_near_the_normal_interval():
    values = [1.0] * 60 + [0.0] * 100
    low, high = bootstrap_interval(values)
    half = 1.96 * math.sqrt(0.375 * 0.625 / 160)
    assert low == pytest.approx(0.375 - half, abs=0.01)
    assert high == pytest.approx(0.375 + half, abs=0.01)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval([0.25] * 9) == (0.25, 0.25)
    with pytest.raises(InputError, match="no problems"):
        bootstrap_interval([])


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
