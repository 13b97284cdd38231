"""`seedjax eval compare`: one model against another, alone with a prompt, in turns.

    every model x every precision ──warm──▶ completions ─tests─▶ pass@1
                    └──round by round, all in turn──▶ seconds ─▶ tokens per second

Each model counts with the precision that it is fastest in, so that nothing is compared
with a weak baseline. Tokens per forward pass and the time of a forward pass stand
beside, of which tokens per second are the quotient.
"""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from seedjax.config import DType
from seedjax.evaluate.examine import Examined, examine
from seedjax.evaluate.report.writer import render
from seedjax.evaluate.score import Score
from seedjax.files.output import writes
from seedjax.files.text import write_json, write_text
from seedjax.inference.loading import load
from seedjax.inference.model import Model
from seedjax.machine import describe_machine
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.suite import Problem, Suite

MAX_NEW_TOKENS = 128


class Precision(NamedTuple):
    """The precision that a model is computed in."""

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
      score: pass@1 and tokens per forward pass of its completions.
      tokens: generated in a round, ends included.
      forwards: forward passes of a round, prefill included.
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
            "score": self.score.to_dict(),
            "tokens_per_second": self.tokens_per_second,
            "forward_ms": self.forward_ms,
        }


def time_models(
    names: Sequence[str],
    suite: Suite,
    problems: Sequence[Problem],
    *,
    sandbox: Callable[[Suite], Sandbox],
    precisions: Sequence[Precision] = PRECISIONS,
    rounds: int = 5,
    advance: Callable[[str], object] = lambda stage: None,
) -> list[Timed]:
    """Has models complete problems one by one, with the recipes of their directories.

    Args:
      names: model directories or bundled names.
      suite: whose limits hold.
      problems: of the suite.
      sandbox: makes one with the suite's limits, not open yet.
      precisions: every model in each.
      rounds: how often all take turns.
      advance: called before each part of the work, with its name.

    Raises:
      InputError: if there is no such model, or a package for a precision is absent.
    """
    models: dict[tuple[str, Precision], Model] = {
        (name, precision): load(
            name, dtype=precision.dtype, quantization=precision.quantization
        )
        for name in names
        for precision in precisions
    }

    with sandbox(suite) as opened:

        def go(model: Model) -> Examined:
            sampler = model.sampler.vary(max_new_tokens=MAX_NEW_TOKENS, trace=False)
            return examine(model, [(suite, problems)], sampler, opened, rows=1)

        warmed: dict[tuple[str, Precision], Examined] = {}
        for key, model in models.items():
            advance(f"{key[0]}, {key[1]}: warming up")
            warmed[key] = go(model)
        seconds: dict[tuple[str, Precision], list[float]] = {key: [] for key in models}
        for number in range(rounds):
            for key, model in models.items():
                advance(f"{key[0]}, {key[1]}: round {number + 1}")
                found = go(model).completions
                seconds[key].append(sum(each.seconds for each in found))
    return [
        Timed(
            model=name,
            precision=str(precision),
            score=found.score(),
            tokens=sum(each.tokens + each.finished for each in found.completions),
            forwards=sum(each.forwards for each in found.completions),
            seconds=tuple(seconds[name, precision]),
        )
        for (name, precision), found in warmed.items()
    ]


def best_of(timed: Sequence[Timed], model: str) -> Timed:
    """A model in the precision that it is fastest in."""
    return max(
        (entry for entry in timed if entry.model == model),
        key=lambda entry: entry.tokens_per_second,
    )


def speed_up(fast: Timed, base: Timed) -> float:
    """The quotient of tokens per second, the median of the rounds."""
    return statistics.median(
        (fast.tokens / mine) / (base.tokens / other)
        for mine, other in zip(fast.seconds, base.seconds, strict=True)
    )


def describe(timed: Sequence[Timed], model: str, against: str, **more: Any) -> str:
    """The comparison as Markdown; `more` are the values of the template's heading."""
    fast, base = best_of(timed, model), best_of(timed, against)
    rows = []
    for entry in timed:
        low, high = entry.score.intervals[1]
        mark = "**" if entry in (fast, base) else ""
        rows.append(
            (
                Path(entry.model).name,
                entry.precision,
                f"{100 * entry.score.pass_rate:.1f}",
                f"{100 * low:.1f} to {100 * high:.1f}",
                f"{entry.tokens / entry.forwards:.2f}",
                f"{entry.forward_ms:.3f}",
                f"{mark}{entry.tokens_per_second:.0f}{mark}",
            )
        )
    return render(
        "speedup.md",
        **more,
        problems=timed[0].score.problems,
        max_new_tokens=MAX_NEW_TOKENS,
        rows=rows,
        ours=Path(model).name,
        theirs=Path(against).name,
        fast=fast,
        base=base,
        rounds=len(fast.seconds),
        speed=speed_up(fast, base),
        tokens=(fast.tokens / fast.forwards) / (base.tokens / base.forwards),
    )


@writes("eval compare", sources=("model", "against"))
def write_comparison(
    timed: Sequence[Timed], model: str, against: str, out: Path, *, suite: str
) -> Path:
    """Writes speedup.md and speedup.json into a folder; returns the former. `suite` is
    the name of that which was completed."""
    machine = describe_machine()
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    set_to = ", ".join(f"{name}={v}" for name, v in machine["environment"].items())
    page = describe(
        timed,
        model,
        against,
        suite=suite,
        command=machine["command"],
        processor=machine["processor"],
        cores=machine["cores"],
        python=machine["python"],
        versions=versions,
        environment=set_to,
    )
    write_text(out / "speedup.md", page)
    values = {"machine": machine, "timed": [entry.to_dict() for entry in timed]}
    write_json(out / "speedup.json", values)
    return out / "speedup.md"
