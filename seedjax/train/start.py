"""The start of a training run: weights of other models, in the run's layout."""

import dataclasses
from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from seedjax.checkpoints.model_directory import ModelDirectory, open_model
from seedjax.config import DenoiserConfig
from seedjax.data.trajectories import TrajectoryConfig
from seedjax.errors import InputError
from seedjax.nn import denoiser
from seedjax.text.loading import load_tokenizer
from seedjax.train.config import RunConfig
from seedjax.train.state import params_shardings
from seedjax.train.step import Frozen, Teacher
from seedjax.typing import Params


def initial_params(run: RunConfig, mesh: Mesh | None = None) -> Params:
    """Weights of the model that the run starts from, in the layer layout of the run.

    Args:
      run: the recipe.
      mesh: where they go, each part straight to its device; None is one device.

    Raises:
      InputError: when its shapes or its tokenizer are not those of the run.
    """
    directory = open_model(run.init_from)
    check_tokenizer(run, "init_from", directory)
    if isinstance(run.data, TrajectoryConfig):
        run.data.check_model(directory.digest())
    if not run.init_layers:
        return read_params(directory, run.model, mesh)
    depth = directory.denoiser.num_layers
    if not all(0 <= layer < depth for layer in run.init_layers):
        raise InputError(
            f"init_layers is {run.init_layers}; {run.init_from!r} has the layers 0 to "
            f"{depth - 1}"
        )
    whole = dataclasses.replace(run.model, num_layers=depth, layer_loop="unroll")
    params = choose_layers(read_params(directory, whole, mesh), run.init_layers)
    scanned = run.model.layer_loop == "scan"
    return denoiser.stack_layers(params) if scanned else params


def choose_layers(params: Params, layers: Sequence[int]) -> Params:
    """A denoiser of the chosen layers, in their order, from one with unrolled layers;
    what is not a layer stays."""
    rest = {n: v for n, v in params.items() if not n.startswith("layers_")}
    chosen = {f"layers_{n}": params[f"layers_{old}"] for n, old in enumerate(layers)}
    return rest | chosen


def check_tokenizer(run: RunConfig, name: str, directory: ModelDirectory) -> None:
    """Raises:
    InputError: when a model's tokenizer is not that of the data.
    """
    theirs = load_tokenizer(directory.tokenizer)
    if theirs.fingerprint != run.data.tokenizer().fingerprint:
        raise InputError(
            f"{name} {getattr(run, name)!r} was trained with another tokenizer than "
            f"the data, {run.data.describe()}; build a corpus with --tokenizer "
            f"{str(directory.tokenizer)!r}"
        )


def read_params(
    directory: ModelDirectory, model: DenoiserConfig, mesh: Mesh | None = None
) -> Params:
    """The weights of a model, in the layer layout and the dtype of `model`, on `mesh`
    or on one device."""
    return directory.load_params(
        denoiser.abstract_params(model),
        dtype=model.param_dtype,
        shardings=None if mesh is None else params_shardings(model, mesh),
    )


def load_frozen(run: RunConfig, mesh: Mesh) -> Frozen:
    """The base of an adapter and the teacher, as far as the run has them, on `mesh`.

    Raises:
      InputError: when a model is missing, or teacher and student predict different
        positions or vocabularies.
    """
    base = teacher = None
    if run.lora is not None:
        base = jax.device_put(
            initial_params(run, mesh), params_shardings(run.model, mesh)
        )
    if run.teacher:
        directory = open_model(run.teacher)
        check_tokenizer(run, "teacher", directory)
        config = directory.denoiser
        for name in ("attention", "logit_alignment", "block_size", "vocab_size"):
            theirs, ours = getattr(config, name), getattr(run.model, name)
            if theirs != ours:
                raise InputError(
                    f"the teacher {run.teacher!r} has {name} {theirs!r} and the "
                    f"student {ours!r}; they must agree"
                )
        teacher = Teacher(read_params(directory, config, mesh), config)
    return Frozen(base, teacher)
