"""Every command that writes to `--out`, before a folder or a file that is not its."""

from pathlib import Path
from typing import Any

import pytest
import typer.main

import seedjax.cli

CONFIG = Path(seedjax.cli.__file__).parents[2] / "configs" / "mini.py"
GIVEN_FEEDBACK = ("--feedback", "feedback.jsonl")
FOLDERS: dict[str, tuple[Any, ...]] = {
    "compile": (),
    "train": ("--config", CONFIG, "--set", 'data={"kind":"LabConfig"}'),
    "convert": ("checkpoint",),
    "export": (),
    "bench": (),
    "plan": ("sample-8b-h100",),
    "posttrain trajectories": (),
    "posttrain constrained-order": ("--trajectories", "decodes"),
    "posttrain sharpen": ("--trajectories", "decodes"),
    "posttrain distill": (),
    "posttrain prune": (),
    "posttrain average": ("mini", "mini"),
    "posttrain widen": (),
    "posttrain match-teacher": ("--teacher", "mini"),
    "posttrain on-policy": (),
    "posttrain completions": ("--prompts", "prompts.jsonl"),
    "posttrain draft": ("--completions", "own"),
    "posttrain critic": (),
    "posttrain preference": GIVEN_FEEDBACK,
    "data build": ("--source", "code"),
    "eval compare": ("--against", "mini", "--limit", 1),
    "lab reproduce": (),
    "eval run": ("--suite", "lab", "--limit", 1),
    "eval sweep": ("--suite", "lab", "--limit", 1),
    "eval score": ("--suite", "lab", "--samples", "samples.jsonl"),
    "eval report": ("runs",),
}
FILES = {
    "lab make": ("--n", 1),
    "feedback export": ("choices.db",),
    "train": ("--plot", "runs"),
}


def commands(group: Any, path: str = ""):
    for name, command in group.commands.items():
        full = f"{path} {name}".strip()
        if hasattr(command, "commands"):
            yield from commands(command, full)
        else:
            yield full, {p.name: p.opts[0] for p in command.params}


WRITERS = {
    name: options
    for name, options in commands(typer.main.get_command(seedjax.cli.app))
    if "out" in options
}


def test_all_writers_are_tried_here_and_can_be_forced():
    assert WRITERS.keys() == {*FOLDERS, *FILES}
    assert all("force" in options for options in WRITERS.values())


@pytest.mark.parametrize("name", FOLDERS)
def test_a_users_folder_survives_byte_for_byte(name, run, tmp_path, monkeypatch):
    project = tmp_path / "project"
    (project / "tokenizer").mkdir(parents=True)
    (project / "params").mkdir()
    for file in (
        *("README.md", "config.json", "tokenizer/vocab.txt", "run.json"),
        *("metrics.jsonl", "report.md", "params/model-00000.safetensors"),
    ):
        (project / file).write_text(f'{{"of": "{file}"}}\n')
    monkeypatch.chdir(tmp_path)
    before = {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")}
    out = (project,) if WRITERS[name]["out"] == "out" else ("--out", project)
    code, printed, said = run(*name.split(), *FOLDERS[name], *out)
    assert (code, printed) == (2, "") and said.count("\n") == 1, said
    assert (
        f"{project} is there already and holds README.md" in said and "--force" in said
    )
    assert {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", FILES)
def test_a_users_file_survives(name, run, tmp_path):
    out = tmp_path / "mine.png"
    out.write_bytes(b'{"task_id": "mine"}\n')
    code, printed, said = run(*name.split(), *FILES[name], "--out", out)
    assert (code, printed) == (2, "") and f"{out} is there already" in said
    assert out.read_bytes() == b'{"task_id": "mine"}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["mine.png"]


def test_scores_never_replace_the_tasks(run, tmp_path):
    tasks = tmp_path / "tasks.jsonl"
    for _ in range(2):  # a file of tasks takes the place of another
        assert run("lab", "make", "--n", 1, "--out", tasks)[0] == 0
    before = tasks.read_bytes()
    link = tmp_path / "link.jsonl"
    link.symlink_to(tasks)
    for out in (tasks, tmp_path, link):
        for force in ((), ("--force",)):
            code, _, said = run("eval", "run", "--suite", tasks, "--out", out, *force)
            assert code == 2 and said.count("\n") == 1, said
    assert tasks.read_bytes() == before


def test_a_model_is_not_written_over_what_it_is_made_of(run, model_directory, tmp_path):
    before = {p: p.read_bytes() for p in model_directory.rglob("*") if p.is_file()}
    link = tmp_path / "link"
    link.symlink_to(model_directory)
    for out in (
        model_directory,
        f"{model_directory}/../{model_directory.name}/",
        model_directory / "within",
        model_directory.parent,
        link,
    ):
        for command in (
            ("posttrain", "widen", "--model", model_directory, "--out", out),
            ("convert", model_directory, "--out", out, "--force"),
            ("export", "--model", model_directory, out, "--force"),
            ("posttrain", "average", "mini", model_directory, "--out", out, "--force"),
        ):
            code, _, said = run(*command)
            assert code == 2 and "read" in said, said
    after = {p: p.read_bytes() for p in model_directory.rglob("*") if p.is_file()}
    assert after == before


def test_force_moves_the_folder_aside(run, model_directory, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "README.md").write_text("mine")
    command = ("posttrain", "widen", "--model", model_directory, "--out", project)
    code, _, said = run(*command, "--force")
    assert code == 0 and f"moved {project} to {project}.old" in said
    assert (tmp_path / "project.old" / "README.md").read_text() == "mine"
    assert (project / "params").is_dir()
    assert run(*command)[0] == 0  # its own
    assert run(*command[:-1], tmp_path / "project.old")[0] == 2
