"""What a TPU compiler made of the sampler at the 8B shape, stored beside this file.

After a change that is meant to move these figures, or a newer compiler, store them anew
and say in the change what moved:

    python scripts/plan_sampler.py --programs block sampler \\
        --json tests/plan/stored.json --page docs/plan.md
"""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seedjax.config import from_dict
from seedjax.plan.figures import Figures, table

ROOT = Path(__file__).parent.parent.parent
STORED = [
    from_dict(Figures, each)
    for each in json.loads((Path(__file__).parent / "stored.json").read_text())
]
MEMORY = {"v5e:2x4": 16 * 2**30, "v6e:2x2": 32 * 2**30}  # of a chip


def name_of(figures: Figures) -> str:
    case = figures.case
    return f"{case.program}-{case.topology}-{case.weights}-{case.prefix}"


def test_every_case_is_stored():
    assert len({name_of(figures) for figures in STORED}) == len(STORED) == 2 * 2 * 2 * 2


@pytest.mark.parametrize("figures", STORED, ids=name_of)
def test_targets_are_met(figures):
    """A pass moves at most a quarter more than it has to, copies no weight and never
    leaves the device; the program fits into the memory of a chip."""
    for part in figures.passes:
        assert part.over_least <= 1.25
        assert part.copied == ()
        assert part.read_again == ()
        assert part.host_transfers == ()
    assert figures.hbm_bytes < MEMORY[figures.case.topology]


def test_the_page_shows_what_is_stored():
    assert table(STORED) in (ROOT / "docs" / "plan.md").read_text()


def measure(target: Path, *options: str) -> Figures:
    """One case, by the script, in a process of its own."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed; pip install 'seedjax[plan]'")
    run = subprocess.run(
        [sys.executable, "scripts/plan_sampler.py", "--json", str(target), *options],
        cwd=ROOT,
        # The flags with which tests compile would reach this compiler as well.
        env={name: v for name, v in os.environ.items() if name != "XLA_FLAGS"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    (figures,) = json.loads(target.read_text())
    return from_dict(Figures, figures)


@pytest.mark.slow
@pytest.mark.parametrize("stored", STORED, ids=name_of)
def test_the_compiler_still_says_the_same(stored, tmp_path):
    case = stored.case
    now = measure(
        tmp_path / "figures.json",
        *("--programs", case.program, "--topologies", case.topology),
        *("--weights", case.weights, "--prefixes", str(case.prefix)),
    )
    assert differences(stored, now) == [], f"{stored.compiler} -> {now.compiler}"


@pytest.mark.slow
def test_a_layer_costs_the_same_scanned_and_written_out(tmp_path):
    """A check of the count: two layers more of an unrolled program, in which no loop
    has to be counted, cost what two turns of the scan do."""

    def moved(layers: int, layer_loop: str) -> int:
        figures = measure(
            tmp_path / f"{layers}.json",
            *("--layers", str(layers), "--layer-loop", layer_loop),
            *("--topologies", "v5e:2x4", "--weights", "bfloat16"),
            *("--prefixes", "2048"),
        )
        return figures.passes[0].hbm_bytes

    unrolled = (moved(4, "unroll") - moved(2, "unroll")) / 2
    scanned = (moved(32, "scan") - moved(24, "scan")) / 8
    assert unrolled == pytest.approx(scanned, rel=0.01)


def differences(old: Figures, new: Figures) -> list[str]:
    """What is off by more than a few per cent, or by a megabyte where that is more."""
    found = []

    def compare(name: str, before: float, after: float) -> None:
        if abs(after - before) > max(0.03 * before, 2**20):
            found.append(f"{name}: {before} -> {after}")

    for name in ("argument_bytes", "temporary_bytes", "output_bytes", "least_bytes"):
        compare(name, getattr(old, name), getattr(new, name))
    assert [p.name for p in new.passes] == [p.name for p in old.passes]
    for before, after in zip(old.passes, new.passes, strict=True):
        compare(f"{old.case} {before.name}", before.hbm_bytes, after.hbm_bytes)
        kinds = {c.operation: c for c in after.collectives}
        if set(kinds) != {c.operation for c in before.collectives}:
            found.append(f"{before.name}: {before.collectives} -> {after.collectives}")
            continue
        for each in before.collectives:
            now = kinds[each.operation]
            compare(f"{before.name} {each.operation}", each.num_bytes, now.num_bytes)
            if each.count != now.count:
                found.append(f"{each.operation}: {each.count} -> {now.count}")
        for name in ("copied", "read_again", "host_transfers"):
            if getattr(before, name) != getattr(after, name):
                found.append(f"{before.name} {name}: {getattr(after, name)}")
    return found


def test_differences_are_seen():
    old = STORED[0]
    assert differences(old, old) == []
    first = old.passes[0]
    raised = {"hbm_bytes": int(first.hbm_bytes * 1.05)}
    for change in (raised, {"copied": ("copy of x",)}, {"collectives": ()}):
        new = dataclasses.replace(
            old, passes=(dataclasses.replace(first, **change), *old.passes[1:])
        )
        assert len(differences(old, new)) == 1
    more = dataclasses.replace(old, temporary_bytes=old.temporary_bytes + 2**25)
    assert len(differences(old, more)) == 1
