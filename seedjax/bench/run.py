"""A run: programs for all lines, their turns, and the report."""

from seedjax import machine
from seedjax.bench.comparison import OtherSide, torch_side
from seedjax.bench.decodes import decode_subject, python_loop_subject
from seedjax.bench.forwards import block_subject, prefill_subject
from seedjax.bench.measure import TURN_SECONDS, take_turns
from seedjax.bench.report import Report, rows_of
from seedjax.bench.roofline import peaks, probes
from seedjax.bench.source import Source
from seedjax.bench.subject import Subject
from seedjax.bench.sweep import Line, Sweep, lines_of, padded
from seedjax.nn.denoiser import num_parameters
from seedjax.progress import Progress, silent


def bench(
    source: Source,
    sweep: Sweep,
    *,
    report: Progress = silent,
    turn_seconds: float = TURN_SECONDS,
    copy_bytes: tuple[int, ...] | None = None,
    product_sizes: tuple[int, ...] | None = None,
) -> Report:
    """Measures all lines of a sweep.

    Args:
      source: what is measured.
      sweep: at which shapes.
      report: called with the progress.
      turn_seconds: least length of a turn.
      copy_bytes: of the arrays that bandwidth is measured on; None is `COPY_BYTES`.
      product_sizes: of the matrices that the peak is measured on; None chooses them for
        the device.

    Raises:
      InputError: for a line that the model cannot run, or a missing library.
    """
    lines = lines_of(sweep)
    load_before = machine.load()
    subjects = []
    other = None
    if any(line.library != "seedjax" for line in lines):
        other = torch_side(source, _most_columns(lines))
    for number, line in enumerate(lines):
        report(f"compiling {line.label}", number, len(lines))
        subjects.append(_subject(source, line, other))
    measured = probes(
        {line.operands for line in lines},
        copy_bytes=copy_bytes,
        product_sizes=product_sizes,
    )
    runs = [*(subject.run for subject in subjects), *(probe.run for probe in measured)]
    timings = take_turns(runs, sweep.rounds, turn_seconds=turn_seconds, report=report)
    own, of_probes = timings[: len(subjects)], timings[len(subjects) :]
    reached = peaks(
        {probe: t.best for probe, t in zip(measured, of_probes, strict=True)}
    )
    return Report(
        model=source.name,
        parameters=num_parameters(source.config),
        rounds=sweep.rounds,
        machine=machine.describe_machine(),
        load=(load_before, machine.load()),
        probes={
            probe.name: probe.amount / timing.best
            for probe, timing in zip(measured, of_probes, strict=True)
        },
        rows=rows_of(subjects, own, reached),
    )


def _subject(source: Source, line: Line, other: OtherSide | None) -> Subject:
    if other is not None and line.library != "seedjax":
        return other.subject(line)
    if line.measure == "prefill":
        return prefill_subject(source, line)
    if line.measure == "block":
        return block_subject(source, line)
    if line.measure == "python_loop":
        return python_loop_subject(source, line)
    return decode_subject(source, line)


def _most_columns(lines: list[Line]) -> int:
    """Columns of the longest canvas."""
    return max(
        padded(line.prefix + (line.new or 0), line.block or 1) + (line.block or 0)
        for line in lines
    )
