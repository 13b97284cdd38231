"""`seedjax data build | show | verify | sample`."""

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedjax.cli import options, progress, streams
from seedjax.errors import InputError

if TYPE_CHECKING:
    from seedjax.data.records import Manifest
    from seedjax.data.sources import Source

app = typer.Typer(
    help="Build and inspect training corpora.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

CorpusFolder = Annotated[Path, typer.Argument(help="Folder of a corpus.")]


@app.command("build")
@options.writes("data build", sources=("source", "tokenizer"), may_be_inside=True)
def build(
    out: Annotated[Path, typer.Option(help="Folder of the corpus.")] = Path("corpus"),
    manifest: Annotated[
        str | None,
        typer.Option(
            help="Pinned packages: xs (4 MB to download), s (55 MB), m (221 MB), "
            "or a JSON file."
        ),
    ] = None,
    source: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder, git checkout, wheel, sdist, .jsonl or .parquet file; "
            "may be repeated."
        ),
    ] = None,
    field: Annotated[
        str | None,
        typer.Option(help="Text field of JSON lines and Parquet: else text, content."),
    ] = None,
    unit: Annotated[
        str, typer.Option(help="What one document is: function or file.")
    ] = "function",
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder of a tokenizer to use.")
    ] = None,
    vocab_size: Annotated[
        int,
        typer.Option(min=1, help="Pieces of the tokenizer that is learned otherwise."),
    ] = 4096,
    heldout_fraction: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Share of files kept out of training."),
    ] = 0.01,
    keep_tests: Annotated[
        bool, typer.Option("--keep-tests", help="Keep test files.")
    ] = False,
    decontaminate: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of more evaluation sets (JSON lines) to keep out; may be "
            "repeated. The public Python sets are kept out always."
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where wheels are, or are downloaded to.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes and threads to build with.")
    ] = 1,
    runner: Annotated[
        str,
        typer.Option(
            help="Build on Apache Beam: DirectRunner, DataflowRunner, FlinkRunner or "
            "SparkRunner. All workers must see --out and the sources.",
        ),
    ] = "",
    runner_options: Annotated[
        str,
        typer.Option(help="Options of the runner: '--parallelism=64 ...'."),
    ] = "",
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Build a corpus from pinned packages and your own code.

    Files are filtered, cut into functions, cleared of duplicates and of evaluation
    items, tokenized and written with a manifest. Interrupted, the same command goes on.

    Example: seedjax data build --manifest xs --source ~/my/code --out corpus
    """
    from seedjax.data.build import BuildConfig, build_corpus
    from seedjax.data.decontaminate import (
        directory_contamination,
        shipped_contamination,
    )
    from seedjax.data.filters import FilterConfig
    from seedjax.data.units import UnitConfig
    from seedjax.text.loading import load_tokenizer

    if unit not in ("function", "file"):
        raise InputError(f"--unit is {unit!r}; it must be function or file")
    config = BuildConfig(
        filters=FilterConfig(keep_tests=keep_tests),
        units=UnitConfig(unit="file" if unit == "file" else "function"),
        heldout_fraction=heldout_fraction,
        vocab_size=vocab_size,
        seed=seed,
    )
    contamination = shipped_contamination()
    if decontaminate:
        contamination = contamination | directory_contamination(decontaminate)
    given = load_tokenizer(tokenizer) if tokenizer else None
    start = time.perf_counter()
    sources = gather_sources(manifest, source or [], field, cache)
    with progress.bar() as report:
        result = build_corpus(
            sources,
            out,
            config,
            contamination=contamination,
            tokenizer=given,
            workers=workers,
            runner=runner,
            runner_options=split_options(runner_options),
            report=report,
        )
    seconds = time.perf_counter() - start
    if json:
        streams.print_json(summary(out, result) | {"seconds": round(seconds, 3)})
    else:
        print_tables(out, result)


def split_options(text: str) -> list[str]:
    """The options of a runner, as a shell splits them."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"--runner-options is {text!r}: {error}") from None


def gather_sources(
    manifest: str | None, paths: list[Path], field: str | None, cache: Path | None
) -> "list[Source]":
    """The sources of a build: the packages of the manifest, then the paths."""
    from seedjax.data.packages import default_cache, fetch, load_manifest
    from seedjax.data.sources import open_source

    if not manifest and not paths:
        raise InputError(
            "nothing to build from; give --manifest xs, or --source with your own code"
        )
    sources: list[Source] = []
    if manifest:
        wheels = load_manifest(manifest)
        print(f"fetching {len(wheels.packages)} wheels", file=sys.stderr)
        sources += fetch(wheels, cache or default_cache())
    for path in paths:
        sources += open_source(path, field=field)
    return sources


@app.command("show")
def show(
    corpus: Annotated[
        Path,
        typer.Argument(help="Folder of a corpus, or a file of prompts and responses."),
    ],
    model: Annotated[
        str, typer.Option("--model", help="Of a file: whose tokenizer and template.")
    ] = "mini",
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Of a file: field=value of `data`, as layout=plain."
        ),
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Of a file: pass over such rows.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Show what a corpus holds, where it is from, and what was left out; or of a file
    of prompts and responses how long its rows are, and which are cut or left out.

    Example: seedjax data show corpus
    """
    if corpus.is_file():
        from seedjax.cli.instructions import show_instructions

        show_instructions(
            corpus, model, assignments or (), skip_invalid=skip_invalid, json=json
        )
        return
    options.refuse_others(
        {"corpus", "json"}, "{} is for a file of prompts and responses; leave it out"
    )
    from seedjax.data.records import Corpus

    manifest = Corpus(corpus).manifest
    if json:
        streams.print_json(summary(corpus, manifest))
    else:
        print_tables(corpus, manifest)


@app.command("verify")
def verify(corpus: CorpusFolder, json: options.Json = False) -> None:
    """Compare every file of a corpus with its checksum.

    Example: seedjax data verify corpus
    """
    from seedjax.data.records import Corpus

    opened = Corpus(corpus, verify=True)
    opened.tokenizer()
    splits = (opened.manifest.train, opened.manifest.heldout)
    entries = [entry for split in splits for entry in (*split.shards, split.lengths)]
    size = sum(entry.bytes for entry in entries)
    if json:
        streams.print_json(
            {
                "corpus": str(corpus),
                "intact": True,
                "files": len(entries),
                "bytes": size,
            }
        )
    else:
        streams.print_text(
            f"{corpus}: {len(entries)} files, {size / 1e6:.1f} MB, all intact"
        )


@app.command("sample")
def sample(
    corpus: CorpusFolder,
    count: Annotated[int, typer.Option(min=1, help="Documents to print.")] = 3,
    split: Annotated[str, typer.Option(help="train or heldout.")] = "train",
    fim_rate: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share in fill-in-the-middle form.")
    ] = 0.25,
    sequence_length: Annotated[int, typer.Option(min=1, help="Tokens of a row.")] = 256,
    block_size: Annotated[int, typer.Option(min=1, help="Tokens of a block.")] = 16,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Print documents as a model in training sees them, special tokens by name.

    Example: seedjax data sample corpus --count 2 --fim-rate 1
    """
    from seedjax.data.pipeline import DataConfig, make_dataset
    from seedjax.data.records import Corpus

    if split not in ("train", "heldout"):
        raise InputError(f"--split is {split!r}; it must be train or heldout")
    config = DataConfig(
        corpus=str(corpus),
        sequence_length=sequence_length,
        batch_size=1,
        block_size=block_size,
        fim_rate=fim_rate,
        shuffle_seed=seed,
        packing_bins=8,
        prefetch=0,
    )
    tokenizer = Corpus(corpus).tokenizer()
    rows = make_dataset(
        config, tokenizer, split="heldout" if split == "heldout" else "train"
    )
    documents: list[dict[str, Any]] = []
    for row in rows:
        tokens, segments = row["tokens"][0], row["segments"][0]
        for segment in range(1, int(segments.max(initial=0)) + 1):
            ids = tokens[segments == segment].tolist()
            documents.append({"tokens": len(ids), "text": tokenizer.spell(ids)})
        if len(documents) >= count:
            break
    if json:
        streams.print_json({"corpus": str(corpus), "documents": documents[:count]})
        return
    for number, document in enumerate(documents[:count], 1):
        streams.print_text(
            f"--- {number} ({document['tokens']} tokens)\n{document['text']}"
        )


def summary(corpus: Path, manifest: "Manifest") -> dict[str, Any]:
    """A corpus as `--json` prints it."""
    from seedjax.config import to_dict

    splits = {}
    for name in manifest.splits:
        entry = manifest.train if name == "train" else manifest.heldout
        splits[name] = {
            "documents": entry.documents,
            "tokens": entry.tokens,
            "bytes": entry.bytes,
            "bytes_per_token": entry.bytes_per_token,
            "shards": len(entry.shards),
        }
    sources = [to_dict(source) for source in manifest.sources]
    for source in sources:
        source.pop("kind")
    return {
        "corpus": str(corpus),
        "splits": splits,
        "vocab_size": manifest.vocab_size,
        "tokenizer": manifest.tokenizer,
        "build": manifest.build,
        "rejected": dict(manifest.rejected),
        "sources": sources,
    }


def print_tables(corpus: Path, manifest: "Manifest") -> None:
    """A corpus in a few lines."""
    from rich.table import Table

    sources = Table("package", "licence", "documents", "MB", title=str(corpus))
    for source in manifest.sources:
        sources.add_row(
            source.package,
            source.licence,
            f"{source.documents:,}",
            f"{source.bytes / 1e6:.2f}",
        )
    rejected = Table("left out because", "files or functions")
    for reason, number in manifest.rejected:
        rejected.add_row(reason.replace("_", " "), f"{number:,}")
    splits = Table("split", "documents", "tokens", "MB", "bytes/token")
    for name in manifest.splits:
        entry = manifest.train if name == "train" else manifest.heldout
        splits.add_row(
            name,
            f"{entry.documents:,}",
            f"{entry.tokens:,}",
            f"{entry.bytes / 1e6:.2f}",
            f"{entry.bytes_per_token:.2f}",
        )
    streams.print_table(sources, rejected, splits)
    streams.print_text(
        f"tokenizer of {manifest.vocab_size} pieces in {corpus}/tokenizer"
    )
