"""`seedjax serve`: keys, addresses, and the official client over a real socket."""

import dataclasses
import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import uvicorn
from starlette.testclient import TestClient

from seedjax.cli.serve import listening, read_keys
from seedjax.errors import InputError
from seedjax.server import ServerConfig, create_app

LIMITS = ServerConfig(name="tiny", num_slots=2, max_new_tokens=16)
CHAT = [{"role": "user", "content": "Write gcd."}]


@pytest.fixture(scope="module")
def address(chatting):
    """A server on a free port."""
    sock = listening("127.0.0.1", 0)
    config = uvicorn.Config(create_app(chatting, LIMITS), log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    yield "http://{}:{}".format(*sock.getsockname())
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def openai(address):
    library = pytest.importorskip("openai")
    client = library.OpenAI(base_url=address + "/v1", api_key="none", max_retries=20)
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            client.completions.create(model="tiny", prompt="x", max_tokens=1)
            return client
        except library.InternalServerError:
            time.sleep(0.2)
    raise AssertionError("not ready")


def test_the_official_client(openai, chatting):
    assert [model.id for model in openai.models.list()] == ["tiny"]
    whole = chatting.chat(CHAT, max_new_tokens=12)
    found = openai.chat.completions.create(model="tiny", messages=CHAT, max_tokens=12)
    assert found.choices[0].message.content == whole.texts[0]
    assert found.usage.completion_tokens == whole.new_tokens[0]
    chunks = openai.chat.completions.create(
        model="tiny",
        messages=CHAT,
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    *texts, last = chunks
    pieces = [chunk.choices[0].delta.content or "" for chunk in texts]
    assert "".join(pieces) == whole.texts[0]
    assert last.usage.total_tokens == found.usage.total_tokens
    hole = openai.completions.create(model="tiny", prompt="a = ", suffix="\nb")
    assert hole.choices[0].text == chatting.infill("a = ", "\nb").texts[0]
    with openai.completions.create(model="tiny", prompt="x", stream=True) as stream:
        next(iter(stream))  # and leaves
    assert openai.completions.create(model="tiny", prompt="x").choices[0].text


def test_errors_of_the_official_client(openai):
    import openai as library

    with pytest.raises(library.BadRequestError, match="presence_penalty"):
        openai.completions.create(model="tiny", prompt="x", presence_penalty=1.0)
    with pytest.raises(library.NotFoundError, match="no model 'gpt-4'"):
        openai.completions.create(model="gpt-4", prompt="x")


def test_keys(chatting, tmp_path):
    file = tmp_path / "keys"
    file.write_text("secret\n\nother\n")
    file.chmod(0o644)
    if os.name == "posix":
        with pytest.raises(InputError, match="chmod 600"):
            read_keys(file)
    file.chmod(0o600)
    keys = read_keys(file)
    assert keys == {hashlib.sha256(k).hexdigest() for k in (b"secret", b"other")}
    app = create_app(chatting, dataclasses.replace(LIMITS, key_digests=keys))
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/v1/models").status_code == 401
        for header in ("Bearer wrong", "Basic secret", "Bearer ", "secret"):
            response = client.get("/v1/models", headers={"Authorization": header})
            assert response.status_code == 401
            assert response.json()["error"]["code"] == "invalid_api_key"
        known = {"Authorization": "Bearer other"}
        assert client.get("/v1/models", headers=known).status_code == 200
        assert client.get("/health").status_code in (200, 503)
    file.write_text("\n")
    with pytest.raises(InputError, match="holds no key"):
        read_keys(file)
    with pytest.raises(InputError, match="no file"):
        read_keys(tmp_path / "none")


def test_a_port_in_use_and_an_address_of_nobody():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="in use"):
            listening("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InputError, match="cannot listen at"):
        listening("no.such.host.invalid", 80)


def test_continues_request_and_ignored_parameters(chatting):
    """As Continue sends it, but for `max_tokens`; a client that sends a penalty with
    every request is served by a server that was told to ignore it."""
    limits = dataclasses.replace(LIMITS, ignored=frozenset({"presence_penalty"}))
    body = {
        "model": "tiny",
        "prompt": "a = ",
        "suffix": "\nb",
        "max_tokens": 12,
        "stop": ["\n\n", "\n \n", "/src/"],
        "stream": True,
        "presence_penalty": 1.5,
        "temperature": 0,
    }
    with TestClient(
        create_app(chatting, limits), base_url="http://localhost"
    ) as client:
        while client.get("/health").status_code != 200:
            time.sleep(0.1)
        response = client.post("/v1/completions", json=body)
    lines = response.text.split("\n\n")[:-2]
    found = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert {event["warning"] for event in found} == {"ignored: presence_penalty"}
    text = "".join(event["choices"][0]["text"] for event in found)
    whole = chatting.infill("a = ", "\nb", max_new_tokens=12, stop=body["stop"])
    assert text == whole.texts[0]


# Bodies as they came over the wire; the texts of Aider's turns are longer.
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
AI_SDK = {"model": "tiny", "max_tokens": 12, "temperature": 0}
AI_SDK_STREAM = {"stream": True, "stream_options": {"include_usage": True}}
AI_SDK_OBJECT = {"schema": SCHEMA, "strict": True, "name": "response"}
AIDER_ROLES = ["system", *["user", "assistant"] * 3, "user"]


def test_bodies_of_ai_sdk_and_aider(client, chatting):
    """@ai-sdk/openai-compatible 2.0.92 and Aider 0.86.2, each request that was seen."""

    def content(body: dict) -> str:
        response = client.post("/v1/chat/completions", json=body)
        assert response.status_code == 200, response.text
        if not body.get("stream"):
            return response.json()["choices"][0]["message"]["content"]
        lines = response.text.split("\n\n")[:-2]
        found = [json.loads(line.removeprefix("data: ")) for line in lines]
        deltas = [choice["delta"] for event in found for choice in event["choices"]]
        return "".join(delta.get("content", "") for delta in deltas)

    whole = chatting.chat(CHAT, max_new_tokens=12).texts[0]
    chat = AI_SDK | {"messages": CHAT}
    assert content(chat) == content(chat | AI_SDK_STREAM | {"stop": ["-"]}) == whole
    form = {"type": "json_schema", "json_schema": AI_SDK_OBJECT}
    assert "ok" in json.loads(content(chat | {"response_format": form}))
    prompt = "user:\nWrite gcd.\n\nassistant:\n"
    text = AI_SDK | {"prompt": prompt, "stop": ["\nuser:"]}
    found = client.post("/v1/completions", json=text).json()["choices"][0]["text"]
    assert found == chatting.generate(prompt, max_new_tokens=12).texts[0]
    turns = [{"role": role, "content": "x"} for role in AIDER_ROLES]
    aider = {"model": "tiny", "messages": turns, "stream": True, "temperature": 0}
    assert content(aider) == chatting.chat(turns).texts[0]


def test_ai_sdk(address, openai, chatting):
    node, script = shutil.which("node"), Path(__file__).parent / "ai_sdk.cjs"
    if node is None:
        pytest.skip("node is not installed")
    ran = subprocess.run(
        [node, script, address + "/v1"], capture_output=True, text=True, timeout=300
    )
    if "Cannot find module '@ai-sdk" in ran.stderr:
        pytest.skip("NODE_PATH has no @ai-sdk/openai-compatible")
    assert ran.returncode == 0, ran.stderr
    found, whole = json.loads(ran.stdout), chatting.chat(CHAT, max_new_tokens=12)
    assert "".join(found["stream"]["pieces"]) == whole.texts[0]
    assert len(found["stream"]["pieces"]) > 1 and found["stream"]["reason"] == "length"
    assert found["stream"]["usage"]["outputTokens"] == whole.new_tokens[0]
    asked = [{"role": "system", "content": "Be brief."}, *CHAT]
    assert found["whole"]["text"] == chatting.chat(asked, max_new_tokens=12).texts[0]
    assert isinstance(found["object"]["ok"], bool)
    prompt = "user:\nWrite gcd.\n\nassistant:\n"
    assert found["text"] == chatting.generate(prompt, max_new_tokens=12).texts[0]
    assert found["refused"]["status"] == 400
    assert "presence_penalty" in found["refused"]["message"]


def test_litellm(address, openai, chatting):
    """As Aider does: chat through the OpenAI provider, whole and streamed; and texts
    and holes through the providers that complete texts."""
    litellm = pytest.importorskip("litellm")
    given = {"model": "openai/tiny", "messages": CHAT, "max_tokens": 12}
    given |= {"api_base": address + "/v1", "api_key": "none", "temperature": 0}
    whole = chatting.chat(CHAT, max_new_tokens=12).texts[0]
    assert litellm.completion(**given).choices[0].message.content == whole
    chunks = litellm.completion(**given, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole
    for provider in ("text-completion-openai", "text-completion-inception"):
        text = {"model": f"{provider}/tiny", "prompt": "a = ", "max_tokens": 12}
        text |= {"api_base": address + "/v1", "api_key": "none"}
        whole = chatting.generate("a = ", max_new_tokens=12).texts[0]
        assert litellm.text_completion(**text).choices[0].text == whole
        hole = litellm.text_completion(**text, suffix="\nb").choices[0].text
        assert hole == chatting.infill("a = ", "\nb", max_new_tokens=12).texts[0]
