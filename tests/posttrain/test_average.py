"""The mean of models: computed weight by weight, refused where it makes no sense."""

import numpy as np
import pytest

from seedjax.errors import InputError
from seedjax.posttrain.average import average_models, average_params


def test_the_mean_is_weighted():
    trees = [{"a": np.float32([0.0, 4.0])}, {"a": np.float32([4.0, 0.0])}]
    np.testing.assert_allclose(average_params(trees, [1.0, 3.0])["a"], [3.0, 1.0])


@pytest.mark.parametrize("shares", [[1.0], [1.0, -1.0], [0.0, 0.0]])
def test_shares_that_make_no_mean_are_refused(shares):
    with pytest.raises(InputError, match="give each model one"):
        average_params([{}, {}], shares)


def test_a_single_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="give at least two"):
        average_models(["mini"], tmp_path)
