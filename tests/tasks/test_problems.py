"""A user's own problems: their forms, their faults, their tests in the sandbox."""

import json
import random

import pytest

from seedjax.config import from_dict, to_dict
from seedjax.errors import InputError
from seedjax.posttrain.recording import RecordConfig, draw_prompt
from seedjax.posttrain.verifiers import Submission, UnitTests
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.lab.stream import load_vocabulary, task_prompt
from seedjax.tasks.problems import (
    ProblemConfig,
    draw,
    passing_when_empty,
    read_problems,
)
from seedjax.tasks.suites.lab import by_kind
from seedjax.text.loading import load_tokenizer
from tests.convert.checkpoints import write_tokenizer

STATEMENTS = {
    "prompt": "def inc(a):\n",
    "test": 'text = """a\nb"""\nassert len(text) == 3\nassert inc(1) == 2',
    "entry_point": "inc",
}
HUMAN_EVAL = {
    "task_id": "mine/1",
    "prompt": "def twice(a):\n",
    "suffix": "    return b\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
    "entry_point": "twice",
    "canonical_solution": "    b = 2 * a\n",
}
READS_INPUT = {
    "prompt": "# Doubles the number that it reads.\n",
    "tests": [["2\n", "4\n"], {"input": "5\n", "output": "10"}],
}
EDIT = {
    "before": "def neg(a):\n    return a\n",
    "instruction": "Negate.",
    "test": "assert neg(1) == -1",
    "entry_point": "neg",
}
QUESTION = {
    "question": "ADD-ONE",
    "test": "assert inc(1) == 2",
    "entry_point": "inc",
}
ROWS = [STATEMENTS, HUMAN_EVAL, READS_INPUT, EDIT]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_each_form_is_judged_by_its_tests(tmp_path):
    tasks = read_problems(write(tmp_path / "mine.jsonl", ROWS))
    assert [task.task for task in tasks] == ["generate", "infill", "generate", "edit"]
    assert [task.problem_id for task in tasks] == [
        "line 1",
        "mine/1",
        "line 3",
        "line 4",
    ]
    right = [
        "    return a + 1\n",
        "    b = 2 * a\n",
        "print(2 * int(input()))\n",
        "def neg(a):\n    return -a\n",
    ]
    wrong = ["    return a\n", "    b = a\n", "print(input())\n", EDIT["before"]]
    broken = ["return (", "(", "print(", "def"]
    with Sandbox(accept_weak_isolation=True) as sandbox:
        for answers, value in ((right, 1.0), (wrong, 0.0), (broken, 0.0)):
            given = [Submission(t, a, []) for t, a in zip(tasks, answers, strict=True)]
            assert UnitTests(sandbox).judge(given).tolist() == [value] * 4


def test_a_question_goes_through_the_chat_template(tmp_path):
    """And its reply is judged by the program in it; beside a prompt, the model's
    template decides."""
    spoken = READS_INPUT | {"question": "DOUBLE-IT"}
    del spoken["prompt"]
    both = STATEMENTS | QUESTION
    tasks = read_problems(write(tmp_path / "m.jsonl", [QUESTION, spoken, both]))
    plain = load_vocabulary("mini")
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("<{{ messages[0].content }}>")
    chats = load_tokenizer(tmp_path)
    for task in tasks:
        assert chats.decode(task_prompt(task, chats)) == f"<{task.question}>"
    assert task_prompt(tasks[2], plain)[1:] == plain.encode(both["prompt"])
    with pytest.raises(InputError, match="line 1 is a question, and the model has no"):
        task_prompt(tasks[0], plain)
    right = "Sure:\n```python\ndef inc(a):\n    return a + 1\n```\nThat is it."
    answers = [
        *(right, "```\nprint(2 * int(input()))\n```", "    return a + 1\n"),
        *(right.replace("+ 1", "- 1"), "Double it.", right.replace("+ 1", "")),
    ]
    with Sandbox(accept_weak_isolation=True) as sandbox:
        given = [Submission(t, a, []) for t, a in zip(2 * tasks, answers, strict=True)]
        assert UnitTests(sandbox).judge(given).tolist() == [1, 1, 1, 0, 0, 0]
        assert passing_when_empty(tasks, sandbox) == []


def test_questions_are_a_suite_of_their_own(tmp_path):
    rows = [STATEMENTS, QUESTION, READS_INPUT]
    tasks = read_problems(write(tmp_path / "mine.jsonl", rows))
    suites = {suite.name: len(found) for suite, found in by_kind(tasks, name="mine")}
    assert suites == {"mine_generate": 2, "mine_asked_generate": 1}


def test_tests_that_pass_on_nothing_are_found(tmp_path):
    empty = {"prompt": "x = 1\n", "test": "assert True", "entry_point": "x"}
    same = EDIT | {"test": "assert neg(0) == 0"}
    rows = [*ROWS, empty, same, {"prompt": "#\n", "tests": [["", ""]]}]
    tasks = read_problems(write(tmp_path / "mine.jsonl", rows))
    with Sandbox(accept_weak_isolation=True) as sandbox:
        found = passing_when_empty(tasks, sandbox)
    assert found == ["line 5", "line 6", "line 7"]


FAULTS = {
    "prompt is 3, expected text": {"prompt": 3},
    "there is no prompt, question or before": {
        "test": "assert f(1)",
        "entry_point": "f",
    },
    "there are no tests; give test, or tests": {"prompt": "x"},
    "entry_point is ''; name the function": {"prompt": "x", "test": "assert f(1)"},
    "test is no Python": {"prompt": "x", "test": "assert (", "entry_point": "f"},
    "before comes without an instruction": {"before": "x", "test": "a"},
    "give prompt and suffix, question, or before": EDIT | {"prompt": "x"},
    "a question has no suffix": QUESTION | {"suffix": "x"},
    "a pair of tests is ['2']": {"prompt": "x", "tests": [["2"]]},
    "a pair of tests is None": {"prompt": "x", "tests": "2"},
}


@pytest.mark.parametrize("message", FAULTS)
def test_lines_that_are_no_problems_are_named(tmp_path, message):
    path = write(tmp_path / "mine.jsonl", [STATEMENTS, FAULTS[message]])
    with pytest.raises(InputError) as info:
        read_problems(path)
    assert f"{path}:2: " in str(info.value) and message in str(info.value)
    assert "\n" not in str(info.value)


def test_files_without_problems_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no problems"):
        read_problems(tmp_path / "empty.jsonl")
    twice = write(tmp_path / "twice.jsonl", [HUMAN_EVAL, HUMAN_EVAL])
    with pytest.raises(InputError, match="has task_id 'mine/1' twice"):
        read_problems(twice)
    one = ProblemConfig(path=str(write(tmp_path / "one.jsonl", [STATEMENTS])))
    with pytest.raises(InputError, match="leaves no (train|heldout) problem"):
        [one.problems("train"), one.problems("heldout")]


def test_a_file_is_a_source_of_tasks(tmp_path):
    """In place of the lab's, in recipes and on disk; splits are apart."""
    rows = [STATEMENTS | {"prompt": f"def inc(a):  # {n}\n"} for n in range(60)]
    tasks = ProblemConfig(path=str(write(tmp_path / "mine.jsonl", rows)))
    train, held = ({t.prompt for t in tasks.problems(s)} for s in ("train", "heldout"))
    assert len(train) + len(held) == 60 and train.isdisjoint(held) and held
    drawn = draw(tasks, random.Random(0), "heldout", num_tests=3)
    assert drawn.prompt in held
    config = RecordConfig(tasks=tasks, num_prompts=len(train))
    assert from_dict(RecordConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert {draw_prompt(config, n).prompt for n in range(len(train))} == train
