"""`seedjax models`."""

from seedjax.cli import options, streams
from seedjax.textfile import read_json_object


def models(json: options.Json = False) -> None:
    """List the bundled models, the denoiser presets, and the families that convert.

    Example: seedjax models --json
    """
    from seedjax.convert.families import FAMILIES
    from seedjax.model_directory import bundled_models
    from seedjax.presets import PRESETS

    bundled = []
    for name, directory in bundled_models().items():
        config = read_json_object(directory / "config.json")
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
    for name, shape in PRESETS.items():
        shapes.add_row(
            name,
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
