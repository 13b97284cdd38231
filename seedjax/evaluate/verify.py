"""Checks a suite against itself: upstream's own answers must pass, wrong ones must not.

Whatever a score says about a model rests on this, so it is run on the data and the
machine at hand.
"""

import functools
import importlib.util
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seedjax.progress import Progress, counter, silent
from seedjax.sandbox.outcome import Outcome
from seedjax.sandbox.runtimes import missing
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.suite import Problem, Suite

CHUNK = 64  # programs handed over at a time


@dataclass(frozen=True, kw_only=True)
class Unexpected:
    """A reference that did not pass, or a wrong answer that did."""

    problem_id: str
    answer: str  # "reference" or "wrong"
    reason: str
    known: bool  # in Suite.exceptions, where `reason` comes from


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The result. Problems for which something is missing here are not run, and
    problems without a reference count only where they were given a wrong answer."""

    suite: str
    num_problems: int
    num_references: int  # run
    references_passed: int
    num_wrong: int  # run
    wrong_passed: int
    seconds: float  # in the sandbox, summed over programs
    not_run: tuple[str, ...]  # what is missing, and for how many problems
    unexpected: tuple[Unexpected, ...]

    @property
    def is_good(self) -> bool:
        """Whether all that is not as it should be is known."""
        return all(found.known for found in self.unexpected)


def verify(
    suite: Suite,
    problems: Sequence[Problem],
    sandbox: Sandbox,
    report: Progress = silent,
) -> Verified:
    """Runs reference and wrong answer of every problem; `report` counts the programs.
    The sandbox must have been opened with `suite.limits`. Raises InputError for a test
    that cannot be run."""
    faults = lacking(suite, problems)
    able = [problem for problem in problems if not faults[problem.problem_id]]
    references = [problem for problem in able if problem.reference is not None]
    number = len(references) + len(able)
    advance = counter(report, f"verifying {suite.name}", number)
    right = run_answers(
        suite,
        [(problem, problem.reference or "") for problem in references],
        sandbox,
        advance,
    )
    wrong = run_answers(
        suite, [(problem, suite.wrong(problem)) for problem in able], sandbox, advance
    )
    unexpected = [
        Unexpected(
            problem_id=problem.problem_id,
            answer=name,
            reason=suite.exceptions.get(problem.problem_id)
            or f"{outcome.reason}: {outcome.message}",
            known=problem.problem_id in suite.exceptions,
        )
        for name, which, outcomes, should_pass in (
            ("reference", references, right, True),
            ("wrong", able, wrong, False),
        )
        for problem, outcome in zip(which, outcomes, strict=True)
        if outcome.passed is not should_pass
    ]
    return Verified(
        suite=suite.name,
        num_problems=len(problems),
        num_references=len(references),
        references_passed=sum(outcome.passed for outcome in right),
        num_wrong=len(able),
        wrong_passed=sum(outcome.passed for outcome in wrong),
        seconds=sum((outcome.seconds for outcome in [*right, *wrong]), 0.0),
        not_run=tuple(
            f"{why} ({count} problems)"
            for why, count in Counter(faults.values()).items()
            if why
        ),
        unexpected=tuple(unexpected),
    )


def lacking(suite: Suite, problems: Sequence[Problem]) -> dict[str, str]:
    """Why programs of each problem, by its id, cannot be run here, with what to
    install; "" where they can."""
    languages = {problem.language for problem in problems}
    tools = {language: missing(language) or suite.absent() for language in languages}
    faults = {}
    for problem in problems:
        names = [name for name in problem.data.get("packages", ()) if not has(name)]
        modules = f"not installed: {', '.join(names)}" if names else ""
        faults[problem.problem_id] = tools[problem.language] or modules
    return faults


@functools.cache
def has(package: str) -> bool:
    return importlib.util.find_spec(package.partition(".")[0]) is not None


def run_answers(
    suite: Suite,
    answers: Sequence[tuple[Problem, str]],
    sandbox: Sandbox,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Outcome]:
    """The outcomes of extracted answers, in their order."""
    outcomes: list[Outcome] = []
    for start in range(0, len(answers), CHUNK):
        chosen = answers[start : start + CHUNK]
        outcomes += sandbox.run([suite.program(*pair) for pair in chosen])
        advance(len(chosen))
    return outcomes
