"""One model against another: what is counted, and that it runs."""

import json

import lab_model
import pytest
from typer.testing import CliRunner

import seedjax.cli
from seedjax.evaluate.compare import Timed, best_of, describe
from seedjax.evaluate.score import Score
from seedjax.evaluate.statistics import wilson_interval
from seedjax.tasks.lab.stream import LabConfig


def timed(model: str, precision: str, *seconds: float, tokens=100, forwards=50):
    passed = 8 if model == "fast" else 9
    score = Score(
        suite="toy",
        problems=10,
        samples=1,
        pass_at={1: passed / 10},
        intervals={1: wilson_interval(passed, 10)},
        reasons={},
        tokens_per_forward=tokens / forwards,
        empty_rate=0.0,
        repetition_rate=0.0,
    )
    return Timed(
        model=model,
        precision=precision,
        score=score,
        tokens=tokens,
        forwards=forwards,
        seconds=seconds,
    )


def test_each_counts_with_what_it_is_fastest_in():
    entries = [
        timed("fast", "float32", 1.0, 1.0, 9.0),
        timed("fast", "bfloat16", 0.5, 0.4, 9.0),
        timed("base", "float32", 4.0, 4.0, 4.0, tokens=200, forwards=200),
        timed("base", "bfloat16", 5.0, 5.0, 5.0, tokens=200, forwards=200),
    ]
    assert best_of(entries, "fast").precision == "bfloat16"
    assert best_of(entries, "base").precision == "float32"
    heading = ("suite", "command", "processor", "cores", "python", "versions")
    text = describe(
        entries, "fast", "base", environment="", **dict.fromkeys(heading, "x")
    )
    said = text.splitlines()[-1]
    # Round by round 200/50, 250/50 and 11.1/50; 2 tokens a forward against 1, of 10 ms
    # against 20; 80 against 90 %.
    assert "fast in bfloat16 is 4.00 times as fast in tokens per second" in said
    assert "2.00 times the tokens per forward pass" in said
    assert "takes 0.50 times as long" in said and "differs by -10.0 points" in said


@pytest.mark.slow
def test_from_the_command_line(tmp_path):
    tokenizer = LabConfig().tokenizer()
    names = [lab_model.save(tmp_path / name, tokenizer) for name in ("one", "two")]
    result = CliRunner().invoke(
        seedjax.cli.app,
        [
            *("eval", "compare", "--model", names[0], "--against", names[1]),
            *("--limit", "3", "--rounds", "2", "--no-quantized", "--json"),
            *("--workers", "1", "--suite", "lab_edit"),
            *("--out", str(tmp_path / "out")),
        ],
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert len(found["timed"]) == 4 and found["speed_up"] > 0
    for entry in found["timed"]:
        assert len(entry["seconds"]) == 2 and entry["score"]["problems"] == 3
        rate = entry["tokens"] / sorted(entry["seconds"])[0]
        assert entry["tokens_per_second"] <= rate * 1.001
    # Same weights, same answers.
    assert len({entry["score"]["pass@1"] for entry in found["timed"]}) == 1
    first, other = found["timed"][0], found["timed"][2]
    assert (first["tokens"], first["forwards"]) == (other["tokens"], other["forwards"])
    page = (tmp_path / "out" / "speedup.md").read_text()
    assert "3 problems of lab_edit" in page and "one in" in page
    assert "times as fast in tokens per second as two" in page


def test_a_model_that_is_not_there(tmp_path):
    from seedjax.errors import InputError

    arguments = ["eval", "compare", "--against", str(tmp_path / "none"), "--limit", "1"]
    result = CliRunner().invoke(seedjax.cli.app, arguments)
    assert isinstance(result.exception, InputError)
    with pytest.raises(InputError, match="none"):
        raise result.exception
