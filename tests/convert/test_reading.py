import json
import re
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from seedjax.convert.opening import open_tensors
from seedjax.convert.reading import Tensor
from seedjax.errors import InputError

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def random(*shape, dtype=np.float32):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def write_index(directory, weight_map):
    content = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (directory / INDEX).write_text(json.dumps(content))


def write_sharded(directory):
    """Two shards with an index; the values by name."""
    values = {"a": random(2, 3), "b": random(4), "c": random(3, 5)}
    save_file({n: values[n] for n in "ab"}, directory / SHARDS[0])
    save_file({"c": values["c"]}, directory / SHARDS[1])
    write_index(directory, {"a": SHARDS[0], "b": SHARDS[0], "c": SHARDS[1]})
    return values


def fault(path) -> str:
    with pytest.raises(InputError) as info:
        open_tensors(path)
    assert "\n" not in str(info.value)
    assert str(path) in str(info.value)
    return str(info.value)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(np.float32, "F32"), (np.float16, "F16"), (ml_dtypes.bfloat16, "BF16")],
)
def test_safetensors_are_read_as_stored(tmp_path, dtype, name):
    values = {"w": random(7, 5, dtype=dtype), "scalar": random(dtype=dtype)}
    values["empty"] = np.zeros((0, 4), dtype)
    path = tmp_path / "model.safetensors"
    save_file(values, path, metadata={"format": "pt"})
    source = open_tensors(path)
    assert dict(source.tensors) == {
        "w": Tensor((7, 5), name),
        "scalar": Tensor((), name),
        "empty": Tensor((0, 4), name),
    }
    for tensor, wanted in values.items():
        got = source.read(tensor)
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        assert got.tobytes() == wanted.tobytes()
    source.close()
    with pytest.raises(SafetensorError, match="closed"):
        source.read("w")


def test_float64_is_narrowed_and_integers_are_only_listed(tmp_path):
    wide = random(3, dtype=np.float64)
    save_file({"wide": wide, "ids": np.arange(3)}, tmp_path / "model.safetensors")
    source = open_tensors(tmp_path)
    assert source.read("wide").dtype == np.float32
    np.testing.assert_array_equal(source.read("wide"), wide.astype(np.float32))
    assert source.tensors["ids"] == Tensor((3,), "I64")
    with pytest.raises(InputError, match="ids is stored as I64"):
        source.read("ids")


def test_shards_with_an_index(tmp_path):
    values = write_sharded(tmp_path)
    save_file({"other": random(2)}, tmp_path / "consolidated.safetensors")
    source = open_tensors(tmp_path)
    assert set(source.tensors) == set(values)
    for name, wanted in values.items():
        np.testing.assert_array_equal(source.read(name), wanted)


def test_shards_without_an_index(tmp_path):
    values = write_sharded(tmp_path)
    (tmp_path / INDEX).unlink()
    source = open_tensors(tmp_path)
    np.testing.assert_array_equal(source.read("c"), values["c"])
    (tmp_path / SHARDS[0]).unlink()
    assert f"lacks {SHARDS[0]}; download" in fault(tmp_path)


def test_tensors_are_listed_in_the_order_of_the_file(tmp_path):
    # safetensors puts the widest type first, whatever the names are.
    values = {"a": random(4, dtype=np.float16), "b": random(4)}
    save_file(values, tmp_path / "model.safetensors")
    assert list(open_tensors(tmp_path).tensors) == ["b", "a"]


def test_memory_is_that_of_the_largest_tensor(tmp_path):
    size = 1 << 20
    save_file(
        {str(i): np.ones(size, ml_dtypes.bfloat16) for i in range(6)},
        tmp_path / "model.safetensors",
    )
    source = open_tensors(tmp_path)
    tracemalloc.start()
    for name in source.tensors:
        assert source.read(name).nbytes == 2 * size
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 2 * size <= peak < 2.1 * size


def stored(header, data=b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(begin, end, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


FIRST, SECOND = (json.dumps(entry(n, n + 4)).encode() for n in (0, 4))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "header too small"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "header too large"),
        (stored(b"not json"), "invalid JSON"),
        (stored([1]), "invalid type: sequence"),
        (stored({"a": {"dtype": "F32"}}), "missing field"),
        (stored({"a": entry(0, 4)}, b"123"), "not fully covered"),
        (stored({"a": entry(0, 4)}, b"12345"), "not fully covered"),
        (stored({"a": entry(0, 4), "b": entry(2, 6)}, bytes(6)), "offset for tensor"),
        (stored({"a": entry(0, 4), "b": entry(5, 9)}, bytes(9)), "offset for tensor"),
        (stored({"a": entry(0, 4, (2,))}, bytes(4)), "invalid shape"),
        (stored({"a": entry(0, 4, (-1, -1))}, bytes(4)), "invalid value"),
        (stored({"a": entry(0, 4, (2, 2), "F8_E4M3"), "b": 1}, bytes(4)), "TensorInfo"),
        (
            stored(b'{"a":%s,"a":%s}' % (FIRST, SECOND), bytes(8)),
            "not fully covered|offset for tensor",
        ),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ],
)
def test_damaged_safetensors(tmp_path, content, reason):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    message = fault(path)
    assert "is not a whole safetensors file" in message
    assert re.search(reason, message), message


def test_what_these_headers_would_be_undamaged(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(stored({"b": entry(4, 8), "a": entry(0, 4)}, bytes(8)))
    assert list(open_tensors(path).tensors) == ["a", "b"]


def test_index_names_a_missing_file(tmp_path):
    write_sharded(tmp_path)
    (tmp_path / SHARDS[1]).unlink()
    assert f"names {SHARDS[1]}, not there; download" in fault(tmp_path)


@pytest.mark.parametrize("wrong", [{"d": SHARDS[0]}, {"c": SHARDS[0]}])
def test_index_names_a_tensor_that_the_file_lacks(tmp_path, wrong):
    write_sharded(tmp_path)
    write_index(tmp_path, {"a": SHARDS[0], "b": SHARDS[0], "c": SHARDS[1], **wrong})
    (name,) = wrong
    assert f"names tensor {name} in {SHARDS[0]}, which does not" in fault(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "../a.safetensors"}}'],
)
def test_damaged_index(tmp_path, content):
    write_sharded(tmp_path)
    (tmp_path / INDEX).write_text(content)
    assert "is no index of a checkpoint" in fault(tmp_path)


def test_a_tensor_in_two_files(tmp_path):
    write_sharded(tmp_path)
    save_file({"c": random(3, 5), "a": random(2, 3)}, tmp_path / SHARDS[1])
    assert f"{SHARDS[0]} and {SHARDS[1]}" in fault(tmp_path)


def test_two_checkpoints_in_one_directory(tmp_path):
    write_sharded(tmp_path)
    save_file({"a": random(2)}, tmp_path / "model.safetensors")
    assert "holds both" in fault(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / INDEX).unlink()
    save_file({"a": random(2)}, tmp_path / "model-00001-of-00003.safetensors")
    assert "of several checkpoints, of 00002 and of 00003 files" in fault(tmp_path)


def test_nothing_to_open(tmp_path):
    assert "holds no checkpoint" in fault(tmp_path)
    assert "does not exist" in fault(tmp_path / "absent")
    (tmp_path / "model.onnx").touch()
    assert "is no checkpoint by its name" in fault(tmp_path / "model.onnx")
    (tmp_path / "tiny.gguf").touch()
    assert "but tiny.gguf; give the path of the file" in fault(tmp_path)
