"""`seedjax models`."""

import json as json_module
import sys

from seedjax.cli import options


def models(json: options.Json = False) -> None:
    """List the bundled models and the denoiser presets.

    Example: seedjax models --json
    """
    from seedjax.model_directory import bundled_models
    from seedjax.presets import PRESETS

    bundled = []
    for name, directory in bundled_models().items():
        config = json_module.loads((directory / "config.json").read_text())
        size = sum(f.stat().st_size for f in directory.rglob("*") if f.is_file())
        bundled.append(
            {
                "name": name,
                "attention": config["denoiser"]["attention"],
                "block_size": config["denoiser"]["block_size"],
                "megabytes": round(size / 1e6, 1),
                "heldout": config["provenance"].get("heldout", {}),
                "directory": str(directory),
            }
        )
    if json:
        options.print_json({"bundled": bundled, "presets": list(PRESETS)})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("bundled model", "attention", "block", "MB", "held-out bits/byte")
    for model in bundled:
        bits = model["heldout"].get("heldout_bits_per_byte")
        table.add_row(
            model["name"],
            model["attention"],
            str(model["block_size"]),
            str(model["megabytes"]),
            "-" if bits is None else f"{bits:.2f}",
        )
    Console(file=sys.stdout).print(table)
    shapes = Table("preset", "layers", "width", "heads", "vocabulary", "attention")
    for name, config in PRESETS.items():
        shapes.add_row(
            name,
            str(config.num_layers),
            str(config.hidden_size),
            f"{config.num_heads}/{config.num_kv_heads} x {config.head_dim}",
            str(config.vocab_size),
            config.attention,
        )
    Console(file=sys.stdout).print(shapes)
