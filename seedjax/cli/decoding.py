"""Options of how a completion is decoded and shown.

`Decoding` is the command line's side of `SamplerConfig`: each of its fields is a field
of the recipe, or one of the words that name a policy. The recipe itself is imported
late, for JAX takes a second to start.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedjax.cli import options
from seedjax.errors import InputError
from seedjax.files.text import read_json_object

if TYPE_CHECKING:
    from seedjax.sampling.recipe import SamplerConfig


def defaults_of_mini() -> dict[str, Any]:
    """Sampler fields of the bundled model, from its directory."""
    file = Path(__file__).parents[1] / "bundled" / "mini" / "config.json"
    if not file.exists():
        return {}
    read = read_json_object(file)
    sampler, policy = read["sampler"], read["sampler"]["policy"]
    block = sampler["block_size"] or read["denoiser"]["block_size"]
    order = "left" if policy["kind"] == "LeftToRight" else "confidence"
    known = {"block_size": block, "order": order}
    return sampler | {"threshold": policy.get("threshold")} | known


MINI = defaults_of_mini()


def helped(text: str, field: str = "", **option: Any) -> Any:
    """An option with its help, which ends with what holds without it: the model's own
    recipe, and what that of `mini` says."""
    value = MINI.get(field)
    shown = f"{value:g}" if isinstance(value, float) else value
    default = "" if value is None else f"; mini: {shown}"
    ending = f" Default: the model's{default}." if field else ""
    return typer.Option(help=text + ending, **option)


MaxNewTokens = Annotated[
    int | None, helped("Longest completion, in tokens.", "max_new_tokens")
]
Temperature = Annotated[
    float | None,
    helped("0 takes the most probable token; above 0 draws.", "temperature"),
]


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How a model decodes; what is not given is as the model's own recipe says."""

    max_new_tokens: MaxNewTokens = None
    temperature: Temperature = None
    top_k: Annotated[int | None, helped("Draw among the K most probable.")] = None
    top_p: Annotated[
        float | None,
        helped("Draw among the most probable that hold this share.", "top_p"),
    ] = None
    threshold: Annotated[
        float | None,
        helped("Unmask all tokens of at least this confidence.", "threshold"),
    ] = None
    order: Annotated[
        str | None,
        helped(
            "confidence unmasks the most confident tokens first, left those that "
            "directly follow unmasked ones.",
            "order",
        ),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(help="Instead: this many denoising steps for each block."),
    ] = None
    block_size: Annotated[
        int | None, helped("Tokens that are denoised together.", "block_size")
    ] = None
    context: Annotated[
        str | None,
        helped(
            "What a block sees: decided, canvas, canvas_prefix_cache or "
            "canvas_dual_cache.",
            "context",
        ),
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="path.to.field=value of the sampler's recipe; may be repeated. "
            """As policy='{"kind": "EntropyBound", "bound": 0.2}'.""",
        ),
    ] = None
    stop: Annotated[
        list[str] | None,
        typer.Option(
            "--stop",
            help="End the completion where TEXT begins, which is left out; may be "
            r"repeated. A line break is $'\n' in bash.",
            metavar="TEXT",
        ),
    ] = None
    seed: options.Seed = 0

    def overrides(self, recipe: "SamplerConfig", **more: Any) -> dict[str, Any]:
        """The keywords of a call: seed, stop strings, and the fields of a model's
        recipe that are given here or in `more`.

        Raises:
          InputError: for an unknown or wrong setting, one that is given twice, or one
            of draws where nothing is drawn.
        """
        from seedjax.config import override

        given = {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) is not None
            and field.name != "settings"
        }
        changed = override(recipe, self.settings or [])
        for setting in self.settings or []:
            name = setting.partition("=")[0].strip().split(".")[0]
            if name in given or (name in more and name != "trace"):
                raise InputError(f"--set {setting} and an option of its own set {name}")
            given[name] = getattr(changed, name)
        temperature = given.get("temperature", recipe.temperature)
        for name in given.keys() & {"top_k", "top_p"}:
            recipe.vary(**{name: given[name]})  # a wrong value comes first
            if temperature == 0:
                raise InputError(
                    f"{name} is for draws, and at temperature 0 there are none; give a "
                    "--temperature, too"
                )
        return more | given


@dataclasses.dataclass(frozen=True)
class Showing:
    """How a completion is shown."""

    language: Annotated[
        str | None,
        typer.Option(
            help="Of the program, to see whether it parses; text for no check. "
            "Default: the file's suffix says, or Python if it parses as such."
        ),
    ] = None
    force: Annotated[
        bool,
        typer.Option("--force", help="Print a result that is refused all the same."),
    ] = False
    json: options.Json = False
    logprobs: Annotated[
        bool,
        typer.Option(
            "--logprobs",
            help="With --json: the tokens, and the log-probability of each.",
        ),
    ] = False
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the denoising steps in the terminal.")
    ] = False
    trace: Annotated[
        Path | None, typer.Option(help="Write one JSON line a denoising step to FILE.")
    ] = None

    def __post_init__(self) -> None:
        if self.watch and self.json:
            raise InputError("give --json or --watch, not both")
        if self.logprobs and not self.json:
            raise InputError("--logprobs is for --json; add that, or drop --logprobs")

    @property
    def overrides(self) -> dict[str, Any]:
        """The fields of a recipe that record what is shown."""
        traced = self.watch or self.trace is not None
        return {"trace": traced} | ({"logprobs": True} if self.logprobs else {})
