"""`seedjax lab make`: files of tasks, one JSON object, one line for a fault."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import seedjax.cli
from seedjax.cli.lab import app
from seedjax.errors import InputError
from seedjax.tasks.lab import make_task, read_tasks

MAIN = "from seedjax.cli import main; main()"


def run(*arguments: object, group: str = "lab") -> str:
    # An app of one command has no names of commands; the whole line has.
    result = CliRunner().invoke(seedjax.cli.app, [group, *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_help_has_an_example():
    assert "Example: seedjax lab make --task repair" in run("make", "--help")
    assert app.info.help and "make" in run("--help")


def test_tasks_are_written_and_told_of(tmp_path):
    out = tmp_path / "tasks.jsonl"
    said = run("make", "--task", "infill", "--n", 4, "--seed", 3, "--out", out)
    assert said == f"{out}: 4 tasks (2 of tier 1, 1 of tier 2, 1 of tier 3)\n"
    wanted = [make_task("infill", n, split="test", seed=3) for n in range(4)]
    assert read_tasks(out) == wanted


def test_json_is_one_object(tmp_path):
    out = tmp_path / "tasks.jsonl"
    arguments = ("--task", "repair", "--tier", 2, "--n", 3, "--split", "train")
    assert json.loads(run("make", *arguments, "--out", out, "--json")) == {
        "path": str(out),
        "count": 3,
        "tiers": {"2": 3},
        "task": "repair",
        "split": "train",
        "slice": "standard",
        "seed": 0,
    }
    assert {task.problem_id.split("/")[2] for task in read_tasks(out)} == {"train"}


def test_all_tasks_take_turns(tmp_path):
    out = tmp_path / "tasks.jsonl"
    run("make", "--task", "all", "--slice", "longer", "--n", 2, "--out", out)
    written = read_tasks(out)
    assert [t.task for t in written] == ["generate", "infill", "repair", "edit"] * 2
    assert {(t.tier, t.slice) for t in written} == {(4, "longer")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "write"), "unknown task 'write'; there are generate, infill"),
        (("--tier", "4"), "--tier is '4'; it must be 1, 2, 3 or all"),
        (("--split", "dev"), "unknown split 'dev'; there are train, test"),
        (("--slice", "x"), "unknown slice 'x'; there are standard, paraphrase"),
        (("--split", "train", "--slice", "longer"), "of the test split only"),
        (("--slice", "longer", "--tier", "1"), "has a tier of its own; drop --tier 1"),
    ],
)
def test_sets_that_there_are_not_are_refused(tmp_path, arguments, message):
    out = tmp_path / "tasks.jsonl"
    with pytest.raises(InputError, match=message):
        run("make", *arguments, "--out", out)
    assert not out.exists()


def test_faults_are_one_line_and_exit_code_two(tmp_path):
    out = tmp_path / "nowhere" / "tasks.jsonl"
    made = subprocess.run(
        [sys.executable, "-c", MAIN, "lab", "make", "--n", "1", "--out", str(out)],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 2 and made.stdout == ""
    assert made.stderr.count("\n") == 1 and "is no folder; make it first" in made.stderr


@pytest.mark.slow
def test_a_file_of_tasks_is_a_suite(tmp_path):
    """A reference that fails its own test is found by `eval verify`."""
    out, folder = tmp_path / "tasks.jsonl", tmp_path / "run"
    run("make", "--task", "generate", "--tier", 1, "--n", 3, "--out", out)
    given = ("run", "--suite", out, "--recipe", "threshold-0.9", "--out", folder)
    more = ("--workers", 1, "--traces", 0, "--json")
    (done,) = json.loads(run(*given, *more, group="eval"))["runs"]
    score = done["score"]
    assert score["suite"] == "tasks_generate" and score["problems"] == 3
    low, high = score["pass@1 interval"]
    assert 0 <= low <= score["pass@1"] <= high <= 1
    record = json.loads((folder / "tasks_generate" / "run.json").read_text())
    assert record["settings"]["recipe"] == "threshold-0.9"
    line = json.loads(out.read_text().splitlines()[0])
    line["canonical_solution"] = "    return None\n"
    out.write_text(json.dumps(line) + "\n")
    arguments = ["eval", "verify", str(out), "--workers", "1"]
    result = CliRunner().invoke(seedjax.cli.app, arguments)
    assert result.exit_code == 1 and "0 of 1" in result.stdout
    out.write_text((json.dumps(line) + "\n") * 2)
    with pytest.raises(InputError, match="has task_id .* twice"):
        run(*given, group="eval")


def test_unknown_budget_and_arm(tmp_path):
    with pytest.raises(InputError, match="unknown budget 'tiny'"):
        run("reproduce", "--budget", "tiny", "--out", tmp_path)
    with pytest.raises(InputError, match="unknown arm 'mask_7'"):
        run("reproduce", "--arms", "mask_7", "--out", tmp_path)
