"""Accepted and rejected completions: kept, handed on, and learned from."""

import json
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from starlette.testclient import TestClient

from seedjax.errors import InputError
from seedjax.posttrain.preference import Preference, prompt_of, read_feedback
from seedjax.server import ServerConfig, create_app
from seedjax.server.bodies import ChatBody
from seedjax.server.feedback import Choice, FeedbackStore, export
from seedjax.server.jobs import Jobs

YES = Choice("tiny", "a = ", "1\n", True)
NO = Choice("tiny", "a = ", "2\n", False)
HOLE = Choice("tiny", "a = ", "3", True, suffix="\nb")
EDIT = Choice("tiny", "a = 1\n", "b = 1\n", False, instruction="Rename a to b.")


def test_choices_come_back_and_become_pairs(tmp_path):
    store = FeedbackStore(tmp_path / "choices.db")
    for choice in (YES, NO, HOLE, EDIT, HOLE._replace(completion="4", accepted=False)):
        store.add(choice)
    again = FeedbackStore(tmp_path / "choices.db", create=False)
    assert list(again.choices())[:4] == [YES, NO, HOLE, EDIT]
    assert again.counts() == (2, 3)
    assert (tmp_path / "choices.db").stat().st_mode & 0o077 == 0
    out = tmp_path / "feedback.jsonl"
    assert export(again.path, out) == export(again.path, out) == (2, 3)
    assert set(read_feedback(out)) == {
        Preference("a = ", "1\n", "2\n"),
        Preference("a = ", "3", "4", suffix="\nb"),
    }


def test_other_files_are_refused_in_one_line(tmp_path):
    def refusal(path, **more) -> str:
        with pytest.raises(InputError) as error:
            FeedbackStore(path, **more)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "cannot write" in refusal(tmp_path / "none" / "choices.db")
    assert "cannot write" in refusal(tmp_path)
    assert "no file" in refusal(tmp_path / "choices.db", create=False)
    text = tmp_path / "text"
    text.write_text("not a database, but a text\n" * 99)
    assert "not a database" in refusal(text)
    other, newer = tmp_path / "other.db", tmp_path / "newer.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE bookmarks (url TEXT)")
    before = other.read_bytes()
    assert "of another program" in refusal(other)
    assert other.read_bytes() == before
    FeedbackStore(newer).close()
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 3")
    assert "version 3" in refusal(newer)
    empty, out = tmp_path / "empty.db", tmp_path / "out.jsonl"
    FeedbackStore(empty).close()
    with pytest.raises(InputError, match="no choices yet"):
        export(empty, out)
    with pytest.raises(InputError, match="name another place"):
        export(empty, empty, force=True)
    assert not out.exists()


def test_the_api(chatting, tmp_path):
    body = {"model": "tiny", "prompt": "a = ", "completion": "1", "accepted": True}
    file = tmp_path / "choices.db"
    limits = ServerConfig(name="tiny", max_new_tokens=16, feedback=str(file))
    client = TestClient(create_app(chatting, limits), base_url="http://localhost")
    first = client.post("/v1/feedback", json=body | {"suffix": "\nb"})
    assert first.json() == {"accepted": 1, "rejected": 0}
    client.post("/v1/feedback", json=body | {"accepted": False})
    assert client.get("/v1/feedback").json() == {"accepted": 1, "rejected": 1}
    for wrong in ({"accepted": 1}, {"rating": 5}, {"completion": None}, {"prompt": 3}):
        response = client.post("/v1/feedback", json=body | wrong)
        assert response.status_code == 400, wrong
    assert FeedbackStore(file).counts() == (1, 1)
    off = TestClient(
        create_app(chatting, ServerConfig(name="tiny", max_new_tokens=16)),
        base_url="http://localhost",
    )
    for response in (off.post("/v1/feedback", json=body), off.get("/v1/feedback")):
        assert response.status_code == 404
        assert "--feedback" in response.json()["error"]["message"]


def test_a_chat_is_judged_as_a_text_is(chatting, tmp_path):
    """Its pairs have the prompt that the server decoded."""
    chat = [{"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}]
    chat += [{"role": "user", "content": "Write gcd."}]
    body = {"messages": chat, "completion": "yes", "accepted": True}
    file = tmp_path / "choices.db"
    limits = ServerConfig(name="tiny", max_new_tokens=16, feedback=str(file))
    client = TestClient(create_app(chatting, limits), base_url="http://localhost")
    client.post("/v1/feedback", json=body)
    found = client.post(
        "/v1/feedback", json=body | {"completion": "no", "accepted": False}
    )
    assert found.json() == {"accepted": 1, "rejected": 1}
    for wrong in (
        {"prompt": "a"},
        {"suffix": "s"},
        {"instruction": "i"},
        {"messages": []},
        {"messages": None},
        {"messages": None, "prompt": "a", "suffix": "s", "instruction": "i"},
    ):
        refused = client.post("/v1/feedback", json=body | wrong)
        assert refused.status_code == 400, wrong
        assert "\n" not in refused.json()["error"]["message"]
    out = tmp_path / "feedback.jsonl"
    assert export(file, out) == (1, 1)
    (pair,) = read_feedback(out)
    assert (pair.accepted, pair.rejected) == ("yes", "no")
    jobs = Jobs(chatting, limits, chatting.sampler)
    (job,) = jobs.of_chat(ChatBody(messages=chat))
    assert prompt_of(pair, chatting.tokenizer) == job.prompt


def test_a_store_without_chats_is_taken_over(tmp_path):
    path = tmp_path / "choices.db"
    FeedbackStore(path).add(YES)
    with sqlite3.connect(path) as database:  # as the first version made it
        database.execute("ALTER TABLE choice DROP COLUMN messages")
        database.execute("PRAGMA user_version = 1")
    chat = Choice("tiny", "", "b", True, messages='[{"role": "user", "content": "a"}]')
    FeedbackStore(path).add(chat)
    assert list(FeedbackStore(path).choices()) == [YES, chat]


WRITES = """
import sys
from seedjax.server.feedback import Choice, FeedbackStore
store = FeedbackStore(sys.argv[1])
for number in range(10**6):
    store.add(Choice("tiny", "p", str(number), True))
    print(number, flush=True)
"""


@pytest.mark.slow
def test_a_stored_choice_survives_a_kill(tmp_path):
    path = tmp_path / "choices.db"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITES, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    for line in writer.stdout:
        if int(line) == 50:
            break
    writer.send_signal(signal.SIGKILL)
    told = [int(line) for line in writer.stdout.read().split()] or [50]
    writer.wait()
    found = [int(choice.completion) for choice in FeedbackStore(path).choices()]
    assert found == list(range(len(found))) and len(found) > told[-1]
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
def test_two_hundred_choices_change_the_model(tmp_path):
    """A simulated user accepts programs with a loop of statements, and rejects one-line
    expressions. After training, tasks that were not judged get more loops."""
    import seedjax
    from seedjax.posttrain.preference import PreferenceConfig, learn_preferences
    from seedjax.tasks.lab import make_tasks
    from seedjax.train.optim import OptimizerConfig

    def has_loop(completion: str) -> bool:
        return "\n    for " in completion or completion.startswith("    for ")

    tasks = make_tasks("generate", 60, split="test", seed=0, tier=None)
    prompts = sorted((task.prompt for task in tasks), key=len)
    model, file = seedjax.load("mini"), tmp_path / "choices.db"
    limits = ServerConfig(name="mini", max_new_tokens=64, feedback=str(file))
    judged, others = prompts[:50:2], prompts[1:50:2]
    with TestClient(create_app(model, limits), base_url="http://localhost") as client:
        while client.get("/health").status_code != 200:
            time.sleep(0.2)
        for prompt in judged:
            body = {"prompt": prompt, "n": 8, "temperature": 1.0, "seed": 1}
            found = client.post("/v1/completions", json=body).json()
            for choice in found["choices"]:
                text = choice["text"]
                body = {"prompt": prompt, "completion": text}
                body["accepted"] = has_loop(text)
                assert client.post("/v1/feedback", json=body).status_code == 200
        counts = client.get("/v1/feedback").json()
        assert counts["accepted"] + counts["rejected"] == 200
    assert sum(export(file, tmp_path / "feedback.jsonl")) == 200
    config = PreferenceConfig(
        init_from="mini",
        feedback=str(tmp_path / "feedback.jsonl"),
        num_steps=20,
        pairs=4,
        samples=2,
        optimizer=OptimizerConfig(
            learning_rate=2e-4, warmup_steps=2, weight_decay=0.0, ema_decay=0.5
        ),
    )
    learn_preferences(config, tmp_path / "out")

    def share(model: seedjax.Model) -> float:
        seeds = list(range(4 * len(others)))
        found = model.generate(
            others * 4, temperature=1.0, seed=seeds, max_new_tokens=64
        )
        return sum(map(has_loop, found.texts)) / len(found.texts)

    shares = share(model), share(seedjax.load(str(tmp_path / "out")))
    print(json.dumps({"choices": counts, "loops": shares}))
    assert shares[1] > shares[0] + 0.1
