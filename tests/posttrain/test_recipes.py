"""What recipes of post-training start from."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from seedjax.diffusion.constrained_order import ConstrainedOrder
from seedjax.diffusion.objective import Autoregressive
from seedjax.errors import InputError
from seedjax.inference.loading import load
from seedjax.nn import denoiser
from seedjax.posttrain import recipes
from seedjax.train.start import initial_params


def same(left, right):
    return jax.tree.all(jax.tree.map(np.array_equal, left, right))


def test_a_student_starts_from_layers_of_its_teacher():
    run = recipes.distillation("mini")
    assert run.teacher == run.init_from == "mini"
    assert run.model.num_layers == 2 and run.init_layers == (0, 2)
    teacher = load("mini", dtype="float32", quantization=None).params
    student = initial_params(run)
    assert same(student["layers_0"], teacher["layers_0"])
    assert same(student["layers_1"], teacher["layers_2"])
    assert "layers_2" not in student and same(
        student["embedding"], teacher["embedding"]
    )

    scanned = dataclasses.replace(run.model, layer_loop="scan")
    stacked = initial_params(dataclasses.replace(run, model=scanned))
    assert same(denoiser.unstack_layers(stacked), student)


def test_layers_that_are_not_there():
    with pytest.raises(InputError, match="a student of 9 layers cannot start from"):
        recipes.distillation("mini", num_layers=9)
    run = recipes.distillation("mini")
    with pytest.raises(InputError, match="has the layers 0 to 3"):
        initial_params(dataclasses.replace(run, init_layers=(0, 4)))
    with pytest.raises(InputError, match="one for each of model.num_layers=2"):
        dataclasses.replace(run, init_layers=(0,))
    with pytest.raises(InputError, match="unset where there is no init_from"):
        dataclasses.replace(run, init_from="")


def test_the_order_of_a_causal_model_is_its_next_tokens(monkeypatch):
    """It has no other one, so its kept completions are learned as they stand."""
    shape = recipes.trainable_shape("mini")
    manifest = types.SimpleNamespace(block_size=shape.block_size)
    monkeypatch.setattr(recipes, "read_manifest", lambda folder: manifest)
    assert isinstance(
        recipes.constrained_order("mini", "x").objective, ConstrainedOrder
    )
    causal = {"attention": "causal", "logit_alignment": "shifted"}
    shape = dataclasses.replace(shape, **causal)
    monkeypatch.setattr(recipes, "trainable_shape", lambda name: shape)
    assert recipes.constrained_order("mini", "x").objective == Autoregressive()
