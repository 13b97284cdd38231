"""Reports from long work to its caller, and the signal to stop.

The library calls these functions; the caller decides what they do. The command line
draws a bar (`seedjax.cli.progress.bar`) and stops on signals (`seedjax.cli.stopping`).
"""

from collections.abc import Callable

Progress = Callable[[str, int, int], object]
"""Called with what is being done, how much of it is done, and of how much (0: nobody
knows). The first call for a stage says what was done before it began."""

Stop = Callable[[], bool]
"""Called where work can end in good order; true ends it there. Once true, it stays
true."""


def never() -> bool:
    """Does not stop."""
    return False


def silent(stage: str, done: int, total: int) -> None:
    """Draws nothing."""


def counter(report: Progress, stage: str, total: int) -> Callable[[int], None]:
    """Begins a stage, and returns what adds to the part of it that is done."""
    done = 0
    report(stage, done, total)

    def advance(count: int) -> None:
        nonlocal done
        done += count
        report(stage, done, total)

    return advance
