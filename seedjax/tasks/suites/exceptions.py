"""Problems that a suite's own references do not pass, read from `exceptions.toml`."""

import functools
from typing import Any

from seedjax.files.package import package_table


def exceptions(table: str, prefix: str = "") -> dict[str, str]:
    """Problem id -> why its reference does not pass, or why its test says nothing.

    Args:
      table: of the file, such as "mbxp.java"; one that is not there is empty.
      prefix: put before what the file names the problems by.
    """
    found = _tables()
    for name in table.split("."):
        found = found.get(name, {})
    return {
        f"{prefix}{problem}": why
        for why, problems in found.items()
        for problem in problems.split()
    }


@functools.cache
def _tables() -> dict[str, Any]:
    return package_table("seedjax.tasks.suites", "exceptions.toml")
