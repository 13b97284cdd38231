"""The state of training: one pytree, and how it lies on a mesh."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seedjax.config import DenoiserConfig
from seedjax.nn import denoiser
from seedjax.nn.lora import adapter_axes, init_adapter
from seedjax.sharding import named_sharding, tree_shardings
from seedjax.train.config import RunConfig
from seedjax.train.optim import OptimizerConfig, make_optimizer
from seedjax.typing import Array, Int32, Params, PRNGKey


class TrainState(NamedTuple):
    """State that a training step reads and writes. It has no random key: the key of a
    step follows from the seed and the step, so that resuming needs none.

    Attributes:
      step: number of steps taken.
      params: weights that are trained, in `param_dtype`; those of an adapter where the
        recipe has one.
      ema: their exponential moving average, float32; this is what is evaluated and
        saved.
      opt_state: the optimizer's state.
    """

    step: Int32[Array, ""]
    params: Params
    ema: Params
    opt_state: Any


def create(params: Params, optimizer: OptimizerConfig, num_steps: int) -> TrainState:
    """The state before the first step. Its arrays share no memory with `params` or each
    other, so that a step may donate it."""
    return TrainState(
        step=jnp.int32(0),
        params=jax.tree.map(jnp.copy, params),
        ema=jax.tree.map(lambda p: jnp.array(p, jnp.float32), params),
        opt_state=make_optimizer(optimizer, num_steps).init(params),
    )


def as_float32(params: Params) -> Params:
    """The parameters as they are trained."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)


def on_local_devices(params: Params, shardings: Any) -> Params:
    """Weights from the mesh of all processes on a mesh of this one's devices.

    Every device holds one whole array at a time on the way. All processes must call it.

    Args:
      params: weights.
      shardings: where they go, a tree like `params`.
    """
    if jax.process_count() == 1:
        return jax.device_put(params, shardings)

    mesh = jax.tree.leaves(params)[0].sharding.mesh
    copied = NamedSharding(mesh, PartitionSpec())

    def move(x: Array, sharding: NamedSharding) -> Array:
        whole = jax.jit(lambda x: x, out_shardings=copied)(x)
        # One after another: collectives of many programs in flight may block others.
        here = jax.block_until_ready(whole).addressable_data(0)
        return jax.device_put(here, sharding)

    return jax.tree.map(move, params, shardings)


def first_state(params: Params, run: RunConfig) -> TrainState:
    """The state before the first step of a run from a model's weights: they are
    trained, or a fresh adapter of theirs."""
    if run.lora is not None:
        params = init_adapter(jax.random.key(run.seed), params, run.lora)
    return create(params, run.optimizer, run.num_steps)


def abstract_state(run: RunConfig) -> TrainState:
    """Shapes and dtypes of the state."""
    return jax.eval_shape(
        partial(first_state, run=run), denoiser.abstract_params(run.model)
    )


def state_shardings(run: RunConfig, mesh: Mesh) -> TrainState:
    """How the state lies on `mesh`: the moments of a parameter lie as it does."""
    abstract, axes = abstract_state(run), denoiser.logical_axes(run.model)
    if run.lora is not None:
        axes = adapter_axes(axes, abstract.params)
    return _shardings(abstract, axes, run.optimizer, run.num_steps, mesh)


def shardings_from(
    params: Params,
    model: DenoiserConfig,
    optimizer: OptimizerConfig,
    num_steps: int,
    mesh: Mesh,
) -> TrainState:
    """How the state that `create` makes of the weights of `model` lies on `mesh`."""
    make = partial(create, optimizer=optimizer, num_steps=num_steps)
    axes = denoiser.logical_axes(model)
    return _shardings(jax.eval_shape(make, params), axes, optimizer, num_steps, mesh)


def _shardings(
    abstract: TrainState,
    axes: Any,
    optimizer: OptimizerConfig,
    num_steps: int,
    mesh: Mesh,
) -> TrainState:
    of_params = tree_shardings(mesh, axes, abstract.params)
    replicated = named_sharding(mesh, (), ())
    of_optimizer = optax.tree_utils.tree_map_params(
        make_optimizer(optimizer, num_steps),
        lambda _, sharding: sharding,
        abstract.opt_state,
        of_params,
        transform_non_params=lambda _: replicated,
    )
    return TrainState(
        step=replicated,  # type: ignore[arg-type] # a sharding in the array's place
        params=of_params,
        ema=of_params,
        opt_state=of_optimizer,
    )


def params_shardings(model: DenoiserConfig, mesh: Mesh) -> Any:
    """How the weights of a model lie on `mesh`."""
    abstract = denoiser.abstract_params(model)
    return tree_shardings(mesh, denoiser.logical_axes(model), abstract)


def initialize(
    run: RunConfig, mesh: Mesh, load: Callable[[], Params] | None = None
) -> TrainState:
    """The state before the first step, made in place on `mesh`.

    Args:
      run: the recipe.
      mesh: where the state will lie.
      load: gives initial parameters (on the host); None for random ones from the seed.
    """
    shardings = state_shardings(run, mesh)
    if load is not None:
        params = jax.device_put(load(), params_shardings(run.model, mesh))
        return jax.jit(partial(first_state, run=run), out_shardings=shardings)(params)

    def random_state(key: PRNGKey) -> TrainState:
        return first_state(denoiser.init(key, run.model), run)

    return jax.jit(random_state, out_shardings=shardings)(jax.random.key(run.seed))
