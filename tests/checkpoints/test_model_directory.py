"""Model directories: exact round trips, replacement without a gap, refusals by name."""

import importlib.resources
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from safetensors.numpy import load_file, save_file

from seedjax.checkpoints import model_directory
from seedjax.checkpoints.model_directory import (
    bundled_models,
    read_model_directory,
    resolve_model,
    save_model,
)
from seedjax.checkpoints.weights import is_finite
from seedjax.config import DenoiserConfig
from seedjax.errors import InputError

DENOISER = DenoiserConfig(
    vocab_size=32,
    hidden_size=8,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    mlp_size=16,
    eos_token_ids=(3, 5),
)


class FakeTokenizer:
    """Saves one file, which is all that a model directory asks of a tokenizer."""

    def __init__(self, content: str = "pieces"):
        self.content = content

    def save(self, directory: str | Path) -> None:
        (Path(directory) / "tokenizer.model").write_text(self.content)


def make_params(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "embedding": normal(32, 8).at[3].set(0.0),  # an unused row
        "layers_0": {"query": {"kernel": normal(8, 8), "bias": normal(8)}},
        "final_norm": {"scale": normal(8)},
    }


ABSTRACT = jax.eval_shape(make_params)


def save(directory: Path, seed: int = 0, **changes: Any) -> None:
    arguments: dict[str, Any] = dict(
        params=make_params(seed),
        denoiser=DENOISER,
        tokenizer=FakeTokenizer(),
        sampler={"kind": "SamplerConfig", "num_steps": 8},
        provenance={"data": "tiny", "steps": seed},
        card="# A model\n",
    )
    save_model(directory, **(arguments | changes))


def load(directory: Path, **changes: Any) -> Any:
    arguments = {"abstract_params": ABSTRACT} | changes
    return read_model_directory(directory).load_params(**arguments)


def snapshot(directory: Path) -> dict[str, bytes]:
    files = [p for p in directory.rglob("*") if p.is_file()]
    return {str(p.relative_to(directory)): p.read_bytes() for p in files}


def assert_same(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def assert_one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def edit_config(directory: Path, **changes: Any) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | changes))


def weights_file(directory: Path) -> Path:
    (path,) = (directory / "params").glob("*.safetensors")
    return path


def test_description_comes_back(tmp_path):
    save(tmp_path / "m", seed=4)
    model = read_model_directory(tmp_path / "m")
    assert model.path == tmp_path / "m"
    assert model.denoiser == DENOISER
    assert model.sampler == {"kind": "SamplerConfig", "num_steps": 8}
    assert model.provenance == {"data": "tiny", "steps": 4}
    assert (model.tokenizer / "tokenizer.model").read_text() == "pieces"
    assert (tmp_path / "m" / "README.md").read_text() == "# A model\n"
    names = {p.name for p in (tmp_path / "m").iterdir()}
    assert names == {"config.json", "tokenizer", "params", "README.md"}


def test_float32_is_exact(tmp_path):
    save(tmp_path)
    assert_same(load(tmp_path), make_params())
    assert read_model_directory(tmp_path).weights.max_relative_error == 0.0
    stored = load_file(weights_file(tmp_path))
    assert set(stored) == {
        "embedding",
        "layers_0.query.kernel",
        "layers_0.query.bias",
        "final_norm.scale",
    }


def test_bfloat16_is_rounding(tmp_path):
    save(tmp_path, weights_dtype="bfloat16")
    rounded = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), make_params()
    )
    assert_same(load(tmp_path), rounded)
    for value in load_file(weights_file(tmp_path)).values():
        assert value.dtype == ml_dtypes.bfloat16
    assert 0 < read_model_directory(tmp_path).weights.max_relative_error < 2**-8


def test_int8_has_a_scale_for_each_output_channel(tmp_path):
    params = make_params()
    kernel = params["layers_0"]["query"]["kernel"]
    params["layers_0"]["query"]["kernel"] = kernel.at[2].multiply(1000.0)
    save(tmp_path, params=params, weights_dtype="int8")
    stored = load_file(weights_file(tmp_path))
    assert stored["layers_0.query.kernel"].dtype == np.int8
    assert stored["layers_0.query.kernel.scale"].shape == (8,)
    assert stored["final_norm.scale"].dtype == np.float32

    loaded, errors = load(tmp_path), []
    for name in ("embedding", "layers_0"):
        given = np.asarray(jax.tree.leaves(params[name])[-1])
        got = np.asarray(jax.tree.leaves(loaded[name])[-1])
        step = np.abs(given).max(axis=1, keepdims=True) / 127
        assert (np.abs(got - given) <= 0.5001 * step).all()  # rounding, by channel
        errors.append(np.linalg.norm(got - given) / np.linalg.norm(given))
    assert_same(loaded["final_norm"], params["final_norm"])
    assert not loaded["embedding"][3].any()
    recorded = read_model_directory(tmp_path).weights.max_relative_error
    np.testing.assert_allclose(recorded, max(errors), rtol=1e-5)
    assert 0.001 < recorded < 0.01


def test_large_models_take_several_files(tmp_path):
    save(tmp_path, max_file_bytes=600)
    model = read_model_directory(tmp_path)
    assert len(model.weights.files) == 2  # embedding; the rest
    assert_same(load(tmp_path), make_params())
    (tmp_path / "params" / model.weights.files[1]).unlink()
    with pytest.raises(InputError, match=r"model-00001\.safetensors is missing"):
        load(tmp_path)


def test_dtype_and_sharding_are_the_callers(tmp_path):
    save(tmp_path)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    rows = NamedSharding(mesh, PartitionSpec("x"))
    loaded = load(tmp_path, dtype="bfloat16", shardings=rows)
    assert all(leaf.sharding == rows for leaf in jax.tree.leaves(loaded))
    assert_same(loaded, jax.tree.map(lambda x: x.astype("bfloat16"), make_params()))

    both = NamedSharding(mesh, PartitionSpec("x", "y"))
    shardings = jax.tree.map(lambda leaf: both if leaf.ndim == 2 else rows, ABSTRACT)
    wanted = jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16, sharding=s),
        ABSTRACT,
        shardings,
    )
    for result in (
        load(tmp_path, shardings=shardings, dtype="bfloat16"),
        load(tmp_path, abstract_params=wanted),
    ):
        assert_same(result, loaded)
        assert result["embedding"].sharding == both
        assert result["final_norm"]["scale"].sharding == rows


def test_weights_may_come_from_a_mesh(tmp_path):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    save(tmp_path, params=jax.device_put(make_params(), sharding))
    assert_same(load(tmp_path), make_params())


def test_files_are_as_readable_as_any(tmp_path):
    save(tmp_path)
    plain = (tmp_path / "config.json").stat().st_mode
    assert weights_file(tmp_path).stat().st_mode == plain


def test_a_training_run_is_a_model_directory(tmp_path):
    (tmp_path / "checkpoints" / "100").mkdir(parents=True)
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1}\n')
    save(tmp_path, seed=1)
    save(tmp_path, seed=2, tokenizer=FakeTokenizer("others"), card="new")
    assert_same(load(tmp_path), make_params(2))
    assert read_model_directory(tmp_path).provenance["steps"] == 2
    assert (tmp_path / "tokenizer" / "tokenizer.model").read_text() == "others"
    assert (tmp_path / "README.md").read_text() == "new"
    assert {p.name for p in tmp_path.iterdir()} == {
        *("checkpoints", "metrics.jsonl"),
        *("config.json", "tokenizer", "params", "README.md"),
    }
    weights_file(tmp_path)  # the earlier model's file is gone


def test_a_save_that_fails_leaves_the_earlier_model(tmp_path, monkeypatch):
    save(tmp_path)
    before = snapshot(tmp_path)

    class FullDisk(FakeTokenizer):
        def save(self, directory: str | Path) -> None:
            super().save(directory)
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError) as error:
        save(tmp_path, seed=1, tokenizer=FullDisk())
    assert_one_line(error, "cannot write model directory", "No space left", "as it was")
    assert snapshot(tmp_path) == before

    replace = os.replace

    def fail_at_config(source, target):
        if Path(target).name == "config.json":
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(model_directory.os, "replace", fail_at_config)
    with pytest.raises(InputError):
        save(tmp_path, seed=1)
    assert_same(load(tmp_path), make_params())
    assert snapshot(tmp_path) == before


def test_a_killed_save_leaves_the_earlier_model(tmp_path):
    save(tmp_path)
    before = snapshot(tmp_path)
    program = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_model_directory as t
        class Killed(t.FakeTokenizer):
            def save(self, directory):
                os.kill(os.getpid(), signal.SIGKILL)
        t.save({str(tmp_path)!r}, seed=1, tokenizer=Killed())
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        timeout=100,
        check=False,
    )
    assert run.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "params").iterdir())) == 2  # it had got to the weights
    assert_same(load(tmp_path), make_params())

    save(tmp_path, seed=2)  # and what it left behind goes away
    assert_same(load(tmp_path), make_params(2))
    assert len(snapshot(tmp_path)) == len(before)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of half a megabyte."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(directory)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def test_disk_full(small_disk):
    directory = small_disk / "m"
    save(directory)
    before = snapshot(directory)
    with pytest.raises(InputError) as error:
        save(directory, params={"w": jnp.ones((400, 400))})
    assert_one_line(error, "cannot write model directory", "No space left on device")
    assert snapshot(directory) == before


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    save(tmp_path)
    before = snapshot(tmp_path)
    params = make_params()
    params["layers_0"]["query"]["bias"] = jnp.full(8, jnp.inf)
    with pytest.raises(InputError, match=r"layers_0\.query\.bias is not finite"):
        save(tmp_path, params=params)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_weights_that_are_not_finite_are_not_loaded(tmp_path, dtype):
    save(tmp_path, weights_dtype=dtype)
    stored = load_file(weights_file(tmp_path))
    name = "embedding" if dtype == "float32" else "embedding.scale"
    stored[name] = stored[name] * np.nan
    save_file(stored, weights_file(tmp_path))
    with pytest.raises(InputError) as error:
        load(tmp_path)
    assert_one_line(error, "weight embedding in", "is not finite")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x08", b"short", np.random.default_rng(0).bytes(4000), None],
    ids=["empty", "byte", "text", "random", "truncated"],
)
def test_damaged_weights_file(tmp_path, content):
    save(tmp_path)
    path = weights_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-9] if content is None else content)
    with pytest.raises(InputError) as error:
        load(tmp_path)
    assert_one_line(error, str(path), "is not a whole safetensors file", "copy the")


def test_wrong_tensors_are_listed(tmp_path):
    save(tmp_path)
    stored = load_file(weights_file(tmp_path))
    del stored["layers_0.query.bias"]
    stored["layers_0.key.bias"] = stored["final_norm.scale"]
    stored["embedding"] = stored["embedding"][:, :4].copy()
    stored["final_norm.scale"] = stored["final_norm.scale"].astype(ml_dtypes.bfloat16)
    save_file(stored, weights_file(tmp_path))
    with pytest.raises(InputError) as error:
        load(tmp_path)
    assert_one_line(
        error,
        "missing: layers_0.query.bias",
        "unknown: layers_0.key.bias",
        "embedding F32[32, 4] (expected F32[32, 8])",
        "final_norm.scale BF16[8] (expected F32[8])",
    )


def test_int8_without_scale_and_long_lists(tmp_path):
    save(tmp_path, weights_dtype="int8")
    save_file({"x": np.ones(2, np.float32)}, weights_file(tmp_path))
    with pytest.raises(InputError, match="embedding.scale, .* and 2 more; unknown: x;"):
        load(tmp_path)


def test_faults_of_the_config(tmp_path):
    save(tmp_path)
    good = (tmp_path / "config.json").read_text()
    config = json.loads(good)

    def refused(*words: str) -> None:
        with pytest.raises(InputError) as error:
            read_model_directory(tmp_path)
        assert_one_line(error, str(tmp_path), *words)

    edit_config(tmp_path, denoiser=config["denoiser"] | {"hiden_size": 8})
    refused("has no field 'hiden_size'", "'hidden_size'")
    edit_config(tmp_path, denoiser=config["denoiser"] | {"num_layers": 0})
    refused("num_layers is 0", "at least 1")
    edit_config(tmp_path, denoiser=config["denoiser"] | {"num_layers": "two"})
    refused("num_layers is 'two'", "expected int")
    edit_config(tmp_path, denoiser=[1])
    refused("denoiser is [1]")
    (tmp_path / "config.json").write_text(good)
    edit_config(tmp_path, samplers={})
    refused("has no field 'samplers'", "'sampler'")
    (tmp_path / "config.json").write_text(good)
    edit_config(tmp_path, sampler=[])
    refused("sampler is []", "mapping")
    edit_config(tmp_path, sampler={}, format_version=2)
    refused("format_version 2", "reads 1", "install")
    edit_config(tmp_path, format_version=1)
    edit_config(tmp_path, weights=config["weights"] | {"dtype": "int4"})
    refused("weights.dtype is 'int4'", "'int8'")
    edit_config(tmp_path, weights=config["weights"] | {"files": ["../../x"]})
    refused("'../../x'", "outside of params/")
    del config["weights"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    refused("lacks weights")
    (tmp_path / "config.json").write_text('{"architectures": ["Llama"]}')
    refused("not a seedjax model's", "seedjax train")
    (tmp_path / "config.json").write_text("[]")
    refused("it must be a JSON object")
    (tmp_path / "config.json").write_text(good[: len(good) // 2])
    refused("config.json: not JSON")
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    refused("config.json is UTF-16")
    (tmp_path / "config.json").unlink()
    refused("it has no config.json")


def test_a_model_of_a_newer_format_is_not_touched_by_a_failed_save(tmp_path):
    save(tmp_path)
    edit_config(tmp_path, format_version=2)
    weights = weights_file(tmp_path).read_bytes()
    with pytest.raises(InputError):
        save(tmp_path, params={"w": jnp.full((2, 2), jnp.nan)})
    assert weights_file(tmp_path).read_bytes() == weights


def test_directory_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; name a folder"):
        save(tmp_path / "file")
    with pytest.raises(InputError, match="no config.json"):
        load(tmp_path / "file")


def test_resolve_model(tmp_path, monkeypatch):
    package = tmp_path / "package"
    save(package / "bundled" / "mini")
    (package / "bundled" / "notes").mkdir()
    files = importlib.resources.files
    monkeypatch.setattr(
        model_directory.importlib.resources,
        "files",
        lambda name: package if name == "seedjax" else files(name),
    )
    monkeypatch.setattr(model_directory, "fetched_models", dict)
    assert bundled_models() == {"mini": package / "bundled" / "mini"}
    assert resolve_model("mini") == package / "bundled" / "mini"

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()  # empty: not what is meant
    assert resolve_model("mini") == package / "bundled" / "mini"
    save(tmp_path / "mini")
    assert resolve_model("mini") == Path("mini")
    assert resolve_model(tmp_path / "mini") == tmp_path / "mini"

    with pytest.raises(InputError) as error:
        resolve_model("maxi")
    assert_one_line(error, "'maxi' is no directory", "models` (mini)")
    with pytest.raises(InputError, match="run `seedjax models fetch smollm2` first"):
        resolve_model("smollm2")
    with pytest.raises(InputError, match="a directory without config.json"):
        resolve_model(package)


def test_bundled_models_of_the_package_can_be_read():
    for path in bundled_models().values():
        read_model_directory(path)


def test_orbax_is_not_imported():
    program = (
        "import sys, seedjax.checkpoints.model_directory; print('orbax' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found_wherever_it_stands(dtype, fault):
    values = np.random.default_rng(0).standard_normal((300, 500)).astype(dtype)
    values[7, 7] = np.finfo(np.float32).max * 0.9  # large, but a number
    assert is_finite(values) and is_finite(values[:0])
    for place in ((0, 0), (131, 71), (299, 499)):
        faulty = values.copy()
        faulty[place] = fault
        assert not is_finite(faulty)
