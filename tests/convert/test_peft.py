"""Adapters of PEFT: in, out and merged, beside PyTorch."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import ROWS, write_checkpoint
from safetensors.numpy import load_file, save_file

import seedjax.cli
from seedjax.checkpoints.adapters import draft_facts, load_adapter, with_drafts
from seedjax.checkpoints.model_directory import open_model
from seedjax.convert.importing import convert
from seedjax.convert.peft import export_adapter, import_adapter, merge
from seedjax.errors import InputError
from seedjax.nn import denoiser
from seedjax.nn.lora import merge_adapter

RANK, ALPHA = 3, 5.0
MODULES = {
    "self_attn.q_proj": (32, 32),
    "self_attn.v_proj": (16, 32),
    "mlp.down_proj": (32, 48),
}
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
TOKENS = np.random.default_rng(1).integers(4, ROWS, (2, 12))


def matrices(layers=(0, 1)) -> dict[str, np.ndarray]:
    """An adapter's tensors as PEFT names them, large enough to change every logit."""
    rng = np.random.default_rng(0)
    found = {}
    for layer in layers:
        for module, (out, width) in MODULES.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            down = rng.standard_normal((RANK, width), np.float32) / width**0.5
            found[f"{name}.lora_A.weight"] = down
            found[f"{name}.lora_B.weight"] = rng.standard_normal(
                (out, RANK), np.float32
            )
    return found


def write_adapter(folder, tensors=None, **changes):
    folder.mkdir(exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "someone/tiny",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "target_modules": sorted(name.rpartition(".")[2] for name in MODULES),
        "bias": "none",
        "fan_in_fan_out": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    tensors = matrices() if tensors is None else tensors
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Checkpoints and the model directories made of them, by family."""
    folder = tmp_path_factory.mktemp("bases")
    made = {}
    for family in ARCHITECTURES:
        checkpoint = write_checkpoint(folder / f"{family}-hf", family)
        convert(checkpoint, folder / family, dtype="float32")
        made[family] = (checkpoint, folder / family)
    return made


def logits_of(base, adapter=None) -> np.ndarray:
    directory = open_model(base)
    params = directory.load_params(denoiser.abstract_params(directory.denoiser))
    if adapter is not None:
        params = merge_adapter(params, *load_adapter(adapter, directory))
    tokens = jnp.asarray(TOKENS, jnp.int32)
    layout = denoiser.simple_layout(tokens)
    return np.asarray(denoiser.logits(params, directory.denoiser, tokens, layout))


def torch_base(checkpoint, family):
    transformers = pytest.importorskip("transformers", reason="needs the extra torch")
    pytest.importorskip("torch", reason="needs the extra torch")
    return getattr(transformers, ARCHITECTURES[family]).from_pretrained(
        checkpoint, attn_implementation="eager", dtype="float32"
    )


def torch_logits(model) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS), use_cache=False).logits.numpy()


def put_on(model, tensors, scale, gate=1.0) -> None:
    """LoRA by hand: each linear layer adds scale * B(A(x)), times a gate of rows."""
    import torch

    for name, down in tensors.items():
        if ".lora_A." not in name:
            continue
        module = model.get_submodule(
            name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        )
        up = torch.tensor(tensors[name.replace("lora_A", "lora_B")])
        down = torch.tensor(down)

        def add(_, inputs, out, down=down, up=up):
            return out + gate * scale * (inputs[0] @ down.T) @ up.T

        module.register_forward_hook(add)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_logits_are_those_of_pytorch(bases, family, tmp_path):
    """Imported, and merged into a model directory."""
    checkpoint, base = bases[family]
    model = torch_base(checkpoint, family)
    plain = torch_logits(model)
    np.testing.assert_allclose(logits_of(base), plain, atol=1e-4)
    put_on(model, matrices(), ALPHA / RANK)
    expected = torch_logits(model)
    assert np.abs(expected - plain).max() > 0.1
    source = write_adapter(tmp_path / "peft")
    done = import_adapter(source, tmp_path / "adapter", base=str(base))
    assert (done.config.rank, done.config.alpha, done.kernels) == (RANK, ALPHA, 6)
    got = logits_of(base, tmp_path / "adapter")
    np.testing.assert_allclose(got, expected, atol=1e-4)
    merge(str(base), tmp_path / "adapter", tmp_path / "merged")
    np.testing.assert_allclose(logits_of(tmp_path / "merged"), expected, atol=1e-4)


def test_scales_by_the_root_of_the_rank(bases, tmp_path):
    _, base = bases["llama"]
    source = write_adapter(tmp_path / "peft", use_rslora=True)
    done = import_adapter(source, tmp_path / "adapter", base=str(base))
    assert done.config.scale == pytest.approx(ALPHA / RANK**0.5)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_what_comes_in_goes_out_bit_for_bit(bases, family, tmp_path):
    _, base = bases[family]
    source = write_adapter(tmp_path / "peft")
    import_adapter(source, tmp_path / "adapter", base=str(base))
    out = export_adapter(tmp_path / "adapter", tmp_path / "out", base=str(base))
    again = load_file(out / "adapter_model.safetensors")
    given = matrices()
    assert again.keys() == given.keys()
    for name, values in given.items():
        np.testing.assert_array_equal(again[name], values)
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (RANK, ALPHA)
    assert config["target_modules"] == ["down_proj", "q_proj", "v_proj"]


def test_layers_that_are_left_alone_get_zeros(bases, tmp_path):
    checkpoint, base = bases["llama"]
    source = write_adapter(tmp_path / "peft", matrices(layers=(1,)))
    import_adapter(source, tmp_path / "adapter", base=str(base))
    model = torch_base(checkpoint, "llama")
    put_on(model, matrices(layers=(1,)), ALPHA / RANK)
    got = logits_of(base, tmp_path / "adapter")
    np.testing.assert_allclose(got, torch_logits(model), atol=1e-4)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_an_adapter_of_uno_acts_on_drafts_alone(bases, family, tmp_path):
    """In PEFT's files, which do not say so. In PyTorch it is masked on the rows of the
    text: on the first rows here, on which the drafts follow."""
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    checkpoint, base = bases[family]
    source, uno = write_adapter(tmp_path / "peft"), tmp_path / "uno"
    done = import_adapter(source, uno, base=str(base), gated=True)
    assert done.config.gated and not done.config.merge
    model, drafts = torch_base(checkpoint, family), 4
    text = TOKENS.shape[1] - drafts
    gate = torch.arange(TOKENS.shape[1])[None, :, None] >= text
    put_on(model, matrices(), ALPHA / RANK, gate)
    expected = torch_logits(model)

    directory = open_model(base)
    params = directory.load_params(denoiser.abstract_params(directory.denoiser))
    params = with_drafts(params, uno, directory)
    tokens = jnp.asarray(TOKENS, jnp.int32)
    layout = denoiser.simple_layout(tokens)
    noisy = jnp.broadcast_to(jnp.arange(TOKENS.shape[1]) >= text, TOKENS.shape)
    anchors = jnp.where(noisy, text - 1, layout.positions)
    layout = layout._replace(noisy=noisy, anchors=anchors)
    found = denoiser.logits(params, directory.denoiser, tokens, layout)
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-4)
    plain = logits_of(base)
    assert np.abs(expected - plain)[:, text:].max() > 0.1
    np.testing.assert_allclose(expected[:, :text], plain[:, :text], atol=1e-4)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_logits_are_those_of_the_peft_package(bases, family, tmp_path):
    """Both ways: an adapter that PEFT saved, and one that PEFT loads."""
    peft = pytest.importorskip("peft", reason="the reference; pip install peft")
    import torch

    checkpoint, base = bases[family]
    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=RANK,
        lora_alpha=7,
        target_modules=["q_proj", "k_proj", "o_proj", "up_proj"],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(torch_base(checkpoint, family), config)
    model.save_pretrained(tmp_path / "saved")
    expected = torch_logits(model)
    import_adapter(tmp_path / "saved", tmp_path / "adapter", base=str(base))
    got = logits_of(base, tmp_path / "adapter")
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert np.abs(got - logits_of(base)).max() > 0.05
    out = export_adapter(tmp_path / "adapter", tmp_path / "out", base=str(base))
    loaded = peft.PeftModel.from_pretrained(torch_base(checkpoint, family), out)
    np.testing.assert_allclose(torch_logits(loaded), expected, atol=1e-4)


def changed(name, values):
    return {**matrices(), f"base_model.model.model.layers.0.{name}": values}


REFUSED = {
    "dora": ({"use_dora": True}, None, "use_dora True, which seedjax does not compute"),
    "ia3": ({"peft_type": "IA3"}, None, "peft_type 'IA3'"),
    "ranks": ({"rank_pattern": {"q_proj": 8}}, None, "rank_pattern"),
    "heads": ({"modules_to_save": ["lm_head"]}, None, "modules_to_save"),
    "no rank": ({"r": None}, None, "r is None; expected int"),
    "rank": ({"r": 4}, None, "for .* and r=4 they must be"),
    "base": (
        {},
        changed("self_attn.q_proj.lora_A.weight", np.zeros((RANK, 40), np.float32)),
        "of another base",
    ),
    "half": (
        {},
        changed("self_attn.k_proj.lora_A.weight", np.zeros((RANK, 32), np.float32)),
        "without its other matrix",
    ),
    "elsewhere": (
        {},
        changed("attn.Wqkv.lora_A.weight", np.zeros((RANK, 32), np.float32)),
        "1 tensors that belong to no projection",
    ),
    "none": ({}, {"x": np.zeros(1, np.float32)}, "belong to no projection"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_computed_is_refused(bases, tmp_path, name):
    changes, tensors, message = REFUSED[name]
    source = write_adapter(tmp_path / "peft", tensors, **changes)
    with pytest.raises(InputError, match=message) as info:
        import_adapter(source, tmp_path / "adapter", base=str(bases["llama"][1]))
    assert "\n" not in str(info.value)
    assert not (tmp_path / "adapter" / "adapter.json").exists()


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["seedjax", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        seedjax.cli.main()
    return exit_.value.code or 0, *capsys.readouterr()


def test_from_the_command_line(bases, tmp_path, monkeypatch, capsys):
    source, base = write_adapter(tmp_path / "peft"), bases["llama"][1]
    adapter, out = tmp_path / "adapter", tmp_path / "out"
    call = ("convert", source, "--base", base, "--out", adapter)
    code, printed, _ = run(monkeypatch, capsys, *call)
    assert code == 0 and "rank 3 for 6 matrices" in printed
    code, _, _ = run(
        monkeypatch, capsys, "export", "--model", base, "--adapter", adapter, out
    )
    assert code == 0 and (out / "adapter_model.safetensors").is_file()
    code, _, _ = run(monkeypatch, capsys, *call[:-1], tmp_path / "uno", "--gated")
    assert code == 0 and draft_facts(tmp_path / "uno") is not None
    assert draft_facts(adapter) is None
    code, printed, _ = run(
        *(monkeypatch, capsys, "convert", base, "--adapter", adapter, "--json"),
        *("--out", tmp_path / "merged"),
    )
    assert code == 0 and json.loads(printed)["out"] == str(tmp_path / "merged")
    other = bases["qwen2"][1]
    for arguments, message in (
        (
            ("convert", base, "--base", base, "--out", tmp_path / "a"),
            "holds no adapter_",
        ),
        (
            (*call[:-1], tmp_path / "b", "--dtype", "float32"),
            "--dtype is for a publish",
        ),
        (
            ("convert", other, "--adapter", adapter, "--out", tmp_path / "c"),
            "trained for",
        ),
        (
            ("convert", source, "--out", tmp_path / "d"),
            f"convert {source} --base MODEL",
        ),
        (
            ("convert", base, "--out", tmp_path / "e", "--gated"),
            "give its --base",
        ),
        (
            ("convert", base, "--adapter", adapter, "--out", tmp_path / "f", "--gated"),
            "is not merged",
        ),
    ):
        code, printed, said = run(monkeypatch, capsys, *arguments)
        assert (code, printed) == (2, "") and message in said and said.count("\n") == 1
