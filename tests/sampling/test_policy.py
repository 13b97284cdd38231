"""What is accepted: tables, plain Python on random rows, forced progress, ties."""

import dataclasses
import json
import math
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.config import coerce, to_dict
from seedjax.errors import InputError
from seedjax.sampling.candidates import Candidates, rank
from seedjax.sampling.policy import (
    AnyOf,
    ConfidenceThreshold,
    EntropyBound,
    FixedCount,
    LeftToRight,
    Policy,
    StochasticOrder,
    SubBlocks,
    TimeSchedule,
    for_hole,
)
from seedjax.sampling.proposal import Proposal, propose

EVERY_POLICY = [
    *(FixedCount(by=by) for by in ("confidence", "margin", "entropy")),
    *(ConfidenceThreshold(by=by) for by in ("confidence", "margin", "entropy")),
    EntropyBound(),
    EntropyBound(by="margin"),
    LeftToRight(),
    LeftToRight(threshold=None),
    FixedCount(of="masked"),
    TimeSchedule(steps_per_block=1),
    SubBlocks(size=2),
    StochasticOrder(),
    StochasticOrder(policy=EntropyBound(by="margin"), temperature=0.3),
    StochasticOrder(policy=TimeSchedule(steps_per_block=1)),
    AnyOf(policies=(ConfidenceThreshold(), LeftToRight(threshold=None))),
]


def keys(count: int):
    return jax.random.split(jax.random.key(1), count)


def proposal_of(confidence, *, margin=None, entropy=None) -> Proposal:
    confidence = jnp.asarray(confidence, jnp.float32)
    margin, entropy = (
        jnp.zeros_like(confidence) if numbers is None else jnp.asarray(numbers)
        for numbers in (margin, entropy)
    )
    return Proposal(
        tokens=jnp.zeros(confidence.shape, jnp.int32),
        confidence=confidence,
        margin=margin.astype(jnp.float32),
        entropy=entropy.astype(jnp.float32),
        standing=jnp.zeros_like(confidence),
    )


def candidates_of(proposal: Proposal, masked, *, step: int = 0, num_masked=None):
    masked = jnp.asarray(masked, bool)
    if num_masked is None:
        num_masked = masked.sum(axis=1)
    return Candidates(
        proposal=proposal,
        masked=masked,
        keys=keys(len(masked)),
        step=jnp.int32(step),
        num_masked=jnp.asarray(num_masked, jnp.int32),
    )


def accepted(policy, confidence, masked, **numbers) -> list[list[int]]:
    proposal = proposal_of(confidence, **numbers)
    return policy.accept(candidates_of(proposal, masked)).astype(int).tolist()


class Rows(typing.NamedTuple):
    """Random rows. Numbers are multiples of 1/64, so that sums of them are exact and
    some are equal."""

    masked: list[list[bool]]
    confidence: list[list[float]]
    margin: list[list[float]]
    entropy: list[list[float]]

    @classmethod
    def draw(cls, seed: int, count: int = 64, length: int = 6) -> "Rows":
        generator = np.random.default_rng(seed)
        numbers = generator.integers(0, 65, (3, count, length)) / 64
        masked = generator.random((count, length)) < 0.7
        return cls(masked.tolist(), *(numbers * [[[1]], [[1]], [[2]]]).tolist())

    def __len__(self) -> int:
        return len(self.masked)


def assert_twins(policy, twin, rows: Rows) -> None:
    """`twin(waiting places, confidence, margin, entropy of a row)` names the places
    that are accepted."""
    got = accepted(
        policy,
        rows.confidence,
        rows.masked,
        margin=np.array(rows.margin),
        entropy=np.array(rows.entropy),
    )
    wanted = []
    for masked, *numbers in zip(*rows, strict=True):
        waiting = [place for place, flag in enumerate(masked) if flag]
        taken = twin(waiting, *numbers) if waiting else []
        wanted.append([int(place in taken) for place in range(len(masked))])
    assert got == wanted


def surest_first(waiting, certainties):
    return sorted(waiting, key=lambda place: (-certainties[place], place))


def chosen(by, confidence, margin, entropy):
    """The certainty that a policy goes by, and the sign its threshold has there."""
    if by == "entropy":
        return [-x for x in entropy], -1
    return {"confidence": confidence, "margin": margin}[by], 1


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        (4, [0, 0, 1, 0]),  # one a step: the surest of those masked
        (3, [0, 0, 1, 1]),  # the remainder goes to the first step
        (2, [0, 0, 1, 1]),
        (1, [1, 0, 1, 1]),  # never what is unmasked already
    ],
)
def test_fixed_count(steps, wanted):
    policy = FixedCount(steps_per_block=steps)
    got = accepted(policy, [[0.2, 0.9, 0.8, 0.5]], [[1, 0, 1, 1]])
    assert got == [wanted]


@pytest.mark.parametrize("by", ["confidence", "margin", "entropy"])
@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_fixed_count_goes_by_what_it_is_told(by, steps):
    def twin(waiting, *numbers):
        certainties, _ = chosen(by, *numbers)
        return surest_first(waiting, certainties)[: math.ceil(6 / steps)]

    assert_twins(FixedCount(steps_per_block=steps, by=by), twin, Rows.draw(steps))


def counts(policy, masked: list[bool]) -> list[int]:
    """How many positions each step of a block accepts, all equally sure."""
    left, taken = np.array([masked]), []
    start = left.sum(axis=1)
    proposal = proposal_of(np.full(left.shape, 0.5))
    for step in range(policy.most_steps(len(masked))):
        got = policy.accept(candidates_of(proposal, left, step=step, num_masked=start))
        left &= ~np.asarray(got)
        taken.append(int(got.sum()))
    return taken


@pytest.mark.representative("64-24-block-0", "8-1-block-0", "64-24-block-5")
@pytest.mark.parametrize("given", [0, 1, 5])
@pytest.mark.parametrize("of", ["block", "masked"])
@pytest.mark.parametrize(
    ("size", "steps"), [(32, 8), (32, 5), (32, 20), (4, 9), (64, 24), (8, 1)]
)
def test_fixed_count_gives_the_remainder_to_the_first_steps(size, steps, of, given):
    policy = FixedCount(steps_per_block=steps, of=of)
    assert policy.most_steps(size) == min(steps, size)
    given = min(given, size - 1)
    left = size - given
    shared = size if of == "block" else left
    schedule = [shared // steps + (i < shared % steps) for i in range(steps)]
    wanted = []
    for count in schedule[: policy.most_steps(size)]:
        wanted.append(min(count, left))
        left -= wanted[-1]
    assert left == 0
    masked = [False] * given + [True] * (size - given)
    assert counts(policy, masked) == wanted


@pytest.mark.parametrize(
    ("masked", "steps", "eps", "wanted"),
    [
        (10, 4, 1e-3, [2, 2, 2, 4]),
        (3, 1, 1e-3, [3]),
        # A share of less than one position accepts nothing.
        (4, 4, 1e-3, [0, 1, 1, 2]),
        (2, 5, 0.2, [0, 0, 0, 0, 2]),
    ],
)
def test_time_schedule(masked, steps, eps, wanted):
    policy = TimeSchedule(steps_per_block=steps, eps=eps)
    assert policy.most_steps(64) == steps
    assert counts(policy, [False, *[True] * masked]) == wanted


def test_time_schedule_by_chance():
    """At time 1 of 4 steps a quarter is accepted, within four standard deviations."""
    policy = TimeSchedule(steps_per_block=4, by="chance")
    got = np.mean(accepted(policy, np.zeros((64, 256)), np.ones((64, 256), bool)))
    share = 1 - (1 - 0.999 / 4)
    assert abs(got - share) < 4 * np.sqrt(share * (1 - share) / 64 / 256)
    first = accepted(policy, np.zeros((2, 8)), [[0] * 8, [1] * 8])
    assert first[0] == [0] * 8


def test_the_times_are_those_of_the_published_sampler():
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    for steps in (1, 2, 3, 7, 64, 100, 257, 512):
        times = torch.linspace(1, 1e-3, steps + 1)
        shares = TimeSchedule(steps_per_block=steps).shares
        for step, share in enumerate(shares[:-1]):
            exact = 1 - times[step + 1] / times[step]
            for masked in (1, 2, 3, 10, 64, 100, 255, 256, 512):
                wanted = int(torch.tensor(masked) / 1 * exact)
                assert int(np.float32(masked) * share) == wanted, (steps, step, masked)


def test_sub_blocks():
    policy = SubBlocks(policy=ConfidenceThreshold(threshold=0.8), size=2)
    confidence = [[0.4, 0.9, 0.9, 0.9]]
    masked, taken = np.ones((1, 4), bool), []
    while masked.any():
        got = np.array(accepted(policy, confidence, masked), bool)
        masked &= ~got
        taken.append(got[0].astype(int).tolist())
    assert taken == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]
    together = dataclasses.replace(policy, first_alone=False, size=3)
    assert accepted(together, confidence, [[1] * 4]) == [[0, 1, 1, 0]]
    assert accepted(policy, confidence, [[0] * 4]) == [[0] * 4]
    assert policy.most_steps(4) == 4


@pytest.mark.parametrize(
    ("threshold", "wanted"),
    [
        (0.5, [0, 0, 1, 1]),
        (0.51, [0, 0, 1, 0]),
        (0.95, [0, 0, 1, 0]),  # nobody is that sure: the surest goes ahead
        (0.0, [1, 0, 1, 1]),
    ],
)
def test_confidence_threshold(threshold, wanted):
    policy = ConfidenceThreshold(threshold=threshold)
    got = accepted(policy, [[0.2, 0.9, 0.8, 0.5]], [[1, 0, 1, 1]])
    assert got == [wanted]


@pytest.mark.parametrize("by", ["confidence", "margin", "entropy"])
@pytest.mark.parametrize("threshold", [0.25, 0.75, 1.0])
def test_threshold_goes_by_what_it_is_told(by, threshold):
    def twin(waiting, *numbers):
        certainties, sign = chosen(by, *numbers)
        sure = [place for place in waiting if certainties[place] >= sign * threshold]
        return sure or surest_first(waiting, certainties)[:1]

    policy = ConfidenceThreshold(threshold=threshold, by=by)
    assert_twins(policy, twin, Rows.draw(3))


@pytest.mark.parametrize(
    ("bound", "wanted"), [(0.05, [1, 0, 0]), (0.15, [1, 0, 1]), (0.31, [1, 1, 1])]
)
def test_entropy_bound_of_the_example(bound, wanted):
    got = accepted(
        EntropyBound(bound=bound),
        [[0.5] * 3],
        [[1] * 3],
        entropy=np.array([[0.1, 0.9, 0.2]]),
    )
    assert got == [wanted]


@pytest.mark.parametrize("by", ["confidence", "margin", "entropy"])
@pytest.mark.parametrize("bound", [0.0, 0.5, 2.0])
def test_entropy_bound(by, bound):
    def twin(waiting, confidence, margin, entropy):
        certainties, _ = chosen(by, confidence, margin, entropy)
        order, taken = surest_first(waiting, certainties), []
        for place in order:
            held = [entropy[other] for other in [*taken, place]]
            if sum(held) - max(held) > bound:
                break
            taken.append(place)
        return taken

    assert_twins(EntropyBound(bound=bound, by=by), twin, Rows.draw(5))


@pytest.mark.parametrize("by", ["confidence", "entropy"])
@pytest.mark.parametrize("threshold", [None, 0.0, 0.5, 1.0])
def test_left_to_right_accepts_a_prefix(threshold, by):
    def twin(waiting, *numbers):
        certainties, sign = chosen(by, *numbers)
        for count, place in enumerate(waiting):
            if count and (threshold is None or certainties[place] < sign * threshold):
                return waiting[:count]
        return waiting

    assert_twins(LeftToRight(threshold=threshold, by=by), twin, Rows.draw(6))


PARTS = (
    LeftToRight(threshold=0.5),
    ConfidenceThreshold(threshold=0.75),
    FixedCount(steps_per_block=3),
)


def test_any_of_takes_what_one_takes():
    rows, different = Rows.draw(8), 0
    union = accepted(AnyOf(policies=PARTS), rows.confidence, rows.masked)
    parts = [accepted(part, rows.confidence, rows.masked) for part in PARTS]
    for row in range(len(rows)):
        sets = [set(np.flatnonzero(part[row]).tolist()) for part in parts]
        assert set(np.flatnonzero(union[row]).tolist()) == set.union(*sets)
        different += sets[0] != sets[1]
    assert different > 5


def test_steps_of_policies_put_together():
    few, many = FixedCount(steps_per_block=4), ConfidenceThreshold()
    assert AnyOf(policies=(many, few)).most_steps(32) == 4
    assert StochasticOrder(policy=few).most_steps(32) == 4
    assert LeftToRight().most_steps(32) == 32


def test_stochastic_order_without_temperature_is_the_policy_itself():
    rows = Rows.draw(9)
    numbers = {"margin": np.array(rows.margin), "entropy": np.array(rows.entropy)}
    for by in ("confidence", "margin", "entropy"):
        for policy in (FixedCount(steps_per_block=3, by=by), EntropyBound(by=by)):
            wrapped = StochasticOrder(policy=policy, temperature=0.0)
            got, wanted = (
                accepted(each, rows.confidence, rows.masked, **numbers)
                for each in (wrapped, policy)
            )
            assert got == wanted


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("by", ["confidence", "margin", "entropy"])
def test_stochastic_order_draws_the_first_position_in_proportion(by, temperature):
    count, numbers = 20_000, np.array([0.6, 0.3, 0.1])
    wanted = numbers ** (1 / temperature) / (numbers ** (1 / temperature)).sum()
    tiled = np.broadcast_to(numbers, (count, 3))
    got = accepted(
        StochasticOrder(
            policy=FixedCount(steps_per_block=3, by=by), temperature=temperature
        ),
        tiled if by == "confidence" else np.zeros((count, 3)),
        np.ones((count, 3), bool),
        margin=tiled if by == "margin" else None,
        entropy=-np.log(tiled) if by == "entropy" else None,
    )
    frequency = np.mean(got, axis=0)
    bound = 4 * np.sqrt(wanted * (1 - wanted) / count)  # four standard deviations
    assert (np.abs(frequency - wanted) < bound).all()


def test_an_order_is_not_drawn_with_the_noise_of_the_candidates():
    """The same keys are given to both."""
    draw = jax.jit(propose, static_argnames=("temperature", "top_k", "top_p"))
    proposal = draw(
        jnp.zeros((512, 2, 2)),
        keys(512),
        jnp.zeros((512, 2), jnp.int32),
        temperature=1.0,
        top_k=None,
        top_p=1.0,
    )
    policy = StochasticOrder(policy=FixedCount(steps_per_block=2))
    first = policy.accept(candidates_of(proposal, np.ones((512, 2))))[:, 0]
    drawn = proposal.tokens[:, 0] == 1
    # Independent halves agree in half of the rows, within four standard deviations.
    assert abs(np.mean(first == drawn) - 0.5) < 4 * 0.5 / np.sqrt(512)


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_rows_without_masks_accept_nothing_and_others_go_on(policy):
    # All numbers are at their least sure.
    got = accepted(
        policy,
        np.zeros((3, 4)),
        [[0] * 4, [0, 0, 1, 0], [1] * 4],
        entropy=np.full((3, 4), 9.0),
    )
    assert got[:2] == [[0, 0, 0, 0], [0, 0, 1, 0]]
    assert any(got[2])


def test_rank_breaks_ties_to_the_left_and_puts_unmasked_positions_last():
    ranks = rank(
        jnp.asarray([[0.2, 0.9, 0.9, 0.5]]), jnp.asarray([[True, False, True, True]])
    )
    assert ranks.tolist() == [[2, 3, 0, 1]]
    tied = rank(jnp.full((1, 5), 0.3), jnp.ones((1, 5), bool))
    assert tied.tolist() == [[0, 1, 2, 3, 4]]
    # A score of minus infinity still comes before what is unmasked.
    least = rank(jnp.asarray([[3.0, -jnp.inf]]), jnp.asarray([[False, True]]))
    assert least.tolist() == [[1, 0]]


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_policies_are_read_from_json(policy):
    written = json.loads(json.dumps(to_dict(policy)))
    assert coerce(Policy, written, "policy") == policy
    assert hash(policy) == hash(coerce(Policy, written, "policy"))


def test_recipes_from_before_there_was_a_choice_mean_what_they_meant():
    old = {"kind": "LeftToRight", "threshold": 0.8}
    assert coerce(Policy, old, "policy") == LeftToRight(threshold=0.8, by="confidence")


def test_a_hole_gets_the_steps_and_not_the_block():
    counted = FixedCount(steps_per_block=4, by="margin")
    wanted = FixedCount(steps_per_block=4, by="margin", of="masked")
    assert for_hole(counted) == wanted
    # Six masked positions of 32 in four steps.
    assert counts(wanted, [True] * 6 + [False] * 26) == [2, 2, 1, 1]
    ordered = StochasticOrder(policy=counted, temperature=0.5)
    assert for_hole(ordered).policy == wanted
    parts = AnyOf(policies=(LeftToRight(), counted))
    assert for_hole(parts) == AnyOf(policies=(LeftToRight(), wanted))
    assert for_hole(LeftToRight()) == LeftToRight()
    assert for_hole(SubBlocks()) == ConfidenceThreshold()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedCount(steps_per_block=0), "steps_per_block is 0"),
        (lambda: ConfidenceThreshold(threshold=1.5), "threshold is 1.5"),
        (
            lambda: ConfidenceThreshold(threshold=-0.5, by="entropy"),
            "threshold is -0.5; it must be 0 nats or more",
        ),
        (lambda: EntropyBound(bound=-1.0), "bound is -1.0"),
        (lambda: LeftToRight(threshold=-0.1), r"threshold is -0\.1.*or None"),
        (lambda: StochasticOrder(temperature=-1.0), "temperature is -1.0"),
        (lambda: TimeSchedule(steps_per_block=0), "steps_per_block is 0"),
        (lambda: TimeSchedule(eps=0.0), "eps is 0.0; it must be between 0 and 1"),
        (
            lambda: StochasticOrder(policy=TimeSchedule(by="chance")),
            "one that takes positions in order",
        ),
        (lambda: SubBlocks(size=0), "size is 0"),
        (lambda: AnyOf(policies=(FixedCount(),)), "it must be two or more of Fixed"),
    ],
)
def test_wrong_values_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
    assert ConfidenceThreshold(threshold=3.0, by="entropy").threshold == 3.0


@pytest.mark.parametrize(
    ("outer", "field", "inner"),
    [
        ("StochasticOrder", "policy", {"kind": "LeftToRight"}),
        ("StochasticOrder", "policy", {"kind": "ConfidenceThreshold"}),
        ("AnyOf", "policies", [{"kind": "StochasticOrder"}, {"kind": "LeftToRight"}]),
    ],
)
def test_combinations_without_a_meaning_are_refused(outer, field, inner):
    with pytest.raises(InputError, match=f"policy.{field}.*expected one of FixedCount"):
        coerce(Policy, {"kind": outer, field: inner}, "policy")


@pytest.mark.parametrize(
    ("outer", "field", "value", "message"),
    [
        (StochasticOrder, "policy", LeftToRight(), "one that takes positions in order"),
        (AnyOf, "policies", (LeftToRight(), StochasticOrder()), "two or more of Fixed"),
    ],
)
def test_combinations_are_refused_without_the_checks_of_types(
    outer, field, value, message
):
    # Here such a call fails earlier, in the type checks that only tests install.
    policy = object.__new__(outer)
    object.__setattr__(policy, field, value)
    with pytest.raises(InputError, match=f"{outer.__name__}.{field} is .*{message}"):
        policy.__post_init__()
