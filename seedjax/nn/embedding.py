"""The rows of an embedding table at tokens, on one device or on a mesh.

On a mesh, a device of `fsdp` holds some columns of every row. Two ways to whole rows:

    rows     the table is gathered, and its gradient is scattered
    columns  each device looks up its columns for the tokens of all, and sends each
             device those of its tokens; in the backward pass they come back

The second sends tokens x D numbers in place of V x D, so it is for fewer tokens on a
device than there are rows.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from seedjax.nn.quantize import Quantized
from seedjax.sharding import constrain, mesh_axes, partition_spec
from seedjax.typing import Array, Float, Int32


def embed(
    table: Float[Array, "V D"] | Quantized, tokens: Int32[Array, "B L"]
) -> Float[Array, "B L D"]:
    """`look_up` on the mesh that is set, if any."""
    mesh = dict(jax.sharding.get_abstract_mesh().shape)
    if not isinstance(table, Quantized) and mesh.get("fsdp", 1) > 1:
        of_table = partition_spec(("vocab", "embed"), table.shape, mesh)
        of_tokens = partition_spec(("batch", "length"), tokens.shape, mesh)
        spread = mesh_axes(of_table[1]) == ("fsdp",)
        on_device = tokens.size
        for name in (*mesh_axes(of_tokens[0]), *mesh_axes(of_tokens[1])):
            on_device //= mesh[name]
        if spread and "fsdp" in mesh_axes(of_tokens[0]) and on_device < table.shape[0]:
            parted = bool(mesh_axes(of_table[0]))
            return jax.shard_map(
                functools.partial(_look_up_columns, parted=parted),
                in_specs=(of_table, of_tokens),
                out_specs=jax.sharding.PartitionSpec(*of_tokens, None),
                check_vma=False,  # `_take_bits` has no rule for it
            )(table, tokens)
    rows = jax.tree.map(
        lambda leaf: constrain(leaf, ("vocab", "activation_embed")), table
    )
    return look_up(rows, tokens)


def _look_up_columns(
    columns: Float[Array, "v d"], tokens: Int32[Array, "b l"], *, parted: bool
) -> Float[Array, "b l D"]:
    """On one device: of its tokens, by way of its columns of the tokens of all.
    `parted` says that it holds these of a part of the rows."""
    of_all = lax.all_gather(tokens, "fsdp", axis=0, tiled=True)
    if not parted:
        found = look_up(columns, of_all)
    else:
        place = of_all - lax.axis_index("tensor") * columns.shape[0]
        held = (place >= 0) & (place < columns.shape[0])
        found = jnp.where(held[..., None], look_up(columns, place), 0)
        found = lax.psum(found, "tensor")
    return lax.all_to_all(found, "fsdp", split_axis=0, concat_axis=2, tiled=True)


def look_up(
    table: Float[Array, "V D"] | Quantized, tokens: Int32[Array, "B L"]
) -> Float[Array, "B L D"]:
    """The rows of `table` at `tokens`. Of a `Quantized`, which has a scale a row, only
    these rows become floats (float32)."""
    if isinstance(table, Quantized):
        values, scale = _take(table.values, tokens), _take(table.scale, tokens)
        return values.astype(jnp.float32) * scale
    if table.dtype != jnp.bfloat16:
        return _take(table, tokens)
    # A TPU would copy the whole table to see it as bits.
    return jax.lax.platform_dependent(table, tokens, cpu=_take_bits, default=_take)


def _take(table: Array, tokens: Array) -> Array:
    # Ids are in bounds, but for those of rows that another device holds.
    return jnp.take(table, tokens, axis=0, mode="clip")


@jax.custom_vjp
def _take_bits(table: Array, tokens: Array) -> Array:
    """`_take` from a bfloat16 table, which XLA's CPU backend would first copy into
    float32. (And in front of a loop it would copy the bits, hence the barrier.)"""
    table, tokens = jax.lax.optimization_barrier((table, tokens))
    bits = jax.lax.bitcast_convert_type(table, jnp.uint16)
    return jax.lax.bitcast_convert_type(_take(bits, tokens), jnp.bfloat16)


def _take_bits_forward(table: Array, tokens: Array):
    return _take_bits(table, tokens), (table, tokens)


def _take_bits_backward(saved, cotangent: Array):
    table, tokens = saved
    return (*jax.vjp(lambda table: _take(table, tokens), table)[1](cotangent), None)


_take_bits.defvjp(_take_bits_forward, _take_bits_backward)
