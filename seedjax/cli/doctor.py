"""`seedjax doctor`."""

import importlib.metadata
import inspect
import os
import platform
import sys
from typing import Annotated, Any

import typer

from seedjax.cli import options, progress, streams
from seedjax.progress import Progress, silent

PACKAGES = (
    "seedjax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "sentencepiece",
    "safetensors",
    "numpy",
)
OPTIONAL = {  # package -> (extra, what it is for)
    "pyarrow": ("parquet", "Parquet files as a source of `seedjax data build`"),
    "tensorboardX": ("tensorboard", "`seedjax train --tensorboard`"),
    "outlines_core": ("grammar", "answers that match a pattern or a schema"),
    "qwix": ("quant", "int8 weights, activations and caches"),
    "flatbuffers": ("export", "`seedjax compile`"),
    "pytest": ("dev", "the tests"),
}


def doctor(
    model: Annotated[
        str,
        typer.Option("--model", help="A model whose recipe to check against its text."),
    ] = "",
    json: options.Json = False,
) -> None:
    """Report versions, devices, attention backends, caches, and what is missing; or,
    for a model, whether it reads text as its recipe says.

    Example: seedjax doctor --model mini
    """
    if model:
        with progress.waiting(f"loading {model}") as status:
            report = examine_model(model, status.report)
    else:
        report = examine()
    if report.get("warning"):
        print(f"warning: {report['warning']}", file=sys.stderr)
    if json:
        streams.print_json(report)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    for heading, content in report.items():
        if heading == "warning":
            continue
        items = content.items() if isinstance(content, dict) else [("", content)]
        for index, (name, value) in enumerate(items):
            # Plain text: rich would read the brackets of an extra as markup.
            cells = (heading if index == 0 else "", str(name), str(value))
            table.add_row(*map(Text, cells))
    streams.print_table(table)


def examine() -> dict[str, Any]:
    """Everything that a report about a machine should hold, as JSON-ready values."""
    import jax

    from seedjax.backend import require_backend
    from seedjax.checkpoints.model_directory import bundled_models
    from seedjax.inference.compile_cache import compile_cache_directory
    from seedjax.nn.attention_choice import explain, platform_of
    from seedjax.nn.kernels import explain_kernels
    from seedjax.nn.layer_loop import explain_layer_loop

    require_backend()

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
    cache = compile_cache_directory()
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
        "attention": explain(platform_of(backend)),
        "kernels": explain_kernels(platform_of(backend)),
        "layers": explain_layer_loop(platform_of(backend)),
        "compile cache": {
            "directory": str(cache),
            "programs": len(files),
            "megabytes": round(sum(f.stat().st_size for f in files) / 1e6, 1),
        },
        "models": {name: str(path) for name, path in bundled_models().items()},
        "missing": missing or "nothing",
    }


def examine_model(name: str, report: Progress = silent) -> dict[str, Any]:
    """The losses of a model on Python's own source under each reading of its recipe
    (`convert.hypotheses`), as JSON-ready values; with a warning if another one is
    better."""
    import textwrap

    from seedjax.convert.hypotheses import measure, verdict
    from seedjax.inference.loading import load

    options.start_jax(compile_cache=True)
    model = load(name, report=report)
    report("measuring losses", 0, 0)
    tokens = model.tokenizer.encode(inspect.getsource(textwrap))
    mask = model.tokenizer.special.mask
    found = measure(
        model.params, model.config, tokens, masks=[] if mask is None else [mask]
    )
    losses = {}
    for reading in found:
        shown = reading.mask_token_id
        label = reading.logit_alignment + ("" if shown is None else f", mask {shown}")
        losses[label] = f"{reading.loss:.3f} nats per token" + (
            " (the recipe)" if reading.configured else ""
        )
    warning = verdict(found, model.config.vocab_size)
    return {"model": name, "losses": losses, "warning": warning or None}


def installed_version(package: str) -> str | None:
    """The version of an installed package, None if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
