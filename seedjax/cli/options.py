"""Options and habits that several commands share.

Options that belong together are the fields of a dataclass, and a command takes them as
one parameter: see `grouped`.
"""

import contextlib
import dataclasses
import functools
import inspect
import os
import sys
import typing
import warnings
from collections.abc import Callable, Collection, Iterator
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.main

from seedjax import config
from seedjax.cli.progress import Status
from seedjax.cli.source import MARK, Source
from seedjax.errors import InputError
from seedjax.files.text import (
    BYTE_ORDER_MARK,
    decode_text,
    open_for_writing,
    read_bytes,
)

if TYPE_CHECKING:
    import seedjax

Model = Annotated[
    str, typer.Option("--model", help="A bundled model's name or a model directory.")
]
Quantization = Annotated[
    str | None,
    typer.Option(
        help="int8_weights, int8 (activations too; the fastest on a CPU) or fp8 (for "
        "NVIDIA GPUs from Hopper on)."
    ),
]
Adapter = Annotated[
    str | None, typer.Option(help="Folder of a LoRA adapter of the model.")
]
Speculate = Annotated[
    bool,
    typer.Option(
        "--speculate",
        help="Draft tokens of a causal model, as it is fastest here: the same text.",
    ),
]
Device = Annotated[
    str | None, typer.Option(help="Where to compute: cpu, gpu, tpu, cuda:1.")
]
Mesh = Annotated[
    str | None,
    typer.Option(
        help="Split the model over all devices: sizes of the axes data, fsdp, expert "
        "and tensor, such as tensor=4,data=2."
    ),
]
DType = Annotated[
    config.DType | None, typer.Option(help="What to compute in.", show_choices=True)
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output.")
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Move what is in the folder aside, to FOLDER.old, and begin."
    ),
]
ForceFile = Annotated[
    bool, typer.Option("--force", help="Replace the file, whatever it is.")
]
NoCompileCache = Annotated[
    bool,
    typer.Option("--no-compile-cache", help="Compile anew; keep nothing on disk."),
]
AcceptWeak = Annotated[
    bool,
    typer.Option(
        "--accept-weak-isolation",
        help="Run programs even where neither bubblewrap nor namespaces hold them.",
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes that run programs.")
]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: a parameter whose type is a dataclass becomes one option for each of
    its fields, in its place.

    >>> @grouped
    ... def generate(prompt: Prompt = None, *, loading: Loading): ...

    has the options --model, --quantization and so on, and is called with a `Loading`.
    """
    hints = typing.get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {
        name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)
    }
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name not in groups:
            annotated = parameter.replace(annotation=hints[parameter.name])
            parameters.append(annotated.replace(kind=Parameter.KEYWORD_ONLY))
            continue
        kind = groups[parameter.name]
        kinds = typing.get_type_hints(kind, include_extras=True)
        parameters += [
            Parameter(
                field.name,
                Parameter.KEYWORD_ONLY,
                default=Parameter.empty
                if field.default is dataclasses.MISSING
                else field.default,
                annotation=kinds[field.name],
            )
            for field in dataclasses.fields(kind)
        ]

    @functools.wraps(command)
    def with_groups(**given: Any) -> None:
        for name, kind in groups.items():
            names = [field.name for field in dataclasses.fields(kind)]
            given[name] = kind(**{each: given.pop(each) for each in names})
        command(**given)

    with_groups.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_groups.__annotations__ = {each.name: each.annotation for each in parameters}
    return with_groups


@dataclasses.dataclass(frozen=True)
class Loading:
    """Which model is loaded, and how."""

    model: Model = "mini"
    quantization: Quantization = None
    adapter: Adapter = None
    speculate: Speculate = False
    device: Device = None
    mesh: Mesh = None
    dtype: DType = None
    no_compile_cache: NoCompileCache = False

    def load(self, status: Status) -> "seedjax.Model":
        """Starts JAX and loads the model; `status` shows how far that is.

        Raises:
          InputError: if JAX cannot start, or the model cannot be loaded so.
        """
        start_jax(compile_cache=not self.no_compile_cache)
        from seedjax.inference.loading import load

        return load(
            self.model,
            quantization=self.quantization,
            adapter=self.adapter,
            speculate=self.speculate,
            device=self.device,
            mesh=self.mesh,
            dtype=self.dtype,
            report=status.report,
        )


def writes(
    writer: str,
    *,
    out: str = "out",
    sources: tuple[str, ...] = (),
    may_be_inside: bool = False,
    shared: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: a command that writes a folder claims it first, see `output.claimed`,
    and gets the option --force.

    Args:
      writer: its name, in the folder's mark.
      out: its argument that holds the folder; None writes none.
      sources: its arguments that hold what is read.
      may_be_inside: whether the folder may lie in a source.
      shared: whether it holds several runs, each of which is locked by itself.
    """
    from seedjax.files.output import claimed, paths

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        force = inspect.Parameter(
            "force", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Force
        )

        @functools.wraps(command)
        def claiming(*, force: bool = False, **given: Any) -> None:
            if given[out] is None:
                return command(**given)
            with claimed(
                given[out],
                writer,
                sources=paths(given[name] for name in sources),
                force=force,
                resume=given.get("resume", False),
                may_be_inside=may_be_inside,
                shared=shared,
            ):
                return command(**given)

        claiming.__annotations__ = command.__annotations__ | {"force": Force}
        claiming.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*signature.parameters.values(), force]
        )
        return claiming

    return decorate


Coordinator = Annotated[
    str,
    typer.Option(
        help="HOST:PORT of process 0 of several; Slurm, Open MPI and Cloud TPU say "
        "it by themselves."
    ),
]
Processes = Annotated[
    int | None, typer.Option(min=1, help="How many processes there are.")
]
ProcessIndex = Annotated[
    int | None, typer.Option(min=0, help="Number of this process, from 0.")
]


def one_process(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: a command that refuses to be started as one of several processes."""

    @functools.wraps(command)
    def alone(**given: Any) -> None:
        from seedjax.processes import find_meeting

        if find_meeting() is not None:
            raise InputError(
                "this command runs in one process, and the environment (Slurm, Open "
                "MPI, JAX_NUM_PROCESSES, a TPU slice) has several; start it once, as "
                "with srun --ntasks=1"
            )
        command(**given)

    return alone


def many_processes(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: a command that several processes run as one program, see
    `processes.together`, gets the options to meet. Only the first one prints to
    standard output."""
    signature = inspect.signature(command)
    added = {
        "coordinator": (Coordinator, ""),
        "processes": (Processes, None),
        "process_index": (ProcessIndex, None),
    }

    @functools.wraps(command)
    def joined(
        *,
        coordinator: str = "",
        processes: int | None = None,
        process_index: int | None = None,
        **given: Any,
    ) -> None:
        from seedjax.processes import is_first, together

        with contextlib.ExitStack() as stack:
            stack.enter_context(together(coordinator, processes, process_index))
            if not is_first():
                nowhere = stack.enter_context(open_for_writing(os.devnull))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
            try:
                command(**given)
            except typer.Exit as end:  # an exit code, and no fault
                code = end
            else:
                return
        raise code

    kinds = {name: kind for name, (kind, _) in added.items()}
    joined.__annotations__ = command.__annotations__ | kinds
    joined.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[
            *signature.parameters.values(),
            *(
                Parameter(name, Parameter.KEYWORD_ONLY, default=value, annotation=kind)
                for name, (kind, value) in added.items()
            ),
        ]
    )
    return joined


def refuse_others(allowed: Collection[str], message: str) -> None:
    """Raises `InputError` if an option was given that a mode of the command has no use
    for: it would be ignored.

    Args:
      allowed: parameters that count.
      message: with {} for the option.
    """
    for name, option in _given():
        if name not in allowed:
            raise InputError(message.format(option))


def refuse(ignored: Collection[str], message: str) -> None:
    """As `refuse_others`, with the parameters that would be ignored."""
    for name, option in _given():
        if name in ignored:
            raise InputError(message.format(option))


def _given() -> Iterator[tuple[str, str]]:
    """Parameters that the command line gives: name, option."""
    # Typer passes it to a command only as a type that the context is not one of.
    ctx = typer.main.get_current_context()
    for parameter in ctx.command.params:
        name = parameter.name or ""
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            yield name, parameter.opts[-1]


def start_jax(*, compile_cache: bool) -> None:
    """Starts JAX, and turns its persistent compilation cache on, before anything
    compiles.

    Raises:
      InputError: if JAX cannot start.
    """
    from seedjax.backend import require_backend
    from seedjax.inference.compile_cache import refuse_compile_cache, use_compile_cache

    if not compile_cache:
        refuse_compile_cache()
        require_backend()
        return
    with warnings.catch_warnings(record=True) as faults:
        warnings.simplefilter("always")
        use_compile_cache()
    for fault in faults:
        print(fault.message, file=sys.stderr)
    require_backend()


def read_text(argument: str | None, file: Path | None, what: str) -> str:
    """The text of `read_source`, without a byte order mark."""
    return read_source(argument, file, what).whole.removeprefix(MARK)


def read_source(argument: str | None, file: Path | None, what: str) -> Source:
    """A text in the form that it has, from an argument, a file, or standard input (`-`,
    or a pipe).

    Raises:
      InputError: for two sources or none, a missing file, or bytes that are not UTF-8.
    """
    if argument not in (None, "-") and file is not None:
        raise InputError(f"the {what} was given twice, as an argument and with --file")
    if file is not None:
        hint = f"give one that holds the {what}"
        raw, origin = read_bytes(file, hint=hint), str(file)
    elif argument is not None and argument != "-":
        # The shell hands over bytes; Python marks those that are no UTF-8.
        raw, origin = os.fsencode(argument), "the command line"
    elif sys.stdin is not None and (argument == "-" or not sys.stdin.isatty()):
        try:
            raw, origin = sys.stdin.buffer.read(), "standard input"
        except OSError as error:
            raise InputError(
                f"standard input cannot be read: {error.strerror}"
            ) from None
    else:
        raise InputError(
            f"no {what}; give it as an argument, with --file, or on a pipe"
        )
    mark = MARK if raw.startswith(BYTE_ORDER_MARK) else ""
    return Source(mark + decode_text(raw, f"the {what} from {origin}"))
