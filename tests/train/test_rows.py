"""Which rows of a batch a device gets, where several processes have read it."""

import numpy as np
import pytest

from seedjax.errors import InputError
from seedjax.sharding import make_mesh
from seedjax.train.run import rows_of_device, to_devices


def test_a_device_gets_its_part_of_the_rows_of_its_process():
    local = np.arange(8)[:, None] + 100  # of the second of two processes
    part = rows_of_device(local, (slice(12, 14), slice(None)), first=8, total=16)
    np.testing.assert_array_equal(part, [[104], [105]])


@pytest.mark.parametrize("rows", [slice(None), slice(0, 4), slice(6, 10)])
def test_rows_of_another_process_are_refused(rows):
    """A batch that does not divide over the mesh would lie on every device, each
    process's with rows of its own."""
    local = np.zeros((8, 1))
    with pytest.raises(InputError, match="has only read 8 to 15"):
        rows_of_device(local, (rows, slice(None)), first=8, total=16)


@pytest.mark.parametrize("size", [8, 2])
def test_one_process_places_its_batch_as_it_is(size):
    rows = np.arange(size * 3, dtype=np.int32).reshape(size, 3)
    names = ("tokens", "segments", "positions")
    given = dict.fromkeys(names, rows) | {"supervised": rows > 0}
    batch = to_devices(given, make_mesh("data=8"))
    np.testing.assert_array_equal(batch.tokens, rows)
    assert batch.order is None
