"""The scores and rates that papers print, read from `published.toml`, which names the
sources."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seedjax.files.package import package_table


@dataclass(frozen=True, kw_only=True)
class Column:
    """A printed score of several systems.

    Attributes:
      title: of the benchmark.
      suites: names of the suites that measure it; where there are several, a score of
        ours is the mean over their problems.
      condition: what the source says of how it was measured.
      source: paper and table.
      scores: percent, by system.
      misprints: where the print is wrong, and what is used here.
    """

    title: str
    suites: tuple[str, ...]
    condition: str
    source: str
    scores: Mapping[str, float]
    misprints: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """A printed rate.

    Attributes:
      system: whose it is.
      tokens_per_second: as printed.
      condition: hardware, batch and text, as far as they are said.
    """

    system: str
    tokens_per_second: float
    condition: str


@functools.cache
def columns() -> tuple[Column, ...]:
    """Every printed column, table by table."""
    return tuple(
        Column(
            title=title,
            suites=tuple(suites.split()),
            condition=table["condition"],
            source=table["source"],
            scores={name: row[place] for name, row in table["scores"].items()},
            misprints=table.get("misprints", {}),
        )
        for table in _published()["table"]
        for place, (title, suites) in enumerate(
            zip(table["titles"], table["suites"], strict=True)
        )
    )


@functools.cache
def speeds() -> tuple[Speed, ...]:
    """Every printed rate."""
    return tuple(Speed(**row) for row in _published()["speed"])


@functools.cache
def _published() -> dict[str, Any]:
    return package_table("seedjax.evaluate.report", "published.toml")
