"""A suite is checked by its references and by wrong answers."""

import dataclasses

import pytest

from seedjax.evaluate import verify as verify_module
from seedjax.evaluate.verify import Unexpected, verify
from seedjax.sandbox.sandbox import Program, Sandbox
from seedjax.sandbox.script import Script
from seedjax.tasks.suite import Problem
from seedjax.tasks.suites import SUITES


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(1, dataclasses.replace(SUITES["humaneval"].limits)) as opened:
        yield opened


def problem(name, reference, test="assert candidate() == 1", language="python"):
    return Problem(
        problem_id=name, reference=reference, language=language, data={"test": test}
    )


def program(problem, answer):
    if problem.language != "python":
        return Script(language=problem.language, source=answer)
    test = f"def check(candidate):\n    {problem.data['test']}\n"
    return Program(source=f"def one():\n{answer}", test=test, entry_point="one")


def suite_of(**changes):
    return dataclasses.replace(
        SUITES["humaneval"],
        name="tiny",
        program=program,
        wrong=lambda problem: "    return 2\n",
        **changes,
    )


RIGHT = "    return 1\n"


def test_a_good_suite(sandbox):
    counted: list[tuple[str, int, int | None]] = []

    def report(stage: str, done: int, total: int | None) -> None:
        counted.append((stage, done, total))

    problems = [problem("a", RIGHT), problem("b", RIGHT), problem("c", None)]
    found = verify(suite_of(), problems, sandbox, report)
    assert (found.num_references, found.references_passed) == (2, 2)
    assert (found.num_wrong, found.wrong_passed) == (3, 0)
    assert found.is_good and found.unexpected == () and found.not_run == ()
    assert counted[-1] == ("verifying tiny", 5, 5)
    assert found.seconds > 0 and found.suite == "tiny"


def test_what_is_not_as_it_should_be(sandbox):
    problems = [
        problem("fails", "    return 3\n"),
        problem("lax", RIGHT, "candidate()"),
        problem("known", "    return 4\n"),
    ]
    suite = suite_of(exceptions={"known": "upstream's answer is wrong"})
    found = verify(suite, problems, sandbox)
    assert not found.is_good and found.references_passed == 1
    assert found.wrong_passed == 1
    fails, known, lax = found.unexpected
    assert (fails.problem_id, fails.answer, fails.known) == (
        "fails",
        "reference",
        False,
    )
    assert fails.reason.startswith("failed: AssertionError")
    assert known == Unexpected(
        problem_id="known",
        answer="reference",
        reason="upstream's answer is wrong",
        known=True,
    )
    assert (lax.problem_id, lax.answer) == ("lax", "wrong")


def test_a_language_that_is_not_there_is_not_run(sandbox, monkeypatch):
    monkeypatch.setattr(
        verify_module,
        "missing",
        lambda name: None if name == "python" else f"no {name}",
    )
    problems = [problem("a", RIGHT), problem("b", "x", language="ruby")]
    found = verify(suite_of(), problems, sandbox)
    assert found.not_run == ("no ruby (1 problems)",) and found.is_good
    assert (found.num_problems, found.num_references, found.num_wrong) == (2, 1, 1)


def test_a_package_that_is_not_there(sandbox):
    wanted = {"test": "assert candidate() == 1", "packages": ["json", "no_such.thing"]}
    problems = [
        dataclasses.replace(problem(name, RIGHT), data=wanted) for name in ("a", "b")
    ]
    found = verify(suite_of(), problems, sandbox)
    assert found.not_run == ("not installed: no_such.thing (2 problems)",)
    assert found.num_references == found.num_wrong == 0 and found.is_good
