"""Credit against a plain version that keeps all of [B, L, V]."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.errors import InputError
from seedjax.sampling.credit import Credit, Credits

SIZE, SHAPE = 12, (2, 5)


@jax.jit
def look(credits: Credits, logits, undecided):
    recipe = Credit(slots=credits.values.shape[-1])
    credits = recipe.update(credits, logits, undecided)
    return credits, recipe.apply(credits, logits, undecided)


def looks(seed: int, count: int):
    """Logits and undecided positions of some steps. What is decided may be masked
    again."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        undecided = generator.random(SHAPE) < 0.8
        logits = 2 * generator.normal(size=(*SHAPE, SIZE)).astype(np.float32)
        logits[:, :, 0] = -np.inf
        yield logits, undecided


class PlainCredit:
    """One number for every token of every position."""

    def __init__(self):
        self.credit = np.zeros((*SHAPE, SIZE))

    def look(self, logits, undecided):
        logits = logits.astype(np.float64)
        self.credit *= 0.8
        raised = logits.copy()
        for place in np.argwhere(undecided):
            place = tuple(place)
            probabilities = np.exp(logits[place]) / np.exp(logits[place]).sum()
            first = np.argmax(probabilities)
            self.credit[place][first] += probabilities[first] ** 0.2
            raised[place] += 0.7 * np.log(1 + self.credit[place])
        return raised


@pytest.mark.parametrize("slots", [9, 16])
def test_credit_is_that_of_all_tokens(slots):
    credits, plain = Credit(slots=slots).start(*SHAPE), PlainCredit()
    for logits, undecided in looks(slots, count=9):
        credits, raised = look(credits, jnp.asarray(logits), jnp.asarray(undecided))
        wanted = plain.look(logits, undecided)
        np.testing.assert_allclose(raised, wanted, atol=1e-5)
        # What is decided is left to the model, what is forbidden stays so.
        np.testing.assert_array_equal(
            np.asarray(raised)[~undecided], logits[~undecided]
        )
    assert (plain.credit > 0).sum(-1).max() > 4  # several tokens came first somewhere


def test_the_example():
    logits = jnp.log(jnp.full((1, 1, 2), 0.5))
    credits = Credit().start(1, 1)
    for value, sure in [(0.8706, 0.6078), (1.567, 0.6593)]:
        credits, raised = look(credits, logits, jnp.ones((1, 1), bool))
        np.testing.assert_allclose(credits.values[0, 0, 0], value, rtol=1e-3)
        probabilities = jax.nn.softmax(raised[0, 0])
        np.testing.assert_allclose(probabilities[0], sure, rtol=1e-3)


def test_with_too_few_slots_the_least_credit_is_forgotten():
    """The first places of four steps: 1, 1, 2, 3. At two slots the last one takes that
    of token 2, which came first once and earlier."""
    credits = Credit(slots=2).start(1, 1)
    for token in (1, 1, 2, 3):
        logits = jnp.zeros((1, 1, 4)).at[0, 0, token].set(3.0)
        credits, _ = look(credits, logits, jnp.ones((1, 1), bool))
    assert sorted(credits.tokens[0, 0].tolist()) == [1, 3]
    gain = float(jax.nn.softmax(logits[0, 0])[3]) ** 0.2
    wanted = {1: gain * (0.8**3 + 0.8**2), 3: gain}
    pairs = zip(*(x[0, 0].tolist() for x in credits), strict=True)
    assert dict(pairs) == pytest.approx(wanted, rel=1e-5)


def test_no_array_of_the_size_of_the_vocabulary_is_kept():
    credits = Credit(slots=4).start(2, 8)
    assert [x.shape for x in credits] == [(2, 8, 4), (2, 8, 4)]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("alpha", -0.1, r"alpha is -0\.1; it must be 0 or more"),
        ("beta", 1.5, r"beta is 1\.5; it must be in \[0, 1\]"),
        ("gamma", -1.0, r"gamma is -1\.0; it must be 0 or more"),
        ("slots", 0, "slots is 0; it must be at least 1"),
    ],
)
def test_wrong_values_are_refused(field, value, message):
    with pytest.raises(InputError, match=message):
        Credit(**{field: value})
