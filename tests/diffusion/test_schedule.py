import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.diffusion.schedule import (
    Cosine,
    Linear,
    LogLinear,
    corruption_ceiling,
    sample_times,
)
from seedjax.errors import InputError

SCHEDULES = [Linear(), Cosine(), LogLinear(), LogLinear(floor=0.2)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_rate_is_the_derivative(schedule):
    t = jnp.linspace(0.01, 0.99, 50)
    rate = jax.vmap(jax.grad(lambda x: schedule.gamma(x)))(t)
    np.testing.assert_allclose(schedule.gamma_rate(t), rate, rtol=1e-5)
    np.testing.assert_allclose(schedule.weight(t), rate / schedule.gamma(t), rtol=1e-5)
    assert (rate > 0).all()


@pytest.mark.parametrize(
    ("schedule", "t", "gamma", "weight"),
    [
        (Linear(), 0.25, 0.25, 4.0),
        (Cosine(), 1 / 3, 0.5, np.pi / 2 * np.sqrt(3)),
        (LogLinear(floor=0.1), 0.5, 0.45, 2.0),
    ],
)
def test_closed_form(schedule, t, gamma, weight):
    t = jnp.float32(t)
    assert schedule.gamma(t) == pytest.approx(gamma, rel=1e-5)
    assert schedule.weight(t) == pytest.approx(weight, rel=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_range(schedule):
    assert schedule.gamma(jnp.float32(0)) == 0.0
    end = 1.0 - getattr(schedule, "floor", 0.0)
    assert schedule.gamma(jnp.float32(1)) == pytest.approx(end, abs=1e-6)


def test_one_time_in_each_part():
    for seed in range(20):
        times = sample_times(jax.random.key(seed), 16, low=0.2, high=0.6)
        part = np.floor((np.array(times) - 0.2) / 0.4 * 16 + 1e-4)
        assert sorted(part % 16) == list(range(16))


def test_each_time_is_uniform():
    keys = jax.random.split(jax.random.key(0), 4000)
    times = jax.vmap(lambda key: sample_times(key, 3))(keys)
    # Mean 1/2, variance 1/12: five standard errors.
    np.testing.assert_allclose(times.mean(0), 0.5, atol=5 / np.sqrt(12 * 4000))
    np.testing.assert_allclose((times < 0.1).mean(0), 0.1, atol=5 * 0.3 / 4000**0.5)


@pytest.mark.parametrize(
    ("progress", "warmup", "ceiling"),
    [(0.0, 0.2, 0.01), (0.1, 0.2, 0.505), (0.2, 0.2, 1.0), (0.9, 0.2, 1.0), (0, 0, 1)],
)
def test_ceiling(progress, warmup, ceiling):
    got = corruption_ceiling(float(progress), warmup=float(warmup), initial=0.01)
    assert got == pytest.approx(ceiling)


def test_bad_floor():
    with pytest.raises(InputError, match="LogLinear.floor is 1.0"):
        LogLinear(floor=1.0)
