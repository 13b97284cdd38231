"""`seedjax data show FILE`: what a file of prompts and responses comes to."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedjax.cli import streams

if TYPE_CHECKING:
    from seedjax.data.instructions import InstructionConfig, Prepared


def show_instructions(
    file: Path,
    model: str,
    assignments: Sequence[str],
    *,
    skip_invalid: bool,
    json: bool,
) -> None:
    """Prints counts and lengths of a file's rows.

    Raises:
      InputError: if there is no such model, or the file cannot be used.
    """
    from seedjax.checkpoints.model_directory import open_model
    from seedjax.config import override
    from seedjax.data.instructions import InstructionConfig, prepare

    start = open_model(model)
    in_blocks = start.denoiser.attention == "block_causal"
    config = InstructionConfig(
        path=str(file),
        vocabulary=str(start.tokenizer),
        sequence_length=512,
        block_size=start.denoiser.block_size if in_blocks else 1,
        skip_invalid=skip_invalid,
    )
    config = override(config, assignments)
    found = summary(config, prepare(config))
    if json:
        streams.print_json(found)
    else:
        print_tables(found)


def summary(config: "InstructionConfig", prepared: "Prepared") -> dict[str, Any]:
    """The values of a file for `--json`."""
    lengths = prepared.prompt_lengths + prepared.response_lengths
    parts = {
        "prompt": prepared.prompt_lengths,
        "response": prepared.response_lengths,
        "whole": lengths,
    }
    edges = [0, 64, 128, 256, 512, 1024, 2048, 4096, 1 << 40]
    return {
        "file": config.path,
        "rows": prepared.rows,
        "train": len(prepared.sequences["train"]),
        "heldout": len(prepared.sequences["heldout"]),
        "invalid": len(prepared.invalid),
        "reasons": {str(n): why for n, why in prepared.invalid[:5]},
        "doubled": prepared.doubled,
        "contaminated": prepared.contaminated,
        "cut": prepared.cut,
        "dropped": prepared.dropped,
        "sequence_length": config.sequence_length,
        "tokens": {
            name: {
                "sum": int(values.sum()),
                "median": _quantile(values, 0.5),
                "p90": _quantile(values, 0.9),
                "most": _quantile(values, 1.0),
                "histogram": {
                    _range(low, high): int(((values >= low) & (values < high)).sum())
                    for low, high in zip(edges, edges[1:], strict=False)
                },
            }
            for name, values in parts.items()
        },
    }


def _quantile(values: Any, share: float) -> int:
    """A value of a sorted list; 0 of none."""
    ordered = sorted(values.tolist())
    return ordered[round(share * (len(ordered) - 1))] if ordered else 0


def _range(low: int, high: int) -> str:
    return f"{low}-{high - 1}" if high < 1 << 40 else f"{low} and more"


def print_tables(found: dict[str, Any]) -> None:
    """A file in a few lines."""
    from rich.table import Table

    counts = Table("rows", "number", title=found["file"])
    length = found["sequence_length"]
    for name, meaning in {
        "rows": "in the file",
        "train": "to train on",
        "heldout": "held out",
        "invalid": "malformed, passed over",
        "doubled": "repeated, left out",
        "contaminated": "share text with an evaluation set, left out",
        "dropped": f"longer than {length} tokens, left out",
        "cut": f"longer than {length} tokens, cut",
    }.items():
        counts.add_row(meaning, f"{found[name]:,}")
    tokens = found["tokens"]
    lengths = Table("tokens", *tokens)
    for name in ("sum", "median", "p90", "most"):
        lengths.add_row(name, *(f"{of[name]:,}" for of in tokens.values()))
    histogram = Table("rows by length", *tokens)
    for label in tokens["whole"]["histogram"]:
        numbers = [of["histogram"][label] for of in tokens.values()]
        if any(numbers):
            histogram.add_row(label, *map(str, numbers))
    streams.print_table(counts, lengths, histogram)
    for number, reason in found["reasons"].items():
        streams.print_text(f"row {number}: {reason}")
