"""A small server, once with a chat template and once with the layout of edits."""

import dataclasses
from collections.abc import Iterator

import pytest
from published_tokenizers import MAKERS
from text_model import CONFIG, params_of

pytest.importorskip("starlette", reason="the extra [server] is not installed")

from starlette.testclient import TestClient

from seedjax.inference.model import Model
from seedjax.sampling.policy import ConfidenceThreshold
from seedjax.sampling.recipe import SamplerConfig
from seedjax.server import ServerConfig, create_app
from seedjax.text.huggingface import HuggingFaceTokenizer

RECIPE = SamplerConfig(max_new_tokens=16, policy=ConfidenceThreshold(threshold=0.1))
LIMITS = ServerConfig(name="tiny", num_slots=2, max_new_tokens=16, max_waiting=4)


@pytest.fixture(scope="session")
def chatting() -> Model:
    """Random weights, with Qwen's special tokens and chat template."""
    tokenizer = HuggingFaceTokenizer(MAKERS["qwen"]())
    config = dataclasses.replace(
        CONFIG,
        mask_token_id=511,
        pad_token_id=510,
        bos_token_id=509,
        eos_token_ids=(tokenizer.special.eos,),
    )
    return Model(params_of(config), config, tokenizer, RECIPE)


@pytest.fixture(scope="session")
def client(chatting) -> Iterator[TestClient]:
    yield from serving(chatting, LIMITS)


@pytest.fixture(scope="session")
def editor(model) -> Iterator[TestClient]:
    """Serves a model with the tokens of edits."""
    yield from serving(model, LIMITS)


def serving(model: Model, config: ServerConfig) -> Iterator[TestClient]:
    app = create_app(model, config)
    with TestClient(app, "http://localhost", raise_server_exceptions=False) as client:
        wait(client)
        yield client


def wait(client: TestClient) -> None:
    import time

    until = time.monotonic() + 900  # of a busy machine
    while (response := client.get("/health")).status_code != 200:
        assert response.json()["status"] == "compiling"
        assert time.monotonic() < until
        time.sleep(0.1)
