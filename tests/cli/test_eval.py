"""`seedjax eval`: the whole way from problems to a page, one line for a fault."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seedjax.cli.evaluate import app
from seedjax.errors import InputError
from seedjax.plotting import check_picture
from seedjax.tasks.lab.tasks import Task
from seedjax.tasks.suite import Suite
from seedjax.tasks.suites import SUITES


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    "command", ["run", "score", "sweep", "report", "suites", "fetch", "verify"]
)
def test_help_has_an_example(command):
    assert f"Example: seedjax eval {command}" in run(command, "--help")


def test_all_suites_are_listed(tmp_path):
    found = json.loads(run("suites", "--data", tmp_path, "--json"))
    rows = {row["name"]: row for row in found["suites"]}
    assert rows["lab_edit"]["found"] and rows["lab_edit"]["how"] is None
    assert not rows["humaneval"]["found"]
    assert "github.com/openai/human-eval" in rows["humaneval"]["how"]
    assert rows["humaneval"]["problems"] == 164
    text = run("suites", "--data", tmp_path)
    assert "humaneval_infill_single_line" in text


def tiny(name: str) -> Suite:
    """Three problems that fit into a small model."""
    problems = [
        Task(
            problem_id=f"{name}/{number}",
            prompt=f"def {number}():\n",
            reference="    return 1\n",
            entry_point=number,
            test="def check(f):\n    assert f() == 1\n",
            task="generate",
            tier=1,
            slice="standard",
        )
        for number in ("one", "uno", "ichi")
    ]
    return dataclasses.replace(
        SUITES["lab_generate"],
        name=name,
        num_problems=3,
        max_new_tokens=8,
        wall_seconds=20.0,
        read=lambda folder: problems,
    )


@pytest.fixture(autouse=True)
def tiny_suites(monkeypatch):
    for name in ("tiny_one", "tiny_two"):
        monkeypatch.setitem(SUITES, name, tiny(name))


ANSWER = "    raise NotImplementedError\n"


@pytest.fixture
def answers(tmp_path):
    """Right answers to the first two problems, and a wrong one to the third."""
    given = {"one": "    return 1\n", "uno": "    return 1\n", "ichi": ANSWER}
    lines = [
        json.dumps({"task_id": f"tiny_one/{number}", "completion": answer}) + "\n"
        for number, answer in given.items()
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(lines))
    return path


SCORE = ("score", "--suite", "tiny_one", "--accept-weak-isolation", "--workers", 1)


def test_answers_of_another_system(answers, tmp_path):
    out = tmp_path / "runs"
    given = ("--samples", answers, "--out", out, "--name", "other")
    found = json.loads(run(*SCORE, *given, "--json"))
    (score,) = found["scores"]
    assert score["pass@1"] == pytest.approx(2 / 3)
    assert score["reasons"]["passed"] == 2 and score["problems"] == 3
    page = run("report", out, "--out", tmp_path / "report").strip()
    assert ANSWER.strip() in Path(page).read_text(encoding="utf-8")
    digest = hashlib.sha256(answers.read_bytes()).hexdigest()
    record = json.loads((out / "tiny_one" / "run.json").read_text())
    assert record["settings"]["answers"] == digest and record["model"] == "other"


def test_wrong_files_leave_nothing_behind(answers, tmp_path):
    out = ("--out", tmp_path / "runs")
    with pytest.raises(InputError, match="is no problem of tiny_one.*or drop --limit"):
        run(*SCORE, "--samples", answers, "--limit", 2, *out)
    with pytest.raises(InputError, match="is no problem of tiny_two"):
        run("score", "--suite", "tiny_two", "--samples", answers, *out)
    with pytest.raises(InputError, match="names 2 suites"):
        run("score", "--suite", "tiny", "--samples", answers, *out)
    assert not (tmp_path / "runs").exists()


def test_suites_are_verified():
    (row,) = json.loads(
        run("verify", "tiny_two", "--accept-weak-isolation", "--workers", 1, "--json")
    )["suites"]
    assert (row["references_passed"], row["wrong_passed"]) == (3, 0)


def test_a_reference_that_fails_is_exit_code_1(monkeypatch):
    broken = dataclasses.replace(SUITES["tiny_two"], wrong=lambda p: p.reference)
    monkeypatch.setitem(SUITES, "tiny_two", broken)
    arguments = ("verify", "tiny_two", "--accept-weak-isolation", "--workers", "1")
    result = CliRunner().invoke(app, [*arguments, "--limit", "1"])
    assert result.exit_code == 1 and "tiny_two/one: wrong" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--suite", "humanevel"), "no suite 'humanevel'.*humaneval"),
        (("run", "--suite", "tiny", "--recipe", "papre"), "did you mean 'paper'"),
        (("run", "--suite", "tiny", "--shard", "3/2"), "shard 3/2"),
        (("run", "--suite", "tiny", "--shard", "half"), "--shard is 'half'"),
        (("sweep", "--suite", "tiny", "--thresholds", "0.9,x"), "--thresholds has 'x'"),
        (("fetch", "nothing"), "no suite 'nothing'"),
        (("run", "--suite", "tiny", "--data", "/no/folder"), "no folder /no/folder"),
        (("report", "/no/folder"), "no folder '/no/folder'"),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    with pytest.raises(InputError, match=message):
        run(*arguments)


def test_data_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match="human-eval.*seedjax eval fetch humaneval"):
        run("run", "--suite", "humaneval", "--data", tmp_path)


def test_weak_isolation_has_to_be_accepted(answers, monkeypatch):
    from seedjax.sandbox.containment import launch

    def none(kind):
        return None if kind == "rlimits" else "not here"

    monkeypatch.setattr(launch, "unavailable", none)
    arguments = ("--samples", answers, "--workers", 1)
    with pytest.raises(InputError, match="--accept-weak-isolation"):
        run("score", "--suite", "tiny_one", *arguments)


def test_a_run_from_the_command_line(model_directory, tmp_path):
    """Without `run`, which is what is meant then; and again, with nothing to do."""
    arguments = (
        *("--model", model_directory, "--suite", "tiny_one", "--recipe", "fast"),
        *("--limit", 2, "--out", tmp_path / "runs", "--rows", 2, "--traces", 1),
        *("--accept-weak-isolation", "--workers", 1, "--no-compile-cache", "--json"),
    )
    (first,) = json.loads(run(*arguments))["runs"]
    assert (first["samples"], first["total"]) == (2, 2)
    assert first["score"]["problems"] == 2
    (again,) = json.loads(run("run", *arguments))["runs"]
    assert again["score"]["tokens"] == first["score"]["tokens"] > 0
    with pytest.raises(InputError, match="holds a run with problems 2"):
        run(*arguments[:6], "--limit", 1, *arguments[8:])


@pytest.mark.slow
def test_a_sweep(model_directory, tmp_path):
    arguments = (
        *("--model", model_directory, "--suite", "tiny_one", "--limit", 1),
        *("--thresholds", "single,0.5", "--out", tmp_path / "sweep", "--rows", 1),
        *("--accept-weak-isolation", "--workers", 1, "--no-compile-cache", "--json"),
    )
    (curve,) = json.loads(run("sweep", *arguments))["curves"]
    assert len(curve["points"]) == 2 and curve["aup"] >= 0.0
    folders = {path.name for path in (tmp_path / "sweep").iterdir()}
    assert folders == {"single", "threshold-0.5"}


@pytest.mark.slow
def test_a_sweep_over_policies(model_directory, tmp_path):
    """Each is a curve of its own."""
    arguments = (
        *("--model", model_directory, "--suite", "tiny_one", "--limit", 1),
        *("--policies", "single,confidence-0.5,margin-0.5,margin-0.9"),
        *("--out", tmp_path / "sweep", "--rows", 1, "--workers", 1),
        *("--accept-weak-isolation", "--no-compile-cache", "--json"),
    )
    picture = tmp_path / "pictures" / "sweep.png"
    curves = json.loads(run("sweep", *arguments, "--plot", picture))["curves"]
    # A picture of ours may be replaced, which is known before the work.
    check_picture(picture)
    picture.write_text("not a picture")
    with pytest.raises(InputError, match="and not of this command"):
        run("sweep", *arguments, "--plot", picture)
    name = Path(model_directory).name
    assert {c["model"]: len(c["points"]) for c in curves} == {
        name: 1,
        f"{name}, confidence": 1,
        f"{name}, margin": 2,
    }
