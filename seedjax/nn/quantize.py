"""Quantization of a trained denoiser for decoding: weights of one byte each.

    kernel [out, in]  ->  Quantized(values [out, in], scale [out, 1] float32)

Each output channel has its own scale. In int8 its largest magnitude becomes 127, so a
weight is off by at most 1/254 of the largest one in its row; in float8 (e4m3) it
becomes 448, and a weight is off by at most 1/16 of itself. Nothing is calibrated and
nothing is trained. The mode says what a product (`nn.precision`) does with the other
operand:

    int8_weights  activations stay as they are. A fourth of float32's memory; for GPUs
                  and TPUs, which cast within the product. XLA's CPU backend makes a
                  copy of all kernels in the compute dtype first, and saves nothing
    int8          activations are rounded too, each token with a scale of its own (the
                  vector-wise quantization of LLM.int8(), arXiv 2208.07339, without its
                  columns of outliers): the fastest products on a CPU
    fp8           weights and activations in float8, each token with a scale of its own:
                  for NVIDIA GPUs from Hopper on, which multiply it twice as fast as
                  bfloat16. Other devices multiply the same numbers in bfloat16

The quantized tree has the names of the given one and goes wherever that goes for
decoding: `jit`, `jax.export`, `denoiser.stack_layers`, meshes. It cannot be trained.
"""

import typing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.export
import jax.numpy as jnp

from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.typing import Array, Float, Params

Quantization = Literal["int8_weights", "int8", "fp8"]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("values", "scale"),
    meta_fields=("mode",),
)
@dataclass(frozen=True, eq=False)
class Quantized:
    """Symmetric int8 or float8: stands for `values * scale`.

    A pytree, so that it goes through `jit`, layer scans and shardings as two arrays;
    transformations put other things in their places, hence no array types here.

    Attributes:
      values: int8, from -127 to 127, or float8_e4m3fn, from -448 to 448.
      scale: float32, with as many axes; 1 long along those that share a scale.
      mode: what `product` does with the other operand: casts it to the compute dtype
        ("int8_weights") or rounds it like the weights ("int8", "fp8").
    """

    values: Any
    scale: Any
    mode: Quantization

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape


jax.export.register_pytree_node_serialization(
    Quantized,
    serialized_name="seedjax.Int8Array",
    serialize_auxdata=lambda meta: meta[0].encode(),
    deserialize_auxdata=lambda data: (data.decode(),),
)


def quantize(
    x: Float[Array, "..."], shared_axes: tuple[int, ...], mode: Quantization
) -> Quantized:
    """`x` in int8 or float8, the largest magnitude along `shared_axes` becoming the
    largest number of the type.

    Raises:
      InputError: if qwix is not installed.
    """
    try:
        import qwix
    except ImportError:
        raise InputError(
            "quantization needs qwix; pip install 'seedjax[quant]'"
        ) from None
    rounded = qwix.quantize(
        x.astype(jnp.float32),
        jnp.float8_e4m3fn if mode == "fp8" else jnp.int8,
        channelwise_axes=[axis for axis in range(x.ndim) if axis not in shared_axes],
        # By itself qwix takes the largest magnitude to 127.5 and relies on the cast to
        # saturate. At 127 none overflows, and weights that were read from int8 files
        # (`seedjax.checkpoints.weights`) become the integers that are stored there.
        calibration_method="absmax" if mode == "fp8" else f"absmax,{127.5 / 127}",
    )
    return Quantized(rounded.qvalue, rounded.scale, mode)


def refuse_gradient(operand: Array | Quantized) -> Array:
    """The operand of a product that is being differentiated.

    Raises:
      InputError: if it is quantized.
    """
    if isinstance(operand, Quantized):
        raise InputError(
            "quantized weights cannot be trained, for rounding has no gradient; take "
            "the gradient with the weights as they were before quantize_params"
        )
    return operand


def quantize_params(
    params: Params,
    config: DenoiserConfig,
    mode: Quantization | str,
    *,
    head: bool = True,
) -> Params:
    """The parameters with the kernels of all projections and experts quantized. Norms,
    biases and routers stay, and so does an embedding table that is not the head.

    Args:
      params: a denoiser's parameters, layers stacked or not.
      config: its recipe.
      mode: "int8_weights", "int8" or "fp8".
      head: whether the output head is quantized too. A tied embedding table is then
        looked up quantized as well.

    Raises:
      InputError: for another mode, if `params` are quantized already, or if qwix is not
        installed.
    """
    modes = typing.get_args(Quantization)
    if mode not in modes:
        raise InputError(
            f"quantization is {mode!r}; it must be one of {', '.join(modes)}"
        )
    if is_quantized(params):
        raise InputError("the parameters are quantized already; take the original ones")
    table = "embedding" if config.tie_embeddings else "head"
    known = typing.cast(Quantization, mode)

    def quantized(path: tuple[Any, ...], leaf: Any) -> Any:
        names = [step.key for step in path]
        projection = names[-1] == "kernel" and "router" not in names
        if projection or "experts" in names or (head and names == [table]):
            return _quantize_rows(leaf, known)
        return leaf

    return jax.tree_util.tree_map_with_path(quantized, params)


@partial(jax.jit, static_argnums=1)
def _quantize_rows(kernel: Array, mode: Quantization) -> Quantized:
    return quantize(kernel, (kernel.ndim - 1,), mode)


def is_quantized(params: Params) -> bool:
    """Whether any parameter is a `Quantized`."""
    return any(map(_is_leaf, jax.tree.leaves(params, is_leaf=_is_leaf)))


def _is_leaf(leaf: Any) -> bool:
    return isinstance(leaf, Quantized)


def num_bytes(params: Params) -> int:
    """Memory that parameters take, be they arrays or abstract."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))


def quantized_axes(logical_axes: Params, params: Params) -> Params:
    """The logical axes of quantized `params`, be they arrays or abstract, for
    `sharding.tree_shardings`: integers and scales have those of their kernel. (The last
    axis of a scale is 1 long, so no mesh axis splits it.)

    Args:
      logical_axes: those of the parameters before (`denoiser.logical_axes`).
      params: from `quantize_params`.
    """
    return jax.tree.map(
        lambda leaf, axes: jax.tree.map(lambda _: axes, leaf),
        params,
        logical_axes,
        is_leaf=_is_leaf,
    )
