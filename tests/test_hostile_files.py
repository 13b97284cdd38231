"""No damaged file ends in a traceback or keeps a reader busy."""

import collections

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile_files import copy_of, damaged, outcome_of
from tests.whole_files import formats

NAMES = (
    *("config of sdar", "config of llada", "config of llada-moe", "config of llada2"),
    *("config of qwen3-moe", "safetensors", "tokenizer", "gguf", "model directory"),
    *("adapter", "run", "evaluation", "records", "trajectories", "lines", "schema"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return formats(tmp_path_factory.mktemp("whole"))


def examples(count):
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def damage(data, form, folder):
    """Reads a copy of whole files of which one is damaged."""
    copy = copy_of(form, folder)
    target = copy / data.draw(st.sampled_from(form.targets))
    target.write_bytes(data.draw(damaged(target.name, target.read_bytes())))
    return outcome_of(form, copy)


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_read_or_refused(made, name, tmp_path):
    @examples(4)
    @given(st.data())
    def check(data):
        outcome = damage(data, made[name], tmp_path / "copy")
        assert outcome.kind in ("read", "error"), outcome

    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_thousands_of_damaged_files(made, name, tmp_path):
    """Counts them; `-s` shows the counts."""
    counts, faults = collections.Counter(), collections.Counter()

    @examples(EXAMPLES)
    @given(st.data())
    def count(data):
        outcome = damage(data, made[name], tmp_path / "copy")
        counts[outcome.kind] += 1
        if outcome.kind not in ("read", "error"):
            faults[outcome] += 1

    count()
    print(f"\n{name}: {sum(counts.values())} inputs, {dict(counts)}")
    for fault, number in faults.most_common(20):
        print(f"  {number} x {fault.kind}: {fault.message[:400]}")
    assert not faults


EXAMPLES = 150
