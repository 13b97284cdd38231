"""The other side of a comparison: programs in PyTorch, which a checkout holds in
scripts/benchmarks and an installed package does not."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
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
    return _torch_package().Side(source, num_columns)


def _torch_package() -> ModuleType:
    """The package `torch_side`, loaded from its folder; `sys.path` stays as it is."""
    name, folder = "torch_side", BENCHMARKS / "torch_side"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package  # its modules import each other by this name
    try:
        spec.loader.exec_module(package)
    except BaseException:
        del sys.modules[name]
        raise
    return package
