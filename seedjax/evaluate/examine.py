"""Problems of several suites completed and judged in memory: what a training run is
watched by, and what the arms of the ablation are compared by.

A run that is kept in a folder, and can be cut off, is `seedjax.evaluate.run`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from seedjax.config import from_dict
from seedjax.evaluate.complete import (
    Batch,
    Completion,
    Request,
    Setup,
    batches,
    complete_batch,
    form_of,
)
from seedjax.evaluate.score import Score, Verdict, judge, score_verdicts
from seedjax.inference.model import Model
from seedjax.processes import is_first, share, work_out
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.suite import Problem, Suite

ROWS = 32  # of a batch


class Examined(NamedTuple):
    """Problems with one completion and one verdict each, in the same order."""

    suite: Suite
    problems: Sequence[Problem]
    completions: list[Completion]
    verdicts: list[Verdict]

    @property
    def passed(self) -> list[bool]:
        """Whether each problem is solved."""
        return [verdict.passed for verdict in self.verdicts]

    def score(self, chosen: Sequence[int] | None = None) -> Score:
        """The score of the problems of these numbers; of all for None."""
        numbers = range(len(self.problems)) if chosen is None else chosen
        return score_verdicts(
            self.suite,
            [self.problems[n] for n in numbers],
            [self.completions[n] for n in numbers],
            [self.verdicts[n] for n in numbers],
        )


def examine(
    model: Model,
    suites: Sequence[tuple[Suite, Sequence[Problem]]],
    sampler: SamplerConfig,
    sandbox: Sandbox,
    *,
    rows: int = ROWS,
    seed: int = 0,
    advance: Callable[[int], object] = lambda count: None,
) -> Examined:
    """Completes problems and runs their tests. Of several processes each completes a
    part of the batches with a model of its own, the first one runs the tests, and all
    get everything.

    Args:
      model: any; in several processes the same, each on its own devices.
      suites: with their problems, whose ids are unique over all of them. Scores have
        the name of the first.
      sampler: the whole recipe.
      sandbox: open, with limits that are enough for all suites.
      rows: of a batch; one that is not full is padded.
      seed: of the draws.
      advance: called with the number of problems completed since the last call.

    Raises:
      InputError: for a suite that the model takes in no form.
      ValueError: for an id that two problems have.
    """
    names = [problem.problem_id for _, members in suites for problem in members]
    if len(set(names)) < len(names):
        raise ValueError("several problems have the same id")
    parts: list[tuple[Setup, Batch]] = []
    for suite, members in suites:
        form = form_of(model, suite, members)
        setup = Setup(suite=suite, form=form, sampler=sampler, rows=rows, seed=seed)
        requests = [Request(problem=problem) for problem in members]
        parts += [(setup, batch) for batch in batches(model, setup, requests)]

    def work(part: tuple[Setup, Batch]) -> list[dict[str, Any]]:
        return [dataclasses.asdict(each) for each in complete_batch(model, *part)]

    completed: dict[str, Completion] = {}
    for _, values in work_out(parts, work):
        found = [from_dict(Completion, each) for each in values]
        completed |= {completion.problem_id: completion for completion in found}
        advance(len(found))
    problems = [problem for _, members in suites for problem in members]
    completions, verdicts = [], []
    if is_first():
        completions = [completed[problem.problem_id] for problem in problems]
        for suite, members in suites:
            some = [completed[problem.problem_id] for problem in members]
            verdicts += judge(suite, members, some, sandbox)
    told = [list(map(dataclasses.asdict, some)) for some in (completions, verdicts)]
    texts, outcomes = share(told)
    return Examined(
        suites[0][0],
        problems,
        [from_dict(Completion, each) for each in texts],
        [from_dict(Verdict, each) for each in outcomes],
    )
