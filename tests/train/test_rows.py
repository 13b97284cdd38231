"""Which rows of a batch a device gets, where several processes have read it."""

import numpy as np
import pytest

from seedjax.errors import InputError
from seedjax.sharding import make_mesh
from seedjax.train.placement import rows_of_device, rows_of_processes, to_devices


def test_a_device_gets_its_part_of_the_rows_of_its_process():
    local = np.arange(6)[:, None] + 100
    rows = [2, 3, 8, 9, 12, 13]  # of one of several processes
    part = rows_of_device(local, (slice(8, 10), slice(None)), rows=rows, total=16)
    np.testing.assert_array_equal(part, [[102], [103]])


@pytest.mark.parametrize("index", [slice(None), slice(0, 2), slice(9, 12)])
def test_rows_of_another_process_are_refused(index):
    local, rows = np.zeros((4, 1)), np.array([8, 9, 12, 13])
    with pytest.raises(InputError, match="has not read"):
        rows_of_device(local, (index, slice(None)), rows=rows, total=16)


@pytest.mark.parametrize("size", [8, 2])
def test_one_process_places_its_batch_as_it_is(size):
    rows = np.arange(size * 3, dtype=np.int32).reshape(size, 3)
    names = ("tokens", "segments", "positions")
    given = dict.fromkeys(names, rows) | {"supervised": rows > 0}
    batch = to_devices(given, make_mesh("data=8"))
    np.testing.assert_array_equal(batch.tokens, rows)
    assert batch.order is None


def test_one_process_holds_all_rows():
    assert rows_of_processes(make_mesh("data=8"), 2) == ((0, 1),)
