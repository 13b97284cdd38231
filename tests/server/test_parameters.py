"""Every parameter that OpenAI documents is honoured or refused; none is ignored."""

import pytest

from seedjax.server.bodies import ChatBody, CompletionBody

CHAT = [{"role": "user", "content": "Write gcd."}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
# With a value that a client would notice the lack of. None: honoured, and tested so
# here or in the files beside this one.
OF_BOTH = {
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "logit_bias": None,
    "logprobs": None,
    "max_tokens": None,
    "n": None,
    "seed": None,
    "stop": None,
    "stream": None,
    "stream_options": None,
    "temperature": None,
    "top_p": None,
    "user": None,  # nothing to honour
}
OF_CHAT = {
    "audio": {"voice": "alloy", "format": "mp3"},
    "function_call": "auto",
    "functions": [{"name": "f"}],
    "max_completion_tokens": None,
    "messages": None,
    "metadata": None,
    "modalities": ["text", "audio"],
    "model": None,
    "parallel_tool_calls": None,
    "prediction": {"type": "content", "content": "x"},
    "prompt_cache_key": None,
    "prompt_cache_retention": "24h",
    "reasoning_effort": "high",
    "response_format": None,
    "safety_identifier": None,
    "service_tier": "flex",
    "store": True,
    "tool_choice": None,
    "tools": None,
    "top_logprobs": 3,
    "verbosity": "low",
    "web_search_options": {},
}
OF_COMPLETIONS = {
    "best_of": 3,
    "echo": True,
    "model": None,
    "prompt": None,
    "suffix": None,
}


@pytest.mark.parametrize(
    "path, needed, parameters, kind",
    [
        ("/v1/chat/completions", {"messages": CHAT}, OF_BOTH | OF_CHAT, ChatBody),
        (
            "/v1/completions",
            {"prompt": "x"},
            OF_BOTH | OF_COMPLETIONS,
            CompletionBody,
        ),
    ],
)
def test_no_parameter_is_ignored(client, path, needed, parameters, kind):
    for name, value in parameters.items():
        if value is None:
            assert name in kind.model_fields or name in kind.NEUTRAL, name
            continue
        response = client.post(path, json=needed | {name: value})
        error = response.json()["error"]
        assert response.status_code == 400, name
        assert error["param"] == name and "\n" not in error["message"]
    response = client.post(path, json=needed | {"logprobs": 5})
    assert response.json()["error"]["param"] == "logprobs"


def text(client, **body) -> str:
    response = client.post("/v1/completions", json={"prompt": "x"} | body)
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["text"]


def test_filters_and_biases_are_those_of_the_engine(client, chatting):
    way = {"top_p": 0.5, "top_k": 5, "temperature": 1.5}
    whole = chatting.generate("x", seed=[3], **way).texts[0]
    assert text(client, seed=3, **way) == whole
    assert text(client, seed=3, **way | {"top_p": 1, "top_k": 0}) != whole
    assert text(client, logit_bias={"65": 100}, max_tokens=8) == (
        chatting.tokenizer.decode([65] * 8)
    )


def test_log_probabilities_of_a_text(client, chatting):
    whole = chatting.generate("x", logprobs=True, max_new_tokens=8)
    body = {"prompt": "x", "logprobs": 0, "max_tokens": 8}
    (choice,) = client.post("/v1/completions", json=body).json()["choices"]
    found = choice["logprobs"]
    assert found["token_logprobs"] == pytest.approx(whole.logprobs[0], abs=1e-4)
    assert len(found["tokens"]) == len(found["text_offset"]) == whole.new_tokens[0]


def test_an_infill_is_drawn_as_it_says_or_refused(client, chatting):
    hole = {"input_prefix": "a = ", "input_suffix": "\nb", "n_predict": 8}
    way = {"temperature": 1.0, "top_k": 4, "top_p": 0.9}
    found = client.post("/infill", json=hole | way | {"seed": 2}).json()["content"]
    whole = chatting.infill("a = ", "\nb", seed=[2], max_new_tokens=8, **way)
    assert found == whole.texts[0]
    known = {"samplers": ["top_k", "top_p", "temperature"], "seed": 2}
    assert client.post("/infill", json=hole | way | known).json()["content"] == found
    for samplers in (["top_k", "top_p", "infill"], ["top_k", "temperature"]):
        refused = client.post("/infill", json=hole | way | {"samplers": samplers})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "samplers"
    refused = client.post("/infill", json=hole | {"id_slot": 3})
    assert refused.json()["error"]["param"] == "id_slot"


def test_an_edit_longer_than_the_server_writes_names_the_code(editor):
    content = "<|code_to_edit|>\n" + "x = 1\n" * 16 + "<|/code_to_edit|>\nRename x."
    body = {"messages": [{"role": "user", "content": content}]}
    response = editor.post("/v1/edit/completions", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert "the code to edit has" in error["message"] and error["param"] == "messages"
