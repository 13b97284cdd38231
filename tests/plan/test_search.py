"""Alternatives of a plan, on CPU devices in the place of chips."""

import dataclasses
import math

import jax
import pytest

from seedjax.errors import InputError
from seedjax.plan import programs, report, search
from seedjax.plan.case import Case, case_of_config, run_of
from seedjax.plan.figures import plan

TRAIN = Case(
    program="train",
    model="tiny",
    topology="v5e:2x4",
    mesh="fsdp=8",
    length=32,
    batch_size=8,
)
BLOCK = dataclasses.replace(TRAIN, program="block", prefix=64, batch_size=2)


@pytest.fixture(autouse=True)
def cpu_devices(monkeypatch):
    for module in (programs, search):
        monkeypatch.setattr(module, "topology_devices", lambda _: jax.devices()[:8])


def test_alternatives_divide_devices_heads_and_rows():
    found = list(search.alternatives(TRAIN))
    assert len({*found}) == len(found)
    meshes = {case.mesh for case in found}
    assert {"data=8", "fsdp=8", "data=2,fsdp=4", "fsdp=4,tensor=2"} <= meshes
    assert not any("tensor=4" in mesh for mesh in meshes)  # there are two key heads
    assert {case.remat for case in found} == {"none", "layer"}
    assert {case.batch_size for case in found} == {8, 16, 32}
    sampling = {case.mesh for case in search.alternatives(BLOCK)}
    assert sampling == set()  # two rows and two heads do not need eight devices
    rows = dataclasses.replace(BLOCK, batch_size=4)
    assert {case.mesh for case in search.alternatives(rows)} == {"data=4,tensor=2"}


@pytest.mark.slow
def test_what_does_not_fit_comes_last(monkeypatch):
    small = dataclasses.replace(search.chip_of("v5e"), memory_gib=0.02)
    monkeypatch.setattr(search, "chip_of", lambda _: small)
    monkeypatch.setattr(search, "BATCHES", (1, 64))
    two = [{"data": 8, "fsdp": 1, "tensor": 1}, {"data": 1, "fsdp": 8, "tensor": 1}]
    monkeypatch.setattr(search, "meshes", lambda *_: two)
    found = search.search(TRAIN, num_compiled=0)
    fits = [each.fits for each in found]
    assert True in fits and False in fits
    assert fits == sorted(fits, reverse=True)
    fitting = [round(each.tokens_per_second) for each in found if each.fits]
    assert fitting == sorted(fitting, reverse=True)
    page = report.search_table(found)
    assert len(page.splitlines()) == 2 + len(found)


@pytest.mark.slow
@pytest.mark.parametrize("case", [TRAIN, dataclasses.replace(BLOCK, batch_size=4)])
def test_few_layers_tell_of_many(case):
    """Bytes, memory and operations of eight layers from those of two and four."""
    mesh = "data=4,tensor=2"
    case = dataclasses.replace(case, mesh=mesh, num_layers=8, layer_loop="scan")
    estimate, whole = search.by_depths(case), plan(case)
    assert estimate.hbm_bytes == pytest.approx(whole.hbm_bytes, rel=0.05)
    for name in ("products", "memory", "links"):
        expected = getattr(whole.passes[0].seconds, name)
        assert getattr(estimate.seconds, name) == pytest.approx(expected, rel=0.1)


def test_a_case_that_cannot_be_compiled_says_why(monkeypatch):
    def fails(case):
        raise InputError("it does not fit: 20 of 16")

    monkeypatch.setattr(search, "plan", fails)
    first = search.by_depths(TRAIN)
    assert not first.fits and first.seconds.total == math.inf
    assert "it does not fit: 20 of 16" in report.search_table([first])


def test_a_whole_sampler_is_not_searched():
    with pytest.raises(InputError, match="steps of training"):
        search.search(dataclasses.replace(BLOCK, program="sampler"), num_compiled=0)


def test_a_config_file_is_a_case(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(
        "from seedjax.data.pipeline import DataConfig\n"
        "from seedjax.diffusion.objective import BlockDiffusion\n"
        "from seedjax.nn.presets import preset\n"
        "from seedjax.train.config import RunConfig\n"
        "def get_config():\n"
        "    return RunConfig(model=preset('tiny'), objective=BlockDiffusion(),\n"
        "        data=DataConfig(sequence_length=48, batch_size=4), seed=7)\n"
    )
    case = case_of_config(str(path))
    assert (case.length, case.batch_size, case.remat) == (48, 4, "none")
    changed = run_of(dataclasses.replace(case, num_layers=1, batch_size=8))
    assert (changed.seed, changed.model.num_layers) == (7, 1)
    assert (changed.data.sequence_length, changed.data.batch_size) == (48, 8)
