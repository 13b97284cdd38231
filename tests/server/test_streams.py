"""Streams of the denoising: the canvas step by step, blocks, Mercury's whole texts."""

import dataclasses
import json

import pytest
from text_model import CONFIG

from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.revision import LevenshteinEdits
from seedjax.sampling.trace import TraceStep
from seedjax.server.canvases import LiveCanvas

CHAT = [{"role": "user", "content": "Write gcd."}]


def events(response) -> list[dict]:
    assert response.status_code == 200, response.text
    lines = [x for x in response.text.split("\n\n") if x]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def choices(response) -> list[dict]:
    return [choice for event in events(response) for choice in event["choices"]]


def test_the_canvas_after_each_denoising_step(client, chatting):
    """Each is the one before with what the step changed; the last is the text."""
    body = {"prompt": "x", "max_tokens": 14, "stream": True, "stream_mode": "denoise"}
    found = choices(client.post("/v1/completions", json=body))
    whole = chatting.generate("x", max_new_tokens=14, trace=True)
    canvases = [choice["canvas"] for choice in found if "canvas" in choice]
    assert [c["step"] for c in canvases[:-1]] == list(range(len(whole.trace)))
    for canvas, step in zip(canvases, whole.trace, strict=False):
        assert canvas["block"] == step.block
        assert canvas["changed"] == list(step.positions)
        cells = canvas["cells"]
        assert len(cells) == canvas["end"] and canvas["length"] == 14
        for place, token, sure in zip(
            step.positions, step.tokens, step.confidences, strict=True
        ):
            assert cells[place]["token"] == token
            assert cells[place]["state"] == "proposed"
            assert cells[place]["confidence"] == pytest.approx(sure, abs=1e-3)
        states = [cell["state"] for cell in cells]
        assert set(states[: canvas["begin"]]) <= {"committed"}
        assert set(states[canvas["begin"] :]) <= {"masked", "proposed"}
    last = canvases[-1]["cells"]
    assert [cell["token"] for cell in last] == whole.tokens[0]
    assert {cell["state"] for cell in last} == {"committed"}
    assert "".join(cell["text"] for cell in last) == whole.texts[0]
    assert "".join(choice["text"] for choice in found) == whole.texts[0]


def test_blocks_as_they_are_appended(client, chatting):
    whole = chatting.chat(CHAT, max_new_tokens=14)
    body = {"messages": CHAT, "max_tokens": 14, "stream": True}
    body |= {"stream_mode": "block_append", "n": 2, "temperature": 0}
    found = choices(client.post("/v1/chat/completions", json=body))
    for index in range(2):
        own = [c for c in found if c["index"] == index]
        appended = [choice["append"] for choice in own if "append" in choice]
        assert len(appended) > 1
        tokens: list[int] = []
        for each in appended:
            assert each["token_offset"] == len(tokens)
            tokens += each["token_ids"]
        assert tokens == whole.tokens[0]
        text = "".join(c["delta"].get("content", "") for c in own)
        assert text == whole.texts[0]


def test_mercurys_diffusing_sends_whole_texts(client, chatting):
    whole = chatting.chat(CHAT, max_new_tokens=14)
    body = {"messages": CHAT, "max_tokens": 14, "stream": True, "diffusing": True}
    found = choices(client.post("/v1/chat/completions", json=body))
    texts = [c["delta"]["content"] for c in found if "content" in c["delta"]][1:]
    assert texts[-1] == whole.texts[0]
    assert any("░" in text for text in texts) and "░" not in texts[-1]
    assert found[-1]["finish_reason"] == whole.finish_reason[0]


@pytest.mark.slow
def test_an_edit_is_watched(editor):
    content = "<|code_to_edit|>\nx = 1\n<|/code_to_edit|>\nRename x to y."
    body = {"messages": [{"role": "user", "content": content}], "stream": True}
    found = choices(editor.post("/v1/edit/completions", json=body))
    assert "".join(c["delta"]["content"] for c in found) == "None"
    body["stream_mode"] = "denoise"
    found = choices(editor.post("/v1/edit/completions", json=body))
    assert sum("canvas" in choice for choice in found) > 2
    assert found[-1]["delta"]["content"] == "None"  # random weights write no Python
    assert "the result" in found[-1]["warning"]


@pytest.mark.parametrize(
    "changes, param",
    [
        ({"stream_mode": "denoise"}, "stream_mode"),
        ({"diffusing": True}, "diffusing"),
        ({"diffusing": True, "stream": True, "stream_mode": "denoise"}, "diffusing"),
        ({"stream_mode": "all", "stream": True}, "stream_mode"),
    ],
)
def test_fields_of_streams_that_are_refused(client, changes, param):
    response = client.post("/v1/completions", json={"prompt": "x"} | changes)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_edits_deletions_and_insertions_are_told_apart(chatting):
    """As `respell` moves tokens: what stays where it is keeps its state."""

    def step(number: int, tokens: list[int], places: list[int]) -> TraceStep:
        sure = tuple(0.5 for _ in places)
        return TraceStep(
            row=0,
            block=0,
            step=number,
            positions=tuple(places),
            tokens=tuple(tokens),
            confidences=sure,
        )

    def states(canvas: dict) -> list[str]:
        return [cell["state"] for cell in canvas["cells"]]

    edits = LevenshteinEdits(delete_token_id=500, insert_token_id=501)
    mask = chatting.config.mask_token_id
    sampler = SamplerConfig(revision=edits)
    assert CONFIG.block_size == 8
    live = LiveCanvas(chatting, sampler, prompt_tokens=12, length=16)
    first = live.apply(step(0, [65, 66, 67, 68], [0, 1, 2, 3]))
    assert states(first) == ["proposed"] * 4 and first["end"] == 4
    # a b c d: b goes, what follows it moves up, a mask enters at the end.
    second = live.apply(step(1, [67, 68, mask], [1, 2, 3]))
    assert states(second) == ["proposed", "deleted"] + ["proposed"] * 2 + ["masked"]
    assert second["cells"][1]["token"] == 66
    # a c d _: a mask enters before c.
    third = live.apply(step(2, [mask, 67, 68], [1, 2, 3]))
    assert states(third) == ["proposed", "inserted", "proposed", "proposed"]
    fourth = live.apply(step(3, [70, 71], [1, 3]))
    assert states(fourth) == ["proposed", "proposed", "proposed", "edited"]
    plain = dataclasses.replace(sampler, revision=None)
    live = LiveCanvas(chatting, plain, prompt_tokens=8, length=16)
    live.apply(step(0, [65], [0]))
    assert states(live.apply(step(1, [66], [0])))[0] == "edited"
    assert states(live.apply(step(2, [mask], [0])))[0] == "masked"


@pytest.mark.parametrize("mode", ["denoise", "block_append"])
def test_diffulexs_events(client, chatting, mode):
    whole = chatting.generate("x", max_new_tokens=14)
    body = {"prompt": "x", "max_tokens": 14, "stream_mode": mode}
    plain = client.post("/generate", json=body).json()
    assert plain["text"] == plain["full_text"] == whole.texts[0]
    assert plain["token_ids"] == whole.tokens[0] and plain["nfe"] == whole.steps[0]
    ids = chatting.prompt_ids("x")
    found = events(
        client.post("/generate", json=body | {"prompt": ids, "stream": True})
    )
    assert found[-1] == plain | {"event": "final", "id": found[-1]["id"]}
    appended = [each for each in found if each["event"] == "append"]
    assert sum((each["token_ids"] for each in appended), []) == whole.tokens[0]
    assert "".join(each["text"] for each in appended) == whole.texts[0]
    assert [each["finished"] for each in appended][-1]
    snapshots = [each for each in found if each["event"] == "buffer_snapshot"]
    assert bool(snapshots) == (mode == "denoise")
    for each in snapshots:
        width = each["absolute_end"] - each["absolute_start"]
        assert len(each["token_ids"]) == width
        assert each["absolute_start"] == len(ids) + each["token_offset"]
    refused = client.post("/generate", json=body | {"max_nfe": 3}).json()["error"]
    assert refused["param"] == "max_nfe"
