"""How far a piece of work is: what library code tells, and who draws it decides how.

`seedjax.cli.progress.bar` is one that draws it.
"""

from collections.abc import Callable

Progress = Callable[[str, int, int], object]
"""Called with what is being done, how much of it is done, and of how much (0: nobody
knows). The first call for a stage says what was done before it began."""


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
