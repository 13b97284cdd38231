"""The example in the help of every command: it is run where that takes seconds and no
network, with small inputs under the names that it uses."""

import inspect
import shlex
import shutil
import subprocess

import pytest
import typer

import seedjax.cli

TRAINS = "trains for minutes"
DECODES = "decodes for minutes"
FETCHES = "fetches what is on the network"
FETCHED = "needs problems that are fetched"
STORED = "needs what a server stored; see tests/server/test_feedback.py"

NOT_RUN = {
    "models fetch": FETCHES,
    "plan": "takes the compilers of seedjax[plan]",
    "bench": "measures for minutes, and PyTorch beside",
    "chat": "needs a model that was trained on chats",
    "convert": FETCHES,
    "data build": FETCHES,
    "eval fetch": FETCHES,
    "eval report": "needs a run of a suite; see tests/harness",
    "eval run": FETCHED,
    "eval score": FETCHED,
    "eval sweep": DECODES,
    "eval verify": FETCHED,
    "feedback export": STORED,
    "lab reproduce": TRAINS,
    "eval compare": DECODES,
    "posttrain constrained-order": TRAINS,
    "posttrain completions": DECODES,
    "posttrain critic": DECODES,
    "posttrain distill": TRAINS,
    "posttrain draft": TRAINS,
    "posttrain match-teacher": TRAINS,
    "posttrain on-policy": TRAINS,
    "posttrain preference": TRAINS,
    "posttrain prune": TRAINS,
    "posttrain sharpen": TRAINS,
    "posttrain trajectories": DECODES,
    "serve": "serves until it is stopped; see tests/server",
    "train": TRAINS,
}

DIGIT_SUM = '''\
def digit_sum(n):
    """Return the sum of the digits of n."""
'''
EVENS = '''\
def evens(numbers):
    """Keep only the even numbers of numbers and return the sum of the result."""
    <FILL>
    return sum(first)
'''
TOTAL = "def total(values):\n    return sum(values)\n"


def leaves(command, words=()):
    """All commands without commands of their own, with the words that call them."""
    below = getattr(command, "commands", None)
    if below is None:
        yield " ".join(words), command
    for name, inner in (below or {}).items():
        yield from leaves(inner, (*words, name))


COMMANDS = dict(leaves(typer.main.get_command(seedjax.cli.app)))


def example(words):
    """The arguments of a command's example, its own words first."""
    text = inspect.cleandoc(COMMANDS[words].help or "")
    _, found, line = text.partition("Example: ")
    assert found, f"the help of {words} has no line 'Example: seedjax ...'"
    program, *arguments = shlex.split(line.partition("\n\n")[0])
    assert program == "seedjax"
    called = words.split()
    assert arguments[: len(called)] == called
    return arguments


@pytest.fixture
def folder(tmp_path, monkeypatch, model_directory, corpus):
    """A folder with what the examples name, which the command runs in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name, text in ("digit_sum", DIGIT_SUM), ("evens", EVENS), ("total", TOTAL):
        (tmp_path / f"{name}.py").write_text(text)
    for name in "coder", "runs/left", "runs/names":
        shutil.copytree(model_directory, tmp_path / name)
    (tmp_path / "corpus").symlink_to(corpus)
    return tmp_path


@pytest.mark.parametrize("words", NOT_RUN)
def test_what_is_not_run_is_taken(words):
    command = COMMANDS[words]
    command.make_context(words, example(words)[len(words.split()) :])


@pytest.mark.slow
def test_a_program_from_a_description(run, folder):
    code, out, _ = run(*example("generate"))
    assert code == 0
    names: dict = {}
    exec(out, names)
    assert [names["digit_sum"](n) for n in (0, 7, 1234)] == [0, 7, 10]


@pytest.mark.slow
def test_a_hole(run, folder):
    code, out, _ = run(*example("infill"))
    assert code == 0
    names: dict = {}
    exec(out, names)
    assert names["evens"]([1, 2, 3, 4]) == 6


@pytest.mark.slow
def test_an_edit(run, folder):
    code, out, _ = run(*example("edit"))
    assert code == 0
    subprocess.run(["git", "apply", "-"], input=out.encode(), check=True, cwd=folder)
    assert (folder / "total.py").read_text() == TOTAL.replace("total", "add_up")


@pytest.mark.slow  # tests/test_documents.py runs README's like it
def test_lab_tasks(run, folder):
    code, out, _ = run(*example("lab make"))
    assert code == 0 and "repair.jsonl: 50 tasks (50 of tier 2)" in out


# What the others print.
PRINTED = {
    "compile": "runs/sampler: ",
    "data sample": "--- 2 (",
    "data show": "documents",
    "data verify": "corpus",
    "doctor": "the recipe",
    "eval suites": "humaneval",
    "export": "model.safetensors in coder-hf",
    "models show": "mini",
    "posttrain average": "the mean of 2 models; runs/mean",
    "posttrain widen": "parameters; go on with",
}


def test_every_example_is_run_or_has_a_reason():
    own = {"generate", "infill", "edit", "lab make"}
    assert COMMANDS.keys() == own | PRINTED.keys() | NOT_RUN.keys()


@pytest.mark.representative(
    "doctor",
    "posttrain average",
    "eval suites",
    "data sample",
    "models show",
    "export",
    "data verify",
    "data show",
)
@pytest.mark.parametrize("words", PRINTED)
def test_the_example_works(words, run, folder):
    code, out, err = run(*example(words), stdin=b"")
    assert code == 0, err
    assert PRINTED[words] in out
