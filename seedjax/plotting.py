"""Matplotlib as all pictures of this package use it: without a screen."""

from pathlib import Path
from typing import Any


def open_pyplot() -> Any:
    """The module `matplotlib.pyplot`, which takes long to import."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, target: Path) -> None:
    """Writes a figure into a file, whose folder is made, and forgets it."""
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)
    open_pyplot().close(figure)
