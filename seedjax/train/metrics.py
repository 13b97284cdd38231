"""Where the numbers of a run go: a JSONL file, optionally TensorBoard, and the
terminal."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from seedjax.config import check_fields
from seedjax.errors import InputError
from seedjax.files.text import (
    format_json_line,
    open_for_writing,
    read_json_lines,
    write_text,
)
from seedjax.train.guard import LossGuard, LossWatch
from seedjax.typing import Array

Numbers = Mapping[str, float | int | str]


@runtime_checkable
class MetricWriter(Protocol):
    """Anything that takes the numbers of a step."""

    def write(self, step: int, numbers: Numbers) -> None: ...

    def close(self) -> None: ...


class RunLog:
    """The metrics of a run on their way to the writers.

    Reading a metric waits for the device. So the metrics of a step are held until the
    next step has been dispatched, and tokens per second are counted between two
    readings, when both steps are known to be done.

    Attributes:
      tokens: supervised tokens of the steps whose metrics were written.
    """

    def __init__(
        self,
        writers: Sequence[MetricWriter],
        terminal: "TerminalProgress | None" = None,
        *,
        tokens: int = 0,
        watch: LossWatch | None = None,
        ideal_step_s: float = 0.0,
    ):
        """Args:
        writers: where the lines go.
        terminal: where they are shown, too.
        tokens: seen before.
        watch: judges the losses.
        ideal_step_s: seconds of a step at the peak of the devices; 0 if unknown.
        """
        self.tokens = tokens
        self._watch = watch or LossWatch(LossGuard())
        self._ideal_step_s = ideal_step_s
        self._steps = 0  # whose tokens are summed up
        self._counted: list[int | Array] = []  # tokens of steps since the last line
        self._writers, self._terminal = writers, terminal
        self._held: tuple[int, Mapping[str, Array], Numbers] | None = None
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves the time until now (compiling, evaluating) out of the rate."""
        self._sum_up()
        self._clock, self._clock_tokens = time.monotonic(), self.tokens
        self._clock_steps = self._steps

    def _sum_up(self) -> None:
        self.tokens += sum(map(int, self._counted))
        self._steps += len(self._counted)
        self._counted = []

    def count(self, step: int, tokens: int | Array) -> None:
        """Notes that `step` was dispatched with `tokens`, and writes what was held."""
        self.flush()
        self._counted.append(tokens)
        if self._terminal is not None:
            self._terminal.advance(step)

    def hold(self, step: int, metrics: Mapping[str, Array], numbers: Numbers) -> None:
        """Takes the metrics of the step just dispatched, and numbers to log with them,
        to be written by `flush`."""
        self._held = (step, metrics, numbers)

    def flush(self) -> None:
        """Writes what is held.

        Raises:
          BadLossError: when the loss is bad, or the gradient not finite.
        """
        if self._held is None:
            return
        step, metrics, numbers = self._held
        self._held = None
        values = {name: float(value) for name, value in metrics.items()}
        self._watch.check(values["loss"], step, grad_norm=values.get("grad_norm", 0.0))
        self._sum_up()
        line = {**numbers, **({"tokens": self.tokens} if self.tokens else {}), **values}
        seconds = time.monotonic() - self._clock
        if self.tokens > self._clock_tokens:
            line["tokens_per_second"] = (self.tokens - self._clock_tokens) / seconds
        if self._ideal_step_s and self._steps > self._clock_steps:
            steps = self._steps - self._clock_steps
            line["mfu"] = self._ideal_step_s * steps / seconds
        self.restart_clock()
        self.write(step, line)

    def score(self, step: int, scores: Numbers) -> None:
        """Writes the scores of an evaluation, whose time counts towards no rate."""
        self.write(step, {**({"tokens": self.tokens} if self.tokens else {}), **scores})
        self.restart_clock()

    def write(self, step: int, numbers: Numbers) -> None:
        """Writes numbers of a step at once."""
        self.record(step, numbers)
        if self._terminal is not None:
            self._terminal.write(step, numbers)

    def record(self, step: int, numbers: Numbers) -> None:
        """Writes numbers that nobody watches in the terminal."""
        for writer in self._writers:
            writer.write(step, numbers)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()
        if self._terminal is not None:
            self._terminal.close()


class JsonlWriter:
    """One JSON object a line; lines from after `resume_step` are dropped on opening, so
    that a resumed run leaves one clean curve."""

    def __init__(self, path: Path, *, resume_step: int = 0):
        kept = [line for line in read_jsonl(path) if line["step"] <= resume_step]
        write_text(path, "".join(map(format_json_line, kept)))
        self._file = open_for_writing(path, append=True)

    def write(self, step: int, numbers: Numbers) -> None:
        line = {"step": step, "time": round(time.time(), 3), **numbers}
        self._file.write(format_json_line(line))

    def close(self) -> None:
        self._file.close()


def read_jsonl(path: Path) -> list[dict]:
    """The lines of a metrics file; a last line cut short by a crash is left out.

    Raises:
      InputError: for a line without its step, or with tokens that are no number.
    """
    if not path.exists():
        return []
    lines = []
    for line in read_json_lines(path, unfinished=True):
        kinds = {"step": int, "tokens": int | float | None}
        check_fields(line.values, kinds, line.where)
        lines.append(line.values)
    return lines


class TensorBoardWriter:
    """Event files for TensorBoard, through tensorboardX."""

    def __init__(self, directory: Path):
        try:
            from tensorboardX import SummaryWriter  # type: ignore[import-untyped]
        except ImportError:
            raise InputError(
                "--tensorboard needs tensorboardX: pip install 'seedjax[tensorboard]'"
            ) from None
        self._writer = SummaryWriter(str(directory))

    def write(self, step: int, numbers: Numbers) -> None:
        for name, value in numbers.items():
            if not isinstance(value, str):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class TerminalProgress:
    """A progress bar on standard error, or a plain line at every log where standard
    error is no terminal (a log file, a batch system)."""

    def __init__(self, num_steps: int, *, start: int):
        self._console = Console(file=sys.stderr)
        self._num_steps = num_steps
        self._progress = Progress(
            TextColumn("[bold]training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(
            "train", total=num_steps, completed=start, numbers=""
        )
        self._begun, self._start = time.monotonic(), start
        self._progress.start()

    def advance(self, step: int) -> None:
        self._progress.update(self._task, completed=step)

    def write(self, step: int, numbers: Numbers) -> None:
        text = "  ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in numbers.items()
        )
        if self._console.is_terminal:
            if "loss" in numbers:
                short = f"loss {numbers['loss']:.3f}  "
                short += f"{numbers.get('tokens_per_second', 0):.0f} tok/s"
                self._progress.update(self._task, numbers=short)
            else:
                self._progress.print(f"step {step}: {text}")
            return
        taken = max(step - self._start, 1)
        left = (time.monotonic() - self._begun) / taken * (self._num_steps - step)
        print(
            f"step {step}/{self._num_steps}  {text}  ETA {left / 60:.1f} min",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        self._progress.stop()
