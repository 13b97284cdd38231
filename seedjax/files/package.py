"""Data that the package brings along: text and TOML tables beside the code."""

import tomllib
from importlib import resources
from typing import Any


def package_text(package: str, name: str) -> str:
    """The text of a file of a package: `package_text("seedjax.data", "licences.toml")`;
    `name` may lead through folders."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def package_table(package: str, name: str) -> dict[str, Any]:
    """The table of a TOML file of a package."""
    return tomllib.loads(package_text(package, name))
