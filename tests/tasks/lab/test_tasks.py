"""Tasks: every reference passes its own test, and what is to be mended fails it."""

import ast
import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import pytest
from samples import PARTS, all_tasks, sample

from seedjax.errors import InputError
from seedjax.tasks.lab import TASKS, Task, checks, make_task, make_tasks
from seedjax.tasks.lab.tasks import MOST_TESTS, check_set, exam

SETS = [(task, *part) for task in TASKS for part in PARTS]


def run_check(task: Task, candidate) -> None:
    """Runs a task's test as a user would."""
    space = {}
    exec(task.test, space)
    space["check"](candidate)


def passes(task: Task, source: str) -> bool:
    """Whether a program passes a task's test. Endless loops do not."""
    try:
        run_check(task, checks.Fuelled(source, task.entry_point))
    except Exception:
        return False
    return True


@pytest.mark.representative(
    "generate-test-standard",
    "edit-test-paraphrase",
    "infill-test-longer",
    "repair-train-names",
)
@pytest.mark.parametrize(("task", "split", "part"), SETS)
def test_every_reference_passes_its_own_test(task, split, part):
    for made in sample(task, split, part):
        space = {}
        exec(made.source(made.reference), space)
        run_check(made, space[made.entry_point])
        assert 4 <= made.test.count("assert ") <= MOST_TESTS
        assert made.reference.strip()
        assert (made.task, made.slice) == (task, part)


@pytest.mark.parametrize(("split", "part"), PARTS)
def test_what_is_to_be_mended_or_changed_fails(split, part):
    for made in sample("repair", split, part) + sample("edit", split, part):
        assert made.before != made.reference and made.instruction
        assert not made.prompt and not made.suffix
        ast.parse(made.before)
        assert passes(made, made.reference)
        assert not passes(made, made.before), made.before


def test_an_answer_that_ignores_its_input_fails():
    for made in sample("generate", "test", "standard"):
        if made.prompt.startswith("class"):
            continue
        for constant in ("0", "[]", '""', "True", "{}", "None"):
            assert not passes(made, f"{made.prompt}    return {constant}\n")


def test_what_is_given_is_what_the_task_says():
    for made in all_tasks("train", "standard"):
        match made.task:
            case "generate":
                assert made.prompt.endswith('"""\n') or "class" in made.prompt
                assert not made.suffix and not made.before
            case "infill":
                assert '"""' in made.prompt and not made.before
            case "repair":
                assert made.fault
                assert made.before.split('"""')[1] == made.reference.split('"""')[1]
            case "edit":
                assert '"""' not in made.before + made.reference


@pytest.mark.parametrize("task", TASKS)
def test_tiers_take_turns_and_ids_are_unique(task):
    made = sample(task, "test", "standard")
    assert [t.tier for t in made] == [1, 2, 3] * 3
    assert len({t.problem_id for t in made}) == len(made)
    asked = [*make_tasks(task, 4, split="test", tier=2, seed=0)]
    assert [t.tier for t in asked] == [2] * 4
    assert {t.tier for t in sample(task, "test", "longer")} == {4}


def test_a_task_is_a_function_of_its_arguments():
    for made in all_tasks("train", "standard", 4):
        index = int(made.problem_id.rpartition("/")[2])
        assert make_task(made.task, index) == made
        other = make_task(made.task, index, seed=1)
        assert other.reference != made.reference


SCRIPT = """
import dataclasses, hashlib, json
from seedjax.tasks.lab import TASKS, make_task
made = [dataclasses.asdict(make_task(task, n)) for task in TASKS for n in range(6)]
print(hashlib.sha256(json.dumps(made).encode()).hexdigest())
"""


def test_another_process_makes_the_same_tasks():
    made = [dataclasses.asdict(t) for t in all_tasks("train", "standard", 6)]
    expected = hashlib.sha256(json.dumps(made).encode()).hexdigest()
    for hash_seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == expected


def test_the_tests_can_be_left_out():
    for task in TASKS:
        made = make_task(task, 0, num_tests=0)
        assert bool(made.test) == (task in ("repair", "edit"))
        assert make_task(task, 0, num_tests=0) == made


def test_tasks_need_no_jax():
    code = "import sys, seedjax.tasks.lab; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("write", "train", 1, "standard"), "unknown task 'write'; there are generate"),
        (("edit", "dev", 1, "standard"), "unknown split 'dev'; there are train, test"),
        (("edit", "test", 4, "standard"), "unknown tier 4; there are 1, 2, 3"),
        (("edit", "test", None, "short"), "unknown slice 'short'; there are standard"),
        (("edit", "train", None, "longer"), "'longer' is of the test split only"),
    ],
)
def test_sets_that_there_are_not_are_refused(asked, message):
    with pytest.raises(InputError, match=message):
        check_set(*asked)
    check_set("edit", "test", None, "longer")


def test_an_exam_asks_every_kind_and_tier():
    tasks = exam(2, kinds=["infill", "generate"], seed=3)
    assert [task.task for task in tasks] == ["infill"] * 6 + ["generate"] * 6
    assert [task.tier for task in tasks] == [1, 1, 2, 2, 3, 3] * 2
    assert len({task.problem_id for task in tasks}) == 12
