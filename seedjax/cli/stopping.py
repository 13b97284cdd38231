"""A long command that saves checkpoints: signals end it in good order, with what it
has done so far saved, and Orbax's own logs are dropped.

with stop_on_signal() as stop:
    train(run, out, stop=stop)
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from logging import LogRecord
from types import FrameType
from typing import Any

from seedjax.progress import Stop

STOPPING = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGINT,
)  # SIGHUP: the terminal is gone


class _Received:
    """Whether a signal has told the command to stop.

    The first signal is noted; Ctrl-C after it interrupts at once, which leaves the
    checkpoint before as it is. Until the work has called this object there is nothing
    to save, and a signal ends the process as it does without handlers.
    """

    def __init__(self) -> None:
        self._polled, self._received = False, False

    def __call__(self) -> bool:
        self._polled = True
        return self._received

    def handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and (self._received or not self._polled):
            raise KeyboardInterrupt
        if not self._polled:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not self._received:
            self._received = True
            # Not `print`: the process may be in the middle of one.
            name = signal.Signals(number).name
            text = f"{name}: saving what is done, then stopping; Ctrl-C stops at once\n"
            with contextlib.suppress(OSError):
                os.write(2, text.encode())


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Handles SIGTERM, SIGHUP and Ctrl-C for as long as the block lasts, and gives the
    function that is true once one of them came. Signals that are ignored (as by nohup)
    stay ignored.

    Orbax's logs are dropped meanwhile: each of its threads logs a failure with a
    traceback, and the command gets the same failure as an exception."""
    from absl import logging  # Orbax logs through it

    received = _Received()
    before: dict[int, Any] = {
        number: signal.signal(number, received.handle)
        for number in STOPPING
        if signal.getsignal(number) != signal.SIG_IGN
    }
    logger = logging.get_absl_logger()
    logger.addFilter(_is_not_of_orbax)
    try:
        yield received
    finally:
        logger.removeFilter(_is_not_of_orbax)
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_not_of_orbax(record: LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname
