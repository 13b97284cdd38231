"""`seedjax doctor`."""

import importlib.metadata
import os
import platform
import sys
from typing import Any

from seedjax.cli import options

PACKAGES = (
    *("seedjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain"),
    *("sentencepiece", "safetensors", "numpy"),
)
OPTIONAL = {  # package -> (extra, what it is for)
    "pyarrow": ("parquet", "Parquet files as a source of `seedjax data build`"),
    "tensorboardX": ("tensorboard", "`seedjax train --tensorboard`"),
    "pytest": ("dev", "the tests"),
}


def doctor(json: options.Json = False) -> None:
    """Report versions, devices, attention backends, caches, and what is missing.

    Example: seedjax doctor --json
    """
    report = examine()
    if json:
        options.print_json(report)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    for heading, content in report.items():
        items = content.items() if isinstance(content, dict) else [("", content)]
        for index, (name, value) in enumerate(items):
            # Plain text: rich would read the brackets of an extra as markup.
            cells = (heading if index == 0 else "", str(name), str(value))
            table.add_row(*map(Text, cells))
    Console(file=sys.stdout).print(table)


def examine() -> dict[str, Any]:
    """Everything that a report about a machine should hold, as JSON-ready values."""
    import jax

    from seedjax.model_directory import bundled_models

    missing = {}
    for package, (extra, purpose) in OPTIONAL.items():
        if installed_version(package) is None:
            missing[package] = f"pip install 'seedjax[{extra}]' for {purpose}"
    backend = jax.default_backend()
    if backend == "cpu":
        missing["accelerator"] = (
            "none found; with an NVIDIA GPU pip install 'seedjax[cuda]', "
            "on a TPU host pip install 'seedjax[tpu]'"
        )
    cache = options.compile_cache_directory()
    files = list(cache.glob("*")) if cache.is_dir() else []
    return {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "versions": {name: installed_version(name) or "missing" for name in PACKAGES},
        "devices": {
            "backend": backend,
            "devices": [device.device_kind for device in jax.devices()],
            "processes": jax.process_count(),
            "cpu cores": len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count(),
        },
        "attention": {"xla": f"in use on {backend}"},
        "compile cache": {
            "directory": str(cache),
            "programs": len(files),
            "megabytes": round(sum(f.stat().st_size for f in files) / 1e6, 1),
        },
        "models": {name: str(path) for name, path in bundled_models().items()},
        "missing": missing or "nothing",
    }


def installed_version(package: str) -> str | None:
    """The version of an installed package, None if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
