"""The programs that are planned, on abstract arguments: nothing is ever computed.

    block_forward   a forward pass over the current block after a cached prefix, and its
                    candidates: what a decode repeats at every denoising step. With
                    blocks of one token it is a step of autoregressive decoding.
    whole_sampler   `sampling.loop.generate`, from prompt to completion
    training_step   `train.step.train_step` of a recipe, with its state donated

Weights, state, cache and canvas are shapes, dtypes and shardings; a program is lowered
and compiled for a mesh of devices that need not be here.
"""

import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from seedjax.batch import Batch, Layout
from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.nn import denoiser
from seedjax.nn.cache import ENTRY_AXES
from seedjax.nn.quantize import Quantization, quantize_params, quantized_axes
from seedjax.plan.chips import topology_devices
from seedjax.plan.exchange import Exchange, abstract_batch, least_exchange
from seedjax.plan.operations import Operations, operations_of
from seedjax.plan.visible import computed_share
from seedjax.sampling import loop
from seedjax.sampling.canvas import (
    Canvas,
    block_size,
    lay_out,
    num_prefill_columns,
    num_working_columns,
)
from seedjax.sampling.check import block_denoiser
from seedjax.sampling.context import empty_cache
from seedjax.sampling.head import Positions, head_of
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sharding import (
    batch_sharding,
    make_mesh,
    named_sharding,
    tree_shardings,
)
from seedjax.train.config import RunConfig
from seedjax.train.state import (
    TrainState,
    abstract_state,
    params_shardings,
    state_shardings,
)
from seedjax.train.step import NOTHING_FROZEN, Frozen, train_step
from seedjax.typing import Array, Params

Weights = Literal["bfloat16", "float32", "int8_weights", "int8", "fp8"]
"""Storage of the weights: the dtype of the parameters, or a quantization."""


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """The case that a program is compiled for, apart from the denoiser and the mesh."""

    weights: Weights = "bfloat16"
    prefix: int = 2048  # tokens before the completion
    max_new_tokens: int = 256
    batch_size: int = 1


class Least(NamedTuple):
    """The bytes that each device has to move for a pass over a block: everything once.

    Attributes:
      weights: its share of all weights, but only the looked up rows of an embedding
        table that is not the head.
      cache: its share of the keys and values of the prefix.
      activations: what goes in and comes out. (What is between may stay on the chip.)
    """

    weights: int
    cache: int
    activations: int

    @property
    def total(self) -> int:
        return sum(self)


class Program(NamedTuple):
    """A function with what it is called with.

    Attributes:
      config: the denoiser.
      function: to be compiled.
      arguments: trees of shapes, dtypes and shardings.
      mesh: the devices; None is one device of no matter what kind.
      held: bytes of a device's share of the arguments, by category.
      least: bytes of a pass over a block; zeros for a step of training.
      least_kernel: bytes of a device's share of the smallest kernel of a layer.
      donated: arguments whose memory the results may take.
      out_shardings: of the results; None leaves them to the compiler.
      exchange: what a device must send in a step of training; None if not known.
      computed: share of the pairs of attention's chunks that are not masked whole.
    """

    config: DenoiserConfig
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    mesh: Mesh | None
    held: dict[str, int]
    least: Least
    least_kernel: int
    donated: tuple[int, ...] = ()
    out_shardings: Any = None
    exchange: Exchange | None = None
    computed: float = 1.0

    def lower(self, *platforms: str) -> jax.stages.Lowered:
        """The program in StableHLO, for the platform of its mesh or for others."""
        jitted = jax.jit(
            self.function,
            donate_argnums=self.donated,
            out_shardings=self.out_shardings,
        )
        if self.mesh is None:
            traced = jitted.trace(*self.arguments)
            return traced.lower(lowering_platforms=platforms or None)
        with jax.set_mesh(self.mesh):
            return jitted.lower(*self.arguments)

    def operations(self) -> Operations:
        """Its arithmetic, on all devices together."""
        if self.mesh is None:
            return operations_of(self.function, *self.arguments)
        with jax.set_mesh(self.mesh):
            return operations_of(self.function, *self.arguments, computed=self.computed)

    def compile(self) -> jax.stages.Compiled:
        """The program as the devices of its mesh run it.

        Raises:
          InputError: if it does not fit into their memory.
        """
        try:
            return self.lower().compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            reason = str(error).splitlines()[0].partition(": ")[2]
            raise InputError(f"it does not fit: {reason}") from None


def block_forward(
    config: DenoiserConfig, shapes: Shapes, mesh: Mesh | None = None
) -> Program:
    """A forward pass over a block of `config.block_size` with `prefix` tokens in the
    cache."""
    recipe = SamplerConfig(max_new_tokens=shapes.max_new_tokens)
    config = block_denoiser(config, recipe)
    params = abstract_weights(config, shapes.weights, mesh)
    rows = (shapes.batch_size, config.block_size)
    layout = Layout(*(_rows(rows, dtype, mesh) for dtype in ("int32", "int32", "bool")))
    tokens, new_index = (_rows(rows, "int32", mesh) for _ in range(2))
    cache = abstract_cache(config, shapes.batch_size, shapes.prefix, mesh)

    def propose(
        params: Params, tokens: Array, layout: Layout, cache: Any, index: Array
    ):
        states = denoiser.hidden_states(params, config, tokens, layout, cache=cache)
        # At temperature 0 nothing is drawn, so there need be no keys.
        keys = jax.vmap(jax.random.key)(jnp.zeros(shapes.batch_size, jnp.uint32))
        positions = Positions(tokens, recipe.eos.allows(index))
        return head_of(params, config, recipe).propose(states.hidden, keys, positions)

    arguments = (params, tokens, layout, cache, new_index)
    outputs = jax.tree.leaves(jax.eval_shape(propose, *arguments))
    inputs = bytes_of((tokens, layout, new_index))
    least = _least(params, config, cache, shapes)._replace(
        activations=inputs + sum(x.size * x.dtype.itemsize for x in outputs)
    )
    held = {"weights": bytes_of(params), "cache": bytes_of(cache)}
    return Program(config, propose, arguments, mesh, held, least, _least_kernel(params))


def whole_sampler(
    config: DenoiserConfig, shapes: Shapes, mesh: Mesh | None = None
) -> Program:
    """A whole decode of a prompt of `prefix` tokens."""
    recipe = SamplerConfig(max_new_tokens=shapes.max_new_tokens)
    config = block_denoiser(config, recipe)
    params = abstract_weights(config, shapes.weights, mesh)
    canvas = _abstract_canvas(config, recipe, shapes, mesh)
    keys = jax.eval_shape(lambda: loop.row_keys(jax.random.key(0), shapes.batch_size))

    def sample(params: Params, canvas: Canvas, keys: Array) -> loop.DecodeResult:
        return loop.generate(params, config, recipe, canvas, keys)

    capacity = canvas.tokens.shape[1] - config.block_size
    cache = abstract_cache(config, shapes.batch_size, capacity, mesh)
    least = _least(params, config, cache, shapes)
    held = {"weights": bytes_of(params)}
    arguments = (params, canvas, keys)
    return Program(config, sample, arguments, mesh, held, least, _least_kernel(params))


def training_step(run: RunConfig, mesh: Mesh) -> Program:
    """A step of training with the objective's first stage.

    The batch is `run.data.batch_size` rows of `run.data.sequence_length` tokens, over
    all devices. The base of an adapter is in `run.model.param_dtype`.
    """
    state = placed_state(run, mesh)
    batch = abstract_batch(run)
    batch = _placed(batch, batch_sharding(mesh, batch))
    frozen = NOTHING_FROZEN
    if run.lora is not None:
        frozen = Frozen(base=placed_base(run, mesh))

    def step(state: TrainState, batch: Batch, frozen: Frozen) -> Any:
        return train_step(state, batch, frozen, run=run, stage="mask")

    held = {
        "parameters": bytes_of(state.params),
        "average": bytes_of(state.ema),
        "optimizer": bytes_of(state.opt_state),
        "frozen base": bytes_of(frozen),
        "batch": bytes_of(batch),
    }
    return Program(
        run.model,
        step,
        (state, batch, frozen),
        mesh,
        {name: size for name, size in held.items() if size},
        Least(0, 0, 0),
        _least_kernel(state.params if frozen.base is None else frozen.base),
        donated=(0,),
        out_shardings=(state_shardings(run, mesh), None),
        exchange=least_exchange(run, mesh),
        computed=computed_share(run),
    )


def placed_state(run: RunConfig, mesh: Mesh) -> TrainState:
    """The state of a recipe, laid out over a mesh."""
    return _placed(abstract_state(run), state_shardings(run, mesh))


def placed_base(run: RunConfig, mesh: Mesh) -> Params:
    """The weights that an adapter is trained for, laid out over a mesh."""
    base = denoiser.abstract_params(run.model)
    return _placed(base, params_shardings(run.model, mesh))


def abstract_weights(
    config: DenoiserConfig, weights: Weights, mesh: Mesh | None
) -> Params:
    """The parameters of a denoiser, in one kind of weights, laid out over a mesh.

    Raises:
      InputError: for quantized weights, if qwix is not installed.
    """
    params = denoiser.abstract_params(config)
    axes = denoiser.logical_axes(config)
    if weights in typing.get_args(Quantization):
        params = jax.eval_shape(lambda p: quantize_params(p, config, weights), params)
        axes = quantized_axes(axes, params)
    else:
        params = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, jnp.dtype(weights)), params
        )
    if mesh is None:
        return params
    return _placed(params, tree_shardings(mesh, axes, params))


def abstract_cache(
    config: DenoiserConfig, batch_size: int, capacity: int, mesh: Mesh | None
) -> Any:
    """A cache of so many columns, laid out over a mesh as `empty_cache` does."""
    shapes = jax.eval_shape(lambda: empty_cache(config, False, batch_size, capacity))
    if mesh is None:
        return shapes
    layers = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape,
            x.dtype,
            sharding=named_sharding(mesh, ("layers", *ENTRY_AXES)[-x.ndim :], x.shape),
        ),
        shapes.layers,
    )
    layout = _placed(shapes.layout, batch_sharding(mesh, shapes.layout))
    return shapes._replace(layers=layers, layout=layout)


def _abstract_canvas(
    config: DenoiserConfig, recipe: SamplerConfig, shapes: Shapes, mesh: Mesh | None
) -> Canvas:
    size = block_size(config, recipe)
    in_front = num_prefill_columns(shapes.prefix, size, recipe.context)
    rows = jax.ShapeDtypeStruct((shapes.batch_size,), jnp.int32)
    canvas = jax.eval_shape(
        lambda prompts, lengths, budgets: lay_out(
            prompts,
            lengths,
            budgets,
            config=config,
            sampler=recipe,
            size=size,
            num_working=num_working_columns(config, recipe),
        ),
        jax.ShapeDtypeStruct((shapes.batch_size, in_front + size), jnp.int32),
        rows,
        rows,
    )
    if mesh is None:
        return canvas
    return _placed(canvas, batch_sharding(mesh, canvas))


def _rows(shape: tuple[int, ...], dtype: str, mesh: Mesh | None) -> Any:
    rows = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
    return rows if mesh is None else _placed(rows, batch_sharding(mesh, rows))


def _placed(tree: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
    )


def _least(params: Params, config: DenoiserConfig, cache: Any, shapes: Shapes) -> Least:
    weights = bytes_of(params)
    if not config.tie_embeddings:
        table = params["embedding"]
        looked_up = shapes.batch_size * config.block_size
        rows = bytes_of(table) * looked_up // table.shape[0]
        weights += rows - bytes_of(table)
    return Least(weights=weights, cache=bytes_of(cache), activations=0)


def _least_kernel(params: Params) -> int:
    """Bytes of one layer's share of the smallest matrix."""
    sizes = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        if leaf.ndim >= 2 and not name.endswith(".scale") and "'scale'" not in name:
            stacked = leaf.shape[0] if "'layers'" in name else 1
            sizes.append(bytes_of(leaf) // stacked)
    return min(sizes)


def bytes_of(tree: Any) -> int:
    """Bytes of one device's share of a tree."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        shape = leaf.shape
        if isinstance(leaf.sharding, NamedSharding):
            shape = leaf.sharding.shard_shape(shape)
        count = 1
        for size in shape:
            count *= size
        total += count * leaf.dtype.itemsize
    return total


def mesh_of(topology: str, description: str) -> Mesh:
    """The mesh of a topology.

    Raises:
      InputError: for a topology or a mesh that does not exist.
    """
    return make_mesh(description, topology_devices(topology))
