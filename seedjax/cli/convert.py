"""`seedjax convert` and `seedjax export`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from seedjax.cli import options, progress, streams
from seedjax.errors import InputError

FORMATS = ("auto", "hf", "gguf")
DTYPES = ("float32", "bfloat16", "int8")
EXPORT_DTYPES = ("float32", "bfloat16", "float16")


@options.writes("convert", sources=("source", "tokenizer"))
def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A directory with config.json and weights, a .gguf file, a model "
            "directory, or the name of a repository on the Hugging Face Hub."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Model directory to write.")],
    family: Annotated[
        str,
        typer.Option("--family", help="As in `seedjax models`; default: recognised."),
    ] = "",
    source_format: Annotated[
        str, typer.Option("--from", help="auto, hf or gguf: what SOURCE must be.")
    ] = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="field=value of the denoiser, as block_size=8."),
    ] = None,
    dtype: Annotated[
        str,
        typer.Option("--dtype", help="float32, bfloat16 or int8; default: as stored."),
    ] = "",
    revision: Annotated[
        str, typer.Option("--revision", help="Branch, tag or commit on the Hub.")
    ] = "",
    as_denoiser: Annotated[
        bool,
        typer.Option(
            "--as-denoiser",
            help="Make an autoregressive checkpoint the start of a denoiser.",
        ),
    ] = False,
    tokenizer: Annotated[
        Path | None,
        typer.Option("--tokenizer", help="Folder of its files; default: of SOURCE."),
    ] = None,
    base: Annotated[
        str,
        typer.Option(
            "--base", help="Of an adapter of PEFT: the model that it changes."
        ),
    ] = "",
    adapter: Annotated[
        Path | None,
        typer.Option(help="Merge this adapter into SOURCE, the model it was made for."),
    ] = None,
    gated: Annotated[
        bool,
        typer.Option(
            "--gated", help="With --base: the adapter acts on drafted tokens alone."
        ),
    ] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore-field",
            help="Field of config.json to take for harmless; may be repeated.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Turn a published checkpoint into a model directory, or an adapter of PEFT into
    one for --adapter.

    Example: seedjax convert ByteDance-Seed/Stable-DiffCoder-8B-Instruct --out coder
    """
    _one_of("--from", source_format, FORMATS)
    _one_of("--dtype", dtype or DTYPES[0], DTYPES)
    if source_format == "gguf" and not source.endswith(".gguf"):
        raise InputError(f"--from gguf wants a .gguf file, not {source!r}")
    if source_format == "hf" and source.endswith(".gguf"):
        raise InputError(f"--from hf wants a directory or a Hub name, not {source!r}")
    if base or adapter is not None:
        _convert_adapter(
            source, out, base=base, adapter=adapter, gated=gated, json=json
        )
        return
    options.refuse({"gated"}, "{} is for an adapter of PEFT; give its --base")
    from seedjax.convert.importing import convert as run

    with progress.bar() as report:
        done = run(
            source,
            out,
            family=family or None,
            assignments=settings or (),
            dtype=dtype or None,  # type: ignore[arg-type]
            revision=revision or None,
            as_denoiser=as_denoiser,
            ignore=ignore or (),
            tokenizer_from=tokenizer,
            report=report,
        )
    if json:
        streams.print_json(
            {
                "out": str(done.out),
                "family": done.family,
                "parameters": done.parameters,
                "dtype": done.dtype,
                "settled": {
                    s.field: {"value": _plain(s.value), "origin": s.origin}
                    for s in done.settled
                },
                "ignored": list(done.ignored),
            }
        )
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("field", "value", "from", title=f"family {done.family}", box=None)
    for settled in done.settled:
        if settled.origin != "default":
            table.add_row(settled.field, Text(str(settled.value)), settled.origin)
    streams.print_table(table)
    if done.ignored:
        print(
            f"taken for harmless: {', '.join(done.ignored)}",
            file=sys.stderr,
        )
    streams.print_text(f"{done.parameters:,} parameters as {done.dtype} in {done.out}")


@options.writes("export", sources=("model",))
def export(
    out: Annotated[Path, typer.Argument(help="Directory to write.")],
    model: options.Model = "mini",
    adapter: Annotated[
        Path | None,
        typer.Option(help="Write this adapter of MODEL instead, as PEFT does."),
    ] = None,
    family: Annotated[
        str,
        typer.Option("--family", help="Whose layout; default: where it came from."),
    ] = "",
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype", help="float32, bfloat16 or float16; default: as stored."
        ),
    ] = "",
    json: options.Json = False,
) -> None:
    """Write a model as a Hugging Face checkpoint, which transformers loads.

    Example: seedjax export --model coder coder-hf
    """
    _one_of("--dtype", dtype or EXPORT_DTYPES[0], EXPORT_DTYPES)
    if adapter is not None:
        options.refuse(
            {"family", "dtype"}, "{} is for a whole model; leave it out with --adapter"
        )
        from seedjax.convert.peft import export_adapter

        written = export_adapter(adapter, out, base=model)
        if json:
            streams.print_json({"out": str(written)})
        else:
            streams.print_text(f"an adapter of PEFT in {written}")
        return
    from seedjax.convert.exporting import export as run

    with progress.bar() as report:
        done = run(
            model,
            out,
            family=family or None,
            dtype=dtype or None,  # type: ignore[arg-type]
            report=report,
        )
    if json:
        streams.print_json(done._asdict() | {"out": str(done.out)})
        return
    streams.print_text(
        f"{', '.join(done.files)} in {done.out}, family {done.family}, {done.dtype}"
    )


def _convert_adapter(
    source: str,
    out: Path,
    *,
    base: str,
    adapter: Path | None,
    gated: bool,
    json: bool,
) -> None:
    """`convert` of an adapter of PEFT, or of a model with an adapter merged in."""
    options.refuse_others(
        {"source", "out", "base", "adapter", "gated", "force", "json"},
        "{} is for a published checkpoint; leave it out beside --base or --adapter",
    )
    from seedjax.convert.peft import import_adapter, is_peft_adapter, merge

    if base and adapter is not None:
        raise InputError(
            "--base imports an adapter and --adapter merges one; give one of them"
        )
    if adapter is not None:
        options.refuse({"gated"}, "{} goes with --base; a gated adapter is not merged")
        with progress.bar() as report:
            merged = merge(source, adapter, out, report=report)
        if json:
            streams.print_json({"out": str(merged)})
        else:
            streams.print_text(f"{source} with {adapter} merged in, in {merged}")
        return
    if not is_peft_adapter(source):
        raise InputError(
            f"{source} holds no adapter_config.json; --base is for a folder in which "
            "PEFT has saved an adapter"
        )
    done = import_adapter(source, out, base=base, gated=gated)
    if json:
        values = {"out": str(done.out), "rank": done.config.rank}
        values |= {"alpha": done.config.alpha, "kernels": done.kernels}
        streams.print_json(values)
        return
    streams.print_text(
        f"an adapter of rank {done.config.rank} for {done.kernels} matrices in "
        f"{done.out}; try: seedjax generate --model {base} --adapter {done.out} ..."
    )


def _one_of(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{option} is {value!r}; it must be {' or '.join(choices)}")


def _plain(value: Any) -> Any:
    from seedjax.config import to_dict

    return to_dict(value)
