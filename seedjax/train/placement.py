"""Which rows of a batch each process reads, and how they get onto the devices."""

import bisect
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from seedjax.batch import Batch
from seedjax.errors import InputError
from seedjax.sharding import RULES, batch_sharding


@functools.lru_cache
def rows_of_processes(mesh: Mesh, batch_size: int) -> tuple[tuple[int, ...], ...]:
    """The numbers of the rows of a batch that the devices of each process hold,
    ascending. Processes along axes that do not split the batch hold the same rows.

    Raises:
      InputError: if several processes share the mesh and its axes do not divide the
        batch.
    """
    require_divisible(mesh, batch_size, "data.batch_size")
    count = 1 + max(device.process_index for device in mesh.devices.flat)
    whole = jax.ShapeDtypeStruct((batch_size,), np.dtype(np.int32))
    held: list[set[int]] = [set() for _ in range(count)]
    indices = batch_sharding(mesh, whole).devices_indices_map((batch_size,))
    for device, (index,) in indices.items():
        held[device.process_index].update(range(batch_size)[index])
    return tuple(tuple(sorted(rows)) for rows in held)


def require_divisible(mesh: Mesh, batch_size: int, name: str) -> None:
    """Raises `InputError` if several processes share the mesh and its axes do not
    divide the batch, whose rows are the recipe's `name`."""
    count = 1 + max(device.process_index for device in mesh.devices.flat)
    parts = int(np.prod([mesh.shape[axis] for axis in RULES["batch"]]))
    if count > 1 and batch_size % parts:
        shape = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in RULES["batch"])
        raise InputError(
            f"{name} is {batch_size} rows, and the mesh of {count} processes "
            f"splits them into {parts} parts ({shape}); give a multiple of {parts}, "
            "or fewer processes"
        )


def place(rows: Any, mesh: Mesh) -> Any:
    """A tree of numpy arrays whose leading axis is the batch, alike in all processes,
    as arrays over the whole mesh."""
    return jax.tree.map(
        lambda x, sharding: jax.make_array_from_callback(
            x.shape, sharding, x.__getitem__
        ),
        rows,
        batch_sharding(mesh, rows),
    )


def to_devices(
    host_batch: Mapping[str, np.ndarray],
    mesh: Mesh,
    *,
    rows: Sequence[int] | np.ndarray | None = None,
    batch_size: int | None = None,
) -> Batch:
    """The rows of all processes as arrays over the whole mesh.

    Args:
      host_batch: the rows of this process.
      mesh: where to.
      rows: their numbers in the whole batch, ascending; None if they are all of it.
      batch_size: rows of the whole batch; None if `host_batch` has them all.

    Raises:
      InputError: if a device of this process holds rows that it has not read.
    """
    arrays = {}
    for name in Batch._fields:
        if name in host_batch:
            local = host_batch[name]
            numbers = range(len(local)) if rows is None else rows
            shape = (batch_size or len(local), *local.shape[1:])
            whole = jax.ShapeDtypeStruct(shape, local.dtype)
            read_part = functools.partial(
                rows_of_device, local, rows=numbers, total=shape[0]
            )
            arrays[name] = jax.make_array_from_callback(
                shape, batch_sharding(mesh, whole), read_part
            )
    return Batch(**arrays)


def rows_of_device(
    local: np.ndarray,
    index: tuple[slice, ...],
    *,
    rows: Sequence[int] | np.ndarray,
    total: int,
) -> np.ndarray:
    """The part of a batch that a device holds.

    Args:
      local: the rows of this process.
      index: which part of the whole batch.
      rows: numbers of the local rows in the whole batch, ascending.
      total: rows of the whole batch.

    Raises:
      InputError: if the part is not among the local rows.
    """
    start, stop, _ = index[0].indices(total)
    first = bisect.bisect_left(rows, start)
    last = first + stop - start
    if last <= len(rows) and rows[first] == start and rows[last - 1] == stop - 1:
        return local[(slice(first, last), *index[1:])]
    raise InputError(
        f"the mesh gives a device the rows {start} to {stop - 1} of a batch, which its "
        "process has not read; give the data the rows of `rows_of_processes`"
    )
