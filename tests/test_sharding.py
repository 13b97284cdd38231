import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from seedjax.errors import InputError
from seedjax.sharding import constrain, make_mesh, named_sharding, partition_spec

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
        ("", (8, 1, 1)),
        ("data=2,fsdp=2,tensor=2", (2, 2, 2)),
        ("tensor=4,data=2", (2, 1, 4)),
        ("fsdp=-1", (1, 8, 1)),
        ("data=2,tensor=-1", (2, 1, 4)),
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
