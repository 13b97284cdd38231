"""`seedjax bench` as a user meets it."""

import builtins
import json

import pytest

SMALL = (
    *("--preset", "tiny", "--prefix", "16", "--new", "16", "--rounds", "1"),
    *("--measure", "decode", "--steps", "1"),
)


@pytest.fixture
def bench(run):
    return lambda *arguments: run("bench", *arguments)


@pytest.fixture
def quick(monkeypatch):
    """The machine is measured on arrays that are too small to say anything."""
    from seedjax.bench import roofline

    monkeypatch.setattr(roofline, "COPY_BYTES", (1 << 16,))
    monkeypatch.setattr(roofline, "PRODUCT_SIZES", (64,))


@pytest.mark.slow
def test_json_is_one_object_and_files_are_written(bench, quick, tmp_path):
    code, out, _ = bench(*SMALL, "--json", "--out", tmp_path)
    assert code == 0
    found = json.loads(out)
    (line,) = found["lines"]
    assert (line["measure"], line["new_tokens"], line["batch"]) == ("decode", 16, 1)
    assert line["tokens_per_second"] == pytest.approx(16 / line["median_seconds"])
    assert found["machine"]["command"].startswith("seedjax bench --preset tiny")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("bench.json", "bench.md", "bench.png")
    }


@pytest.mark.slow
def test_a_policy_may_be_given_as_json(bench, quick):
    policy = '{"kind": "ConfidenceThreshold", "threshold": 0.0}'
    arguments = [part for part in SMALL if part not in ("--steps", "1")]
    code, out, _ = bench(
        *arguments[: arguments.index("--rounds")],
        *("--rounds", 1, "--measure", "decode", "--policy", policy, "--json"),
    )
    assert code == 0
    (line,) = json.loads(out)["lines"]
    assert line["policy"]["threshold"] == 0.0
    assert line["forwards"] == 1  # all tokens are sure enough, and there is no prefill


@pytest.mark.slow
def test_the_table_is_printed(bench, quick):
    code, out, _ = bench(*SMALL)
    assert code == 0
    assert "seedjax decode" in out and "memory: " in out and "bound" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--preset", "huge"), "no preset 'huge'"),
        (("--preset", "tiny", "--model", "mini"), "--preset"),
        (("--model", "nowhere"), "nowhere"),
        (("--preset", "tiny", "--rounds", "0"), "for '--rounds'"),
        (("--preset", "tiny", "--batch", "one"), "--batch is 'one'"),
        (("--preset", "tiny", "--new", ""), "--new"),
        (("--preset", "tiny", "--prefix", "0"), "prefixes"),
        (("--preset", "tiny", "--dtype", "float64"), "float64"),
        (("--preset", "tiny", "--quantize", "int2"), "int2"),
        (("--preset", "tiny", "--measure", "speed"), "speed"),
        (("--preset", "tiny", "--against", "jax"), "torch"),
        (("--preset", "tiny", "--steps", "0"), "steps_per_block is 0"),
        (("--preset", "tiny", "--steps", "2", "--policy", "{}"), "--policy"),
        (("--preset", "tiny", "--policy", "{"), "JSON"),
        (("--preset", "tiny", "--policy", '{"kind": "Best"}'), "Best"),
        (("--model", "mini", "--block", "3", "--measure", "decode"), "block size 3"),
        (("--model", "mini", "--prefix", "999999"), "the model holds"),
    ],
)
def test_faults_are_one_line(bench, arguments, said):
    code, out, err = bench(*arguments)
    assert code == 2
    assert out == ""
    (line,) = [text for text in err.splitlines() if text.startswith("seedjax: ")]
    assert said in line
    assert "Traceback" not in err


def test_torch_needs_a_checkout(bench, monkeypatch, tmp_path):
    monkeypatch.setattr("seedjax.bench.comparison.BENCHMARKS", tmp_path)
    code, _, err = bench(*SMALL, "--against", "torch")
    assert code == 2 and "checkout" in err


def test_torch_that_is_missing_is_named(bench, monkeypatch):
    imported = builtins.__import__

    def without_torch(name, *arguments, **keywords):
        if name == "torch":
            raise ImportError(name)
        return imported(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    code, _, err = bench(*SMALL, "--against", "torch")
    assert code == 2
    assert "pip install 'seedjax[torch]'" in err
