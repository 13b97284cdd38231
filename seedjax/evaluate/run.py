"""A run: one model, one recipe, one suite, one folder.

    problems ─▶ requests ─missing ones─▶ completions ─Sandbox─▶ verdicts ─▶ score

A run that was cut off goes on where it was, and one that is complete is scored anew. Of
several processes each completes its part of the batches; the first one alone has the
folder: it writes all completions and scores them.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import seedjax
from seedjax.checkpoints.adapters import FILE as ADAPTER_FILE
from seedjax.checkpoints.model_directory import open_model
from seedjax.config import from_dict, to_dict
from seedjax.errors import InputError
from seedjax.evaluate.complete import (
    Batch,
    Completion,
    Key,
    Request,
    Setup,
    batches,
    complete_batches,
    form_of,
    prompt_text,
)
from seedjax.evaluate.folder import (
    PROBLEMS,
    TRACES,
    CompletionFile,
    all_completions,
    samples_name,
    start,
    write_problems,
    write_score,
)
from seedjax.evaluate.recipes import Recipe, sampler_for
from seedjax.evaluate.score import NOT_RUN, Score, judge, score_completions, why_not_run
from seedjax.evaluate.verify import lacking
from seedjax.evaluate.watching import first_block_seconds, write_traces
from seedjax.files.output import writes
from seedjax.inference.model import Model
from seedjax.processes import is_first, share, work_out
from seedjax.progress import Progress, silent
from seedjax.sampling.check import check_recipe
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.suite import Problem, Suite

ROWS = 16  # of a batch
TRACED = 4  # problems whose steps are kept


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The choices of a run's user.

    Attributes:
      model_name: as it was given, for the report.
      recipe: a named one.
      samples: completions of a problem; None is the recipe's.
      temperature: None is the recipe's.
      limit: the first so many problems; None is all.
      rows: of a batch.
      seed: of all draws.
      known_length: give the length of holes away.
      quantization: of the model, for the record.
      adapter: folder of the adapter that is merged into it, for the record.
      shard: which of how many parts of the problems, from 1.
      traced: problems whose steps are kept.
      first_block: measure the time to the first block, which compiles a program more.
    """

    model_name: str
    recipe: Recipe
    samples: int | None = None
    temperature: float | None = None
    limit: int | None = None
    rows: int = ROWS
    seed: int = 0
    known_length: bool = False
    quantization: str | None = None
    adapter: str | None = None
    shard: tuple[int, int] = (1, 1)
    traced: int = TRACED
    first_block: bool = True

    def __post_init__(self):
        for name in ("samples", "limit"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        if self.rows < 1 or self.traced < 0:
            raise InputError("rows must be at least 1, and traced at least 0")
        part, parts = self.shard
        if not 1 <= part <= parts:
            raise InputError(f"shard {part}/{parts}; it must be like 1/4 to 4/4")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How a run ended: with its score, or with so many completions of the total."""

    folder: Path
    score: Score | None
    samples: int
    total: int


# The shards of a run share its folder; each has a file of its own.
@writes("eval", out="folder", shared=lambda given: given["choices"].shard[1] > 1)
def run_suite(
    model: Model,
    suite: Suite,
    problems: Sequence[Problem],
    folder: Path,
    choices: Choices,
    *,
    sandbox: Callable[[Suite], Sandbox],
    report: Progress = silent,
) -> Finished:
    """Draws the completions that are missing in `folder`, and scores them all once none
    is missing. Of several processes, only the first one has the score.

    Args:
      model: that completes.
      suite: whose problems.
      problems: all of the suite's.
      folder: of the run; made if it is not there.
      choices: of the user.
      sandbox: makes one with a suite's limits, not open yet.
      report: called with the progress.

    Raises:
      InputError: for a folder with a run of other settings, another process in it, a
        full disk, or a model that takes the suite in no form.
    """
    problems = problems[: choices.limit]
    setup = setup_for(model, suite, problems, choices)
    number = choices.samples or choices.recipe.samples or suite.samples
    part, parts = choices.shard
    mine = problems[part - 1 :: parts]
    requests = [Request(problem=p, sample=n) for p in mine for n in range(number)]
    total = len(problems) * number
    tries = share(num_tries(setup, problems))  # by what the first one's machine can run
    if not is_first():
        for _ in range(tries):
            complete_part(model, setup, requests)
            requests = share_requests(problems, [])
        return Finished(folder=folder, score=None, samples=0, total=total)
    start(
        folder,
        settings_of(setup, problems, choices, number),
        model_name=choices.model_name,
        title=choices.recipe.title,
    )
    prompts = {
        problem.problem_id: prompt_text(model, Request(problem=problem), setup.form)
        for problem in problems
    }
    write_problems(folder / PROBLEMS, problems, prompts)
    with CompletionFile(folder / samples_name(choices.shard)) as file:
        for turn in range(tries):
            again = f"eval {suite.name}, try {turn + 1}" if turn else ""
            fill(model, setup, requests, file, choices, report, stage=again)
            if turn + 1 < tries:
                requests = next_requests(suite, requests, file.completions, sandbox)
            share_requests(problems, requests)
    if part == 1:
        write_traces(model, setup, mine[: choices.traced], folder / TRACES)
    found = all_completions(folder)
    first_tries = sum(completion.turn == 0 for completion in found)
    if first_tries < total:
        return Finished(folder=folder, score=None, samples=first_tries, total=total)
    first = first_block_seconds(model, setup, problems) if choices.first_block else None
    score = finish(setup, problems, folder, sandbox, report, first)
    return Finished(folder=folder, score=score, samples=first_tries, total=total)


def setup_for(
    model: Model, suite: Suite, problems: Sequence[Problem], choices: Choices
) -> Setup:
    """How the requests are put to the model."""
    if choices.known_length and suite.task != "infill":
        raise InputError(
            f"{suite.name} has no holes whose length could be known; drop "
            "--known-length"
        )
    if suite.tries > 1 and choices.shard[1] > 1:
        raise InputError(
            f"{suite.name} has further tries of what failed, which takes all "
            "completions in one process; drop --shard"
        )
    sampler = sampler_for(choices.recipe, model, suite, temperature=choices.temperature)
    in_place = choices.known_length and model.config.attention == "bidirectional"
    check_recipe(model.config, sampler, "infill" if in_place else "evaluation")
    return Setup(
        suite=suite,
        form=form_of(model, suite, problems),
        sampler=sampler,
        rows=choices.rows,
        seed=choices.seed,
        known_length=choices.known_length,
    )


def num_tries(setup: Setup, problems: Sequence[Problem]) -> int:
    """Tries of a problem. A continuation has no way to tell the model what was wrong,
    nor has anything where programs cannot be run."""
    if setup.form != "chat" or why_not_run(lacking(setup.suite, problems)):
        return 1
    return setup.suite.tries


def fill(
    model: Model,
    setup: Setup,
    requests: Sequence[Request],
    file: CompletionFile,
    choices: Choices,
    report: Progress,
    stage: str = "",
) -> None:
    """Completes those of some requests that have no completion yet."""
    stage = stage or f"eval {setup.suite.name}"
    have = {completion.key for completion in file.completions}
    done = sum(request.key in have for request in requests)
    if done < len(requests):
        report(stage, done, len(requests))
    for completed in complete_missing(model, setup, requests, have):
        file.append(completed)
        done += len(completed)
        report(stage, done, len(requests))


def complete_missing(
    model: Model, setup: Setup, requests: Sequence[Request], have: Collection[Key]
) -> Iterator[list[Completion]]:
    """The completions that are missing, batch by batch, of all processes."""
    have = set(map(tuple, share(sorted(have))))
    if not requests or all(request.key in have for request in requests):
        return
    # A handful of requests needs no more rows than there are.
    setup = dataclasses.replace(setup, rows=min(setup.rows, len(requests)))
    made = batches(model, setup, requests)

    def work(batch: Batch) -> list[dict[str, Any]]:
        (completed,) = complete_batches(model, setup, [batch], have)
        return [dataclasses.asdict(each) for each in completed]

    missing = [b for b in made if any(r.key not in have for r in b.requests)]
    for _, completed in work_out(missing, work):
        yield [from_dict(Completion, values) for values in completed]


def complete_part(model: Model, setup: Setup, requests: Sequence[Request]) -> None:
    """Completes this process's batches of those that the first one finds missing, and
    hands them to it."""
    for _ in complete_missing(model, setup, requests, have=()):
        pass


def share_requests(
    problems: Sequence[Problem], requests: Sequence[Request]
) -> list[Request]:
    """The requests of the first process, in all of them."""
    by_id = {problem.problem_id: problem for problem in problems}
    told = [[*request.key, request.messages] for request in requests]
    return [
        Request(problem=by_id[name], sample=n, turn=turn, messages=tuple(messages))
        for name, n, turn, messages in share(told)
    ]


def next_requests(
    suite: Suite,
    requests: Sequence[Request],
    completions: Sequence[Completion],
    sandbox: Callable[[Suite], Sandbox],
) -> list[Request]:
    """The next try of the requests whose completions failed: the messages so far, and
    the suite's reply to the failure."""
    assert suite.second_question is not None
    known = {request.key: request for request in requests}
    tried = [each for each in completions if each.key in known and each.fits]
    problems = [request.problem for request in requests]
    with sandbox(suite) as opened:
        verdicts = judge(suite, problems, tried, opened)
    again = []
    for completion, verdict in zip(tried, verdicts, strict=True):
        if verdict.passed or verdict.reason == NOT_RUN:
            continue
        request = known[completion.key]
        problem = request.problem
        reply = suite.second_question(problem, completion.answer, verdict.outcome)
        messages = request.messages or (problem.question,)
        again.append(
            dataclasses.replace(
                request,
                turn=request.turn + 1,
                messages=(*messages, completion.text, reply),
            )
        )
    return again


def finish(
    setup: Setup,
    problems: Sequence[Problem],
    folder: Path,
    sandbox: Callable[[Suite], Sandbox],
    report: Progress,
    first_block: float | None,
) -> Score:
    """Scores the completions of a folder, and writes verdicts and score."""
    suite = setup.suite
    score, verdicts = score_completions(
        suite,
        problems,
        all_completions(folder),
        lambda: sandbox(suite),
        measured=True,
        first_block_seconds=first_block,
        report=report,
    )
    write_score(folder, score, verdicts)
    return score


def settings_of(
    setup: Setup,
    problems: Sequence[Problem],
    choices: Choices,
    samples: int,
) -> dict[str, Any]:
    """Everything that completions depend on, as JSON values."""
    suite = setup.suite
    names = json.dumps([problem.problem_id for problem in problems])
    return {
        "suite": suite.name,
        "source": f"{suite.source.project} {suite.source.version}",
        "files": dict(suite.source.files),
        "problems": len(problems),
        "problem_ids": hashlib.sha256(names.encode()).hexdigest()[:16],
        "model": open_model(choices.model_name).digest(),
        "quantization": choices.quantization,
        "adapter": choices.adapter and adapter_digest(choices.adapter),
        "recipe": choices.recipe.name,
        "curve": choices.recipe.curve,
        "form": setup.form,
        "extraction": suite.chat_extraction
        if setup.form == "chat"
        else suite.extraction,
        "samples": samples,
        "sampler": to_dict(setup.sampler),
        "rows": setup.rows,
        "known_length": setup.known_length,
        "seed": setup.seed,
        "seedjax": seedjax.__version__,
    }


def adapter_digest(folder: str) -> str:
    """SHA-256 of all files of an adapter."""
    digest = hashlib.sha256((Path(folder) / ADAPTER_FILE).read_bytes())
    for file in sorted((Path(folder) / "params").glob("*")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
