"""Where an answer ends."""

import jax.numpy as jnp
import pytest

from seedjax.errors import InputError
from seedjax.sampling.stopping import (
    IgnoreEos,
    StopAtEos,
    after_first,
    before_first,
    is_any_of,
)


def test_after_and_before_the_first_flag():
    flags = jnp.asarray([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
    assert after_first(flags).astype(int).tolist() == [
        [0, 0, 1, 1],
        [0, 0, 0, 0],
        [0, 1, 1, 1],
    ]
    assert before_first(flags).astype(int).tolist() == [
        [1, 0, 0, 0],
        [1, 1, 1, 1],
        [0, 0, 0, 0],
    ]


def test_is_any_of():
    tokens = jnp.asarray([[3, 4, 5]], jnp.int32)
    assert is_any_of(tokens, (3, 5)).tolist() == [[True, False, True]]
    assert is_any_of(tokens, ()).tolist() == [[False, False, False]]


def test_where_the_end_is_allowed():
    index = jnp.asarray([[-1, 0, 1, 2]], jnp.int32)
    stop = StopAtEos(min_new_tokens=2)
    assert stop.allows(index).tolist() == [[False, False, False, True]]
    assert StopAtEos().allows(index)[:, 1:].all()
    assert not IgnoreEos().allows(index).any()
    with pytest.raises(InputError, match="min_new_tokens is -1"):
        StopAtEos(min_new_tokens=-1)
