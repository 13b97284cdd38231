"""A status line on standard error: what a command is waiting for.

    with progress.waiting("loading mini") as status:
        model = load("mini")
        status.show("decoding")

On a terminal there is one line, from the first moment on, which is overwritten and is
gone at the end:

    compiling (first time for this shape)  4 s

In a pipe or a log it says something only if it takes long: a line every ten seconds.
Standard output is never touched.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
        line_every_s: float = LINE_EVERY_S,
    ):
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._every_s = REDRAW_EVERY_S if self._is_terminal else line_every_s
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
            waited = time.monotonic() - self._since
            seconds = f"  {waited:.0f} s" if waited >= SILENT_S else ""
            line = f"{self._text}{seconds}"
            self._put(f"{ERASE}{line}" if self._is_terminal else f"{line}\n")

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # a reader that has gone, a closed stream
            self._closed.set()


@contextmanager
def waiting(
    text: str, *, stream: Any = None, line_every_s: float = LINE_EVERY_S
) -> Iterator[Status]:
    """A status line for as long as the block lasts.

    Args:
      text: what is being waited for, beginning with a verb: "loading mini".
      stream: where to; None is standard error.
      line_every_s: seconds between lines where that is no terminal.
    """
    status = Status(text, stream=stream, line_every_s=line_every_s)
    try:
        yield status
    finally:
        status.close()
