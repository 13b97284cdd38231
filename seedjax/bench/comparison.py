"""The other side of a comparison: programs in PyTorch, which a checkout holds in
scripts/benchmarks and an installed package does not."""

import importlib
import sys
from pathlib import Path
from typing import Protocol, runtime_checkable

from seedjax.bench.source import Source
from seedjax.bench.subject import Subject
from seedjax.bench.sweep import Line
from seedjax.errors import InputError

BENCHMARKS = Path(__file__).parents[2] / "scripts" / "benchmarks"


@runtime_checkable
class OtherSide(Protocol):
    """Programs of another library."""

    def subject(self, line: Line) -> Subject:
        """A line's program.

        Raises:
          InputError: if the library has none for this model or recipe.
        """
        ...


def torch_side(source: Source, num_columns: int) -> OtherSide:
    """The programs in PyTorch and `transformers`.

    Args:
      source: of weights and prompts.
      num_columns: of the longest canvas.

    Raises:
      InputError: without a checkout or PyTorch, or if PyTorch cannot use this device.
    """
    if not (BENCHMARKS / "torch_side").is_dir():
        raise InputError(
            "the programs in PyTorch are no part of the installed package; run this "
            "from a checkout: pip install -e '.[torch]'"
        )
    if str(BENCHMARKS) not in sys.path:
        sys.path.append(str(BENCHMARKS))
    return importlib.import_module("torch_side").Side(source, num_columns)
