"""Writes the manifest of a corpus tier from wheels that were downloaded.

    python scripts/lock_corpus.py NAME FOLDER PACKAGE==VERSION ...

FOLDER holds the wheels. The manifest, with the hash and the declared licence of each,
goes to seedjax/data/manifests/NAME.json, in the order of the arguments. A package
without a permissive licence is an error. A name in place of PACKAGE==VERSION stands for
the packages of that manifest: `python_s wheels python_xs networkx==3.6.1`.
"""

import json
import re
import sys
from pathlib import Path

from seedjax.config import to_dict
from seedjax.data.licences import is_permissive
from seedjax.data.packages import PinnedWheel
from seedjax.data.sources import ArchiveSource, file_digest

MANIFESTS = Path(__file__).parent.parent / "seedjax" / "data" / "manifests"


def lock(pin: str, folder: Path) -> PinnedWheel:
    """The manifest entry of one pinned package."""
    name, _, version = pin.partition("==")
    stem = re.sub(r"[-_.]+", "_", name).lower()
    found = [
        path
        for path in folder.glob("*.whl")
        if re.sub(r"[-_.]+", "_", path.name.split("-")[0]).lower() == stem
        and path.name.split("-")[1] == version
    ]
    if len(found) != 1:
        sys.exit(f"{pin}: {len(found)} wheels in {folder}")
    licence = next(ArchiveSource(found[0]).files()).licence
    if not is_permissive(licence):
        sys.exit(f"{pin}: licence {licence!r} is not permissive")
    return PinnedWheel(
        name=name,
        version=version,
        file=found[0].name,
        sha256=file_digest(found[0]),
        licence=licence,
    )


def main(name: str, folder: str, *pins: str) -> None:
    """Locks the pins and writes the manifest."""
    packages: list[dict] = []
    for pin in pins:
        if "==" in pin:
            packages.append(to_dict(lock(pin, Path(folder))))
        else:
            packages += json.loads((MANIFESTS / f"{pin}.json").read_text())["packages"]
    for package in packages:
        package.pop("kind", None)
    path = MANIFESTS / f"{name}.json"
    path.write_text(json.dumps({"name": name, "packages": packages}, indent=1) + "\n")
    size = sum((Path(folder) / p["file"]).stat().st_size for p in packages)
    print(f"{path.name}: {len(packages)} wheels, {size / 1e6:.1f} MB to download")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
