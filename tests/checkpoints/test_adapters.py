"""Training an adapter, keeping it, and putting it on its base."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

import seedjax
from seedjax.checkpoints.adapters import FILE
from seedjax.errors import InputError
from seedjax.nn.lora import LoRA
from seedjax.train.run import train


@pytest.fixture
def runs(tiny_run, tmp_path):
    """A base, and the recipe of an adapter of it."""
    base = dataclasses.replace(tiny_run, num_steps=2, eval_every=2)
    train(base, tmp_path / "base")
    adapter = dataclasses.replace(
        base,
        num_steps=4,
        eval_every=4,
        init_from=str(tmp_path / "base"),
        lora=LoRA(rank=2),
    )
    return tmp_path, adapter


@pytest.mark.slow
def test_an_adapter_is_its_merged_model(runs):
    folder, recipe = runs
    train(recipe, folder / "tuned")
    base = seedjax.load(str(folder / "base"))
    merged = seedjax.load(str(folder / "tuned"))
    put_on = seedjax.load(str(folder / "base"), adapter=str(folder / "tuned/adapter"))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        put_on.params,
        merged.params,
    )
    kernels = [
        np.asarray(model.params["layers_0"]["attention"]["query"]["kernel"])
        for model in (base, merged)
    ]
    change = kernels[1] - kernels[0]
    assert np.linalg.matrix_rank(change, tol=1e-6) == 2
    np.testing.assert_array_equal(base.params["embedding"], merged.params["embedding"])
    # It goes on where it stopped.
    longer = train(recipe, folder / "tuned", resume=True)
    assert longer.finished and longer.step == 4

    stranger = folder / "stranger"
    train(dataclasses.replace(recipe, lora=None, num_steps=1, eval_every=1), stranger)
    with pytest.raises(InputError, match="was trained for"):
        seedjax.load(str(stranger), adapter=str(folder / "tuned/adapter"))
    with pytest.raises(InputError, match=f"has no {FILE}"):
        seedjax.load(str(folder / "base"), adapter=str(folder / "base"))


@pytest.mark.slow
def test_an_adapter_can_be_kept_apart(runs):
    folder, recipe = runs
    apart = dataclasses.replace(
        recipe, num_steps=1, eval_every=1, lora=LoRA(rank=2, merge=False)
    )
    train(apart, folder / "apart")
    assert not (folder / "apart" / "config.json").exists()
    alone = folder / "adapter"
    shutil.copytree(folder / "apart" / "adapter", alone)
    model = seedjax.load(str(folder / "base"), adapter=str(alone))
    assert model.generate("def f", max_new_tokens=4).forwards > 0


def test_an_adapter_takes_a_base(tiny_run):
    with pytest.raises(InputError, match="no init_from to start from"):
        dataclasses.replace(tiny_run, lora=LoRA())
