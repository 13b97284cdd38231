"""Tools: in the prompt where the template knows them, and as calls in the response."""

import dataclasses
import json

import pytest
from published_tokenizers import CHATML, MAKERS

from seedjax.inference.in_flight import Completion
from seedjax.inference.model import Model
from seedjax.server import ServerConfig, answers
from seedjax.server.bodies import ChatBody
from seedjax.server.jobs import Jobs
from seedjax.server.tools import split_calls, takes_tools
from seedjax.text.huggingface import HuggingFaceTokenizer

CHAT = [{"role": "user", "content": "Add 1 and 2."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
WITH_TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for tool in tools %}"
    "{{ tool | tojson }}{% endfor %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{% if message.tool_calls %}"
    "{% for call in message.tool_calls %}{{ call.function.arguments | tojson }}"
    "{% endfor %}{% endif %}{% endfor %}" + CHATML
)


@pytest.fixture(scope="module")
def jobs(chatting) -> Jobs:
    """Of a model whose template knows tools."""
    files = MAKERS["qwen"]()
    config = json.loads(files["tokenizer_config.json"]) | {"chat_template": WITH_TOOLS}
    files["tokenizer_config.json"] = json.dumps(config).encode()
    tokenizer = HuggingFaceTokenizer(files)
    model = Model(
        chatting.params,
        dataclasses.replace(chatting.config, max_positions=1024),
        tokenizer,
        chatting.sampler,
    )
    limits = ServerConfig(name="tiny", num_slots=2, max_new_tokens=16)
    return Jobs(model, limits, model.sampler)


def prompt(jobs: Jobs, **body) -> str:
    (job,) = jobs.of_chat(ChatBody(**{"messages": CHAT} | body))
    return jobs.model.tokenizer.spell(job.prompt)


def test_the_template_is_given_the_tools(jobs):
    told = prompt(jobs, tools=[TOOL])
    assert '"name": "add"' in told and '"properties"' in told
    assert prompt(jobs, tools=[TOOL], tool_choice="none") == prompt(jobs)
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a": 1}'},
    }
    history = [
        *CHAT,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "3"},
    ]
    assert '{"a": 1}' in prompt(jobs, messages=history)


def test_which_templates_take_tools():
    assert takes_tools(WITH_TOOLS)
    assert not takes_tools(CHATML) and not takes_tools(None)
    assert not takes_tools("{% set tools = [] %}{{ tools }}")
    assert takes_tools("{% generation %}{{ tools }}{% endgeneration %}")


def completion(text: str, reason: str = "stop") -> Completion:
    return Completion(
        number=0,
        text=text,
        tokens=[1, 2],
        steps=1,
        finish_reason=reason,
        prompt_tokens=3,
        seconds=0.1,
    )


def test_calls_are_parsed(jobs):
    form = answers.ChatForm(jobs.model.tokenizer, calls=True)
    found = form.choice(0, completion(f"I add.\n{CALL}\n{CALL}"))
    assert found["finish_reason"] == "tool_calls"
    message = found["message"]
    assert message["content"] == "I add."
    first, second = message["tool_calls"]
    assert first["function"]["name"] == "add" and first["id"] != second["id"]
    assert json.loads(first["function"]["arguments"]) == {"a": 1, "b": 2}
    cut = form.choice(0, completion(CALL[:30], "length"))
    assert cut["finish_reason"] == "length"
    assert cut["message"]["content"] == "" and "tool_calls" not in cut["message"]
    plain = answers.ChatForm(jobs.model.tokenizer).choice(0, completion(CALL))
    assert plain["message"]["content"] == CALL
    malformed = "<tool_call>\n{add}\n</tool_call>"
    assert split_calls(malformed) == (malformed, [])


def test_a_stream_holds_calls_back(jobs):
    whole = f"Well <b>.\n{CALL}"
    form = answers.ChatForm(jobs.model.tokenizer, calls=True)
    pieces = [whole[i : i + 5] for i in range(0, len(whole), 5)]
    deltas = [form.delta(0, piece)["delta"]["content"] for piece in pieces]
    end = form.end(0, completion(whole))
    assert "".join(deltas) + end["delta"].get("content", "") == "Well <b>."
    (call,) = end["delta"]["tool_calls"]
    assert call["index"] == 0 and call["function"]["name"] == "add"
    assert end["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    "body, param",
    [
        ({"tools": [TOOL]}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
    ],
)
def test_refusals(client, body, param):
    """The template of this model knows no tools."""
    found = client.post("/v1/chat/completions", json={"messages": CHAT} | body)
    assert found.status_code == 400
    error = found.json()["error"]
    assert error["param"] == param and "\n" not in error["message"]


def test_an_update_is_applied_or_none(editor):
    content = (
        "<|original_code|>\nx = 1\ny = 2\n<|/original_code|>\n\n<|update_snippet|>\n"
        "# ... existing code ...\ny = 3\n<|/update_snippet|>"
    )
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 16}
    found = editor.post("/v1/apply/completions", json=body).json()
    assert found["object"] == "apply.completion"
    assert found["choices"][0]["message"]["content"] == "None"  # random weights
    assert found["usage"]["prompt_tokens"] > 10
    body["messages"][0]["content"] = "x = 1"
    refused = editor.post("/v1/apply/completions", json=body).json()["error"]
    assert "<|update_snippet|>" in refused["message"]
