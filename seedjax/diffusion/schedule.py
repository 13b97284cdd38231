"""When and how much is masked: noise schedules, times of a batch, corruption warm-up.

A schedule maps a time t in [0, 1] to gamma(t), the probability that a token is masked
at that time. gamma rises from 0 to (about) 1. The mask ELBO weighs the cross-entropy of
the masked positions by gamma'(t) / gamma(t) (Seed Diffusion, arXiv 2508.02193, Eq. 6;
MDLM, arXiv 2406.07524, Eq. 10; MD4, arXiv 2406.04329). Integrated over t, that
loss does not depend on the schedule; its variance does.

Not here: which tokens are masked (see `corruption`).
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from seedjax.config import require
from seedjax.typing import Array, Float32, PRNGKey


@dataclass(frozen=True, kw_only=True)
class Linear:
    """gamma(t) = t: the share of masked tokens is uniform over the examples."""

    def gamma(self, t: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """Probability that a token is masked at time t."""
        return t

    def gamma_rate(self, t: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """Derivative of `gamma`."""
        return jnp.ones_like(t)

    def weight(self, t: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """gamma' / gamma, the weight of a masked position at time t > 0."""
        return 1.0 / t


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """gamma(t) = cos(pi/2 (1 - t)) (MD4): most examples are heavily masked, and the
    masking slows down towards t = 1, which tames the weight there."""

    def gamma(self, t: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """Probability that a token is masked at time t."""
        # sin(pi/2 t) is the same curve, without the rounding error of 1 - t near t = 0.
        return jnp.sin(math.pi / 2 * t)

    def gamma_rate(self, t: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """Derivative of `gamma`."""
        return math.pi / 2 * jnp.cos(math.pi / 2 * t)

    def weight(self, t: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """gamma' / gamma, the weight of a masked position at time t > 0."""
        return self.gamma_rate(t) / self.gamma(t)


@dataclass(frozen=True, kw_only=True)
class LogLinear:
    """gamma(t) = (1 - floor) t, the "log-linear" schedule of SEDD and MDLM.

    Its name comes from the total noise -log(1 - gamma). It is the linear schedule,
    except that a share `floor` of the tokens stays visible even at t = 1.
    """

    floor: float = 1e-3  # share of tokens still visible at t = 1

    def __post_init__(self):
        require(0.0 <= self.floor < 1.0, self, "floor", "in [0, 1)")

    def gamma(self, t: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """Probability that a token is masked at time t."""
        return (1.0 - self.floor) * t

    def gamma_rate(self, t: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """Derivative of `gamma`."""
        return jnp.full_like(t, 1.0 - self.floor)

    def weight(self, t: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """gamma' / gamma, the weight of a masked position at time t > 0."""
        return 1.0 / t


Schedule = Linear | Cosine | LogLinear


def sample_times(
    key: PRNGKey,
    count: int,
    *,
    low: float | Float32[Array, ""] = 0.0,
    high: float | Float32[Array, ""] = 1.0,
) -> Float32[Array, " {count}"]:
    """`count` times that are each uniform on [low, high) and together cover it evenly.

    Entry i is low + (high - low) * ((i / count + u) mod 1) with one uniform u for all,
    so each of the `count` equal parts of the interval holds exactly one time. The mean
    over a batch then varies far less than with independent times.

    Example: for count = 4 and u = 0.3 the times are 0.3, 0.55, 0.8 and 0.05.
    """
    offset = jax.random.uniform(key, ())
    unit = (jnp.arange(count, dtype=jnp.float32) / count + offset) % 1.0
    return low + (high - low) * unit


def corruption_ceiling(
    progress: float | Float32[Array, ""], *, warmup: float, initial: float
) -> Float32[Array, ""]:
    """Largest time that may be drawn after the share `progress` of the run.

    The ceiling rises linearly from `initial` to 1 over the first `warmup` of the run
    (Stable-DiffCoder, arXiv 2601.15892: u_max = u_init + (1 - u_init) s / S_warmup), so
    a model that comes from next-token training meets masks a few at a time. While it
    rises, the objective also drops the weight gamma' / gamma.

    Example: warmup = 0.1, initial = 0 gives 0.5 at progress 0.05 and 1 from 0.1 on.
    """
    if warmup == 0.0:
        return jnp.ones((), jnp.float32)
    share = jnp.clip(jnp.asarray(progress, jnp.float32) / warmup, 0.0, 1.0)
    return initial + (1.0 - initial) * share
