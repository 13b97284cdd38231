"""The command line: `seedjax COMMAND`.

Exit codes: 0 done, 2 the input is at fault, 3 the model's result is refused (one line
on standard error each), 1 anything else. Commands import what they need when they run,
so that `seedjax --help` is instant.
"""

import errno
import importlib.metadata
import itertools
import sys
from collections.abc import Collection, Sequence
from typing import Annotated, Any

import typer
import typer.core

from seedjax.cli import (
    bench,
    chat,
    compile,
    convert,
    data,
    doctor,
    edit,
    evaluate,
    feedback,
    generate,
    infill,
    lab,
    models,
    plan,
    posttrain,
    serve,
    streams,
    train,
)
from seedjax.errors import InputError, RefusedError


class Commands(typer.core.TyperGroup):
    """All commands; no option of any of them takes an empty value."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        leaf: Any = command
        for argument in rest:
            leaf = getattr(leaf, "commands", {}).get(argument, leaf)
        flags = {o for p in leaf.params if getattr(p, "is_flag", 0) for o in p.opts}
        check_values(rest, flags)
        return name, command, rest


def check_values(arguments: Sequence[str], flags: Collection[str]) -> None:
    """Raises `InputError` for an option whose value is empty, which a script with an
    unset variable gives: it would be the default, or the folder one is in.

    Args:
      arguments: of a command.
      flags: its options that take no value.
    """
    for before, argument in itertools.pairwise(["", *arguments]):
        if argument == "--":
            return
        option, equals, value = argument.partition("=")
        if not option.startswith("--"):
            option, equals, value = before, "=", argument
        if option.startswith("--") and "=" not in option and equals and not value:
            if option not in flags:
                raise InputError(f"{option} is empty; give it a value or leave it out")


app = typer.Typer(
    name="seedjax",
    cls=Commands,
    help="Seed Diffusion in JAX: train and sample diffusion language models for code.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def print_version(given: bool) -> bool:
    """Prints the version and leaves, if that is given."""
    if given:
        streams.print_text(f"seedjax {importlib.metadata.version('seedjax')}")
        raise typer.Exit()
    return given


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=print_version, is_eager=True, help="Print it."
        ),
    ] = False,
) -> None:
    """Seed Diffusion in JAX: train and sample diffusion language models for code."""


app.command("generate")(generate.generate)
app.command("infill")(infill.infill)
app.command("edit")(edit.edit)
app.command("chat")(chat.chat)
app.command("serve")(serve.serve)
app.add_typer(feedback.app, name="feedback")
app.command("compile")(compile.compile)
app.command("train")(train.train)
app.add_typer(posttrain.app, name="posttrain")
app.command("convert")(convert.convert)
app.command("export")(convert.export)
app.add_typer(data.app, name="data")
app.add_typer(lab.app, name="lab")
app.add_typer(evaluate.app, name="eval")
app.command("bench")(bench.bench)
app.command("plan")(plan.plan)
app.add_typer(models.app, name="models")
app.command("doctor")(doctor.doctor)


# Faults of what a command was given to write to or read, by whose fault they are.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
NO_PATH = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}


def main() -> None:
    """Runs the command line and exits."""
    streams.prepare()
    try:
        code = app(prog_name="seedjax", standalone_mode=False)
        streams.flush()
    except (InputError, RefusedError) as error:
        code = _fault(str(error), error.exit_code)
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # typer does not export it
            streams.print_text(error.format_message())
            code = InputError.exit_code
        else:
            hint = "" if "--help" in str(error) else "; see --help"
            message = error.format_message().rstrip(".")
            code = _fault(f"{message}{hint}", InputError.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        code = 130
    except OSError as error:
        code = _fault_of_system(error)
    except ValueError as error:
        # JAX reads its variables when it is imported.
        if "for environment 'JAX_" not in str(error):
            raise
        code = _fault(f"{error}; unset it", InputError.exit_code)
    except SystemExit as error:  # typer and rich leave so for a broken pipe
        code = error.code
        if isinstance(error.__context__, OSError):
            code = _fault_of_system(error.__context__)
    sys.exit(code)


def _fault_of_system(error: OSError) -> int:
    """The exit code for what the system refused; raises again what is a defect."""
    if isinstance(error, BrokenPipeError) and (
        error.filename == streams.STREAM or streams.reader_has_gone()
    ):
        streams.abandon()
        return 0  # the reader of a pipe (head, less) has seen enough
    if error.filename is None or error.filename == streams.STREAM:
        if error.errno not in NO_ROOM:
            raise error
        streams.abandon()
        return _fault(f"cannot write {streams.STREAM}: {error.strerror}", 1)
    if error.errno in NO_ROOM:
        return _fault(f"{error.filename}: {error.strerror}", 1)
    if error.errno in NO_PATH:
        return _fault(f"{error.filename}: {error.strerror}", InputError.exit_code)
    raise error


def _fault(message: str, code: int) -> int:
    print(f"seedjax: {' '.join(message.split())}", file=sys.stderr)
    return code
