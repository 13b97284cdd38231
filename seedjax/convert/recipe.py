"""The recipe of a checkpoint: what its files and its family say, and who said what."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from seedjax.config import (
    DenoiserConfig,
    DType,
    MoEConfig,
    from_dict,
    override,
    to_dict,
)
from seedjax.convert.families import Family
from seedjax.convert.shapes import READERS, ignored_keys
from seedjax.errors import InputError


class Settled(NamedTuple):
    """A field of the denoiser's recipe and where its value comes from.

    Attributes:
      field: of `DenoiserConfig`.
      value: of the field.
      origin: such as "config.json", "family", "default" or "you".
    """

    field: str
    value: Any
    origin: str


class Reading(NamedTuple):
    """What is known of a checkpoint before its tensors are read.

    Attributes:
      denoiser: the recipe.
      settled: field by field, where its value comes from.
      ignored: keys of `config.json` that were not looked at.
    """

    denoiser: DenoiserConfig
    settled: tuple[Settled, ...]
    ignored: tuple[str, ...]


def read_denoiser(
    family: Family,
    config: Mapping[str, Any],
    *,
    generation: Mapping[str, Any] | None = None,
    dtype: DType = "float32",
    end_of_turn: int | None = None,
    assignments: Sequence[str] = (),
) -> Reading:
    """The denoiser's recipe of a checkpoint.

    Args:
      family: of the checkpoint.
      config: its `config.json`.
      generation: its `generation_config.json`, whose ends of sequence count too.
      dtype: what holds its weights; the recipe computes in it, too.
      end_of_turn: the id that closes a turn of a conversation: an end like the others.
      assignments: `"field=value"` by the user, before everything else.

    Raises:
      InputError: for a missing or impossible value, a feature that we do not have, or a
        field that nothing settles.
    """
    shape = READERS[family.layout](config)
    ids = _read_ids(config, generation or {})
    chosen: dict[str, tuple[Any, str]] = {}
    for values, origin in (
        ({"dtype": dtype, "param_dtype": dtype}, "weights"),
        (family.ids, "family"),
        (ids, "config.json"),
        (shape, "config.json"),
        (family.denoiser, "family"),
    ):
        chosen |= {name: (value, origin) for name, value in values.items()}
    by_user = {text.partition("=")[0].strip().split(".")[0] for text in assignments}
    for name in family.unsaid:
        if name not in chosen and name not in by_user:
            raise InputError(
                f"neither the files nor the family {family.name} say {name}; set it"
            )
    _fill_ids(chosen, shape["vocab_size"], family)
    ends, origin = chosen["eos_token_ids"]
    if end_of_turn is not None and end_of_turn not in ends:
        chosen["eos_token_ids"] = ((*ends, end_of_turn), f"{origin}, tokenizer")
    fields = {name: value for name, (value, _) in chosen.items()}
    denoiser = from_dict(DenoiserConfig, to_json(fields))
    denoiser = override(denoiser, assignments)
    settled = tuple(
        Settled(
            f.name,
            getattr(denoiser, f.name),
            "you" if f.name in by_user else chosen.get(f.name, (None, "default"))[1],
        )
        for f in dataclasses.fields(denoiser)
    )
    return Reading(denoiser, settled, ignored_keys(family.layout, config))


def to_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as `from_dict` takes them."""
    return {
        name: to_dict(value) if isinstance(value, MoEConfig | tuple) else value
        for name, value in fields.items()
    }


def _read_ids(
    config: Mapping[str, Any], generation: Mapping[str, Any]
) -> dict[str, Any]:
    """Special ids that the files name."""
    found: dict[str, Any] = {}
    for name in ("mask_token_id", "pad_token_id", "bos_token_id"):
        value = config.get(name)
        if isinstance(value, int):
            found[name] = value
    ends: list[int] = []
    for source in (config, generation):
        value = source.get("eos_token_id")
        ends += (
            value if isinstance(value, list) else [value] if value is not None else []
        )
    if ends:
        found["eos_token_ids"] = tuple(dict.fromkeys(ends))
    return found


def _fill_ids(
    chosen: dict[str, tuple[Any, str]], vocab_size: int, family: Family
) -> None:
    """Gives ids that a checkpoint does without a harmless value: an end of sequence,
    which sampling never bans, stands for padding, beginning and, in a causal model, for
    the mask."""
    ends = chosen.get("eos_token_ids")
    if ends is None:
        raise InputError(
            f"neither the files nor the family {family.name} say which id ends a "
            "sequence; set eos_token_ids"
        )
    for name in ("pad_token_id", "bos_token_id"):
        chosen.setdefault(name, (ends[0][0], "end of sequence"))
    causal = chosen.get("attention", ("", ""))[0] == "causal"
    if causal and "mask_token_id" not in chosen:
        chosen["mask_token_id"] = (ends[0][0], "end of sequence")
    for name in ("mask_token_id", "pad_token_id", "bos_token_id"):
        value = chosen.get(name, (0, ""))[0]
        if not 0 <= value < vocab_size:
            raise InputError(
                f"{name} is {value}, outside of the {vocab_size} rows of the embedding "
                "table; set it"
            )
