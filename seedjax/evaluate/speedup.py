"""`seedjax lab speedup`: one model against another, alone with a prompt, in turns.

    every model x every precision ──warm──▶ answers ─tests─▶ pass@1
                    └──round by round, all in turn──▶ seconds ─▶ tokens a second

Each model counts with the precision that it is fastest in, so that nothing is compared
with a weak baseline. Tokens per forward pass and the time of a forward pass stand
beside, of which tokens a second are the quotient.
"""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from seedjax.config import DType
from seedjax.evaluate.lab_scoring import (
    Answer,
    Score,
    answer_tasks,
    check_answers,
    score_answers,
)
from seedjax.evaluate.statistics import wilson_interval
from seedjax.files.output import writes
from seedjax.files.text import markdown_text, write_json, write_text
from seedjax.inference.loading import load
from seedjax.inference.model import Model
from seedjax.machine import describe_machine
from seedjax.sandbox.sandbox import Sandbox, require_isolation
from seedjax.tasks.lab.tasks import Task

MAX_NEW_TOKENS = 128


class Precision(NamedTuple):
    """What a model is computed in."""

    dtype: DType
    quantization: str | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, self))


PRECISIONS = (
    Precision("float32"),
    Precision("bfloat16"),
    Precision("bfloat16", "int8"),
)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A model in a precision.

    Attributes:
      model: its name.
      precision: what it was computed in.
      score: pass@1 and tokens per forward pass of its answers.
      tokens: written in a round, ends included.
      forwards: denoiser calls of a round, prefill included.
      seconds: of each round.
    """

    model: str
    precision: str
    score: Score
    tokens: int
    forwards: int
    seconds: tuple[float, ...]

    @property
    def tokens_per_second(self) -> float:
        """Of the median round."""
        return self.tokens / statistics.median(self.seconds)

    @property
    def forward_ms(self) -> float:
        """All of the time, over all forward passes."""
        return 1e3 * statistics.median(self.seconds) / self.forwards

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return dataclasses.asdict(self) | {
            "tokens_per_second": self.tokens_per_second,
            "forward_ms": self.forward_ms,
        }


def time_models(
    names: Sequence[str],
    tasks: Sequence[Task],
    *,
    precisions: Sequence[Precision] = PRECISIONS,
    rounds: int = 5,
    workers: int | None = None,
    accept_weak_isolation: bool = False,
    advance: Callable[[str], object] = lambda what: None,
) -> list[Timed]:
    """Has models answer tasks one by one at temperature 0, as their directories say.

    Args:
      names: model directories or bundled names.
      tasks: of one kind.
      precisions: every model in each.
      rounds: how often all take turns.
      workers: processes that run answers; None for one a core.
      accept_weak_isolation: see `Sandbox`.
      advance: called before each part of the work, with what it is.

    Raises:
      InputError: if there is no such model, or a package for a precision is absent.
    """
    require_isolation(accept_weak_isolation)
    models: dict[tuple[str, Precision], Model] = {
        (name, precision): load(
            name, dtype=precision.dtype, quantization=precision.quantization
        )
        for name in names
        for precision in precisions
    }
    scores: dict[tuple[str, Precision], Score] = {}
    seconds: dict[tuple[str, Precision], list[float]] = {key: [] for key in models}
    answers: dict[tuple[str, Precision], list[Answer]] = {}
    with Sandbox(workers, accept_weak_isolation=accept_weak_isolation) as sandbox:
        for key, model in models.items():
            advance(f"{key[0]}, {key[1]}: warming up")
            answers[key] = _answer(model, tasks)
            passed = check_answers(sandbox, tasks, answers[key])
            scores[key] = score_answers(model, tasks, answers[key], passed)
    for number in range(rounds):
        for key, model in models.items():
            advance(f"{key[0]}, {key[1]}: round {number + 1}")
            seconds[key].append(sum(a.seconds for a in _answer(model, tasks)))
    return [
        Timed(
            model=name,
            precision=str(precision),
            score=scores[name, precision],
            tokens=sum(len(a.tokens) + a.finished for a in answers[name, precision]),
            forwards=sum(a.forwards for a in answers[name, precision]),
            seconds=tuple(seconds[name, precision]),
        )
        for name, precision in models
    ]


def _answer(model: Model, tasks: Sequence[Task]) -> list[Answer]:
    return answer_tasks(model, tasks, recipe={}, rows=1, max_new_tokens=MAX_NEW_TOKENS)


def best_of(timed: Sequence[Timed], model: str) -> Timed:
    """A model in the precision that it writes fastest in."""
    return max(
        (entry for entry in timed if entry.model == model),
        key=lambda entry: entry.tokens_per_second,
    )


def speed_up(fast: Timed, base: Timed) -> float:
    """Tokens a second over tokens a second, the median of the rounds."""
    return statistics.median(
        (fast.tokens / mine) / (base.tokens / other)
        for mine, other in zip(fast.seconds, base.seconds, strict=True)
    )


def describe(timed: Sequence[Timed], model: str, against: str) -> list[str]:
    """The comparison as Markdown lines."""
    fast, base = best_of(timed, model), best_of(timed, against)
    speed = speed_up(fast, base)
    tokens = (fast.tokens / fast.forwards) / (base.tokens / base.forwards)
    lines = [
        "| model | computed in | pass@1 | 95 % interval | tokens/forward "
        "| ms/forward | tokens/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in timed:
        low, high = wilson_interval(entry.score.passed, entry.score.tasks)
        mark = "**" if entry in (fast, base) else ""
        lines.append(
            f"| {markdown_text(Path(entry.model).name)} | {entry.precision} "
            f"| {100 * entry.score.pass_rate:.1f} "
            f"| {100 * low:.1f} to {100 * high:.1f} "
            f"| {entry.tokens / entry.forwards:.2f} | {entry.forward_ms:.3f} "
            f"| {mark}{entry.tokens_per_second:.0f}{mark} |"
        )
    ours, theirs = (markdown_text(Path(name).name) for name in (model, against))
    return [
        *lines,
        "",
        f"{ours} in {fast.precision} writes {speed:.2f} times as many "
        f"tokens a second as {theirs} in {base.precision} (median over "
        f"{len(fast.seconds)} rounds): {tokens:.2f} times the tokens a forward pass, "
        f"each of which takes {fast.forward_ms / base.forward_ms:.2f} times as long. "
        f"pass@1 differs by {100 * (fast.score.pass_rate - base.score.pass_rate):+.1f} "
        "points.",
    ]


@writes("lab speedup", sources=("model", "against"))
def write_comparison(
    timed: Sequence[Timed], model: str, against: str, out: Path, *, task: str
) -> Path:
    """Writes speedup.md and speedup.json into a folder; returns the former. `task` is
    the kind that was answered."""
    machine = describe_machine()
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    set_to = ", ".join(f"{name}={v}" for name, v in machine["environment"].items())
    page = [
        "# Speed-up",
        "",
        f"`{machine['command']}`",
        "",
        f"{machine['processor']}, {machine['cores']} cores, Python "
        f"{machine['python']}, {versions}; environment: {set_to or 'nothing set'}.",
        "",
        f"{timed[0].score.tasks} {task} tasks of the lab's test split, one at a "
        f"time, temperature 0, at most {MAX_NEW_TOKENS} new tokens; prefill is in the "
        "time, compilation is not.",
        "",
        *describe(timed, model, against),
    ]
    write_text(out / "speedup.md", "\n".join(page) + "\n")
    values = {"machine": machine, "timed": [entry.to_dict() for entry in timed]}
    write_json(out / "speedup.json", values)
    return out / "speedup.md"
