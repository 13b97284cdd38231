"""The mean of models: computed weight by weight, refused where it makes no sense."""

import jax
import lab_model as random_model
import numpy as np
import pytest

from seedjax.errors import InputError
from seedjax.inference.loading import load
from seedjax.posttrain.average import average_models, average_params


def test_the_mean_is_weighted():
    trees = [{"a": np.float32([0.0, 4.0])}, {"a": np.float32([4.0, 0.0])}]
    np.testing.assert_allclose(average_params(trees, [1.0, 3.0])["a"], [3.0, 1.0])


@pytest.mark.slow
def test_the_mean_of_models_is_a_model(
    lab_model_directory, lab_model, lab_tokenizer, tmp_path
):
    other = random_model.save(
        tmp_path / "other", lab_tokenizer, seed=4, dtype="bfloat16", attention="causal"
    )
    average_models([lab_model_directory, other], tmp_path / "mean", shares=[3.0, 1.0])
    mean = load(str(tmp_path / "mean"))
    assert mean.config.block_size == lab_model.config.block_size
    assert mean.config.attention == lab_model.config.attention != "causal"
    jax.tree.map(
        # The weights are written in bfloat16.
        lambda mean, a, b: np.testing.assert_allclose(
            mean, 0.75 * a + 0.25 * b, rtol=0.01, atol=1e-4
        ),
        mean.params,
        lab_model.params,
        load(other).params,
    )
    assert "tiny, " in (tmp_path / "mean" / "README.md").read_text()


@pytest.mark.parametrize("shares", [[1.0], [1.0, -1.0], [0.0, 0.0]])
def test_shares_that_make_no_mean_are_refused(shares):
    with pytest.raises(InputError, match="give each model one"):
        average_params([{}, {}], shares)


def test_a_single_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="give at least two"):
        average_models(["mini"], tmp_path)


@pytest.mark.slow
def test_models_that_differ_are_refused(lab_model_directory, lab_tokenizer, tmp_path):
    other = random_model.save(tmp_path / "other", lab_tokenizer, block_size=2)
    with pytest.raises(InputError, match="has another recipe than"):
        average_models([lab_model_directory, other], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
