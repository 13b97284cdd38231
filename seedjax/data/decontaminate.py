"""Decontamination: no document may share a run of ten words with an evaluation item.

Fingerprints of the public evaluation sets travel with the package, so this works
without the sets themselves. They were made by `scripts/make_eval_fingerprints.py`. The
same module recognizes evaluation records, which may not be given as training data at
all.
"""

import hashlib
import lzma
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from seedjax.data.fingerprints import Words, hash_runs, hash_words
from seedjax.errors import InputError
from seedjax.files.text import read_json, read_json_lines

RUN_WORDS = 10
KEPT_BITS = 40  # of each fingerprint; one in 2 million random runs then matches
BOILERPLATE_ITEMS = 8  # a run in this many items of one set is an idiom, no leak
LETTERED_WORDS = 4  # a run with fewer words that are no numbers is a table, no leak
MBPP_TRAIN_IDS = range(601, 975)  # the part of MBPP that may be trained on
SHIPPED = "eval_fingerprints.xz"
EVERYDAY = "everyday_fingerprints.xz"

WORD = re.compile(r"[0-9A-Za-z_\x80-\U0010ffff]+")  # as `hash_words` finds them

EVALUATION_TASK = re.compile(
    r"(HumanEval|MBPP|BigCodeBench|\bMB(?:CPP|CSP|GP|JP|JSP|KP|PHP|PLP|RBP|SCP|SWP|TSP))"
    r"(?=[/_])",
    re.IGNORECASE,
)

# Fields of evaluation records whose text a model must not have seen. Unit tests are not
# among them: their idioms are everywhere.
TEXT_FIELDS = (
    "prompt",
    "complete_prompt",
    "text",
    "docstring",
    "declaration",
    "code",
    "canonical_solution",
    "solution",
    "buggy_solution",
    "buggy_program",
    "before",
    "after",
    "instruction_descriptive",
    "instruction_lazy",
    "instructions",
    "example_files",
    "suffix",
)


class Contamination:
    """The fingerprints of evaluation items."""

    def __init__(self, fingerprints: np.ndarray):
        """Args:
        fingerprints: the upper `KEPT_BITS` bits of run hashes, uint64, any order.
        """
        self.fingerprints = np.unique(fingerprints)
        # A bit for each value of the upper 24 bits answers nearly every question.
        self._seen = np.zeros(1 << 24, bool)
        self._seen[self.fingerprints >> np.uint64(KEPT_BITS - 24)] = True

    def __reduce__(self) -> tuple[Any, ...]:
        return Contamination, (self.fingerprints,)

    def __or__(self, other: "Contamination") -> "Contamination":
        return Contamination(np.concatenate([self.fingerprints, other.fingerprints]))

    def knows(self, fingerprints: np.ndarray) -> bool:
        """Whether any of some fingerprints is of an evaluation item."""
        return bool((self._nearest(fingerprints) == fingerprints).any())

    def _nearest(self, fingerprints: np.ndarray) -> np.ndarray:
        """For each fingerprint the first known one that is not below it, or the
        last."""
        places = np.searchsorted(self.fingerprints, fingerprints)
        return self.fingerprints[np.minimum(places, len(self.fingerprints) - 1)]

    def hits(self, words: Words) -> np.ndarray:
        """Which of the texts share a run with an evaluation item, bool [T]."""
        runs, bounds = hash_runs(words, RUN_WORDS)
        keys = shorten(runs)
        suspects = np.flatnonzero(self._seen[keys >> np.uint64(KEPT_BITS - 24)])
        found = suspects[self._nearest(keys[suspects]) == keys[suspects]]
        hit = np.zeros(len(bounds) - 1, bool)
        hit[np.searchsorted(bounds, found, side="right") - 1] = True
        return hit


def shorten(runs: np.ndarray) -> np.ndarray:
    """The upper `KEPT_BITS` bits of run hashes."""
    return runs >> np.uint64(64 - KEPT_BITS)


def item_fingerprints(items: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """Fingerprints of the items of one evaluation set, sorted, uint64. Runs that occur
    in `BOILERPLATE_ITEMS` items or more are left out."""
    of_items = [
        np.unique(np.concatenate([telling_runs(text) for text in item_texts(item)]))
        for item in items
        if not may_be_trained_on(item) and item_texts(item)
    ]
    if not of_items:
        return np.zeros(0, np.uint64)
    runs, counts = np.unique(np.concatenate(of_items), return_counts=True)
    return runs[counts < BOILERPLATE_ITEMS]


def telling_runs(text: str) -> np.ndarray:
    """Fingerprints of the runs of a text that hold enough words with letters."""
    runs = hash_runs(hash_words([text]), RUN_WORDS).hashes
    has_letters = [not word.isdigit() for word in WORD.findall(text)]
    sums = np.cumsum([0, *has_letters])
    lettered = sums[RUN_WORDS:] - sums[: max(0, len(sums) - RUN_WORDS)]
    return shorten(runs)[lettered >= LETTERED_WORDS]


def prompt_fingerprint(*texts: str) -> np.ndarray:
    """One fingerprint of a whole prompt, whatever its white space, punctuation and
    letters' case, uint64 [1]. It finds prompts that are too short for a run."""
    words = " ".join(WORD.findall(" ".join(texts).lower()))
    digest = hashlib.blake2b(words.encode(), digest_size=8).digest()
    return shorten(np.frombuffer(digest, "<u8").astype(np.uint64))


def everyday_fingerprints(rows: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """Fingerprints of the everyday prompts, sorted, uint64: runs of the programs that
    they lead to, and each prompt as a whole.

    Args:
      rows: as `seedjax.tasks.suites.everyday` stores them.
    """
    parts = [np.zeros(0, np.uint64)]
    for row in rows:
        prompt = [row.get(k, "") for k in ("prompt", "suffix", "before", "instruction")]
        whole = f"{prompt[0]}{row['answer']}{prompt[1]}"
        parts += [telling_runs(text) for text in (whole, *prompt[2:])]
        parts.append(prompt_fingerprint(*prompt))
    return np.unique(np.concatenate(parts))


def item_texts(item: Mapping[str, Any]) -> list[str]:
    """The texts of an evaluation item: its fields, and prompt and solution joined."""
    texts = []
    for field in TEXT_FIELDS:
        value = item.get(field)
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, Mapping):
            texts += [text for text in value.values() if isinstance(text, str)]
    if isinstance(item.get("canonical_solution"), str):
        texts.append(f"{item.get('prompt') or ''}{item['canonical_solution']}")
    return texts


def may_be_trained_on(item: Mapping[str, Any]) -> bool:
    """Whether an evaluation record belongs to the training part of MBPP."""
    number = re.fullmatch(r"(?:mbpp/)?(\d+)", str(item.get("task_id", "")).lower())
    return (
        number is not None
        and int(number[1]) in MBPP_TRAIN_IDS
        and ("test_list" in item or "mbpp/" in number[0])
    )


def evaluation_set(record: Mapping[str, Any]) -> str | None:
    """The evaluation set that a record belongs to, found by its fields, or None."""
    fields = set(record)
    task = str(record.get("task_id", ""))
    name = EVALUATION_TASK.search(task)
    if may_be_trained_on(record):
        return None
    if name:
        return name[1]
    if {"task_id", "test_list", "code"} <= fields:
        return "MBPP"
    if {"instruction_descriptive", "before", "after"} <= fields:
        return "CanItEdit"
    if {"buggy_program", "solution"} <= fields:
        return "QuixBugs"
    if {"slug", "example_files"} <= fields:
        return "Exercism"
    if {"code", "input", "output", "id"} == fields:
        return "CRUXEval"
    if {"canonical_solution", "entry_point"} <= fields:
        return "HumanEval"
    return None


@cache
def shipped_contamination() -> Contamination:
    """The fingerprints that travel with the package: of the public evaluation sets and
    of the everyday prompts.

    Raises:
      InputError: if an installed file is damaged.
    """
    return Contamination(_installed(SHIPPED)) | everyday_contamination()


@cache
def everyday_contamination() -> Contamination:
    """The fingerprints of the everyday prompts.

    Raises:
      InputError: if the installed file is damaged.
    """
    return Contamination(_installed(EVERYDAY))


def _installed(name: str) -> np.ndarray:
    try:
        return unpack((resources.files("seedjax.data") / name).read_bytes())
    except (OSError, lzma.LZMAError, ValueError) as error:
        raise InputError(
            f"{name} of the installed package is damaged ({error}); install seedjax "
            "again"
        ) from None


def directory_contamination(directories: Iterable[str | Path]) -> Contamination:
    """The fingerprints of evaluation files in folders, searched in depth.

    Raises:
      InputError: if a folder is missing, or a file in it cannot be read.
    """
    parts = [np.zeros(0, np.uint64)]
    for directory in map(Path, directories):
        paths = [directory] if directory.is_file() else sorted(directory.rglob("*"))
        sets = [p for p in paths if is_records_file(p)]
        if not sets:
            raise InputError(
                f"no evaluation set at {directory}: expected .jsonl or .jsonl.gz files"
            )
        parts += [item_fingerprints(read_items(path)) for path in sets]
    return Contamination(np.concatenate(parts))


def is_records_file(path: Path) -> bool:
    """Whether a path is a file of JSON records."""
    return path.is_file() and path.name.endswith(
        (".jsonl", ".jsonl.gz", ".json.gz", ".json")
    )


def read_items(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSON-lines file, or of a JSON file that holds a list of them."""
    if path.name.removesuffix(".gz").endswith(".json"):
        records = read_json(path)
        if not isinstance(records, list):
            raise InputError(f"evaluation set {path} holds no list of records")
        yield from (record for record in records if isinstance(record, dict))
    else:
        for line in read_json_lines(path, surrogates=True):
            yield line.values


def pack(fingerprints: np.ndarray) -> bytes:
    """Sorted fingerprints as compressed differences: bytes of equal rank together."""
    steps = np.diff(np.unique(fingerprints), prepend=np.uint64(0))
    planes = steps.astype("<u8").view(np.uint8).reshape(-1, 8).T
    return lzma.compress(planes.tobytes(), preset=9)


def unpack(data: bytes) -> np.ndarray:
    """The arrays that `pack` was given."""
    planes = np.frombuffer(lzma.decompress(data), np.uint8).reshape(8, -1)
    steps = np.ascontiguousarray(planes.T).view("<u8")[:, 0]
    return np.cumsum(steps, dtype=np.uint64)
