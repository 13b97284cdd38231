"""One opening for every kind of checkpoint: config, tokenizer and tensors."""

import shutil

import numpy as np
import pytest
from checkpoints import tensors_of, write_checkpoint

from seedjax.convert.checkpoint import open_checkpoint
from seedjax.convert.importing import convert, load_params
from seedjax.errors import InputError
from seedjax.inference.loading import load
from seedjax.nn.denoiser import num_parameters


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("published") / "sdar", "sdar")


@pytest.fixture(scope="module")
def model(folder):
    """The same checkpoint as a model directory."""
    convert(folder, folder.parent / "model", assignments=["block_size=8"])
    return folder.parent / "model"


def as_pytorch(folder, path):
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    shutil.copytree(folder, path)
    (path / "model.safetensors").unlink()
    state = {n: torch.from_numpy(v) for n, v in tensors_of("sdar").items()}
    torch.save(state, path / "pytorch_model.bin")
    return path


def test_all_kinds_have_the_same_tensors(folder, model, tmp_path):
    published = tensors_of("sdar")
    for source in (folder, model, as_pytorch(folder, tmp_path / "pytorch")):
        with open_checkpoint(source) as c:
            assert c.config.num_layers == 2 and c.tokenizer.vocab_size == 80
            assert sum(v.size for v in c.tensors.values()) == num_parameters(c.config)
            for ours, theirs in {
                "embedding": "model.embed_tokens.weight",
                "layers_1.attention.query.kernel": "model.layers.1.self_attn.q_proj"
                ".weight",
            }.items():
                np.testing.assert_array_equal(c.tensors[ours], published[theirs])
            assert c.tensors.keys() == dict(c.tensors).keys()
            with pytest.raises(KeyError):
                c.tensors["model.embed_tokens.weight"]


def test_a_gguf_file_is_opened_once(tmp_path, monkeypatch):
    pytest.importorskip("gguf", reason="needs the extra convert")
    import seedjax.convert.gguf as gguf
    from tests.convert import test_gguf

    path = tmp_path / "x.gguf"
    padding = {"tokenizer.ggml.padding_token_id": 0}
    test_gguf.write(path, test_gguf.whole_model(), fields=padding)
    read, opened = gguf.read_header, []

    def counting(file):
        opened.append(file)
        return read(file)

    monkeypatch.setattr(gguf, "read_header", counting)
    with open_checkpoint(path, assignments=["attention=causal"]) as c:
        assert c.tokenizer.vocab_size == 261
        assert c.tensors["embedding"].shape == (test_gguf.VOCAB, test_gguf.HIDDEN)
    assert opened == [path]


def test_a_bundled_model_is_opened_by_its_name():
    with open_checkpoint("mini") as c:
        params = load_params(c)
        assert c.config == load("mini").config and c.family is None
    np.testing.assert_array_equal(params["embedding"], load("mini").params["embedding"])


def test_a_model_directory_is_stored_anew_in_another_precision(model, tmp_path):
    done = convert(model, tmp_path / "small", dtype="int8")
    assert done.dtype == "int8" and done.family == "sdar"
    origins = {s.field: (s.value, s.origin) for s in done.settled}
    assert origins["block_size"] == (8, "config.json")
    assert origins["dtype"] == ("bfloat16", "you")
    small, given = load(str(tmp_path / "small")), load(str(model))
    assert small.sampler == given.sampler
    assert small.config.param_dtype == "bfloat16"
    difference = np.asarray(small.params["embedding"], np.float32) - np.asarray(
        given.params["embedding"], np.float32
    )
    assert 0 < np.abs(difference).max() < 0.1


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"family": "sdar"}, "is a model directory; a family"),
        ({"as_denoiser": True}, "is a denoiser already"),
        ({"assignments": ["num_layers=3"]}, "num_layers=3: the weights in"),
        ({"revision": "main"}, "is here already"),
    ],
)
def test_options_of_published_checkpoints_are_refused(model, arguments, match):
    with pytest.raises(InputError, match=match):
        open_checkpoint(model, **arguments)


def test_weights_can_be_read_without_a_tokenizer(folder, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    with open_checkpoint(bare) as c:
        assert load_params(c)["embedding"].shape == (96, 32)
        with pytest.raises(InputError, match="no tokenizer at"):
            c.tokenizer  # noqa: B018
    with open_checkpoint(bare, tokenizer_from=folder) as c:
        assert c.tokenizer.vocab_size == 80
