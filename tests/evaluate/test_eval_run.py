"""Runs on a random model: cut off, resumed, sharded, and refused."""

import dataclasses
import json

import pytest
from toy import PROBLEMS, SUITE, sandbox

from seedjax.errors import InputError
from seedjax.evaluate import run as run_module
from seedjax.evaluate.complete import (
    Batch,
    Completion,
    Request,
    Setup,
    batches,
    conversation,
    form_of,
    seed_of,
)
from seedjax.evaluate.folder import CompletionFile, all_completions, read_run, to_line
from seedjax.evaluate.recipes import (
    CURVES,
    RECIPES,
    find_recipe,
    point,
    points_for,
    sampler_for,
)
from seedjax.evaluate.run import Choices, next_requests, num_tries, run_suite
from seedjax.sampling.policy import ConfidenceThreshold, FixedCount

GREEDY = Choices(model_name="mini", recipe=RECIPES["fast"], rows=2, traced=2)


def go(model, folder, suite=SUITE, choices=GREEDY):
    return run_suite(model, suite, PROBLEMS, folder, choices, sandbox=sandbox)


def texts(folder):
    return {sample.key: sample.text for sample in all_completions(folder)}


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "toy"
    return go(model, folder)


@pytest.mark.slow
def test_a_run_writes_what_the_report_needs(whole):
    folder = whole.folder
    assert (whole.samples, whole.total) == (3, 3)
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("run.json", "problems.jsonl", "samples.jsonl", "verdicts.jsonl"),
        *("traces.jsonl", "score.json"),
    }
    score = json.loads((folder / "score.json").read_text())
    assert score["problems"] == 3 and 0.0 <= score["pass@1"] <= 1.0
    assert score["tokens"] == sum(s.tokens for s in all_completions(folder)) > 0
    assert score["forwards"] >= 3 and score["first_block_seconds"] > 0
    assert read_run(folder)["settings"]["sampler"]["policy"] == {
        **{"kind": "ConfidenceThreshold", "threshold": 0.9, "by": "confidence"}
    }
    lines = [
        json.loads(x) for x in (folder / "problems.jsonl").read_text().split("\n") if x
    ]
    assert [line["problem_id"] for line in lines] == [p.problem_id for p in PROBLEMS]
    # What is shown is what the model was given, its layout included.
    assert [line["prompt_text"] for line in lines] == [
        f"<bos>{p.prompt}" for p in PROBLEMS
    ]
    assert score["is_part"] is False and score["suite_problems"] == 3
    assert all("reference" not in line and "data" not in line for line in lines)


@pytest.mark.slow
def test_answers_are_those_that_the_model_gives(model, whole):
    sampler = sampler_for(RECIPES["fast"], model, SUITE)
    alone = model.generate(
        PROBLEMS[1].prompt,
        max_new_tokens=12,
        policy=sampler.policy,
        temperature=0.0,
    )
    assert texts(whole.folder)["toy/twice", 0, 0] == alone.texts[0]


def test_traces_replay_to_the_answers(model, whole):
    lines = (whole.folder / "traces.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    assert {step["problem_id"] for step in steps} == {"toy/add", "toy/twice"}
    said = texts(whole.folder)
    for name in ("toy/add", "toy/twice"):
        decided = {}
        for step in steps:
            if step["problem_id"] == name:
                pieces = zip(step["positions"], step["pieces"], strict=True)
                decided.update(pieces)
        text = "".join(decided[place] for place in sorted(decided))
        # Pieces of half a character spell otherwise alone than joined.
        if "\ufffd" not in text:
            assert text.startswith(said[name, 0, 0])


@pytest.mark.representative("1")
@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_run_that_was_cut_off_goes_on(model, whole, tmp_path, kept):
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "run.json").write_text((whole.folder / "run.json").read_text())
    lines = (whole.folder / "samples.jsonl").read_text().splitlines(keepends=True)
    # The process died in the middle of a line.
    cut = "".join(lines[:kept]) + lines[kept][: len(lines[kept]) // 2]
    (folder / "samples.jsonl").write_text(cut)
    assert go(model, folder).score is not None
    again = (folder / "samples.jsonl").read_text().splitlines(keepends=True)
    assert again[:kept] == lines[:kept]
    assert texts(folder) == texts(whole.folder)
    verdicts = [(f / "verdicts.jsonl").read_text() for f in (folder, whole.folder)]
    passed = [
        [(v["problem_id"], v["passed"]) for v in map(json.loads, t.splitlines())]
        for t in verdicts
    ]
    assert passed[0] == passed[1]


def test_a_complete_run_asks_nothing(model, whole, monkeypatch):
    monkeypatch.setattr(run_module, "complete_batches", None)
    assert go(model, whole.folder).score is not None


def test_shards_are_the_whole(model, whole, tmp_path):
    folder = tmp_path / "toy"
    first = go(model, folder, choices=dataclasses.replace(GREEDY, shard=(1, 2)))
    assert (first.score, first.samples, first.total) == (None, 2, 3)
    second = go(model, folder, choices=dataclasses.replace(GREEDY, shard=(2, 2)))
    assert second.score is not None
    assert texts(folder) == texts(whole.folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": RECIPES["careful"]}, 'with recipe "fast", and this one has'),
        ({"limit": 2}, "with problems 3, and this one has 2"),
        ({"seed": 1}, "with seed 0, and this one has 1"),
        ({"known_length": True}, "has no holes"),
    ],
)
def test_other_settings_in_a_folder_are_refused(model, whole, changes, message):
    with pytest.raises(InputError, match=message):
        go(model, whole.folder, choices=dataclasses.replace(GREEDY, **changes))


def test_another_suite_in_a_folder_is_refused(model, whole):
    other = dataclasses.replace(SUITE, name="other")
    with pytest.raises(InputError, match='with suite "toy"'):
        go(model, whole.folder, suite=other)


def test_a_file_has_one_writer(model, whole):
    with CompletionFile(whole.folder / "samples.jsonl"):
        with pytest.raises(InputError, match="is being written by process"):
            go(model, whole.folder)


def test_a_line_that_is_no_sample_is_told_of(whole, tmp_path):
    path = tmp_path / "samples.jsonl"
    line = to_line(all_completions(whole.folder)[0])
    path.write_text(line + '{"problem_id": 3}\n')
    with pytest.raises(InputError, match="samples.jsonl:2: no completion"):
        all_completions(tmp_path)


@pytest.mark.slow
def test_prompts_without_room_are_failures(model, tmp_path):
    long = dataclasses.replace(PROBLEMS[0], prompt="def add(a, b):\n" + "    #\n" * 99)
    problems = [long, *PROBLEMS[1:]]
    ended = run_suite(model, SUITE, problems, tmp_path / "toy", GREEDY, sandbox=sandbox)
    assert ended.score is not None and ended.score.reasons["no room"] == 1
    assert ended.score.problems == 3


def test_batches_are_alike_in_length(model):
    setup = Setup(suite=SUITE, form="generate", sampler=model.sampler, rows=2)
    requests = [Request(problem=p, sample=n) for p in PROBLEMS for n in range(2)]
    made = batches(model, setup, requests)
    assert [len(batch.requests) for batch in made] == [2, 2, 2]
    assert all(isinstance(batch, Batch) and batch.budget == 20 for batch in made)
    names = [batch.requests[0].problem.problem_id for batch in made]
    assert names == ["toy/one", "toy/add", "toy/twice"]


def test_seeds_are_the_questions_own():
    keys = [("a", 0, 0), ("a", 1, 0), ("a", 0, 1), ("b", 0, 0)]
    seeds = {seed_of("toy", key, 0) for key in keys}
    assert len(seeds | {seed_of("toy", keys[0], 1), seed_of("x", keys[0], 0)}) == 6
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.slow
def test_draws_depend_on_the_question_only(model, tmp_path):
    """At a temperature, in other batches and shards."""
    drawn = dataclasses.replace(GREEDY, temperature=1.0, samples=3, traced=0)
    go(model, tmp_path / "a", choices=drawn)
    for shard in ((1, 2), (2, 2)):
        other = dataclasses.replace(drawn, rows=5, shard=shard)
        go(model, tmp_path / "b", choices=other)
    assert texts(tmp_path / "a") == texts(tmp_path / "b")
    assert len(set(texts(tmp_path / "a").values())) > 3


def test_recipes(model, causal):
    one = sampler_for(RECIPES["careful"], model, SUITE)
    assert one.policy == FixedCount(steps_per_block=8)
    assert one.max_new_tokens == 12 and one.temperature == 0.0
    fast = sampler_for(point("threshold", 0.5), model, SUITE)
    assert fast.policy == ConfidenceThreshold(threshold=0.5)
    assert sampler_for(RECIPES["default"], model, SUITE).temperature == 1.0
    drawn = dataclasses.replace(SUITE, temperature=0.2, top_p=0.95)
    assert sampler_for(RECIPES["paper"], model, drawn).top_p == 0.95
    assert sampler_for(RECIPES["default"], model, drawn).top_p == model.sampler.top_p
    assert sampler_for(RECIPES["paper"], model, SUITE).policy == model.sampler.policy
    assert sampler_for(RECIPES["fast"], causal, SUITE).policy == causal.sampler.policy
    with pytest.raises(InputError, match="did you mean 'paper'"):
        find_recipe("papers")
    with pytest.raises(InputError, match=r"must be in \[0, 1\]"):
        find_recipe("threshold-1.5")


def test_points_of_a_sweep(model):
    """Every policy at several values, each a recipe of its own that a run takes too."""
    points = points_for("all", "mini")
    assert {recipe.curve for recipe in points} == set(CURVES)
    samplers = [sampler_for(recipe, model, SUITE) for recipe in points]
    assert len(set(samplers)) == len(samplers) > 30
    names = [recipe.name for recipe in points_for("margin,revoke-0.5,single", "mini")]
    assert names[0] == "margin-0.99" and names[-2:] == ["revoke-0.5", "single"]
    for recipe in points:
        again = sampler_for(find_recipe(recipe.name), model, SUITE)
        assert again == sampler_for(recipe, model, SUITE)
    for name, message in (
        ("magic", "no recipe 'magic'; there are paper, .*revoke-VALUE"),
        ("revoke-2", "revoke-2.*threshold is 2"),
        (" , ", "no policy was named; there are all, left-to-right"),
    ):
        with pytest.raises(InputError, match=message):
            points_for(name, "mini")


def test_a_model_without_a_template_gets_prompts(model):
    assert form_of(model, SUITE, PROBLEMS) == "generate"
    change = dataclasses.replace(SUITE, task="edit")
    assert form_of(model, change, PROBLEMS) == "edit"
    talk = dataclasses.replace(SUITE, task="chat")
    mute = [dataclasses.replace(problem, prompt="") for problem in PROBLEMS]
    with pytest.raises(InputError, match="takes a model that can chat"):
        form_of(model, talk, mute)


def test_what_failed_is_asked_again(model):
    """With what was said before, and what the suite says to it."""
    told = []

    def second(problem, answer, outcome):
        told.append((problem.problem_id, answer, outcome.passed))
        return "No."

    twice = dataclasses.replace(SUITE, tries=2, second_question=second)
    requests = [Request(problem=problem, sample=0) for problem in PROBLEMS]
    right, wrong = PROBLEMS[0].reference, "    return 7\n"
    samples = [
        Completion(problem_id=p.problem_id, sample=0, text=f"So: {a}", answer=a)
        for p, a in zip(PROBLEMS, (right, wrong, wrong), strict=True)
    ]
    again = next_requests(twice, requests, samples, sandbox)
    assert [request.key for request in again] == [
        *(("toy/twice", 0, 1), ("toy/one", 0, 1))
    ]
    assert told[0] == ("toy/twice", wrong, False)
    assert [message["content"] for message in conversation(again[0])] == [
        *(PROBLEMS[1].question, f"So: {wrong}", "No.")
    ]
    assert conversation(again[0])[1]["role"] == "assistant"


def test_tries_are_for_chats_in_one_process(model, tmp_path):
    twice = dataclasses.replace(SUITE, tries=2)
    setup = Setup(suite=twice, form="chat", sampler=model.sampler, rows=1)
    assert num_tries(setup, PROBLEMS) == 2
    assert num_tries(dataclasses.replace(setup, form="generate"), PROBLEMS) == 1
    shard = dataclasses.replace(GREEDY, shard=(1, 2))
    with pytest.raises(InputError, match="drop --shard"):
        go(model, tmp_path / "toy", suite=twice, choices=shard)
