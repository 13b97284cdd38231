"""Completions to verdicts, and verdicts to numbers.

completions ─suite.program─▶ Sandbox ─▶ Verdict each ─▶ Score of the suite
"""

import dataclasses
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seedjax.errors import InputError
from seedjax.evaluate.complete import Completion
from seedjax.evaluate.rates import (
    is_repetitive,
    share,
    speed,
    valid_rate,
    well_formed_rate,
)
from seedjax.evaluate.statistics import pass_at_k, wilson_interval
from seedjax.evaluate.verify import lacking, run_answers
from seedjax.progress import Progress, counter, silent
from seedjax.sandbox.outcome import Outcome
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.suite import Problem, Suite
from seedjax.tasks.suites import canitedit

KS = (1, 5, 10, 100)  # k of pass@k, as far as there are completions
NOT_RUN = "not run"  # reason of a verdict
TOO_LONG = "the prompt leaves the model no room for an answer"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a completion was judged: a line of `verdicts.jsonl`.

    Attributes:
      problem_id, sample, turn: of the completion.
      passed: whether its program passed.
      reason: as in `Outcome`; "no room" for a prompt that was too long, "not run" where
        its test lacks something here.
      message: one line.
      seconds: in the sandbox.
      output: the end of what it printed.
    """

    problem_id: str
    sample: int
    turn: int
    passed: bool
    reason: str
    message: str
    seconds: float
    output: str = ""

    @property
    def outcome(self) -> Outcome:
        """As `Suite.second_question` takes it."""
        reason: Any = self.reason
        return Outcome(self.passed, reason, self.message, self.seconds, self.output)


@dataclass(frozen=True, kw_only=True)
class Score:
    """The numbers of a run. Rates are shares; what was not measured is None.

    Attributes:
      suite: its name.
      problems: how many were scored, or would be if anything could be run here.
      suite_problems: how many the suite has; None in scores of before this was kept.
      samples: of each; the least, where they are not as many of all.
      pass_at: pass@k for each k that the completions allow, the mean over the problems.
        A problem with several tries counts by whether one of them passes.
      intervals: 95 % intervals of these, see `wilson_interval`.
      first_try: pass@1 of the first try alone, where there are several.
      excess_code: CanItEdit's, in percent.
      reasons: how many completions ended how.
      not_run: why nothing was run here; then there is no pass@k.
      left_out: how many problems were not run and are in no pass rate, by what their
        tests lack here.
      tokens: written, over all completions. Prompts and padding are not counted.
      forwards: forward passes, row by row.
      tokens_per_forward: tokens and ends of all completions, per forward pass.
      text_per_forward: the same without white space and ends.
      tokens_per_second: over the wall time of the batches, without compilation. If
        there are batches whose program had run before, over these alone.
      first_block_seconds: from a prompt to its first block, alone; the median.
      mean_tokens: of a sample.
      empty_rate: completions without any text.
      repetition_rate: completions that repeat themselves (`is_repetitive`).
      unfinished_rate: completions that used up their budget.
      valid_rate: programs that Python can parse.
      well_formed_rate: completions in the suite's form, where it counts that.
      scoring_seconds: wall time of the sandbox.
      isolation: what held the programs.
    """

    suite: str
    problems: int
    samples: int
    pass_at: Mapping[int, float]
    intervals: Mapping[int, tuple[float, float]]
    first_try: float | None = None
    excess_code: float | None = None
    reasons: Mapping[str, int]
    not_run: str | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    suite_problems: int | None = None
    tokens: int | None = None
    forwards: int | None = None
    tokens_per_forward: float | None = None
    text_per_forward: float | None = None
    tokens_per_second: float | None = None
    first_block_seconds: float | None = None
    mean_tokens: float | None = None
    empty_rate: float
    repetition_rate: float
    unfinished_rate: float | None = None
    valid_rate: float | None = None
    well_formed_rate: float | None = None
    scoring_seconds: float = 0.0
    isolation: str | None = None

    @property
    def pass_rate(self) -> float:
        """pass@1; 0 where nothing was run."""
        return self.pass_at.get(1, 0.0)

    @property
    def is_part(self) -> bool:
        """Whether problems of the suite are missing, so that the score is none that
        could stand beside a printed one."""
        return self.suite_problems is not None and self.problems < self.suite_problems

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; pass@k under "pass@1" and so on."""
        values = dataclasses.asdict(self)
        pass_at, intervals = values.pop("pass_at"), values.pop("intervals")
        named = {f"pass@{k}": rate for k, rate in pass_at.items()}
        named |= {f"pass@{k} interval": [*ends] for k, ends in intervals.items()}
        part = {"is_part": self.is_part}
        return {"suite": values.pop("suite")} | named | part | values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Score":
        """The score that `to_dict` made JSON of."""
        names = {field.name for field in dataclasses.fields(cls)}
        found = {name: value for name, value in values.items() if name in names}
        rates: dict[int, Any] = {}
        ends: dict[int, Any] = {}
        for name, value in values.items():
            if match := re.fullmatch(r"pass@(\d+)( interval)?", name):
                k = int(match[1])
                (ends if match[2] else rates)[k] = tuple(value) if match[2] else value
        return cls(**found | {"pass_at": rates, "intervals": ends})


def judge(
    suite: Suite,
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    sandbox: Sandbox,
    report: Progress = silent,
) -> list[Verdict]:
    """Runs completions against the tests of their problems.

    Args:
      suite: whose they are.
      problems: at least those of the completions.
      completions: in any order.
      sandbox: open, with the suite's limits.
      report: counts the completions that are done.

    Raises:
      InputError: for a test that cannot be run.
    """
    known = {problem.problem_id: problem for problem in problems}
    faults = lacking(suite, problems)
    able = [s for s in completions if s.fits and not faults[s.problem_id]]
    outcomes = run_answers(
        suite,
        [(known[sample.problem_id], sample.answer) for sample in able],
        sandbox,
        counter(report, f"running programs of {suite.name}", len(able)),
    )
    became = {s.key: outcome for s, outcome in zip(able, outcomes, strict=True)}
    verdicts = []
    for sample in completions:
        fault = faults[sample.problem_id]
        unrun = Outcome(False, "unsupported", fault or TOO_LONG, 0.0)
        outcome = became.get(sample.key, unrun)
        reason = NOT_RUN if fault else outcome.reason if sample.fits else "no room"
        verdicts.append(
            Verdict(
                problem_id=sample.problem_id,
                sample=sample.sample,
                turn=sample.turn,
                passed=outcome.passed,
                reason=reason,
                message=outcome.message,
                seconds=outcome.seconds,
                output=outcome.output,
            )
        )
    return verdicts


def why_not_run(faults: Mapping[str, str]) -> str | None:
    """Why none of the programs that `lacking` has checked can be run here; None if some
    can."""
    reasons = list(faults.values())
    return reasons[0] if all(reasons) else None


def score_completions(
    suite: Suite,
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    sandbox: Callable[[], Sandbox],
    *,
    measured: bool,
    first_block_seconds: float | None = None,
    report: Progress = silent,
) -> tuple[Score, list[Verdict]]:
    """Judges completions and counts.

    Args:
      suite: whose they are.
      problems: all that the score is over; each has at least one sample.
      completions: of these problems.
      sandbox: makes one with the suite's limits, not open yet.
      measured: whether they were drawn here, so that they have times and tokens.
      first_block_seconds: see `Score`.
      report: as for `judge`.

    Raises:
      InputError: for no problems, a problem without a sample, or a test that cannot be
        run.
    """
    check_complete(suite, problems, completions)
    not_run = why_not_run(lacking(suite, problems))
    verdicts: list[Verdict] = []
    isolation, seconds, excess = None, 0.0, None
    if not_run is None:
        with sandbox() as opened:
            isolation = opened.isolation
            began = time.perf_counter()
            verdicts = judge(suite, problems, completions, opened, report)
            seconds = time.perf_counter() - began
            excess = excess_code(suite, problems, completions, verdicts, opened)
    score = score_verdicts(suite, problems, completions, verdicts, measured=measured)
    return (
        dataclasses.replace(
            score,
            excess_code=excess,
            first_block_seconds=first_block_seconds,
            scoring_seconds=seconds,
            isolation=isolation,
        ),
        verdicts,
    )


def check_complete(
    suite: Suite, problems: Sequence[Problem], completions: Sequence[Completion]
) -> None:
    """Raises InputError for no problems, and for one without a completion."""
    if not problems:
        raise InputError("no problems to score")
    completed = {sample.problem_id for sample in completions if sample.turn == 0}
    for problem in problems:
        if problem.problem_id not in completed:
            raise InputError(
                f"{suite.name}: problem {problem.problem_id!r} has no sample; answer "
                "all, or give --limit"
            )


def score_verdicts(
    suite: Suite,
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    verdicts: Sequence[Verdict],
    *,
    measured: bool = True,
) -> Score:
    """Counts what `judge` found; arguments and errors as of `score_completions`. None
    of the programs could be run if there are no verdicts."""
    check_complete(suite, problems, completions)
    faults = lacking(suite, problems)
    able = [problem for problem in problems if not faults[problem.problem_id]]
    counted = Counter(sample.problem_id for sample in completions if sample.turn == 0)
    fewest = min(counted[problem.problem_id] for problem in problems)
    pass_at, intervals, first = {}, {}, None
    not_run = why_not_run(faults)
    if not_run is None:
        rates = passes(able, verdicts)
        for k in [k for k in KS if k <= fewest]:
            values = [pass_at_k(n, c, k) for n, c in rates.values()]
            pass_at[k] = statistics.fmean(values)
            intervals[k] = wilson_interval(sum(values), len(values))
        if suite.tries > 1:
            early = [verdict for verdict in verdicts if verdict.turn == 0]
            each = passes(able, early).values()
            first = statistics.fmean(pass_at_k(n, c, 1) for n, c in each)
    return Score(
        suite=suite.name,
        problems=len(able or problems),
        suite_problems=suite.num_problems,
        samples=fewest,
        pass_at=pass_at,
        intervals=intervals,
        first_try=first,
        reasons=dict(Counter(verdict.reason for verdict in verdicts).most_common()),
        not_run=not_run,
        left_out={} if not_run else dict(Counter(filter(None, faults.values()))),
        empty_rate=share(not sample.text.strip() for sample in completions),
        repetition_rate=share(map(is_repetitive, completions)),
        valid_rate=valid_rate(suite, problems, completions),
        well_formed_rate=well_formed_rate(suite, problems, completions),
        **(speed(completions) if measured else {}),
    )


def pool(scores: Sequence[Score]) -> Score:
    """Scores of several sets of problems as one. Rates, and tokens per forward pass and
    per second, are means weighted by problems; what one of them lacks is None.

    Raises:
      ValueError: if there are none.
    """
    if not scores:
        raise ValueError("no scores to pool")
    count = sum(score.problems for score in scores)

    def mean(values: Sequence[float | None]) -> Any:
        known = [value for value in values if value is not None]
        if len(known) < len(scores):
            return None
        pairs = zip(known, scores, strict=True)
        return sum(value * score.problems for value, score in pairs) / count

    rate = mean([score.pass_at.get(1) for score in scores])
    names = [
        "tokens_per_forward",
        "text_per_forward",
        "tokens_per_second",
        "empty_rate",
        "repetition_rate",
        "valid_rate",
    ]
    return Score(
        suite=", ".join(dict.fromkeys(score.suite for score in scores)),
        problems=count,
        suite_problems=sum(s.suite_problems or s.problems for s in scores),
        samples=min(score.samples for score in scores),
        pass_at={} if rate is None else {1: rate},
        intervals={} if rate is None else {1: wilson_interval(rate * count, count)},
        reasons=dict(sum((Counter(s.reasons) for s in scores), Counter())),
        **{name: mean([getattr(s, name) for s in scores]) for name in names},
    )


def passes(
    problems: Sequence[Problem], verdicts: Sequence[Verdict]
) -> dict[str, tuple[int, int]]:
    """Samples and passing samples of each of these problems. A sample passes with any
    try."""
    passed: dict[str, dict[int, bool]] = {p.problem_id: {} for p in problems}
    for verdict in verdicts:
        if verdict.problem_id not in passed:
            continue
        ended = passed[verdict.problem_id]
        ended[verdict.sample] = ended.get(verdict.sample, False) or verdict.passed
    return {name: (len(all_), sum(all_.values())) for name, all_ in passed.items()}


def excess_code(
    suite: Suite,
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    verdicts: Sequence[Verdict],
    sandbox: Sandbox,
) -> float | None:
    """CanItEdit's second metric, in percent: what of the passing answers no test
    reaches. None for another suite, and where nothing passed."""
    if suite.family != "CanItEdit":
        return None
    known = {problem.problem_id: problem for problem in problems}
    passed = {(v.problem_id, v.sample, v.turn) for v in verdicts if v.passed}
    chosen = [sample for sample in completions if sample.key in passed]
    outcomes = sandbox.run(
        [canitedit.coverage_script(known[s.problem_id], s.answer) for s in chosen]
    )
    shares: dict[str, list[float]] = {}
    for sample, outcome in zip(chosen, outcomes, strict=True):
        share = canitedit.covered_share(sample.answer, outcome)
        if share is not None:
            shares.setdefault(sample.problem_id, []).append(share)
    return canitedit.excess_code([*shares.values()]) if shares else None
