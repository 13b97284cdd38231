"""The measurements to make: lists of shapes, multiplied out into lines of a report."""

import itertools
import typing
from dataclasses import dataclass, replace
from typing import Literal

from seedjax.config import DType, require
from seedjax.errors import InputError
from seedjax.nn.quantize import Quantization
from seedjax.sampling.policy import FixedCount, Policy

Measure = Literal["prefill", "block", "decode", "no_cache", "python_loop", "ar"]
Library = Literal["seedjax", "torch", "transformers"]

MEASURES: dict[Measure, str] = {
    "prefill": "the prompt into an empty cache",
    "block": "one forward pass of a block after a full cache, and its candidates",
    "decode": "block diffusion from prompt to answer, one compiled program",
    "no_cache": "the same decode, every step recomputing the whole text",
    "python_loop": "the same decode as a Python loop over a compiled forward pass",
    "ar": "the same shape, causal, decoding token by token with a cache",
}

KNOWN: dict[Library, tuple[Measure, ...]] = {
    "seedjax": tuple(MEASURES),
    "torch": ("prefill", "block", "decode", "no_cache", "ar"),
    "transformers": ("ar",),
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the report. What does not matter to its measure is None.

    Attributes:
      measure: see `MEASURES`.
      library: who computes it.
      batch: rows.
      prefix: tokens of each prompt, all of them in the cache for "block".
      block: block size.
      new: tokens of each answer; the end of sequence is ignored.
      dtype: of weights and products.
      quantization: of the weights.
      policy: which candidates are accepted; None is the model's own.
    """

    measure: Measure
    library: Library = "seedjax"
    batch: int
    prefix: int
    block: int | None
    new: int | None
    dtype: DType
    quantization: Quantization | None = None
    policy: Policy | None = None

    @property
    def shape(self) -> str:
        """Lengths, batch, block and policy, in a few words."""
        parts = [str(self.prefix) if self.new is None else f"{self.prefix}+{self.new}"]
        if self.batch > 1:
            parts.append(f"batch {self.batch}")
        if self.block is not None:
            parts.append(f"block {self.block}")
        if self.policy is not None:
            parts.append(describe_policy(self.policy))
        elif self.writes and self.measure != "ar":
            parts.append("own policy")
        return ", ".join(parts)

    @property
    def precision(self) -> str:
        """Dtype, and quantization if there is any."""
        return " ".join(filter(None, (self.dtype, self.quantization)))

    @property
    def operands(self) -> str:
        """Type of the operands of most of its products (`roofline.Operands`)."""
        return "int8" if self.quantization == "int8" else self.dtype

    @property
    def label(self) -> str:
        """The line in a few words."""
        return f"{self.library} {self.measure}, {self.shape}, {self.precision}"

    @property
    def writes(self) -> bool:
        """Whether there is an answer, whose tokens are counted."""
        return self.measure not in ("prefill", "block")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Lists of shapes; every combination is a line.

    Attributes:
      measures: names in `MEASURES`, or "torch:decode" for that of another library.
      batches, blocks, prefixes, news: shapes, see `Line`.
      dtypes: of weights and products.
      quantizations: of the weights; None is none.
      policies: which candidates are accepted; None is the model's own.
      against_torch: measure what PyTorch and `transformers` can do of it, too.
      rounds: how many times all lines take turns.

    Raises:
      InputError: for an empty list, a number below 1 or an unknown measure.
    """

    measures: tuple[str, ...]
    batches: tuple[int, ...] = (1,)
    blocks: tuple[int, ...] = (32,)
    prefixes: tuple[int, ...] = (512,)
    news: tuple[int, ...] = (256,)
    dtypes: tuple[DType, ...] = ("float32",)
    quantizations: tuple[Quantization | None, ...] = (None,)
    policies: tuple[Policy | None, ...] = (FixedCount(steps_per_block=8),)
    against_torch: bool = False
    rounds: int = 5

    def __post_init__(self):
        require(self.rounds >= 1, self, "rounds", "at least 1")
        for name in ("batches", "blocks", "prefixes", "news"):
            values = getattr(self, name)
            require(
                len(values) > 0 and min(values) >= 1, self, name, "numbers of 1 or more"
            )
        for name in ("measures", "dtypes", "quantizations", "policies"):
            require(len(getattr(self, name)) > 0, self, name, "at least one")
        for measure in self.measures:
            parse_measure(measure)


def parse_measure(text: str) -> tuple[Library, Measure]:
    """The library and the measure that "torch:decode" or "decode" names.

    Raises:
      InputError: if there is no such thing.
    """
    library, _, measure = text.rpartition(":")
    library = library or "seedjax"
    if library not in KNOWN:
        raise InputError(
            f"{text!r} names the library {library!r}; it must be one of "
            f"{', '.join(KNOWN)}"
        )
    if measure not in KNOWN[library]:
        raise InputError(
            f"no measure {measure!r} of {library}; there are "
            f"{', '.join(KNOWN[library])}"
        )
    return library, measure  # type: ignore[return-value]


def lines_of(sweep: Sweep) -> list[Line]:
    """All combinations, each once, in the order of the measures: neighbours are what is
    to be compared.

    Two dtypes and `measures=("ar", "torch:ar")` are four lines, whatever `blocks` are.
    """
    measures = [parse_measure(measure) for measure in sweep.measures]
    if sweep.against_torch:
        measures = _with_others(measures)
    combinations = list(
        itertools.product(
            sweep.batches,
            sweep.prefixes,
            sweep.news,
            sweep.blocks,
            sweep.policies,
            sweep.dtypes,
            sweep.quantizations,
        )
    )
    lines = []
    for library, measure in measures:
        for batch, prefix, new, block, policy, dtype, quantization in combinations:
            if library != "seedjax" and quantization is not None:
                continue  # theirs is another arithmetic
            line = Line(
                measure=measure,
                library=library,
                batch=batch,
                prefix=prefix,
                block=block,
                new=new,
                dtype=dtype,
                quantization=quantization,
                policy=policy,
            )
            lines.append(_without_idle_fields(line))
    return list(dict.fromkeys(lines))


def _with_others(
    measures: list[tuple[Library, Measure]],
) -> list[tuple[Library, Measure]]:
    """Each measure of ours, followed by the others' counterparts of it."""
    everything: list[tuple[Library, Measure]] = []
    for library, measure in measures:
        everything.append((library, measure))
        if library != "seedjax":
            continue
        if measure in KNOWN["torch"]:
            everything.append(("torch", measure))
        if measure == "decode":
            everything.append(("torch", "no_cache"))
        if measure == "ar":
            everything.append(("transformers", "ar"))
    return everything


def _without_idle_fields(line: Line) -> Line:
    if line.measure == "ar":
        return replace(line, block=None, policy=None)
    if line.measure == "prefill":
        return replace(line, block=None, new=None, policy=None)
    if line.measure == "block":
        return replace(line, new=None, policy=None)
    return line


def describe_policy(policy: Policy) -> str:
    """A policy in a few words: "8 steps", or its class and values."""
    if isinstance(policy, FixedCount):
        count = policy.steps_per_block
        return f"{count} step" if count == 1 else f"{count} steps"
    return str(policy)


def parse_dtype(text: str) -> DType:
    """A dtype by name.

    Raises:
      InputError: if it is no dtype that a model is run in.
    """
    names = typing.get_args(DType)
    if text not in names:
        raise InputError(f"dtype is {text!r}; it must be one of {', '.join(names)}")
    return text  # type: ignore[return-value]


def parse_quantization(text: str) -> Quantization | None:
    """A way of quantizing by name; "none" is None.

    Raises:
      InputError: if there is no such way.
    """
    names = typing.get_args(Quantization)
    if text != "none" and text not in names:
        raise InputError(
            f"quantize is {text!r}; it must be one of none, {', '.join(names)}"
        )
    return None if text == "none" else text  # type: ignore[return-value]


def padded(num_columns: int, size: int) -> int:
    """So many columns, rounded up to whole blocks."""
    return -(-num_columns // size) * size
