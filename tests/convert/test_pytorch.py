import gc
import json
import os
import pickle
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from seedjax.convert.opening import open_tensors
from seedjax.convert.reading import Tensor
from seedjax.errors import InputError

torch = pytest.importorskip("torch", reason="needs the extra torch")


class Evil:
    """Unpickled by pickle itself, this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def fault(path) -> str:
    with pytest.raises(InputError) as info:
        open_tensors(path)
    assert "\n" not in str(info.value)
    assert str(path) in str(info.value)
    return str(info.value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", [".bin", ".pt"])
def test_tensors_are_read_as_stored(tmp_path, zipped, suffix):
    values = torch.arange(12, dtype=torch.float32).reshape(3, 4) / 7
    state = {
        "f32": values,
        "f16": values.half(),
        "bf16": values.bfloat16(),
        "transposed": values.T,
        "parameter": torch.nn.Parameter(values + 1),
        "tied": values,
        "scalar": torch.tensor(3.0, dtype=torch.bfloat16),
    }
    path = tmp_path / f"model{suffix}"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    source = open_tensors(path)
    assert source.tensors["bf16"] == Tensor((3, 4), "BF16")
    assert source.tensors["transposed"] == Tensor((4, 3), "F32")
    assert source.tensors["scalar"] == Tensor((), "BF16")
    dtypes = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "scalar": "bfloat16"}
    for name, tensor in state.items():
        got = source.read(name)
        assert got.dtype == dtypes.get(name, np.float32)
        wanted = tensor.detach().float().numpy()
        np.testing.assert_array_equal(got.astype(np.float32), wanted)


def test_float64_is_narrowed_and_integers_are_only_listed(tmp_path):
    wide = torch.rand(3, dtype=torch.float64)
    torch.save({"wide": wide, "ids": torch.arange(3)}, tmp_path / "pytorch_model.bin")
    source = open_tensors(tmp_path)
    np.testing.assert_array_equal(source.read("wide"), wide.float().numpy())
    assert source.read("wide").dtype == np.float32
    assert source.tensors["ids"] == Tensor((3,), "I64")
    with pytest.raises(InputError, match="ids is stored as I64"):
        source.read("ids")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_one_shard_is_mapped_at_a_time(tmp_path):
    names = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    for i, name in enumerate(names):
        torch.save({f"w{i}": torch.full((1000,), float(i))}, tmp_path / name)
    weight_map = {f"w{i}": name for i, name in enumerate(names)}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    source = open_tensors(tmp_path)

    def mapped():
        gc.collect()
        maps = Path("/proc/self/maps").read_text()
        return [name for name in names if str(tmp_path / name) in maps]

    assert mapped() == []
    for i, name in enumerate(names):
        assert source.read(f"w{i}").mean() == i
        assert mapped() == [name]
    source.close()
    assert mapped() == []


def test_safetensors_come_first(tmp_path):
    from safetensors.numpy import save_file

    torch.save({"w": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    assert open_tensors(tmp_path).read("w").tolist() == [1, 1]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "new pickle"])
def test_code_is_refused_and_not_run(tmp_path, form):
    path, made = tmp_path / "pytorch_model.bin", tmp_path / "made"
    content = {"w": torch.zeros(2), "evil": Evil(made)}
    if "pickle" in form:
        protocol = 5 if form == "new pickle" else 2
        path.write_bytes(pickle.dumps(content["evil"], protocol))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    message = fault(tmp_path if form == "zip" else path)
    named = "something" if form == "new pickle" else "mkdir"
    assert f"{named} that is no tensor and could run any code" in message
    assert not made.exists()
    # The file does what is feared of it, as soon as it is trusted.
    if "pickle" in form:
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert made.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"w": torch.zeros(2), "epoch": 3}, r"'epoch' \(int\)"),
        ({"model": {"w": torch.zeros(2)}}, r"'model' \(dict\)"),
        ({1: torch.zeros(2)}, r"1 \(Tensor\)"),
        ({"w": torch.eye(2).to_sparse()}, r"'w' \(Tensor\), which is no plain tensor"),
        ([torch.zeros(2)], "holds a list; expected tensors by name"),
    ],
)
def test_what_is_no_tensor_is_refused(tmp_path, content, reason):
    path = tmp_path / "model.bin"
    torch.save(content, path)
    with pytest.raises(InputError, match=reason):
        open_tensors(path)


@pytest.mark.parametrize("keep", [0, 5, 700, -10])
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files(tmp_path, keep, zipped):
    path = tmp_path / "model.bin"
    torch.save({"w": torch.rand(1000)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:keep])
    assert "is not a whole PyTorch file" in fault(path)


def test_pointer_of_git_lfs(tmp_path):
    path = tmp_path / "model.bin"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "run `git lfs pull`" in fault(path)


def test_a_tensor_in_two_shards(tmp_path):
    for i in (1, 2):
        name = f"pytorch_model-0000{i}-of-00002.bin"
        torch.save({"w": torch.zeros(2)}, tmp_path / name)
    assert "tensor w is in both" in fault(tmp_path)


def test_without_pytorch(tmp_path, monkeypatch):
    path = tmp_path / "model.bin"
    torch.save({"w": torch.zeros(2)}, path)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install 'seedjax[torch]'" in fault(path)
