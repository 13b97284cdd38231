import math
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from seedjax import sharding
from seedjax.errors import InputError
from seedjax.sharding import (
    constrain,
    lay_out,
    make_mesh,
    map_shards,
    named_sharding,
    partition_spec,
    scatter_sum,
)

SHAPE = {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
    ("axes", "shape", "wanted"),
    [
        (("batch", "length"), (8, 5), PartitionSpec(("data", "fsdp"), None)),
        (("mlp", "embed"), (6, 4), PartitionSpec(("tensor",), ("fsdp",))),
        (("mlp", "embed"), (5, 4), PartitionSpec(None, ("fsdp",))),
        (("batch",), (2,), PartitionSpec(("data",))),
        (("batch",), (3,), PartitionSpec(None)),
        ((), (), PartitionSpec()),
    ],
)
def test_partition_spec(axes, shape, wanted):
    """Axes that do not divide a dimension are left out, one by one."""
    assert partition_spec(axes, shape, SHAPE) == wanted


@pytest.mark.parametrize(
    ("description", "sizes"),
    [
        ("", (8, 1, 1, 1, 1)),
        ("data=2,fsdp=2,tensor=2", (2, 2, 1, 2, 1)),
        ("tensor=4,data=2", (2, 1, 1, 4, 1)),
        ("fsdp=-1", (1, 8, 1, 1, 1)),
        ("expert=4,tensor=2", (1, 1, 4, 2, 1)),
        ("data=2,tensor=-1", (2, 1, 1, 4, 1)),
        ("fsdp=2,sequence=4", (1, 2, 1, 1, 4)),
    ],
)
def test_make_mesh(description, sizes):
    assert tuple(make_mesh(description).shape.values()) == sizes


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("data=3", "needs 3 devices; this machine shows 8"),
        ("model=8", "is not AXIS=SIZE"),
        ("data", "is not AXIS=SIZE"),
        ("data=two", "is not AXIS=SIZE"),
        ("data=0", "devices"),
        ("data=-1,fsdp=-1", "devices"),
    ],
)
def test_bad_mesh(description, message):
    with pytest.raises(InputError, match=message):
        make_mesh(description)


def torus(x: int, y: int, *, kind: str, slices: int = 1) -> list[SimpleNamespace]:
    """Chips of TPU slices, as JAX describes them."""
    return [
        SimpleNamespace(
            id=number,
            platform="tpu",
            device_kind=kind,
            slice_index=number // (x * y),
            process_index=number // 4,
            core_on_chip=0,
            coords=(number % x, number // x % y, 0),
        )
        for number in range(x * y * slices)
    ]


@pytest.mark.parametrize("kind", ["TPU v6 lite", "TPU v5 lite"])
@pytest.mark.parametrize("sizes", [(1, 16, 1, 4), (1, 8, 1, 8), (2, 2, 2, 8)])
def test_axes_that_do_not_fit_the_torus_split_it(kind, sizes):
    devices = torus(8, 8, kind=kind)
    laid_out = lay_out(sizes, devices)
    assert laid_out.shape == sizes
    assert len({device.id for device in laid_out.flat}) == math.prod(sizes)


def test_data_runs_over_slices_and_the_others_inside():
    laid_out = lay_out((2, 4, 1, 4), torus(4, 4, kind="TPU v6 lite", slices=2))
    for number, inside in enumerate(laid_out):
        assert {device.slice_index for device in inside.flat} == {number}


def test_fsdp_runs_over_slices_where_data_cannot():
    laid_out = lay_out((1, 8, 1, 4), torus(4, 4, kind="TPU v6 lite", slices=2))
    halves = (laid_out[:, :4], laid_out[:, 4:])
    assert [{d.slice_index for d in half.flat} for half in halves] == [{0}, {1}]


def test_a_mesh_that_no_axis_splits_over_slices_is_refused():
    with pytest.raises(InputError, match="2 TPU slices, but --mesh has data=1"):
        lay_out((1, 1, 1, 32), torus(4, 4, kind="TPU v6 lite", slices=2))


def test_the_batch_is_split_over_experts_except_where_it_meets_them():
    mesh = {"data": 2, "fsdp": 1, "expert": 4, "tensor": 1}
    split = partition_spec(("batch",), (8,), mesh)
    assert split == PartitionSpec(("data", "fsdp", "expert"))
    whole = partition_spec(("expert_batch",), (8,), mesh)
    assert whole == PartitionSpec(("data", "fsdp"))
    kernels = partition_spec(("expert", "mlp", "embed"), (4, 6, 8), mesh)
    assert kernels == PartitionSpec(("expert",), ("tensor",), ("fsdp",))


def test_map_shards_adds_up_the_parts():
    """Over the mesh axes that split what is summed, and over no others."""
    x, biases = jnp.ones((8, 3)), jnp.arange(8.0)

    def add(x, biases):
        return x * biases.sum()

    def whole(x, biases):
        axes = (("expert_batch", "length"), ("expert",))
        return map_shards(add, (x, biases), axes, summed=("expert",))

    for mesh in ("data=2,expert=4", "data=2,fsdp=4", "expert=8"):
        with jax.set_mesh(make_mesh(mesh)):
            np.testing.assert_array_equal(jax.jit(whole)(x, biases), 28.0 * x)
    np.testing.assert_array_equal(whole(x, biases), 28.0 * x)


@pytest.mark.parametrize("lines", [None, (2, 2), (4,)])
@pytest.mark.parametrize("mesh", ["fsdp=4,tensor=2", "data=2,fsdp=4"])
def test_a_sum_over_rows_is_scattered_to_where_it_lies(mesh, lines, monkeypatch):
    """Line by line of a torus or at once; over `data` it is added up whole."""
    if lines is not None:
        monkeypatch.setattr(sharding, "_lines", lambda coords: lines)
        monkeypatch.setattr(sharding, "_coords", lambda name, size: ((0,),) * size)
    rng = np.random.default_rng(0)
    x, y = (
        jnp.array(rng.integers(-4, 5, (8, 3, n)), jnp.float32) for n in (8, 6)
    )  # whole numbers: sums in any order are equal

    def total(x, y):
        return jnp.einsum("blo,bli->oi", y, x)

    def scattered(x, y):
        axes = (("batch", "length", "activation_embed"), ("batch", "length", "mlp"))
        return scatter_sum(total, (x, y), axes, result=("mlp", "embed"))

    device_mesh = make_mesh(mesh)
    with jax.set_mesh(device_mesh):
        compiled = jax.jit(scattered).lower(x, y).compile()
        found = compiled(x, y)
    np.testing.assert_array_equal(found, total(x, y))
    expected = named_sharding(device_mesh, ("mlp", "embed"), (6, 8))
    assert found.sharding.is_equivalent_to(expected, 2)
    text = compiled.as_text()
    assert len(re.findall(r"\breduce-scatter\(", text)) == len(lines or "1")
    # What is added up whole is a device's own part by then.
    sizes = re.findall(r"f32\[(\S+)\]\S* all-reduce\(", text)
    assert sizes == (["6,2"] if "data" in mesh else [])
    np.testing.assert_array_equal(scattered(x, y), total(x, y))


@pytest.mark.parametrize(
    ("coords", "lines"),
    [
        ([(x, y, 0) for x in range(4) for y in range(2)], (4, 2)),
        ([(x, y, 0) for y in range(2) for x in range(4)], (2, 4)),
        ([(x, 0, 0) for x in range(8)], (8,)),
        ([(x, y, z) for z in range(2) for y in range(3) for x in range(4)], (2, 3, 4)),
        ([(0, 0), (1, 1), (2, 3)], (3,)),  # no lines
    ],
)
def test_lines_of_a_torus(coords, lines):
    assert sharding._lines(tuple(coords)) == lines


def test_constrain_is_the_identity_without_a_mesh():
    x = jnp.ones((4, 4))
    assert constrain(x, ("batch", "length")) is x


def test_constrain_splits_inside_jit():
    mesh = make_mesh("data=8")
    with jax.set_mesh(mesh):
        x = jax.jit(lambda x: constrain(x * 2, ("batch", "length")))(np.ones((8, 4)))
    assert x.sharding.is_equivalent_to(
        named_sharding(mesh, ("batch", "length"), (8, 4)), 2
    )
