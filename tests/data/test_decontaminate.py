"""Decontamination: planted evaluation items are found, idioms are not."""

import gzip
import json
import pickle

import numpy as np
import pytest

from seedjax.data.decontaminate import (
    BOILERPLATE_ITEMS,
    KEPT_BITS,
    Contamination,
    directory_contamination,
    evaluation_set,
    item_fingerprints,
    may_be_trained_on,
    pack,
    unpack,
)
from seedjax.data.fingerprints import hash_words
from seedjax.errors import InputError

# HumanEval/1, solution (MIT licence).
PLANTED = """def separate_paren_groups(paren_string):
    result = []
    current_string = []
    current_depth = 0

    for c in paren_string:
        if c == '(':
            current_depth += 1
            current_string.append(c)
        elif c == ')':
            current_depth -= 1
            current_string.append(c)

            if current_depth == 0:
                result.append(''.join(current_string))
                current_string.clear()

    return result
"""
INNOCENT = '''def release(self, handle, *, force=False):
    """Returns a handle to the pool it came from."""
    if handle.pool is not self and not force:
        raise RuntimeError(f"{handle!r} is of another pool")
    self._idle.append(handle)
    self._condition.notify()
'''


def test_the_shipped_fingerprints_find_a_planted_solution(contamination):
    reformatted = PLANTED.replace("    ", "\t").replace("(", " ( ").upper()
    inside = f"class Pool:\n{INNOCENT}\n\n{PLANTED}"
    texts = [INNOCENT, PLANTED, reformatted, "", inside, INNOCENT]
    hits = contamination.hits(hash_words(texts)).tolist()
    assert hits == [False, True, True, False, True, False]


def test_the_shipped_fingerprints_leave_most_code_alone(corpus):
    from seedjax.data.records import Corpus

    manifest = Corpus(corpus).manifest
    dropped = dict(manifest.rejected).get("evaluation_item", 0)
    assert dropped < 0.01 * manifest.train.documents


ITEM = {
    "task_id": "HumanEval/999",
    "prompt": "def weave(left, right, gap, limit):\n",
    "canonical_solution": "    return [left, gap, right] * limit or gap + left + 1\n",
    "test": "assert one two three four five six seven eight nine ten eleven == 0",
    "entry_point": "weave",
}


def test_items_are_found_across_prompt_and_solution_but_not_by_tests(tmp_path):
    with gzip.open(tmp_path / "set.jsonl.gz", "wt") as stream:
        stream.write(json.dumps(ITEM) + "\n\n")
    found = directory_contamination([tmp_path])
    whole = ITEM["prompt"] + ITEM["canonical_solution"]
    texts = [whole, ITEM["test"], "def weave(left, right, gap, limit): pass"]
    assert found.hits(hash_words(texts)).tolist() == [True, False, False]


def test_runs_of_numbers_and_idioms_do_not_count():
    table = {"task_id": "HumanEval/1", "prompt": " ".join(map(str, range(40)))}
    assert len(item_fingerprints([table])) == 0
    idiom = "import os sys json math time random string itertools functools typing"
    items = [{"prompt": f"{idiom} x{i}"} for i in range(BOILERPLATE_ITEMS)]
    fingerprints = item_fingerprints(items)
    hits = Contamination(fingerprints).hits(hash_words([idiom, items[3]["prompt"]]))
    # The idiom itself is common to all items; with the last word it is one item's own.
    assert hits.tolist() == [False, True]


def test_maps_of_files_are_read():
    item = {"slug": "x", "example_files": {"a.py": "a b c d e f g h i j k"}}
    assert len(item_fingerprints([item])) == 2


def test_contamination_can_be_joined_and_pickled():
    a = Contamination(item_fingerprints([ITEM]))
    b = Contamination(np.zeros(0, np.uint64))
    joined = pickle.loads(pickle.dumps(b | a))
    np.testing.assert_array_equal(joined.fingerprints, a.fingerprints)
    assert not b.hits(hash_words([PLANTED])).any()
    assert not b.hits(hash_words([])).any()


def test_packing_is_lossless():
    generator = np.random.default_rng(0)
    values = generator.integers(0, 1 << KEPT_BITS, 1000, np.uint64)
    np.testing.assert_array_equal(unpack(pack(values)), np.unique(values))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"task_id": "HumanEval/3", "prompt": ""}, "HumanEval"),
        ({"task_id": "RandomSpanInfilling/HumanEval/0/1"}, "HumanEval"),
        ({"task_id": "BigCodeBench/7"}, "BigCodeBench"),
        ({"task_id": "MBPP/11"}, "MBPP"),
        ({"task_id": 11, "text": "", "code": "", "test_list": []}, "MBPP"),
        ({"task_id": 601, "text": "", "code": "", "test_list": []}, None),
        ({"task_id": 975, "text": "", "code": "", "test_list": []}, "MBPP"),
        ({"before": "", "after": "", "instruction_descriptive": ""}, "CanItEdit"),
        ({"buggy_program": "", "solution": "", "tests": ""}, "QuixBugs"),
        ({"slug": "", "example_files": {}}, "Exercism"),
        ({"code": "", "input": "", "output": "", "id": ""}, "CRUXEval"),
        ({"canonical_solution": "", "entry_point": ""}, "HumanEval"),
        ({"text": "x = 1", "path": "a.py"}, None),
        ({"task_id": "mine/1", "text": ""}, None),
    ],
)
def test_evaluation_records_are_recognized(record, expected):
    assert evaluation_set(record) == expected


def test_only_the_training_part_of_mbpp_may_be_trained_on():
    train = {"task_id": 700, "test_list": [], "text": "a b c d e f g h i j"}
    assert may_be_trained_on(train) and not may_be_trained_on(train | {"task_id": 70})
    assert may_be_trained_on({"task_id": "Mbpp/974"})
    assert not may_be_trained_on({"task_id": "HumanEval/700"})
    assert len(item_fingerprints([train])) == 0
    assert len(item_fingerprints([train | {"task_id": 70}])) == 1


def test_broken_evaluation_files_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="no evaluation set"):
        directory_contamination([tmp_path])
    (tmp_path / "set.jsonl").write_text("{broken\n")
    with pytest.raises(InputError, match=r"set\.jsonl"):
        directory_contamination([tmp_path])
