"""Published weights, converted and used. Slow: they are fetched."""

import inspect
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.checkpoints.adapters import bundled_drafts, draft_facts
from seedjax.checkpoints.model_directory import open_model
from seedjax.cli.doctor import examine_model
from seedjax.convert.gguf import GGUFSource
from seedjax.convert.importing import convert
from seedjax.inference.loading import load
from seedjax.nn import denoiser

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def converted(smollm2, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "smollm2"
    done = convert(smollm2, out, dtype="float32", assignments=["dtype=float32"])
    assert done.family == "llama" and done.parameters == 134_515_008
    return out


def test_text_is_coherent(converted):
    answer = load(str(converted)).generate("def factorial(n):", max_new_tokens=40)
    assert "return" in answer.texts[0] and "factorial(n - 1)" in answer.texts[0]


def test_perplexity_is_that_of_transformers(converted, smollm2):
    """On the same ids, 512 tokens of Python's own source."""
    transformers = pytest.importorskip("transformers", reason="needs the extra torch")
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    model = load(str(converted))
    text = inspect.getsource(textwrap)
    ids = np.array([model.tokenizer.encode(text)[:512]])
    shown = jnp.asarray(ids)
    ours = denoiser.logits(
        model.params, model.config, shown, denoiser.simple_layout(shown)
    )

    config = transformers.AutoConfig.for_model(**GGUFSource(smollm2).config())
    with torch.device("meta"):
        empty = transformers.LlamaForCausalLM(config)
    state = load_gguf_checkpoint(
        str(smollm2), return_tensors=True, model_to_load=empty
    )["tensors"]
    theirs_model = transformers.LlamaForCausalLM(config).eval()
    theirs_model.load_state_dict(state, strict=False)
    with torch.no_grad():
        theirs = theirs_model(torch.tensor(ids)).logits.numpy()

    def perplexity(logits):
        log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        asked = np.take_along_axis(log_p[:, :-1], ids[:, 1:, None], axis=-1)
        return float(np.exp(-asked.mean()))

    wanted = perplexity(theirs.astype(np.float64))
    got = perplexity(np.asarray(ours, np.float64))
    print(f"perplexity {got:.4f}, of transformers {wanted:.4f}")
    assert wanted < 30  # it has learnt
    assert abs(got / wanted - 1) < 0.01


def test_doctor_notices_a_wrong_alignment(converted, tmp_path):
    assert examine_model(str(converted))["warning"] is None
    config = converted / "config.json"
    right = config.read_text()
    try:
        config.write_text(right.replace('"shifted"', '"same_position"', 1))
        assert "shifted" in examine_model(str(converted))["warning"]
    finally:
        config.write_text(right)


def test_the_bundled_adapter_belongs_to_them(smollm2, tmp_path):
    convert(smollm2, tmp_path / "smollm2")
    found = bundled_drafts(open_model(tmp_path / "smollm2"))
    assert found is not None
    assert len(draft_facts(found).acceptance) == 3
