"""`seedjax chat`, over a pipe."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from seedjax.checkpoints.model_directory import save_model
from seedjax.config import to_dict
from seedjax.text.huggingface import HuggingFaceTokenizer

sys.path.append(str(Path(__file__).parent.parent))


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """A random model with a tokenizer and a chat template of Qwen's kind."""
    from published_tokenizers import qwen
    from text_model import CONFIG, RECIPE, params_of

    config = dataclasses.replace(CONFIG, eos_token_ids=(402, 400))
    directory = tmp_path_factory.mktemp("chat") / "chatty"
    save_model(
        directory,
        params=params_of(config),
        denoiser=config,
        tokenizer=HuggingFaceTokenizer(qwen()),
        sampler=to_dict(dataclasses.replace(RECIPE, max_new_tokens=8)),
        provenance={},
        card="",
    )
    return directory


@pytest.mark.slow
def test_lines_are_turns(run, chat_model):
    arguments = ("chat", "--model", chat_model, "--no-compile-cache", "--seed", 1)
    code, out, err = run(*arguments, "--json", stdin=b"hi\n\nagain\n")
    assert code == 0 and out.count("\n") == 1, err
    result = json.loads(out)
    roles = [message["role"] for message in result["messages"]]
    assert roles == ["user", "assistant"] * 2
    first, second = result["turns"]
    assert second["prompt_tokens"] > first["prompt_tokens"]
    assert first["finish_reason"] in ("stop", "length")
    code, shown, _ = run(*arguments, stdin=b"hi\nagain\n/exit\nnever read\n")
    texts = [m["content"] for m in result["messages"][1::2]]
    assert code == 0 and shown == "".join(t + "\n" * (t[-1:] != "\n") for t in texts)
    code, out, _ = run(*arguments, "--json", stdin=b"hi\n/reset\nagain\n")
    alone = json.loads(out)
    assert len(alone["messages"]) == 2 and len(alone["turns"]) == 2
    assert alone["turns"][1]["prompt_tokens"] < second["prompt_tokens"]


def test_faults(run, model_directory, chat_model):
    code, out, err = run("chat", "--model", model_directory, stdin=b"hi\n")
    assert code == 2 and out == "" and err.count("\n") == 1
    assert "no chat template" in err and "generate, infill or edit" in err
    long = b"x = 1 " * 100 + b"\n"
    code, _, err = run("chat", "--model", chat_model, "--no-compile-cache", stdin=long)
    assert code == 2 and "the model holds 128" in err
