"""The lab's tasks as suites, and names of suites."""

from pathlib import Path

import pytest

from seedjax.errors import InputError
from seedjax.evaluate.verify import verify
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.data import read_problems
from seedjax.tasks.lab.tasks import make_task
from seedjax.tasks.suites import SUITES, find_suites

LAB = ["lab_generate", "lab_infill", "lab_repair", "lab_edit"]


@pytest.mark.representative("lab_generate")
@pytest.mark.parametrize("name", LAB)
def test_lab_references_pass_and_wrong_answers_do_not(name):
    suite = SUITES[name]
    problems = read_problems(suite, Path("nowhere"))[::20]
    with Sandbox(1, suite.limits) as sandbox:
        found = verify(suite, problems, sandbox)
    assert found.references_passed == found.num_references == 3
    assert found.wrong_passed == 0 and found.num_wrong == 3


@pytest.mark.slow
def test_lab_problems_are_those_of_the_lab():
    problem = read_problems(SUITES["lab_repair"], Path("nowhere"))[21]
    task = make_task("repair", 1, split="test", tier=2)
    assert problem.problem_id == task.problem_id
    assert (problem.before, problem.instruction) == (task.before, task.instruction)
    assert problem.reference == task.reference


def test_names_stand_for_a_suite_or_for_all_that_begin_so():
    assert [suite.name for suite in find_suites("lab")] == LAB
    assert [s.name for s in find_suites("lab_edit, humaneval")] == [
        *("lab_edit", "humaneval")
    ]
    assert [suite.name for suite in find_suites("lab_edit,lab")] == [
        *("lab_edit", "lab_generate", "lab_infill", "lab_repair")
    ]
    with pytest.raises(InputError, match="lab_generate"):
        find_suites("lab_generat")
    with pytest.raises(InputError, match="no suite was named"):
        find_suites(" , ")
