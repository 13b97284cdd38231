"""Traces of what devices and the host do, in the form that XProf and Perfetto read."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from seedjax.errors import InputError

FORM = re.compile(r"(?P<directory>.+?)(:(?P<first>\d+)-(?P<last>\d+))?")


@dataclass(frozen=True)
class Profile:
    """Which steps of a process are traced, and where to. The first steps compile.

    Attributes:
      directory: where the traces go.
      first: step from which it traces, counted from 0 in each process.
      last: the last step that it traces.
    """

    directory: str
    first: int = 5
    last: int = 9

    def __post_init__(self):
        if self.first > self.last:
            raise InputError(
                f"the steps to profile are {self.first}-{self.last}; the first must "
                "not follow the last"
            )


def parse_profile(text: str) -> Profile:
    """`DIR` or `DIR:FIRST-LAST`.

    >>> parse_profile("runs/trace:20-24")
    Profile(directory='runs/trace', first=20, last=24)
    """
    found = FORM.fullmatch(text)
    if found is None:
        raise InputError("the profile has no directory; give DIR or DIR:FIRST-LAST")
    steps = {n: int(found[n]) for n in ("first", "last") if found[n] is not None}
    return Profile(found["directory"], **steps)


@contextlib.contextmanager
def traced(directory: str) -> Iterator[None]:
    """Traces what is done in the block.

    Raises:
      InputError: if `directory` cannot be one.
    """
    if "://" not in directory:
        try:
            Path(directory).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the profile cannot go to {directory!r} ({error.strerror}); choose "
                "another directory"
            ) from None
    options = jax.profiler.ProfileOptions()
    # Calls of Python functions: a save in the background makes so many that a step
    # took minutes.
    options.python_tracer_level = 0
    with jax.profiler.trace(directory, profiler_options=options):
        yield


class StepProfiler:
    """Traces the chosen steps of a loop, each under its number."""

    def __init__(self, profile: Profile | None):
        self._profile, self._steps = profile, 0
        self._stack = contextlib.ExitStack()

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around the dispatch of step `number` of the run."""
        if self._profile is not None and self._steps == self._profile.first:
            self._stack.enter_context(traced(self._profile.directory))
        with jax.profiler.StepTraceAnnotation("step", step_num=number):
            yield
        self._steps += 1

    def finish(self, results: Any) -> None:
        """Ends the trace after its last step, when `results` of that are there."""
        if self._profile is not None and self._steps == self._profile.last + 1:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Ends a trace that is under way."""
        self._stack.close()
