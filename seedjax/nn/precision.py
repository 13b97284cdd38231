"""The precision policy: the one function through which every matrix product goes.

Operands are cast to the compute dtype, products are accumulated and returned in
float32, in the backward pass as well as in the forward pass. With `dtype="bfloat16"`
this is the form that accelerators run natively and that XLA's CPU backend hands to its
fast kernels; a product with a bfloat16 *result* would be widened to float32 there.
That backend refuses some transposed layouts in bfloat16, at run time: try a new
equation on a CPU, forward and backward, before relying on it.

The right operand may be a quantized weight (`nn.quantize`). It goes into the product as
the integers it is, and its scales, with those of the left operand if that is rounded as
well, multiply the result:

    x  [1.0, -0.5]                  int8: [127, -64]  scale 1/127
    w  [0.2,  0.1]                  int8: [127,  64]  scale 0.2/127
    w . x = 0.15                    (127 * 127 - 64 * 64) * 1/127 * 0.2/127 = 0.1492
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import DictKey

from seedjax.config import DenoiserConfig, DType
from seedjax.nn.quantize import Quantized, quantize, refuse_gradient
from seedjax.sharding import LogicalAxes, of_activation, scatter_sum
from seedjax.typing import Array, Float, Float32, Params


def in_compute_dtype(params: Params, config: DenoiserConfig) -> Params:
    """Parameters in which every weight that only goes into products has the compute
    dtype: cast once, before layers are looped over or made again, so that a mesh
    gathers what products take. Norms, biases and routers stay as they are, and so do
    quantized weights, and an embedding table whose rows are kept in a wider dtype.

    Args:
      params: a denoiser's parameters, layers stacked or not.
      config: its recipe.
    """
    tables = ["head"]
    if config.activation_dtype == config.dtype:
        tables.append("embedding")

    def cast(path: tuple[Any, ...], leaf: Any) -> Any:
        names = [step.key for step in path if isinstance(step, DictKey)]
        if isinstance(leaf, Quantized):
            return leaf
        projection = names[-1] == "kernel" and "router" not in names
        if projection or "experts" in names or names[-1] in tables:
            return leaf.astype(config.dtype)
        return leaf

    return jax.tree_util.tree_map_with_path(
        cast, params, is_leaf=lambda leaf: isinstance(leaf, Quantized)
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3, 4))
def product(
    equation: str,
    left: Float[Array, "..."],
    right: Float[Array, "..."] | Quantized,
    dtype: DType,
    axes: LogicalAxes | None = None,
) -> Float32[Array, "..."]:
    """`einsum(equation, left, right)` with `dtype` operands and float32 accumulation.

    Args:
      equation: two operands, explicit output, no ellipsis, and no letter that stands in
        one operand only (so that both gradients are einsums again), e.g.
        `"bli,oi->blo"`.
      left: first operand, any float dtype.
      right: second operand, any float dtype, or quantized. Scales along a contracted
        axis (of the values in attention, say) go into `left`, all others into the
        result.
      dtype: what both operands, and the cotangent in the backward pass, are cast to.
      axes: of a parameter on the right, its logical axes: on a mesh its gradient is
        scattered as it is summed over the rows, in its dtype.

    Raises:
      InputError: when differentiated, if `right` is quantized.
    """
    del axes
    return _einsum(equation, left, right, dtype)


def _einsum(
    equation: str, left: Array, right: Array | Quantized, dtype: DType
) -> Array:
    narrow = dtype != "float32"
    if isinstance(right, Quantized):
        multiply = functools.partial(
            _multiply_quantized, equation, right=right, dtype=dtype
        )
        narrow = narrow or right.mode != "int8_weights"
    else:
        multiply = functools.partial(_multiply, equation, right=right, dtype=dtype)
    axis = _axis_of_single_row(equation, left) if narrow else None
    if axis is None:
        return multiply(left)
    # XLA's CPU backend has fast kernels for two rows or more, and one many times slower
    # for a single row in bfloat16 or int8: a row of zeros rides along.
    operands, out = equation.split("->")
    padded = jnp.pad(left, [(0, int(name == axis)) for name in operands.split(",")[0]])
    return lax.slice_in_dim(multiply(padded), 0, 1, axis=out.index(axis))


def _axis_of_single_row(equation: str, left: Array) -> str | None:
    """If the left operand is a matrix of one row, an axis along which to add more."""
    operands, _ = equation.split("->")
    left_axes, right_axes = operands.split(",")
    rows = [
        (axis, size)
        for axis, size in zip(left_axes, left.shape, strict=True)
        if axis not in right_axes
    ]
    single = rows and all(size == 1 for _, size in rows)
    return rows[-1][0] if single else None


def _multiply(equation: str, left: Array, right: Array, dtype: DType) -> Array:
    left, right = left.astype(dtype), right.astype(dtype)
    einsum = functools.partial(
        jnp.einsum,
        equation,
        preferred_element_type=jnp.float32,
        # TPUs would otherwise run float32 products in bfloat16.
        precision=lax.Precision.HIGHEST if dtype == "float32" else None,
    )
    if dtype == "float32" or right.ndim > 2:
        return einsum(left, right)
    # A bfloat16 kernel. Transposing it is part of the product, and XLA's CPU backend
    # would move that in front of the loop of a sampler: a copy of all kernels, in the
    # slower layout. The barrier ties the kernel to an operand that changes in the loop.
    return lax.platform_dependent(
        left,
        right,
        cpu=lambda *operands: einsum(*lax.optimization_barrier(operands)),
        default=einsum,
    )


def _multiply_quantized(
    equation: str, left: Array, right: Quantized, dtype: DType
) -> Array:
    # Not `qwix.einsum`: it swaps the operands, so that the result has to be transposed,
    # and beside a float operand it multiplies the scales into a copy of the kernel, in
    # the compute dtype.
    operands, out = equation.split("->")
    left_axes, right_axes = operands.split(",")
    lengths = zip(right_axes, right.scale.shape, strict=True)
    if any(length > 1 for axis, length in lengths if axis not in out):
        left = left * _laid_out(right.scale, right_axes, left_axes)
        right_scale = jnp.float32(1.0)
    else:
        right_scale = _laid_out(right.scale, right_axes, out)
    if right.mode == "int8_weights":
        # Integers up to 127 are exact in bfloat16 as well.
        return _multiply(equation, left, right.values, dtype) * right_scale
    summed = (i for i, axis in enumerate(left_axes) if axis not in out)
    rounded = quantize(left, tuple(summed), right.mode)
    operands_of = (rounded.values, right.values)
    if right.mode == "int8":
        total = jnp.einsum(equation, *operands_of, preferred_element_type=jnp.int32)
    else:
        total = _multiply_float8(equation, *operands_of)
    left_scale = _laid_out(rounded.scale, left_axes, out)
    return total.astype(jnp.float32) * left_scale * right_scale


def _multiply_float8(equation: str, left: Array, right: Array) -> Array:
    einsum = functools.partial(jnp.einsum, equation, preferred_element_type=jnp.float32)
    # Every float8 is a bfloat16.
    return lax.platform_dependent(
        left,
        right,
        cuda=einsum,
        default=lambda left, right: _multiply(equation, left, right, "bfloat16"),
    )


def _laid_out(scale: Array, axes: str, out: str) -> Array:
    """The scale of an operand with `axes`, to be broadcast against one with `out`."""
    kept = "".join(axis for axis in out if axis in axes)
    missing = tuple(i for i, axis in enumerate(out) if axis not in axes)
    return jnp.expand_dims(jnp.einsum(f"{axes}->{kept}", scale), missing)


def _forward(equation: str, left: Array, right: Any, dtype: DType, axes: Any):
    del axes
    right = refuse_gradient(right)
    # Operands are kept in the compute dtype: half the memory in bfloat16. The empty
    # arrays remember which dtype each gradient has to come back in.
    left_like, right_like = jnp.zeros((0,), left.dtype), jnp.zeros((0,), right.dtype)
    saved = (left.astype(dtype), right.astype(dtype), left_like, right_like)
    return _einsum(equation, left, right, dtype), saved


def _backward(equation: str, dtype: DType, axes: Any, saved, cotangent: Array):
    left, right, left_like, right_like = saved
    operands, out = equation.split("->")
    left_axes, right_axes = operands.split(",")
    to_left = _einsum(f"{out},{right_axes}->{left_axes}", cotangent, right, dtype)

    def sum_rows(cotangent: Array, left: Array) -> Array:
        total = _einsum(f"{out},{left_axes}->{right_axes}", cotangent, left, dtype)
        return total.astype(right_like.dtype)

    to_right: Array
    if axes is None:
        to_right = sum_rows(cotangent, left)
    else:
        names = dict(zip(right_axes, map(of_activation, axes), strict=True))
        names |= {"b": "batch", "l": "length"}
        both = tuple(tuple(names[x] for x in each) for each in (out, left_axes))
        to_right = scatter_sum(sum_rows, (cotangent, left), both, result=axes)
    return to_left.astype(left_like.dtype), to_right


product.defvjp(_forward, _backward)
