"""Waiting, on standard error: a status line, or a bar where the end is known.

    with progress.waiting("loading mini") as status:
        model = load("mini")
        status.show("decoding")

On a terminal there is one line, from the first moment on, which is overwritten and is
gone at the end:

    compiling (first time for this shape)  4 s

    with progress.bar() as report:
        report("eval humaneval", 40, 164)

On a terminal that is a bar with the rate and the time that is left, which is gone at
the end, too.

In a pipe or a log both say something only if it takes long: a line every ten seconds.

    eval humaneval: 40 of 164, 1.3 per second

Standard output is never touched.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from seedjax.processes import is_first
from seedjax.progress import Progress, silent

LINE_EVERY_S = 10.0  # where standard error is no terminal
REDRAW_EVERY_S = 1.0
SILENT_S = 2.0  # of a wait, before its seconds are counted
ERASE = "\r\x1b[2K"


class Status:
    """One line of text that changes while a command works.

    A thread redraws it, so that the seconds go on while the command compiles. `show`
    and `close` may be called from any thread.
    """

    def __init__(
        self,
        text: str,
        *,
        stream: Any = None,
        line_every_s: float | None = None,
    ):
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._every_s = (
            REDRAW_EVERY_S if self._is_terminal else line_every_s or LINE_EVERY_S
        )
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._text, self._since = text, time.monotonic()
        if self._is_terminal:
            self._write()
        self._thread = threading.Thread(target=self._repeat, daemon=True)
        self._thread.start()

    def show(self, text: str) -> None:
        """Says that something else is being waited for now, or how far it is. A text
        that begins with the same word is the same wait: its seconds go on."""
        with self._lock:
            if text.split(" ", 1)[0] != self._text.split(" ", 1)[0]:
                self._since = time.monotonic()
            self._text = text
        if self._is_terminal:
            self._write()

    def report(self, stage: str, done: int, total: int) -> None:
        """Says how far a stage is: a `seedjax.progress.Progress`."""
        self.show(f"{stage}, {done} of {total}" if done < total else stage)

    def close(self) -> None:
        """Takes the line away; nothing is written after it. May be called twice."""
        with self._lock:
            if not self._closed.is_set() and self._is_terminal:
                self._put(ERASE)
            self._closed.set()

    def _repeat(self) -> None:
        while not self._closed.wait(self._every_s):
            self._write()

    def _write(self) -> None:
        with self._lock:
            if self._closed.is_set():
                return
            if line := self._line():
                self._put(f"{ERASE}{line}" if self._is_terminal else f"{line}\n")

    def _line(self) -> str:
        waited = time.monotonic() - self._since
        return self._text + (f"  {waited:.0f} s" if waited >= SILENT_S else "")

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # a reader that has gone, a closed stream
            self._closed.set()


@contextmanager
def waiting(
    text: str, *, stream: Any = None, line_every_s: float | None = None
) -> Iterator[Status]:
    """A status line for as long as the block lasts.

    Args:
      text: what is being waited for, beginning with a verb: "loading mini".
      stream: where to; None is standard error.
      line_every_s: seconds between lines where that is no terminal; None is ten.
    """
    status = Status(text, stream=stream, line_every_s=line_every_s)
    try:
        yield status
    finally:
        status.close()


class _Pace:
    """The rate of the stage that is worked on."""

    def __init__(self) -> None:
        self.stage, self.done, self.total = "", 0, 0
        self._first, self._since = 0, 0.0

    def tell(self, stage: str, done: int, total: int) -> bool:
        """Takes the numbers of a `Progress`; true if a stage begins with them."""
        begins = stage != self.stage or done < self.done
        if begins:
            self._first, self._since = done, time.monotonic()
        self.stage, self.done, self.total = stage, done, total
        return begins

    @property
    def is_finished(self) -> bool:
        return 0 < self.total <= self.done

    @property
    def rate(self) -> str:
        """Parts per second with two digits; empty before the first."""
        done, seconds = self.done - self._first, time.monotonic() - self._since
        if done <= 0 or seconds <= 0:
            return ""
        rate = done / seconds
        return f"{rate:.0f} per second" if rate >= 10 else f"{rate:.2g} per second"


class _Counted(Status):
    """The status of work whose parts are counted, for what is no terminal."""

    def __init__(self, stream: Any, line_every_s: float | None):
        self._pace = _Pace()
        super().__init__("", stream=stream, line_every_s=line_every_s)

    def report(self, stage: str, done: int, total: int) -> None:
        with self._lock:
            self._pace.tell(stage, done, total)

    def _line(self) -> str:
        pace = self._pace
        if not pace.stage or pace.is_finished:
            return ""
        count = f"{pace.done} of {pace.total}" if pace.total else f"{pace.done}"
        rate = f", {pace.rate}" if pace.rate else ""
        return f"{pace.stage}: {count}{rate}"


@contextmanager
def bar(
    *, quiet: bool = False, stream: Any = None, line_every_s: float | None = None
) -> Iterator[Progress]:
    """A progress bar for one stage after the other; it is there while one is
    unfinished.

    Args:
      quiet: draws nothing, as in all processes but the first.
      stream: where to; None is standard error.
      line_every_s: seconds between lines where that is no terminal; None is ten.
    """
    stream = stream or sys.stderr
    if quiet or not is_first():
        yield silent
    elif stream.isatty():
        with _drawn(stream) as report:
            yield report
    else:
        status = _Counted(stream, line_every_s)
        try:
            yield status.report
        finally:
            status.close()


@contextmanager
def _drawn(stream: Any) -> Iterator[Progress]:
    """A bar with count, rate and time left, on a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
        console=Console(file=stream, force_terminal=True),
        transient=True,
        redirect_stdout=False,  # which rich would write to standard error
    )
    pace, task = _Pace(), bars.add_task("", visible=False, rate="")

    def report(stage: str, done: int, total: int) -> None:
        nonlocal task
        if pace.tell(stage, done, total):
            bars.remove_task(task)
            task = bars.add_task(stage, completed=done, total=total or None, rate="")
        bars.update(task, completed=done, total=total or None, rate=pace.rate)
        # A finished stage makes room for what others draw.
        if pace.is_finished and bars.live.is_started:
            bars.stop()
        elif not pace.is_finished and not bars.live.is_started:
            bars.start()

    try:
        yield report
    finally:
        if bars.live.is_started:
            bars.stop()
