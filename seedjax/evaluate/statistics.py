"""pass@k, its interval, and quality against speed in one number, of verdicts."""

import math
from collections.abc import Sequence

from seedjax.errors import InputError

ALPHA = 3.0  # of AUP: how hard a loss of accuracy is punished
TOLERANCE = 5.0  # of AUP: percentage points that a point may lose to the slowest one


def pass_at_k(num_samples: int, num_passed: int, k: int) -> float:
    """The probability that of `k` samples, drawn without replacement from those of a
    problem, at least one passes: `1 - C(n - c, k) / C(n, k)` (arXiv 2107.03374,
    equation 1). It is the unbiased estimate of pass@k from n samples with c passes.

    Example: of 4 samples 1 passes; two drawn hold it in 1 - 3/6 = 0.5 of all cases.

    Raises:
      InputError: for more passes than samples, or a k that is not in 1 to n.
    """
    if not 0 <= num_passed <= num_samples:
        raise InputError(
            f"{num_passed} of {num_samples} samples passed; it must be 0 to all"
        )
    if not 1 <= k <= num_samples:
        raise InputError(
            f"pass@{k} takes at least {max(k, 1)} samples a problem (k from 1), got "
            f"{num_samples}"
        )
    # math.comb is exact, and 0 where k is larger than what failed.
    failed = math.comb(num_samples - num_passed, k)
    return 1.0 - failed / math.comb(num_samples, k)


def wilson_interval(passed: float | int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a rate (Wilson 1927): of every rate that is printed.
    It is never empty: 0 of 10 is 0 to 27.8 %.

    The mean over problems of a pass@k of several samples each is no count, but lies in
    [0, 1]; its variance is at most that of a count. Its interval spans those of the
    counts around it.

    Args:
      passed: how many of `count` passed, or the sum of their pass@k.
      count: of problems: the samples of one are not independent.

    Returns:
      Both ends, in [0, 1]; all of it where there are no problems.

    Raises:
      InputError: for more passes than problems.
    """
    if not 0 <= passed <= count + 1e-9:
        raise InputError(f"{passed} of {count} passed; it must be 0 to all")
    if not count:
        return 0.0, 1.0
    # scipy takes long to import, and only whole numbers of passes.
    from scipy.stats import binomtest

    whole = round(passed)
    exact = math.isclose(passed, whole, abs_tol=1e-9)
    least, most = (whole, whole) if exact else (math.floor(passed), math.ceil(passed))
    low, high = (
        binomtest(k, count).proportion_ci(method="wilson") for k in (least, most)
    )
    return max(0.0, float(low.low)), min(1.0, float(high.high))


def accuracy_under_parallelism(
    points: Sequence[tuple[float, float]], *, best: float | None = None
) -> float:
    """AUP of d3LLM (arXiv 2601.07568): the area under accuracy against tokens per
    forward, in which accuracy that was lost counts less.

        AUP = r1 y1 + sum (r[i] - r[i-1]) (y[i] w(y[i]) + y[i-1] w(y[i-1])) / 2
        w(y) = min(1, exp(-3 (1 - y / best)))

    over points in order of speed; those more than 5 points below the slowest one are
    left out. A model that gains no speed has AUP r1 y1: 100 for a perfect one at one
    token per forward pass.

    Args:
      points: tokens per forward, and the share of problems solved in [0, 1].
      best: the highest share that any of the compared systems reaches; None takes the
        best of these points.

    Raises:
      InputError: for no points, or a speed that is not above 0.
    """
    if not points:
        raise InputError("no points to take an area under; measure at least one")
    if any(speed <= 0 for speed, _ in points):
        raise InputError("a point has no tokens per forward; it must be above 0")
    ordered = sorted((speed, 100 * share) for speed, share in points)
    top = max(share for _, share in ordered) if best is None else 100 * best
    if top <= 0:
        return 0.0
    kept = [(r, y) for r, y in ordered if y >= ordered[0][1] - TOLERANCE]

    def weighted(accuracy: float) -> float:
        return accuracy * min(1.0, math.exp(-ALPHA * (1 - accuracy / top)))

    area = kept[0][0] * kept[0][1]
    for (slow, before), (fast, after) in zip(kept, kept[1:], strict=False):
        area += (fast - slow) * (weighted(before) + weighted(after)) / 2
    return area
