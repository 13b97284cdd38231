"""The precision policy: the one function through which every matrix product goes.

Operands are cast to the compute dtype, products are accumulated and returned in
float32, in the backward pass as well as in the forward pass. With `dtype="bfloat16"`
this is the form that accelerators run natively and that XLA's CPU backend hands to its
fast kernels; a product with a bfloat16 *result* would be widened to float32 there.
That backend refuses some transposed layouts in bfloat16, at run time: try a new
equation on a CPU, forward and backward, before relying on it.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from seedjax.config import DType
from seedjax.typing import Array, Float, Float32


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def product(
    equation: str,
    left: Float[Array, "..."],
    right: Float[Array, "..."],
    dtype: DType,
) -> Float32[Array, "..."]:
    """`einsum(equation, left, right)` with `dtype` operands and float32 accumulation.

    Args:
      equation: two operands, explicit output, no ellipsis, and no letter that stands in
        one operand only (so that both gradients are einsums again), e.g.
        `"bli,oi->blo"`.
      left: first operand, any float dtype.
      right: second operand, any float dtype.
      dtype: what both operands, and the cotangent in the backward pass, are cast to.
    """
    return _einsum(equation, left, right, dtype)


def _einsum(equation: str, left: Array, right: Array, dtype: DType) -> Array:
    return jnp.einsum(
        equation,
        left.astype(dtype),
        right.astype(dtype),
        preferred_element_type=jnp.float32,
        # TPUs would otherwise run float32 products in bfloat16.
        precision=lax.Precision.HIGHEST if dtype == "float32" else None,
    )


def _forward(equation: str, left: Array, right: Array, dtype: DType):
    # Operands are kept in the compute dtype: half the memory in bfloat16. The empty
    # arrays remember which dtype each gradient has to come back in.
    left_like, right_like = jnp.zeros((0,), left.dtype), jnp.zeros((0,), right.dtype)
    saved = (left.astype(dtype), right.astype(dtype), left_like, right_like)
    return _einsum(equation, left, right, dtype), saved


def _backward(equation: str, dtype: DType, saved, cotangent: Array):
    left, right, left_like, right_like = saved
    operands, out = equation.split("->")
    left_axes, right_axes = operands.split(",")
    to_left = _einsum(f"{out},{right_axes}->{left_axes}", cotangent, right, dtype)
    to_right = _einsum(f"{out},{left_axes}->{right_axes}", cotangent, left, dtype)
    return to_left.astype(left_like.dtype), to_right.astype(right_like.dtype)


product.defvjp(_forward, _backward)
