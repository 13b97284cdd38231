"""`seedjax data`: one JSON object each, faults as `InputError`, help with examples."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from seedjax.cli.data import app
from seedjax.errors import InputError

CODE = '''def join(names, separator):
    """Joins names that are not empty."""
    kept = [name for name in names if name]
    return separator.join(kept)
'''

OTHER = """def clamp(number, low, high):
    if number < low:
        return low
    return min(number, high)
"""


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def code(tmp_path):
    """A JSON-lines file of three functions."""
    path = tmp_path / "code.jsonl"
    texts = [CODE, CODE.replace("join", "paste"), OTHER]
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return path


@pytest.mark.parametrize("command", ["build", "show", "verify", "sample"])
def test_help_has_an_example(command):
    assert f"Example: seedjax data {command}" in run(command, "--help")


def test_build_show_verify_and_sample(code, tmp_path):
    out = tmp_path / "corpus"
    arguments = ["build", "--source", code, "--out", out, "--vocab-size", 330, "--json"]
    built = json.loads(run(*arguments))
    assert built.pop("seconds") > 0
    assert built == json.loads(run("show", out, "--json"))
    assert built["splits"]["train"]["documents"] == 2
    assert built["splits"]["heldout"]["documents"] == 1
    assert built["rejected"] == {}
    assert built["sources"][0]["licence"] == "user-supplied"
    verified = json.loads(run("verify", out, "--json"))
    assert verified["intact"] and verified["files"] == 4
    shown = run("show", out)
    assert "code.jsonl" in shown and "user-supplied" in shown
    assert "all intact" in run("verify", out)
    text = run("sample", out, "--count", 2, "--fim-rate", 1)
    assert "<bos><fim_suffix>" in text and text.count("--- ") == 2
    sampled = json.loads(run("sample", out, "--split", "heldout", "--json"))
    assert sampled["documents"][0]["text"].startswith("<bos>def ")


def test_a_tokenizer_and_units_can_be_given(code, corpus, tmp_path):
    out = tmp_path / "corpus"
    run(
        *("build", "--source", code, "--out", out, "--unit", "file", "--json"),
        *("--tokenizer", corpus / "tokenizer", "--heldout-fraction", 0),
    )
    shown = json.loads(run("show", out, "--json"))
    assert shown["tokenizer"] == json.loads(run("show", corpus, "--json"))["tokenizer"]
    assert shown["splits"]["train"]["documents"] == 3


def test_more_evaluation_sets_can_be_kept_out(code, tmp_path):
    (tmp_path / "evals").mkdir()
    item = {"task_id": "mine/1", "code": CODE}
    (tmp_path / "evals" / "mine.jsonl").write_text(json.dumps(item))
    built = json.loads(
        run(
            *("build", "--source", code, "--out", tmp_path / "corpus", "--json"),
            *("--vocab-size", 300, "--decontaminate", tmp_path / "evals"),
        )
    )
    assert built["rejected"] == {"evaluation_item": 2}


def test_sources_are_wanted(tmp_path):
    with pytest.raises(InputError, match="--manifest xs"):
        run("build", "--out", tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "--source", "missing", "--out", "out"],
        ["build", "--manifest", "xxl", "--out", "out"],
        ["build", "--source", ".", "--unit", "word", "--out", "out"],
        ["build", "--source", ".", "--tokenizer", "missing", "--out", "out"],
        ["build", "--source", ".", "--decontaminate", "missing", "--out", "out"],
        ["show", "missing"],
        ["verify", "missing"],
        ["sample", "missing"],
        ["sample", "missing", "--split", "test"],
    ],
)
def test_faults_of_the_user_are_input_errors(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        run(*arguments)
    assert not (tmp_path / "out").exists()


def test_data_rooms_start_without_jax():
    """Only the pipeline loads Grain, which loads JAX; the rest of a build does not."""
    modules = "build, packages, records, unigram"
    check = (
        f"from seedjax.data import {modules}; import sys; print('jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
