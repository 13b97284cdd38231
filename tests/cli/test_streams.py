"""Standard output, standard error and standard input that are closed, full, or of
another encoding; help, version, completion; options that must not be ignored."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import typer

import seedjax.cli
from seedjax.errors import InputError
from seedjax.sampling.recipe import SamplerConfig

COMMAND = [sys.executable, "-c", "import seedjax.cli; seedjax.cli.main()"]
REDIRECTIONS = {
    # The shell's words after the command: exit code, a part of standard error.
    "models | head -1 >/dev/null": (0, ""),
    "--help | true": (0, ""),
    "models --json >/dev/full": (1, "cannot write standard output: No space left"),
    "--help >/dev/full": (1, "cannot write standard output: No space left"),
    "models --json >&-": (1, "cannot write standard output: Bad file descriptor"),
    "models 2>/dev/full >/dev/null": (0, ""),
    "dance 2>&-": (2, ""),
    "generate - <&-": (2, "no prompt; give it as an argument"),
}


@pytest.mark.representative("models --json >/dev/full", "generate - <&-", "dance 2>&-")
@pytest.mark.parametrize("words", REDIRECTIONS)
def test_streams_that_are_closed_or_full(words):
    code, message = REDIRECTIONS[words]
    quoted = "".join(f"'{part}' " for part in COMMAND)
    shell = ["bash", "-c", f"set -o pipefail; {quoted} {words}"]
    done = subprocess.run(shell, capture_output=True, text=True, stdin=0)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr and done.stderr.count("\n") == bool(message)


def test_characters_that_the_terminal_lacks_are_escaped():
    code = "from seedjax.cli.streams import *; prepare(); print_text('é\\udce9')"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, env=environment)
    assert done.stdout == rb"\xe9\udce9" + b"\n" and done.returncode == 0


@pytest.mark.slow
def test_a_command_alone_prints_its_help(run):
    for words in ((), ("data",), ("lab",)):
        code, out, err = run(*words)
        assert code == 2 and err == ""
        lines = out.splitlines()
        assert lines[0].startswith(" ".join(("Usage: seedjax", *words)))
        assert "Commands:" in lines and len(lines) > 10


def test_version_is_one_line(run):
    code, out, _ = run("--version")
    assert code == 0 and out.startswith("seedjax ") and out.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "found"),
    [("seedjax gen", "generate"), ("seedjax train --conf", "--config")],
)
def test_bash_completes(run, monkeypatch, words, found):
    monkeypatch.setenv("_SEEDJAX_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    code, out, _ = run()
    assert code == 0 and found in out.split()


@pytest.mark.representative(
    "arguments0-it has block_size, context-did you",
    "arguments2-did you mean 'temperature'?-it has",
    "arguments9-did you mean 'humaneval'-there are",
)
@pytest.mark.parametrize(
    ("arguments", "named", "not_named"),
    [
        (("generate", "x", "--set", "foo=1"), "it has block_size, context", "did you"),
        (("generate", "x", "--set", "topk=1"), "did you mean 'top_k'?", "it has"),
        (("generate", "x", "--set", "temp=1"), "did you mean 'temperature'?", "it has"),
        (("generate", "x", "--model", "mni"), "did you mean 'mini'?", "zz"),
        (("generate", "x", "--model", "gpt5"), "a bundled model (mini)", "did you"),
        (("generat", "x"), "Did you mean 'generate'?", "zz"),
        (("dance",), "No such command 'dance'", "ean"),
        (("bench", "--preset", "smal"), "did you mean 'small'?", "there are"),
        (("bench", "--preset", "quux"), "there are tiny", "did you"),
        (("eval", "verify", "humanevl"), "did you mean 'humaneval'", "there are"),
        (("eval", "verify", "quux"), "there are aider", "did you"),
    ],
)
def test_names_that_are_near_are_named_and_no_others(run, arguments, named, not_named):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert named in err and not_named not in err


def leaves(command=None, words=()):
    """All commands without commands of their own, with the words that call them."""
    command = command or typer.main.get_command(seedjax.cli.app)
    below = getattr(command, "commands", None)
    if below is None:
        yield words, command
    for name, inner in (below or {}).items():
        yield from leaves(inner, (*words, name))


VALUED = [
    (*words, parameter.opts[-1])
    for words, command in leaves()
    for parameter in command.params
    if parameter.opts[-1].startswith("--") and not getattr(parameter, "is_flag", False)
]


def test_no_option_takes_an_empty_value():
    """Of every command: it would be taken for the default, or for the folder one is
    in."""
    assert len(VALUED) > 150
    command = typer.main.get_command(seedjax.cli.app)
    for *words, option in VALUED:
        for given in ([option, ""], [f"{option}="]):
            with pytest.raises(InputError, match=f"{option} is empty"):
                command.main([*words, *given], standalone_mode=False)


NUMBERED = [
    (*words, parameter.opts[-1])
    for words, command in leaves()
    for parameter in command.params
    if parameter.opts[-1].startswith("--")
    and parameter.type_descriptor.annotation in (int, float)
    and parameter.min is None
]
# Options of a number whose least value the library checks: honoured or refused by it.
CHECKED = {
    *("--max-new-tokens", "--temperature", "--top-k", "--top-p", "--threshold"),
    *("--steps", "--block-size", "--length"),
}


def test_options_of_numbers_have_their_least_value_or_are_checked():
    loose = {option for *_, option in NUMBERED} - CHECKED
    assert loose == set()


@pytest.mark.representative(
    "--temperature-1e-300-temperature is 1e-300; it must be 0 or more",
    "--steps-0-steps_per_block is 0",
)
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--max-new-tokens", 0, "max_new_tokens is 0"),
        ("--top-k", 0, "top_k is 0"),
        ("--top-p", 0, "top_p is 0"),
        ("--steps", 0, "steps_per_block is 0"),
        ("--block-size", 0, "block_size is 0"),
        ("--temperature", 1e-300, "temperature is 1e-300; it must be 0 or more"),
        ("--temperature", 1e300, "temperature is 1e+300; it must be 0 or more"),
        ("--set", "temperature=1e-300", "temperature is 1e-300"),
        ("--set", "guidance=1e300", "guidance is 1e+300"),
        ("--top-k", 3, "top_k is for draws, and at temperature 0 there are none"),
        ("--set", "top_p=0.5", "top_p is for draws"),
    ],
)
def test_numbers_that_would_be_taken_for_none_are_refused(
    generate, option, value, message
):
    code, out, err = generate("x", option, value)
    assert (code, out) == (2, "") and message in err


@pytest.mark.parametrize(
    "given",
    [
        *(("--temperature", 0), ("--top-k", 0), ("--threshold", 0.0), ("--steps", 0)),
        *(("--set", "guidance=0"), ("--model", "mini"), ("--watch",), ("--seed", 0)),
    ],
)
def test_a_compiled_sampler_refuses_what_it_cannot_take(run, tmp_path, given):
    code, out, err = run("generate", "x", "--compiled", tmp_path, *given)
    assert (code, out) == (2, "")
    fixed = given[0] != "--seed"
    assert (f"recipe is fixed; drop {given[0]}" in err) == fixed


def test_watching_and_json_are_not_given_together(run):
    code, out, err = run("generate", "x", "--json", "--watch")
    assert (code, out) == (2, "") and "give --json or --watch, not both" in err


def test_a_trace_that_cannot_be_written_is_known_before_the_work(generate, tmp_path):
    code, out, err = generate("x", "--trace", tmp_path)
    assert (code, out) == (2, "") and "is a folder; name a file to write" in err


def test_plots_refuse_what_is_for_training(run, tmp_path):
    code, _, err = run("train", "--plot", tmp_path, "--seed", 0)
    assert code == 2 and "--plot trains nothing; drop --seed" in err


def test_a_model_is_shown_with_every_field_of_its_recipe(run):
    code, out, _ = run("models", "mini", "--json")
    shown = json.loads(out)["sampler"]
    fields = {field.name for field in dataclasses.fields(SamplerConfig)}
    assert code == 0 and shown.keys() == fields | {"kind"}
    code, out, _ = run("models", "mini")
    assert code == 0 and all(f"\n {name} " in out for name in fields)
    assert run("models", "minni")[0] == 2
