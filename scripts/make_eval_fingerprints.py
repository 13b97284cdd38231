"""Writes the fingerprints of the evaluation sets that seedjax ships.

    python scripts/make_eval_fingerprints.py FOLDER
    python scripts/make_eval_fingerprints.py everyday

The second form does so for the everyday prompts of the package itself. In the first,
FOLDER holds one folder for each set, with its items as .jsonl, .jsonl.gz or .json.gz.
The Python sets below are read, MBPP without its training ids 601 to 974, and the
fingerprints of their word 10-grams go to seedjax/data/eval_fingerprints.xz. A table of
what was read goes to standard output. Fingerprints are one-way: no text can be read
back from them.
"""

import sys
from pathlib import Path

import numpy as np

from seedjax.data.decontaminate import (
    EVERYDAY,
    SHIPPED,
    everyday_fingerprints,
    item_fingerprints,
    pack,
    read_items,
)
from seedjax.tasks.suites import everyday

SETS = (
    "humaneval/HumanEval.jsonl.gz",
    "evalplus/HumanEvalPlus-v0.1.10.jsonl.gz",
    "evalplus/MbppPlus-v0.2.0.jsonl.gz",
    "mbpp/mbpp.jsonl.gz",
    "mbpp/sanitized-mbpp.json.gz",
    "mbxp/mbpp_release_v1.jsonl.gz",
    "humanevalpack/humanevalpack_python.jsonl.gz",
    "canitedit/canitedit.jsonl.gz",
    "bigcodebench/BigCodeBench.jsonl.gz",
    "cruxeval/cruxeval.jsonl.gz",
    "quixbugs/quixbugs_python.jsonl.gz",
    "exercism_python/exercism_python.jsonl.gz",
)
TARGET = Path(__file__).parent.parent / "seedjax" / "data" / SHIPPED


def main(folder: str) -> None:
    """Reads every set, writes the file and prints the counts."""
    parts = []
    for name in SETS:
        items = list(read_items(Path(folder) / name))
        parts.append(item_fingerprints(items))
        print(f"{name:48} {len(items):6} items {len(parts[-1]):8} runs")
    packed = pack(np.concatenate(parts))
    TARGET.write_bytes(packed)
    distinct = len(np.unique(np.concatenate(parts)))
    print(f"{TARGET.name}: {distinct} distinct runs, {len(packed)} bytes")


def write_everyday() -> None:
    """Writes the file of the everyday prompts, which are part of the package."""
    fingerprints = everyday_fingerprints(everyday.rows())
    TARGET.with_name(EVERYDAY).write_bytes(pack(fingerprints))
    print(f"{EVERYDAY}: {len(fingerprints)} fingerprints")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if sys.argv[1] == "everyday":
        write_everyday()
    else:
        main(sys.argv[1])
