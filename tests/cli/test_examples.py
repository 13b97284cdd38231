"""The example in the help of every command: it is there, and its arguments are taken.
What it computes is not run here."""

import inspect
import shlex

import pytest
import typer

import seedjax.cli


def leaves(command, words=()):
    """All commands without commands of their own, with the words that call them."""
    below = getattr(command, "commands", None)
    if below is None:
        yield words, command
    for name, inner in (below or {}).items():
        yield from leaves(inner, (*words, name))


COMMANDS = dict(leaves(typer.main.get_command(seedjax.cli.app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_example_is_one_that_the_command_takes(words):
    text = inspect.cleandoc(COMMANDS[words].help or "")
    _, found, example = text.partition("Example: ")
    assert found, f"the help of {' '.join(words)} has no line 'Example: seedjax ...'"
    program, *arguments = shlex.split(example.partition("\n\n")[0])
    while arguments and arguments[0] in words:
        arguments.pop(0)
    assert program == "seedjax"
    COMMANDS[words].make_context(words[-1], arguments)
