"""The options that the stages of post-training share, as groups for `options.grouped`.

Output ─▶ Stage ─▶ ResumableStage ─▶ TrainerStage
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedjax.cli import options, stopping, streams
from seedjax.errors import InputError

if TYPE_CHECKING:
    from seedjax.train.config import RunConfig

Mesh = Annotated[str, typer.Option(help="Devices per axis, e.g. data=2,tensor=2.")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Output:
    """Where a command writes, and how it reports."""

    out: Annotated[Path, typer.Option(help="Output directory.")]
    json: options.Json = False

    def show(self, found: dict[str, Any], text: str) -> None:
        """Prints the directory and `found` as one JSON object, or else the text."""
        if self.json:
            streams.print_json({"directory": str(self.out)} | found)
        else:
            streams.print_text(text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(Output):
    """A command whose recipe is a dataclass, of which every field can be set."""

    config: Annotated[
        Path | None,
        typer.Option(help="A Python file with get_config(), instead of the default."),
    ] = None
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="path.to.field=value; may be repeated."),
    ] = None

    def recipe(self, kind: type, default: Callable[[], Any], *more: str) -> Any:
        """The recipe of the file, else the default, with assignments: `more` first."""
        from seedjax.config import override
        from seedjax.train.config import run_config_file

        recipe = (
            default() if self.config is None else run_config_file(self.config, kind)
        )
        return override(recipe, [*more, *(self.assignments or ())])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResumableStage(Stage):
    """A stage that keeps checkpoints, and its recipe with them."""

    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out.")
    ] = False

    def recipe(self, kind: type, default: Callable[[], Any], *more: str) -> Any:
        """The recipe of the run in `out` where that is resumed and nothing else is
        given; otherwise as for every stage."""
        from seedjax.config import from_dict
        from seedjax.files.text import read_json_object

        record = self.out / "run.json"
        given = self.config is not None or self.assignments or more
        if self.resume and record.exists() and not given:
            return from_dict(kind, read_json_object(record))
        return super().recipe(kind, default, *more)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainerStage(ResumableStage):
    """A stage that is a run of the trainer."""

    mesh: Mesh = ""

    def train(self, default: Callable[[], "RunConfig"], *more: str) -> None:
        """Trains by the recipe, and shows how the run ended."""
        options.start_jax(compile_cache=True)
        from seedjax.cli.train import show_result
        from seedjax.train.config import RunConfig
        from seedjax.train.run import train

        run = self.recipe(RunConfig, default, *more)
        with stopping.stop_on_signal() as stop:
            result = train(run, self.out, resume=self.resume, mesh=self.mesh, stop=stop)
        show_result(result, self.out, json=self.json)


def required(value: str, option: str) -> str:
    if not value:
        raise InputError(f"{option} is missing; give it, or a --config that has it")
    return value
