"""A whole run at small shapes, and its report."""

import dataclasses
import json
import math

import pytest

from seedjax.bench.figure import write_report
from seedjax.bench.report import share_of_same, terminal_report
from seedjax.bench.run import bench
from seedjax.bench.source import Source
from seedjax.bench.sweep import Sweep
from seedjax.cli import streams
from seedjax.errors import InputError
from seedjax.sampling.policy import FixedCount

MEASURES = ("prefill", "block", "decode", "no_cache", "python_loop", "ar")


@pytest.fixture(scope="module")
def report():
    source = small_source()
    sweep = Sweep(
        measures=MEASURES,
        batches=(2,),
        blocks=(4,),
        prefixes=(16,),
        news=(8,),
        policies=(FixedCount(steps_per_block=2),),
        rounds=2,
    )
    return bench(
        source,
        sweep,
        turn_seconds=0.0,
        copy_bytes=(1 << 16,),
        product_sizes=(64,),
    )


def small_source(**fields) -> Source:
    source = Source.from_preset("tiny")
    source.config = dataclasses.replace(
        source.config,
        vocab_size=64,
        hidden_size=32,
        num_layers=2,
        head_dim=8,
        mlp_size=48,
        init_scale=0.3,
        **fields,
    )
    return source


@pytest.mark.slow
def test_every_measure_is_there_and_adds_up(report):
    rows = {row.line.measure: row for row in report.rows}
    assert list(rows) == list(MEASURES)
    for row in report.rows:
        assert len(row.timing.seconds) == 2
        assert 0 < row.timing.best <= row.timing.median
        assert row.ratio > 0
        if not row.line.writes:
            assert row.new_tokens is row.tokens_per_second is row.same_tokens is None
            assert row.fraction == pytest.approx(row.roof.seconds / row.timing.median)
            assert row.roof.seconds >= row.roof.least_seconds > 0
            continue
        assert row.new_tokens == 2 * 8  # neither prompt nor padding
        assert row.tokens_per_second == pytest.approx(16 / row.timing.median)
        assert row.work is row.roof is row.fraction is None
    for name in ("prefill", "block", "decode"):  # the first of each kind
        assert rows[name].ratio == 1.0
    # Prefill, and two steps for each of two blocks; without a cache no prefill; and
    # with a commit between the blocks.
    forwards = {name: rows[name].timing.produced.forwards for name in MEASURES[2:]}
    assert forwards == {"decode": 5, "no_cache": 4, "python_loop": 6, "ar": 9}
    assert rows["decode"].tokens_per_forward == 16 / 5
    # All ways of block decoding give the same tokens.
    for name in ("decode", "no_cache", "python_loop", "ar"):
        assert rows[name].same_tokens == 1.0
    assert rows["decode"].compile_seconds > 0
    assert rows["python_loop"].compile_seconds is None


@pytest.mark.slow
def test_the_report_is_written(report, tmp_path):
    write_report(report, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    content = json.loads((folder / "bench.json").read_text())
    assert [line["measure"] for line in content["lines"]] == list(MEASURES)
    assert content == json.loads(json.dumps(report.to_dict()))
    assert all(
        math.isfinite(line["median_seconds"]) and line["median_seconds"] > 0
        for line in content["lines"]
    )
    assert content["machine"]["cores"] >= 1
    assert content["probes"].keys() == {"read and write 0 MiB", "float32 product 64"}
    text = (folder / "bench.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(MEASURES)
    assert len({line.count("|") for line in table}) == 1
    picture = (folder / "bench.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5000


@pytest.mark.slow
def test_the_report_is_printed(report, capsys):
    streams.print_table(*terminal_report(report), width=150)
    out = capsys.readouterr().out
    assert "load:" in out and "command:" in out and "GFLOP/s" in out
    assert "python_loop" in out


def test_share_of_same_tokens():
    assert share_of_same([[1, 2, 3]], [[1, 4, 3]]) == pytest.approx(2 / 3)
    assert share_of_same([[1, 2], [3]], [[1, 2], [3, 4]]) == pytest.approx(3 / 4)
    assert share_of_same([[]], [[]]) == 0.0


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        (Sweep(measures=("decode",), blocks=(3,)), "block size 3"),
        (Sweep(measures=("ar",), prefixes=(250,), news=(7,)), "the model holds 256"),
        (Sweep(measures=("block",), blocks=(4,), prefixes=(254,)), "holds 256"),
        (Sweep(measures=("python_loop",), blocks=(4,), prefixes=(6,)), "whole blocks"),
        (
            Sweep(measures=("python_loop",), blocks=(4,), policies=(None,)),
            "fixed number of steps",
        ),
    ],
)
def test_faults_are_named(tiny_config, sweep, said):
    source = Source("block-causal, blocks of 4, 256 positions", tiny_config, 0)
    with pytest.raises(InputError, match=said):
        bench(source, sweep)


def test_a_causal_model_has_no_blocks(tiny_config):
    config = dataclasses.replace(
        tiny_config, attention="causal", logit_alignment="shifted"
    )
    with pytest.raises(InputError, match="has no blocks"):
        bench(Source("causal", config, 0), Sweep(measures=("decode",), blocks=(4,)))
