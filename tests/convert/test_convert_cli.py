"""`seedjax convert`, `export` and `doctor --model` as a user meets them."""

import json
import shutil
import sys

import ml_dtypes
import numpy as np
import pytest
from checkpoints import MASK, tensors_of, write_checkpoint, write_tokenizer
from safetensors.numpy import save_file

import seedjax.cli
from seedjax.checkpoints.model_directory import bundled_models


@pytest.fixture
def run(monkeypatch, capsys):
    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["seedjax", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            seedjax.cli.main()
        captured = capsys.readouterr()
        return exit_.value.code or 0, captured.out, captured.err

    return run_command


def test_convert_then_export(run, tmp_path):
    folder = write_checkpoint(tmp_path / "in", "sdar")
    out = tmp_path / "model"
    code, text, _ = run("convert", folder, "--out", out, "--set", "block_size=8")
    assert code == 0
    lines = [line.split() for line in text.splitlines()]
    assert ["block_size", "8", "you"] in lines
    assert ["mask_token_id", str(MASK), "config.json"] in lines
    assert ["logit_alignment", "same_position", "family"] in lines
    code, text, _ = run("convert", folder, "--out", out, "--json")
    report = json.loads(text)
    assert report["family"] == "sdar" and report["settled"]["block_size"]["value"] == 4
    assert report["parameters"] > 10_000 and report["ignored"] == []
    code, text, _ = run("export", "--model", out, tmp_path / "out", "--json")
    assert code == 0 and json.loads(text)["files"] == ["model.safetensors"]


def test_a_field_that_is_not_known_is_refused_by_name(run, tmp_path):
    folder = write_checkpoint(tmp_path / "in", "sdar")
    config = json.loads((folder / "config.json").read_text()) | {"new_trick": 3}
    (folder / "config.json").write_text(json.dumps(config))
    code, _, errors = run("convert", folder, "--out", tmp_path / "model")
    assert code == 2 and "new_trick=3" in errors and "--ignore-field" in errors
    ignoring = ("--ignore-field", "new_trick")
    code, _, errors = run("convert", folder, "--out", tmp_path / "model", *ignoring)
    assert code == 0 and "taken for harmless: new_trick" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere/at-all", "--out", "x", "--from", "gguf"], "wants a .gguf file"),
        (["model.gguf", "--out", "x", "--from", "hf"], "wants a directory"),
        (["in", "--out", "x", "--from", "onnx"], "--from is 'onnx'; it must be auto"),
        (["in", "--out", "x", "--dtype", "fp8"], "--dtype is 'fp8'"),
        (["in", "--out", "x", "--family", "gpt"], "unknown family 'gpt'"),
        (["in", "--out", "x", "--set", "blocksize=3"], "did you mean 'block_size'"),
        (["in", "--out", "x", "--set", "block_size=0"], "block_size is 0"),
        (["in", "--out", "x", "--as-denoiser"], "denoiser already"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "in", "sdar")
    code, out, errors = run("convert", *arguments)
    assert code == 2 and out == "" and message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "x" / "config.json").exists()


def test_an_adapter_without_its_base_says_so(run, tmp_path):
    """With and without a tokenizer beside it, wherever a model or an adapter goes."""
    folder = tmp_path / "lora"
    folder.mkdir()
    values = {"peft_type": "LORA", "base_model_name_or_path": "Qwen/Qwen3-8B", "r": 8}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    weights = folder / "adapter_model.safetensors"
    save_file({"lora_A.weight": np.zeros((8, 4), np.float32)}, weights)
    for place in (folder, weights, folder):
        code, _, errors = run("convert", place, "--out", tmp_path / "model")
        assert code == 2 and errors.count("\n") == 1
        assert "adapter of PEFT ('LORA') without its base 'Qwen/Qwen3-8B'" in errors
        assert "--base MODEL --out adapter` makes it one for --adapter" in errors
        write_tokenizer(folder)
    for option in ("--model", "--adapter"):
        code, _, errors = run("generate", "x", option, folder)
        assert code == 2 and "adapter of PEFT" in errors
    write_checkpoint(folder, "sdar")  # its base came with it
    assert run("convert", folder, "--out", tmp_path / "model")[0] == 0


@pytest.mark.slow
def test_the_dtype_that_is_asked_for_is_computed_in(run, tmp_path):
    tensors = {k: v.astype(ml_dtypes.bfloat16) for k, v in tensors_of("sdar").items()}
    folder = write_checkpoint(tmp_path / "in", "sdar", tensors=tensors)
    asked = {"": "bfloat16", "float32": "float32", "int8": "bfloat16"}
    for dtype, wanted in asked.items():
        option = ("--dtype", dtype) if dtype else ()
        out = tmp_path / "model"
        code, text, _ = run("convert", folder, "--out", out, "--json", *option)
        settled = json.loads(text)["settled"]
        assert code == 0
        for field in ("dtype", "param_dtype"):
            assert settled[field]["value"] == wanted
            assert settled[field]["origin"] == ("you" if dtype else "weights")
    told = ("--dtype", "float32", "--set", "dtype=bfloat16", "--json")
    _, text, _ = run("convert", folder, "--out", out, *told)
    settled = json.loads(text)["settled"]
    assert settled["dtype"]["value"] == "bfloat16"
    assert settled["param_dtype"]["value"] == "float32"


def test_export_refuses_what_it_cannot_write(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    code, _, errors = run("export", tmp_path / "full", "--model", "mini")
    assert code == 2 and "is there already" in errors
    code, _, errors = run("export", tmp_path / "x", "--model", "none-such")
    assert code == 2 and errors.count("\n") == 1
    code, _, errors = run("export", tmp_path / "x", "--dtype", "int4")
    assert code == 2 and "--dtype is 'int4'" in errors


def test_families_are_listed(run):
    code, out, _ = run("models", "--json")
    families = {f["name"]: f for f in json.loads(out)["families"]}
    assert code == 0
    assert families["stable-diffcoder"]["ids"]["mask_token_id"] == 5
    assert families["dream"]["denoiser"]["logit_alignment"] == "shifted"
    assert "real weights" in families["llama"]["shown"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "wrong"), [("logit_alignment", None), ("mask_token_id", 5)]
)
def test_doctor_notices_a_wrong_reading(run, tmp_path, field, wrong):
    """On trained weights: the bundled model under another alignment, another mask."""
    folder = tmp_path / "model"
    shutil.copytree(bundled_models()["mini"], folder)
    code, out, errors = run("doctor", "--model", folder, "--json")
    assert code == 0 and errors == "" and json.loads(out)["warning"] is None
    config = json.loads((folder / "config.json").read_text())
    right = config["denoiser"][field]
    if wrong is None:
        wrong = {"shifted": "same_position", "same_position": "shifted"}[right]
    config["denoiser"][field] = wrong
    (folder / "config.json").write_text(json.dumps(config))
    code, out, errors = run("doctor", "--model", folder, "--json")
    assert code == 0 and "the recipe is probably wrong" in errors
    assert str(right) in json.loads(out)["warning"]
