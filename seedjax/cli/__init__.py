"""The command line: `seedjax COMMAND`.

Exit codes: 0 done, 2 the input is at fault, 3 the model's result is refused (one line
on standard error each), 1 anything else. Commands import what they need when they run,
so that `seedjax --help` is instant.
"""

import sys

import typer

from seedjax.cli import (
    bench,
    compile,
    convert,
    data,
    doctor,
    edit,
    evaluate,
    generate,
    infill,
    lab,
    models,
    posttrain,
    train,
)
from seedjax.errors import InputError, RefusedError

app = typer.Typer(
    name="seedjax",
    help="Seed Diffusion in JAX: train and sample diffusion language models for code.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("generate")(generate.generate)
app.command("infill")(infill.infill)
app.command("edit")(edit.edit)
app.command("compile")(compile.compile)
app.command("train")(train.train)
app.add_typer(posttrain.app, name="posttrain")
app.command("convert")(convert.convert)
app.command("export")(convert.export)
app.add_typer(data.app, name="data")
app.add_typer(lab.app, name="lab")
app.add_typer(evaluate.app, name="eval")
app.command("bench")(bench.bench)
app.command("models")(models.models)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Runs the command line and exits."""
    try:
        code = app(standalone_mode=False)
    except (InputError, RefusedError) as error:
        code = _fault(str(error), error.exit_code)
    except typer.TyperException as error:
        # Usage errors (unknown options, wrong types) know how to put themselves.
        say = getattr(error, "format_message", error.__str__)
        code = _fault(f"{say()}; see --help", InputError.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        code = 0  # the reader of a pipe (head, less) has seen enough
        sys.stderr.close()
    sys.exit(code)


def _fault(message: str, code: int) -> int:
    line = " ".join(message.split())
    print(f"seedjax: {line}", file=sys.stderr)
    return code
