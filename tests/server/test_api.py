"""The HTTP interfaces: completions equal to the model's own, refusals in one form."""

import json

import jax
import pytest

CHAT = [{"role": "user", "content": "Write gcd."}]


def events(response) -> list[dict]:
    lines = [x for x in response.text.split("\n\n") if x]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_chat_is_the_models_own(client, chatting):
    whole = chatting.chat(CHAT, max_new_tokens=12)
    found = client.post(
        "/v1/chat/completions",
        json={"model": "tiny", "messages": CHAT, "max_tokens": 12, "temperature": 0},
    ).json()
    assert found["object"] == "chat.completion" and found["model"] == "tiny"
    (choice,) = found["choices"]
    assert choice["message"]["content"] == whole.texts[0]
    assert choice["finish_reason"] == whole.finish_reason[0]
    usage = found["usage"]
    assert usage["completion_tokens"] == whole.new_tokens[0]
    assert usage["prompt_tokens"] == whole.prompt_tokens[0]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["forwards"] == whole.steps[0]


def test_a_stream_is_the_whole_in_pieces(client, chatting):
    body = {"messages": CHAT, "stream": True, "stream_options": {"include_usage": True}}
    found = events(client.post("/v1/chat/completions", json=body))
    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert found[-1]["choices"] == [] and found[-1]["usage"]["completion_tokens"] > 0
    assert found[-2]["choices"][0]["finish_reason"] == "length"
    pieces = [e["choices"][0]["delta"].get("content", "") for e in found[1:-2]]
    assert len(pieces) == 3  # blocks of eight, of which the prompt has begun one
    assert "".join(pieces) == chatting.chat(CHAT).texts[0]
    assert len({event["id"] for event in found}) == 1


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/fim/completions"])
def test_a_suffix_makes_a_hole(client, chatting, path):
    whole = chatting.infill("a = ", "\nb").texts[0]
    found = client.post(path, json={"prompt": "a = ", "suffix": "\nb"}).json()
    assert found["object"] == "text_completion"
    assert found["choices"][0]["text"] == whole


@pytest.mark.parametrize(
    "prompt",
    [
        "<|fim_prefix|>a = <|fim_suffix|>\nb<|fim_middle|>",
        "<fim_prefix>a = <fim_suffix>\nb<fim_middle>",
        "<PRE> a =  <SUF>\nb <MID>",
        "<｜fim▁begin｜>a = <｜fim▁hole｜>\nb<｜fim▁end｜>",
        "[SUFFIX]\nb[PREFIX]a = ",
    ],
)
def test_fim_tokens_of_other_models_make_a_hole(client, chatting, prompt):
    whole = chatting.infill("a = ", "\nb").texts[0]
    body = {"model": "tiny", "prompt": prompt, "temperature": None, "environment": None}
    assert (
        client.post("/v1/completions", json=body).json()["choices"][0]["text"] == whole
    )


def test_llama_vims_request(client, chatting):
    body = {
        "input_prefix": "def f():\n",
        "input_suffix": "\n    return x\n",
        "input_extra": [{"text": "y = 1\n", "filename": "other.py", "time": 1}],
        "prompt": "    x = ",
        "n_predict": 8,
        "n_indent": 4,
        "top_k": 40,
        "top_p": 0.9,
        "samplers": ["top_k", "top_p", "infill"],
        "stream": False,
        "cache_prompt": True,
        "t_max_prompt_ms": 500,
        "t_max_predict_ms": 1000,
        "response_fields": ["content", "timings/predicted_n", "truncated"],
    }
    found = client.post("/infill", json=body).json()
    before = "# other.py\ny = 1\n\ndef f():\n    x = "
    whole = chatting.infill(before, "\n    return x\n", max_new_tokens=8)
    assert found["content"] == whole.texts[0]
    assert found["timings/predicted_n"] == whole.new_tokens[0]
    warm = client.post("/infill", json=body | {"n_predict": 0}).json()
    assert warm["content"] == "" and warm["timings/predicted_n"] == 0


@pytest.mark.slow
def test_an_edit_that_does_not_parse_is_none(editor):
    content = (
        "<|current_file_content|>\ncurrent_file_path: a.py\n<|code_to_edit|>\n"
        "def f(x):<|cursor|>\n    return x\n<|/code_to_edit|>\n"
        "<|/current_file_content|>\nRename x to y."
    )
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 16}
    found = editor.post("/v1/edit/completions", json=body).json()
    assert found["object"] == "edit.completion"
    assert found["choices"][0]["message"]["content"] == "None"
    assert "ignored: the result" in found["warning"]


def test_choices_seeds_and_temperatures(client, chatting):
    def texts(**more):
        body = {"prompt": "x", "temperature": 0.8, "max_tokens": 8} | more
        found = client.post("/v1/completions", json=body).json()
        return [choice["text"] for choice in found["choices"]]

    three = texts(seed=5, n=3)
    assert texts(seed=6) == three[1:2]
    whole = chatting.generate("x", seed=[5], temperature=0.8, max_new_tokens=8)
    assert whole.texts == three[:1]
    assert texts(temperature=0) == texts(temperature=0, seed=9)
    found = client.post("/v1/completions", json={"prompt": ["x", "y"]}).json()
    assert [choice["index"] for choice in found["choices"]] == [0, 1]


def test_stop_strings_and_logprobs(client, chatting):
    whole = chatting.chat(CHAT, logprobs=True)
    stop = whole.texts[0][2:4]
    body = {"messages": CHAT, "stop": [stop], "logprobs": True}
    (choice,) = client.post("/v1/chat/completions", json=body).json()["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == whole.texts[0][:2].split(stop)[0]
    content = choice["logprobs"]["content"]
    expected = whole.logprobs[0][: len(content)]
    assert [each["logprob"] for each in content] == pytest.approx(expected, abs=1e-4)


BAD = {
    "unknown": ({"prompts": "x"}, "unknown parameter 'prompts'; did you mean 'prompt'"),
    "penalty": ({"presence_penalty": 1.5}, "presence_penalty is not supported"),
    "type": ({"max_tokens": "4"}, "max_tokens: input should be a valid integer"),
    "negative": ({"max_tokens": -1}, "max_tokens: input should be greater than"),
    "many": ({"max_tokens": 999}, "this server writes at most 16"),
    "long": ({"prompt": "x " * 200}, "more than this server has room for"),
    "empty": ({"prompt": ""}, "the prompt is empty"),
    "model": ({"model": "gpt"}, "there is no model 'gpt'"),
    "top_p": ({"top_p": 0}, "top_p: input should be greater than 0"),
    "bias": ({"logit_bias": {"9999": 1}}, "an id of logit_bias is 9999"),
    "usage": ({"stream_options": {"include_usage": True}}, "is for stream=true"),
    "streamed": ({"prompt": "", "stream": True}, "the prompt is empty"),
    "hot": ({"temperature": 3.0}, "temperature: input should be less than"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals_are_one_line(client, case):
    changes, message = BAD[case]
    response = client.post("/v1/completions", json={"prompt": "x"} | changes)
    assert response.status_code == (404 if case == "model" else 400)
    error = response.json()["error"]
    assert message in error["message"] and "\n" not in error["message"]
    assert error.keys() == {"message", "type", "param", "code"}


def test_chats_that_are_refused(client, editor):
    image = {"type": "image_url", "image_url": {"url": "x"}}
    message = {"role": "user", "content": [image]}
    chat = "/v1/chat/completions"
    found = client.post(chat, json={"messages": [message]}).json()["error"]
    assert found["code"] == "invalid_value" and "content" in found["param"]
    tools = [{"type": "function", "function": {"name": "f"}}]
    found = client.post(chat, json={"messages": CHAT, "tools": tools}).json()["error"]
    assert found["param"] == "tools"
    found = editor.post(chat, json={"messages": CHAT}).json()["error"]
    assert "chat template" in found["message"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b'"x"',
        b"\xff\xfe",
        b'{"prompt": "\\ud800"}',
        b'{"prompt": NaN}',
        b"[" * 100_000,
        b'{"prompt": {"a": 1}}',
    ],
)
def test_garbage_is_refused_and_the_next_request_works(client, content):
    response = client.post("/v1/completions", content=content)
    assert response.status_code == 400
    assert "\n" not in response.json()["error"]["message"]
    assert client.post("/v1/completions", json={"prompt": "x"}).status_code == 200


def test_a_large_body_is_refused(client):
    response = client.post("/v1/completions", json={"prompt": "x" * 3_000_000})
    assert response.status_code == 413


def test_paths_methods_and_descriptions(client):
    assert client.get("/v1/nothing").json()["error"]["code"] == "not_found"
    assert client.get("/v1/completions").status_code == 405
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["tiny"]
    assert client.get("/v1/models/tiny").json()["max_output_length"] == 16
    assert client.get("/v1/models/other").status_code == 404
    described = client.get("/openapi.json").json()
    assert "/v1/chat/completions" in described["paths"]
    assert "ChatBody" in described["components"]["schemas"]


def schema_of(name: str) -> dict:
    """A schema of an object with one member."""
    properties = {name: {"enum": [1, 2]}}
    return {"type": "object", "properties": properties, "required": [name]}


def test_nothing_compiles_after_the_start(client, chatting):
    """Neither a program nor a single operation."""
    compiled: list[str] = []
    watching = True

    def note(event: str, seconds: float, **more: object) -> None:
        if watching and event.endswith("backend_compile_duration"):
            compiled.append(event)

    before = chatting.num_programs
    jax.monitoring.register_event_duration_secs_listener(note)
    for count in (1, 5, 12, 24):
        for way in (
            {},
            {"temperature": 0.7},
            {"temperature": 0.7, "top_p": 0.5, "top_k": 9, "logit_bias": {"70": 1}},
            {"stream": True, "stream_mode": "denoise"},
        ):
            body = {"prompt": "x y " * count} | way
            assert client.post("/v1/completions", json=body).status_code == 200
            chat = {"messages": CHAT, "n": 2 if count == 5 else 1} | way
            name = f"f{count}{len(way)}"  # a new schema each time
            chat["response_format"] = {"type": "json_schema", "json_schema": {}}
            chat["response_format"]["json_schema"]["schema"] = schema_of(name)
            response = client.post("/v1/chat/completions", json=chat)
            assert response.status_code == 200, response.text
            if "stream" not in way:
                found = response.json()["choices"][-1]["message"]["content"]
                assert json.loads(found)[name] in (1, 2)
    watching = False
    assert chatting.num_programs == before and not compiled
    numbers = client.get("/metrics").text
    assert f"seedjax_compiled_programs {float(before)}" in numbers
    assert 'seedjax_responses_total{path="/v1/completions",status="200"}' in numbers
