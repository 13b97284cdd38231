"""A line of the report, ready to run."""

from typing import NamedTuple

from seedjax.bench.measure import Run
from seedjax.bench.roofline import Work
from seedjax.bench.sweep import Line


class Subject(NamedTuple):
    """A program that a line measures.

    Attributes:
      line: what it is.
      run: a call of it.
      compile_seconds: tracing and compiling; None where nothing is compiled.
      work: of a call; None if it is not a single forward pass of ours.
    """

    line: Line
    run: Run
    compile_seconds: float | None = None
    work: Work | None = None
