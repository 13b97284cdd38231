"""The results, as JSON, Markdown and a table on the terminal."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seedjax.bench.measure import Timing, median_ratio
from seedjax.bench.roofline import Peaks, Roof, Work, roof
from seedjax.bench.subject import Subject
from seedjax.bench.sweep import Line, Measure
from seedjax.config import to_dict
from seedjax.evaluate.report.writer import render


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the report, measured.

    Attributes:
      line: what it is.
      compile_seconds: tracing and compiling; None where nothing is compiled.
      timing: seconds, round by round, and what the first call gave.
      ratio: seconds (a token, if there is an answer) over those of the first line of
        its kind, the median of the rounds. Kinds are prefill, block, and decodes.
      same_tokens: share of its tokens that are those of the first line that decodes
        alike; None without an answer.
      work: of a call; None if it is not a single forward pass of ours.
      roof: lower bounds of its seconds, likewise.
    """

    line: Line
    compile_seconds: float | None
    timing: Timing
    ratio: float
    same_tokens: float | None
    work: Work | None
    roof: Roof | None

    @property
    def new_tokens(self) -> int | None:
        """Of all rows; neither prompt nor padding is among them."""
        return _num_tokens(self.timing)

    @property
    def tokens_per_second(self) -> float | None:
        """At the median."""
        if self.new_tokens is None:
            return None
        return self.new_tokens / self.timing.median

    @property
    def tokens_per_forward(self) -> float | None:
        """Tokens of all rows a pass through the network, prefill and commits
        included."""
        if self.new_tokens is None or self.timing.produced is None:
            return None
        return self.new_tokens / self.timing.produced.forwards

    @property
    def fraction(self) -> float | None:
        """The bound over the median: 1 is as fast as this machine can."""
        return None if self.roof is None else self.roof.seconds / self.timing.median

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        produced, work, bound = self.timing.produced, self.work, self.roof
        return {
            **{k: v for k, v in to_dict(self.line).items() if k != "kind"},
            "compile_seconds": self.compile_seconds,
            "median_seconds": self.timing.median,
            "best_seconds": self.timing.best,
            "seconds": self.timing.seconds,
            "cpu_seconds": self.timing.cpu_seconds,
            "ratio": self.ratio,
            "new_tokens": self.new_tokens,
            "tokens_per_second": self.tokens_per_second,
            "forwards": None if produced is None else produced.forwards,
            "tokens_per_forward": self.tokens_per_forward,
            "same_tokens": self.same_tokens,
            "flops": None if work is None else work.flops,
            "bytes": None if work is None else work.bytes,
            "least_bytes": None if work is None else work.least_bytes,
            "bound_seconds": None if bound is None else bound.seconds,
            "bound_by": None if bound is None else bound.bound_by,
            "memory_seconds": None if bound is None else bound.memory_seconds,
            "product_seconds": None if bound is None else bound.product_seconds,
            "least_seconds": None if bound is None else bound.least_seconds,
            "fraction": self.fraction,
        }


def rows_of(
    subjects: Sequence[Subject], timings: Sequence[Timing], reached: Peaks
) -> list[Row]:
    """The lines of a report.

    Args:
      subjects: what was measured.
      timings: of each.
      reached: what the machine did in the same rounds.
    """
    rows = []
    first_of_kind: dict[Any, Timing] = {}
    first_answer: dict[Any, Timing] = {}
    for subject, timing in zip(subjects, timings, strict=True):
        line = subject.line
        kind = "decode" if line.writes else line.measure
        same_tokens = None
        if timing.produced is not None:
            like: Measure = "ar" if line.measure == "ar" else "decode"
            alike = dataclasses.replace(line, library="seedjax", measure=like)
            reference = first_answer.setdefault(alike, timing).produced
            assert reference is not None
            same_tokens = share_of_same(timing.produced.tokens, reference.tokens)
        rows.append(
            Row(
                line=line,
                compile_seconds=subject.compile_seconds,
                timing=timing,
                ratio=median_ratio(
                    _costs(timing), _costs(first_of_kind.setdefault(kind, timing))
                ),
                same_tokens=same_tokens,
                work=subject.work,
                roof=subject.work and roof(subject.work, reached, line.operands),
            )
        )
    return rows


def _num_tokens(timing: Timing) -> int | None:
    if timing.produced is None:
        return None
    return sum(len(row) for row in timing.produced.tokens)


def _costs(timing: Timing) -> list[float]:
    """Seconds of each round, a token if there is an answer."""
    return [seconds / (_num_tokens(timing) or 1) for seconds in timing.seconds]


def share_of_same(tokens: list[list[int]], others: list[list[int]]) -> float:
    """How many tokens are the same in the same place, as a share of the longer answers.

    [1, 2, 3] and [1, 4, 3]: two thirds.
    """
    same = sum(
        mine == other
        for row, reference in zip(tokens, others, strict=True)
        for mine, other in zip(row, reference, strict=False)
    )
    longest = sum(
        max(len(row), len(reference))
        for row, reference in zip(tokens, others, strict=True)
    )
    return same / max(1, longest)


HEADINGS = (
    "line",
    "compile s",
    "median ms",
    "best ms",
    "ratio",
    "tokens per second",
    "forwards",
    "tokens per forward",
    "same tokens",
    "bound ms",
    "of bound",
)


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table, under `HEADINGS`."""

    def number(value: float | int | None, form: str) -> str:
        return "" if value is None else format(value, form)

    produced, bound = row.timing.produced, row.roof
    return (
        row.line.label,
        number(row.compile_seconds, ".1f"),
        milliseconds(row.timing.median),
        milliseconds(row.timing.best),
        number(row.ratio, ".2f"),
        number(row.tokens_per_second, ".1f"),
        number(None if produced is None else produced.forwards, "d"),
        number(row.tokens_per_forward, ".2f"),
        number(row.same_tokens, ".0%"),
        "" if bound is None else milliseconds(bound.seconds),
        number(row.fraction, ".0%"),
    )


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, with three digits."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """The results.

    Attributes:
      model: by name.
      parameters: how many numbers it holds.
      rounds: of turns.
      machine: where, see `machine.describe_machine`.
      load: processes that were ready to run, before and after.
      probes: what the machine reached: bytes or operations per second, by name.
      rows: the lines.
    """

    model: str
    parameters: int
    rounds: int
    machine: dict[str, Any]
    load: tuple[float, float]
    probes: dict[str, float]
    rows: list[Row]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "model": self.model,
            "parameters": self.parameters,
            "rounds": self.rounds,
            "machine": self.machine,
            "load": list(self.load),
            "probes": self.probes,
            "lines": [row.to_dict() for row in self.rows],
        }

    def heading(self) -> list[str]:
        """Subject, machine and method, a line each."""
        machine = self.machine
        versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
        bandwidths, products = [], []
        for name, rate in self.probes.items():
            if name.startswith("read"):
                bandwidths.append(f"{rate / 1e9:.1f} GB/s ({name})")
            else:
                products.append(f"{rate / 1e9:.0f} GFLOP/s ({name})")
        environment = " ".join(f"{k}={v}" for k, v in machine["environment"].items())
        return [
            f"command: {machine['command']}",
            f"model: {self.model}, {self.parameters:,} parameters",
            f"device: {machine['platform']} {machine['device']}, "
            f"{machine['processor']}, {machine['cores']} cores, {machine['system']}",
            f"versions: Python {machine['python']}, {versions}",
            f"environment: {environment or 'nothing set'}",
            f"load: {self.load[0]:.1f} before, {self.load[1]:.1f} after",
            f"rounds: {self.rounds}, all lines in turn; medians of the rounds",
            f"memory: {', '.join(bandwidths)}",
            f"products: {', '.join(products)}",
        ]

    def markdown(self) -> str:
        """The report as Markdown."""
        rows = [cells(row) for row in self.rows]
        return render(
            "bench.md", heading=self.heading(), head=HEADINGS, rows=rows, note=NOTE
        )

    def warnings(self) -> list[str]:
        """Caveats for a reader before quoting a figure."""
        found = [
            f"{row.line.label}: {row.same_tokens:.0%} of the tokens are the same as "
            "those of the first line that decodes alike, in float32"
            for row in self.rows
            if row.same_tokens is not None
            and row.same_tokens < 1
            and row.line.precision == "float32"
        ]
        if self.machine["niceness"] > 0:
            found.append(
                f"this process is niced by {self.machine['niceness']}: PyTorch's "
                "threads wait for each other, which beside other work of normal "
                "priority made them up to fifty times as slow"
            )
        if self.load[0] > 0.5 * self.machine["cores"]:
            found.append(
                f"other processes took {self.load[0]:.1f} of "
                f"{self.machine['cores']} cores before the run: measure again on a "
                "quiet machine (PyTorch suffers most, for its threads wait for each "
                "other; GOMP_SPINCOUNT=10000 in the environment shortens that)"
            )
        return found


NOTE = """\
Tokens per second never count prompt, padding or compilation. `ratio` is the time (a \
token, where tokens are written) over that of the first line of its kind: prefill, \
block, or a decode. `same tokens` compares with the first line that decodes alike. The \
bound is the larger of counted bytes over bandwidth and counted operations over the \
peak of matrix products, both of this run; bytes and operations are counted by XLA in \
compiled forward passes without loops."""


def terminal_report(report: Report) -> list[Any]:
    """The report as texts and a table of rich, to be printed in this order."""
    from rich.table import Table

    table = Table(*(heading.replace(" ", "\n", 1) for heading in HEADINGS))
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for row in report.rows:
        table.add_row(*cells(row))
    return [*report.heading(), table, NOTE]
