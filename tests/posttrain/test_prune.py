import dataclasses

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.errors import InputError
from seedjax.inference.loading import load
from seedjax.nn import denoiser
from seedjax.posttrain import recipes
from seedjax.posttrain.prune import prune_model, prune_params, sparsity
from seedjax.train.run import train


def test_the_smallest_weights_go(tiny_config):
    params = compiled.init(jax.random.key(0), tiny_config)
    pruned = prune_params(params, "magnitude", 0.3)
    kernel, after = (
        np.asarray(tree["layers_0"]["mlp"]["up"]["kernel"]) for tree in (params, pruned)
    )
    gone = after == 0
    assert gone.sum() == round(0.3 * kernel.size)
    assert np.abs(kernel[gone]).max() <= np.abs(kernel[~gone]).min()
    np.testing.assert_array_equal(after[~gone], kernel[~gone])
    np.testing.assert_array_equal(pruned["embedding"], params["embedding"])
    assert sparsity(pruned) == pytest.approx(0.3, abs=0.01)


def test_two_of_four(tiny_config):
    params = compiled.init(jax.random.key(0), tiny_config)
    pruned = prune_params(params, "2:4", 0.5)
    kernel = np.asarray(params["layers_1"]["attention"]["query"]["kernel"])
    after = np.asarray(pruned["layers_1"]["attention"]["query"]["kernel"])
    for row in range(kernel.shape[0]):
        for start in range(0, kernel.shape[1], 4):
            four = kernel[row, start : start + 4]
            kept = np.sort(np.argsort(np.abs(four))[2:])
            wanted = np.zeros(4)
            wanted[kept] = four[kept]
            np.testing.assert_array_equal(after[row, start : start + 4], wanted)
    assert sparsity(pruned) == 0.5


def test_scanned_layers_are_pruned_one_by_one(tiny_config):
    params = compiled.init(jax.random.key(0), tiny_config)
    together = prune_params(denoiser.stack_layers(params), "magnitude", 0.4)
    apart = prune_params(params, "magnitude", 0.4)
    jax.tree.map(
        np.testing.assert_array_equal, denoiser.unstack_layers(together), dict(apart)
    )


@pytest.mark.slow
def test_zeros_stay_zeros_in_training(lab_model_directory, tmp_path):
    prune_model(lab_model_directory, tmp_path / "pruned")
    run = recipes.pruned(str(tmp_path / "pruned"))
    run = dataclasses.replace(
        run,
        data=dataclasses.replace(run.data, vocabulary="mini", sequence_length=512),
        num_steps=3,
        eval_every=3,
        eval_batches=1,
        eval_samples=1,
        weights_dtype="float32",
    )
    train(run, tmp_path / "out")
    before, after = load(str(tmp_path / "pruned")), load(str(tmp_path / "out"))
    assert sparsity(after.params) == 0.5
    kernels = [
        model.params["layers_0"]["mlp"]["gate"]["kernel"] for model in (before, after)
    ]
    np.testing.assert_array_equal(*(kernel == 0 for kernel in kernels))
    assert jnp.abs(kernels[0] - kernels[1]).max() > 0


def test_refusals(tiny_config):
    params = compiled.init(jax.random.key(0), tiny_config)
    with pytest.raises(InputError, match="share is 1"):
        prune_params(params, "magnitude", 1.0)
    odd = dataclasses.replace(tiny_config, mlp_size=30)
    with pytest.raises(InputError, match="down.kernel has 30 inputs"):
        prune_params(compiled.init(jax.random.key(0), odd), "2:4", 0.5)
