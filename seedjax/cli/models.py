"""`seedjax models`."""

from typing import Annotated

import typer

from seedjax.cli import options, streams
from seedjax.files.text import read_json_object, read_text


def models(
    name: Annotated[
        str | None,
        typer.Argument(help="A model to show: its shape and its default recipe."),
    ] = None,
    json: options.Json = False,
) -> None:
    """List the bundled models, the denoiser presets, and the families that convert; or
    show one model.

    Example: seedjax models mini
    """
    if name is not None:
        show_model(name, json=json)
        return
    from seedjax.checkpoints.model_directory import bundled_models
    from seedjax.convert.families import FAMILIES
    from seedjax.nn.presets import PRESETS

    bundled = []
    for found, directory in bundled_models().items():
        config = read_json_object(directory / "config.json")
        size = sum(f.stat().st_size for f in directory.rglob("*") if f.is_file())
        bundled.append(
            {
                "name": found,
                "attention": config["denoiser"]["attention"],
                "block_size": config["denoiser"]["block_size"],
                "megabytes": round(size / 1e6, 1),
                "heldout": config["provenance"].get("heldout", {}),
                "directory": str(directory),
            }
        )
    if json:
        families = [
            {
                "name": family.name,
                "checkpoints": list(family.checkpoints),
                "denoiser": dict(family.denoiser),
                "ids": dict(family.ids),
                "to_set": list(family.unsaid),
                "sampler": dict(family.sampler),
                "source": family.source,
                "shown": list(family.proof),
            }
            for family in FAMILIES.values()
        ]
        streams.print_json(
            {"bundled": bundled, "presets": list(PRESETS), "families": families}
        )
        return
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
    streams.print_table(table)
    shapes = Table("preset", "layers", "width", "heads", "vocabulary", "attention")
    for preset, shape in PRESETS.items():
        shapes.add_row(
            preset,
            str(shape.num_layers),
            str(shape.hidden_size),
            f"{shape.num_heads}/{shape.num_kv_heads} x {shape.head_dim}",
            str(shape.vocab_size),
            shape.attention,
        )
    streams.print_table(shapes)
    table = Table("family", "such as", "attention", "logits", "mask", "to set", "shown")
    for family in FAMILIES.values():
        attention = family.denoiser.get("attention", "-")
        if attention == "block_causal":
            attention += f" {family.denoiser['block_size']}"
        table.add_row(
            family.name,
            family.checkpoints[0] if family.checkpoints else "-",
            attention,
            family.denoiser["logit_alignment"],
            str(family.ids.get("mask_token_id", "-")),
            ", ".join(family.unsaid) or "-",
            ", ".join(family.proof),
        )
    streams.print_table(table)


def show_model(name: str, *, json: bool) -> None:
    """Prints a model's card, shape, and the value of every field of its recipe."""
    import json as json_module

    from rich.table import Table

    from seedjax.checkpoints.model_directory import open_model
    from seedjax.config import from_dict, to_dict
    from seedjax.sampling.recipe import SamplerConfig

    found = open_model(name)
    sampler = to_dict(from_dict(SamplerConfig, found.sampler, f"sampler of {name}"))
    values = {"denoiser": to_dict(found.denoiser), "sampler": sampler}
    if json:
        streams.print_json({"directory": str(found.path), **values})
        return
    card = found.path / "README.md"
    if card.is_file():
        streams.print_text(read_text(card))
    for title, fields in values.items():
        table = Table(f"{title} field", "value", box=None)
        for field, value in fields.items():
            if field == "kind":
                continue
            table.add_row(field, json_module.dumps(value))
        streams.print_table(table)
