"""Meshes, and the one table from logical axis names to mesh axes.

Model code names the axes of its arrays logically ("batch", "heads"); only this file
knows that a mesh has the axes data, fsdp, expert, tensor and sequence. Programs get
their layout from `jax.jit` with shardings (what used to be called pjit), from
`constrain` and, where XLA cannot split a computation, from `map_shards`. Both do
nothing when no mesh is set, so that the model runs untouched on one device.

    data      rows of the batch; parameters are copied
    fsdp      rows of the batch; parameters are split and gathered where they are used
    expert    rows of the batch, and the experts of a mixture, which see all those rows
    tensor    heads, feed-forward width and vocabulary are split
    sequence  positions of long rows, in training; each device gathers all keys
"""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from seedjax.backend import require_backend
from seedjax.errors import InputError
from seedjax.typing import Array

MESH_AXES = ("data", "fsdp", "expert", "tensor", "sequence")

RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp", "expert"),
    "expert_batch": ("data", "fsdp"),  # the batch where each row meets all experts
    "group_rows": (),  # rows of one part of the batch
    "length": ("sequence",),  # L, of activations
    "whole_length": (),  # S of keys, columns of a canvas
    "embed": ("fsdp",),  # D, on parameters
    "activation_embed": (),  # D, on activations
    "heads": ("tensor",),  # H or K, alone or times C
    "head_dim": (),
    "mlp": ("tensor",),  # F
    "vocab": ("tensor",),  # V
    "expert": ("expert",),  # E
    "router": (),  # E, where each token needs the scores of all experts
    "layers": (),  # the leading axis of scanned layers
    "norm": (),
    "rank": (),  # of an adapter
}
"""Logical axis -> mesh axes that split it."""

LogicalAxes = tuple[str, ...]


def of_activation(axis: str) -> str:
    """The axis of activations that runs along one of a parameter."""
    return "activation_embed" if axis == "embed" else axis


def make_mesh(description: str = "", devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh from a description such as `"data=2,fsdp=2,tensor=2"`.

    An axis that is left out has size 1; one size may be -1 and takes what remains. The
    empty description puts all devices on `data`.

    Raises:
      InputError: for an unknown axis, a size that is no number, or sizes whose product
        is not the number of devices; in a process that was forked from one that used
        JAX.
    """
    require_backend()
    devices = jax.devices() if devices is None else devices
    sizes = dict.fromkeys(MESH_AXES, 1)
    for part in filter(None, description.split(",")):
        name, _, size = part.partition("=")
        if name.strip() not in sizes or not size.strip().lstrip("-").isdigit():
            raise InputError(
                f"--mesh part {part!r} is not AXIS=SIZE with an axis of "
                f"{', '.join(MESH_AXES)}, for example data=2,fsdp=2,tensor=2"
            )
        sizes[name.strip()] = int(size)
    if not description:
        sizes["data"] = -1
    free = [name for name, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(free) == 1 and fixed > 0 and len(devices) % fixed == 0:
        sizes[free[0]] = len(devices) // fixed
    if min(sizes.values()) < 1 or math.prod(sizes.values()) != len(devices):
        shape = " x ".join(f"{name}={size}" for name, size in sizes.items())
        raise InputError(
            f"the mesh {shape} needs {abs(math.prod(sizes.values()))} devices; this "
            f"machine shows {len(devices)}"
        )
    return Mesh(
        lay_out(tuple(sizes.values()), devices),
        MESH_AXES,
        axis_types=(AxisType.Auto,) * len(MESH_AXES),
    )


def open_mesh(mesh: str | Mesh) -> Mesh:
    """A mesh from a description, as `make_mesh`, or one of the caller's own, whose axes
    are then left to the compiler (`AxisType.Auto`).

    Raises:
      InputError: as `make_mesh`, and for a mesh with another axis than `MESH_AXES`.
    """
    if not isinstance(mesh, Mesh):
        return make_mesh(mesh)
    require_backend()
    if unknown := [name for name in mesh.axis_names if name not in MESH_AXES]:
        raise InputError(
            f"the mesh has an axis {unknown[0]!r}; it may have {', '.join(MESH_AXES)}"
        )
    names = mesh.axis_names
    return Mesh(mesh.devices, names, axis_types=(AxisType.Auto,) * len(names))


def mesh_of(tree: Any) -> Mesh | None:
    """The mesh of more than one device that the first array of a tree lies on; None
    where there is none."""
    sharding = getattr(jax.tree.leaves(tree)[0], "sharding", None)
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
        return sharding.mesh if sharding.mesh.size > 1 else None
    return None


def refuse_uneven(mesh: Mesh, sizes: Mapping[str, tuple[str, int]]) -> None:
    """Refuses a mesh that would not split what its axes are for: `partition_spec` would
    copy it, and each device compute all of it.

    Args:
      mesh: the mesh.
      sizes: by the name of a size, its logical axis and how long it is.

    Raises:
      InputError: if an axis of the mesh does not divide one of them.
    """
    for name, (axis, size) in sizes.items():
        for mesh_axis in RULES[axis]:
            ways = mesh.shape.get(mesh_axis, 1)
            if size % ways:
                divisors = [n for n in range(1, min(size, 64) + 1) if size % n == 0]
                raise InputError(
                    f"the mesh has {mesh_axis}={ways}, which does not divide {name}="
                    f"{size} of the model; it is divided by "
                    f"{', '.join(map(str, divisors))}"
                )


def lay_out(sizes: tuple[int, ...], devices: Sequence[Any]) -> np.ndarray:
    """Devices in an array of `sizes`, one axis of `MESH_AXES` each, neighbours on the
    interconnect next to each other as far as that goes.

    Slices of a TPU, and hosts of GPUs, are joined by a slower network: `data` runs over
    them where it can, else `fsdp`.

    Raises:
      InputError: where neither of them is a multiple of the number of TPU slices.
    """
    slices: dict[int, list[Any]] = {}
    for device in devices:
        slices.setdefault(getattr(device, "slice_index", None) or 0, []).append(device)
    if len(slices) == 1:
        return _lay_out_slice(sizes, devices)
    for axis in (MESH_AXES.index("data"), MESH_AXES.index("fsdp")):
        if sizes[axis] % len(slices) == 0:
            inner = list(sizes)
            inner[axis] //= len(slices)
            parts = [_lay_out_slice(inner, slices[number]) for number in sorted(slices)]
            return np.concatenate(parts, axis)
    if devices[0].platform != "tpu":
        return np.array(devices).reshape(sizes)
    raise InputError(
        f"the devices are of {len(slices)} TPU slices, but --mesh has data={sizes[0]} "
        f"and fsdp={sizes[1]}; one of them must be a multiple of {len(slices)}"
    )


def _lay_out_slice(sizes: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
    """Devices of one slice, by its torus if an axis can be a product of the torus's
    axes, or else of parts of them; in their own order if neither can be."""
    # The torus of a v5e is so small that splitting its axes costs nothing.
    tiny_torus = devices[0].device_kind in ("TPU v5 lite", "TPU v5e")
    for split in (True,) if tiny_torus else (False, True):
        with contextlib.suppress(NotImplementedError):
            return mesh_utils.create_device_mesh(
                sizes, devices, allow_split_physical_axes=split
            )
    return np.array(devices).reshape(sizes)


def partition_spec(
    axes: LogicalAxes, shape: tuple[int, ...], mesh_shape: dict[str, int]
) -> PartitionSpec:
    """How an array with logical `axes` lies on a mesh. A mesh axis that does not divide
    the dimension is left out: the array is copied along it, which is always correct."""
    entries: list[tuple[str, ...] | None] = []
    for axis, size in zip(axes, shape, strict=True):
        kept: tuple[str, ...] = ()
        for name in RULES[axis]:
            if name not in mesh_shape:
                continue
            if size % math.prod(mesh_shape[n] for n in (*kept, name)) == 0:
                kept = (*kept, name)
        entries.append(kept or None)
    return PartitionSpec(*entries)


def mesh_axes(split: Any) -> tuple[str, ...]:
    """The mesh axes of an entry of a partition specification, a dimension's."""
    return (split,) if isinstance(split, str) else tuple(split or ())


def named_sharding(
    mesh: Mesh, axes: LogicalAxes, shape: tuple[int, ...]
) -> NamedSharding:
    """`partition_spec` on a mesh."""
    return NamedSharding(mesh, partition_spec(axes, shape, dict(mesh.shape)))


def tree_shardings(mesh: Mesh, logical_axes: Any, abstract: Any) -> Any:
    """Shardings of a whole tree; `logical_axes` has a tuple of names at each leaf of
    `abstract`."""
    return jax.tree.map(
        lambda leaf, axes: named_sharding(mesh, axes, leaf.shape),
        abstract,
        logical_axes,
    )


def batch_sharding(mesh: Mesh, batch: Any) -> Any:
    """Shardings of a tree of arrays whose leading axis is the batch."""
    return jax.tree.map(
        lambda leaf: named_sharding(
            mesh,
            ("batch", *("length",) * (leaf.ndim - 1)) if leaf.ndim else (),
            leaf.shape,
        ),
        batch,
    )


def constrain(x: Array, axes: LogicalAxes) -> Array:
    """Pins the layout of an activation inside `jit`; the identity when no mesh is set.

    Left alone, XLA keeps whole batches on every device of the fsdp axis.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or math.prod(mesh.shape.values()) == 1:
        return x
    return jax.lax.with_sharding_constraint(
        x, partition_spec(axes, x.shape, dict(mesh.shape))
    )


def num_parts(axis: str, size: int) -> int:
    """Into how many parts the mesh that is set splits a dimension of `size` with the
    logical `axis`; 1 when no mesh is set."""
    mesh = dict(jax.sharding.get_abstract_mesh().shape)
    (names,) = partition_spec((axis,), (size,), mesh)
    return math.prod(
        mesh[n] for n in ((names,) if isinstance(names, str) else names or ())
    )


def map_shards(
    function: Callable[..., Array],
    arrays: tuple[Array, ...],
    axes: tuple[LogicalAxes, ...],
    *,
    summed: LogicalAxes,
) -> Array:
    """`function(*arrays)` where every device works on its own part of each array; a
    plain call when no mesh is set. For what XLA cannot split by itself.

    Args:
      function: gives an array with the axes and the shape of its first argument.
      arrays: whole arrays.
      axes: the logical axes of each.
      summed: logical axes of which a device sees only a part and over which its result
        is a partial sum: the parts are added up.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or math.prod(mesh.shape.values()) == 1:
        return function(*arrays)
    specs = tuple(
        partition_spec(names, array.shape, dict(mesh.shape))
        for names, array in zip(axes, arrays, strict=True)
    )
    parted: set[str] = set()
    for names, spec in zip(axes, specs, strict=True):
        for name, split in zip(names, spec, strict=True):
            if name in summed and split is not None:
                parted |= {split} if isinstance(split, str) else set(split)

    def part(*parts: Array) -> Array:
        return jax.lax.psum(function(*parts), tuple(sorted(parted)))

    # The check of replication has no rules for custom gradients.
    return jax.shard_map(part, in_specs=specs, out_specs=specs[0], check_vma=False)(
        *arrays
    )


def scatter_sum(
    function: Callable[..., Array],
    arrays: tuple[Array, ...],
    axes: tuple[LogicalAxes, ...],
    *,
    result: LogicalAxes,
) -> Array:
    """`function(*arrays)`, a sum over the rows and positions of `arrays`, such as the
    gradient of a parameter: each device sums those it has, and the sums are added up as
    they are scattered to where they lie. A plain call when no mesh is set.

    Left alone, XLA adds whole sums up everywhere if the devices of a mesh axis are no
    line of a TPU's torus. Here each line of them is a round of its own.

    Args:
      function: gives an array that no axis of rows and positions splits.
      arrays: whole arrays.
      axes: the logical axes of each.
      result: the logical axes of the result.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or math.prod(mesh.shape.values()) == 1:
        return function(*arrays)
    shape = dict(mesh.shape)
    specs = tuple(
        partition_spec(names, array.shape, shape)
        for names, array in zip(axes, arrays, strict=True)
    )
    summed = {
        mesh_axis
        for names, spec in zip(axes, specs, strict=True)
        for name, split in zip(names, spec, strict=True)
        if name in ("batch", "length")
        for mesh_axis in mesh_axes(split)
    }
    whole = jax.eval_shape(function, *arrays).shape
    out = partition_spec(result, whole, shape)
    scattered = [
        (dimension, name)
        for dimension, split in enumerate(out)
        for name in mesh_axes(split)
        if name in summed and shape[name] > 1
    ]
    rest = summed - {name for _, name in scattered}
    whole_over = tuple(sorted(name for name in rest if shape[name] > 1))

    def part(*parts: Array) -> Array:
        total = function(*parts)
        for dimension, name in scattered:
            for groups in _rounds(name, shape[name]):
                total = jax.lax.psum_scatter(
                    total,
                    name,
                    scatter_dimension=dimension,
                    axis_index_groups=groups,
                    tiled=True,
                )
        # Last, when each device has only its own part to send.
        return jax.lax.psum(total, whole_over) if whole_over else total

    # The check of replication has no rules for groups.
    return jax.shard_map(part, in_specs=specs, out_specs=out, check_vma=False)(*arrays)


def _rounds(name: str, size: int) -> list[list[list[int]] | None]:
    """Groups of the places along a mesh axis, round by round, so that the devices of a
    group stand in a line; None is all of them at once."""
    coords = _coords(name, size)
    sizes = _lines(coords) if coords else (size,)
    if len(sizes) == 1:
        return [None]
    places = np.arange(size).reshape(sizes)
    return [
        np.moveaxis(places, axis, -1).reshape(-1, count).tolist()
        for axis, count in enumerate(sizes)
    ]


def _coords(name: str, size: int) -> tuple[Any, ...]:
    """Where the devices along a mesh axis stand on their torus; empty where they are on
    none."""
    from jax._src.mesh import get_concrete_mesh  # the public one refuses while tracing

    mesh = get_concrete_mesh()
    if mesh.empty or mesh.devices.flat[0].platform != "tpu":
        return ()
    along = np.moveaxis(mesh.devices, mesh.axis_names.index(name), 0)
    return tuple(device.coords for device in along.reshape(size, -1)[:, 0])


def _lines(coords: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes, the major first, into which places on a torus fall so that along each of
    them one coordinate changes: a plane of 4 x 2, row by row, is 4 lines of 2."""

    def is_line(places: tuple[Any, ...]) -> bool:
        return sum(len({*values}) > 1 for values in zip(*places, strict=True)) < 2

    count = len(coords)
    for size in (n for n in range(count, 1, -1) if count % n == 0):
        if all(is_line(coords[i : i + size]) for i in range(0, count, size)):
            return (size,) if size == count else (*_lines(coords[::size]), size)
    return (count,)
