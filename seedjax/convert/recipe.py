"""The recipe of a checkpoint: what its files and its family say, and who said what."""

import dataclasses
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from seedjax.config import (
    DenoiserConfig,
    DType,
    check_field_name,
    coerce,
    from_dict,
    merge_assignments,
    parse_assignments,
    to_dict,
)
from seedjax.convert.families import Family
from seedjax.convert.fields import MASKS, Fields
from seedjax.convert.shapes import READERS
from seedjax.errors import InputError
from seedjax.files.text import brief


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
    """A checkpoint before its tensors are read.

    Attributes:
      denoiser: the recipe.
      settled: field by field, where its value comes from.
      ignored: fields of `config.json` that the user took for harmless.
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
    ends: Collection[int] = (),
    mask: int | None = None,
    assignments: Sequence[str] = (),
    ignore: Collection[str] = (),
    as_denoiser: bool = False,
) -> Reading:
    """The denoiser's recipe of a checkpoint.

    Args:
      family: of the checkpoint.
      config: its `config.json`.
      generation: its `generation_config.json`, whose ends of sequence count too.
      dtype: what holds its weights; the recipe computes in it, too.
      ends: ids that end an answer as the tokenizer has it; ends like the others, of
        which sampling would ban the special tokens otherwise.
      mask: the tokenizer's mask, for a family that leaves it open.
      assignments: `"field=value"` by the user, before everything else.
      ignore: fields of `config` that the user takes for harmless.
      as_denoiser: whether a causal model gets a mask of its own afterwards.

    Raises:
      InputError: for a missing or impossible value, a feature that we do not have, a
        field that is not known, or one that nothing settles.
    """
    changes = parse_assignments(assignments)
    if as_denoiser:  # the mask gets a row of its own afterwards, see `start.MaskRow`
        changes = [change for change in changes if change[0] != ["mask_token_id"]]
    by_user = {path[0] for path, _ in changes}
    given = Fields(
        config,
        ignored=ignore,
        by_user=_checked({path[0]: value for path, value in changes if not path[1:]}),
    )
    shape = READERS[family.layout](given)
    window = shape.pop("window")
    semantics = _read_block_size(given) if "block_size" in family.denoiser else {}
    given.finish()
    rows = shape["vocab_size"]
    ids = _read_ids(config, generation or {}, by_user)
    chosen: dict[str, tuple[Any, str]] = {}
    named: dict[str, Any] = {}
    if mask is not None and "mask_token_id" in family.unsaid:
        named["mask_token_id"] = mask
    for values, origin in (
        ({"dtype": dtype, "param_dtype": dtype}, "weights"),
        (_ids_within(named, rows), "tokenizer"),
        (_ids_within(family.ids, rows), "family"),
        (ids, "config.json"),
        (shape, "config.json"),
        (family.denoiser, "family"),
        (semantics, "config.json"),
    ):
        chosen |= {name: (value, origin) for name, value in values.items()}
    chosen |= {name: (value, "you") for name, value in given.by_user.items()}
    for name in family.unsaid:
        if name not in chosen and name not in by_user:
            raise InputError(
                f"neither the files nor the family {family.name} say {name}; set it"
            )
    _fill_ids(chosen, rows, family)
    said, origin = chosen["eos_token_ids"]
    known = {*said, chosen["mask_token_id"][0]}
    if more := [i for i in dict.fromkeys(ends) if 0 <= i < rows and i not in known]:
        chosen["eos_token_ids"] = ((*said, *more), f"{origin}, tokenizer")
    fields = {name: value for name, (value, _) in chosen.items()}
    values = merge_assignments(to_json(fields), changes)
    denoiser = from_dict(DenoiserConfig, values)
    _check_window(window, denoiser)
    if not as_denoiser:
        _check_mask(denoiser, chosen["mask_token_id"][1], family)
    settled = tuple(
        Settled(
            f.name,
            getattr(denoiser, f.name),
            "you" if f.name in by_user else chosen.get(f.name, (None, "default"))[1],
        )
        for f in dataclasses.fields(denoiser)
    )
    return Reading(denoiser, settled, given.ignored)


def _checked(by_user: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the fields that the user has set as a whole, of the fields' types.

    Raises:
      InputError: for an unknown field or a value of another type.
    """
    kinds = typing.get_type_hints(DenoiserConfig)
    for name in by_user:
        check_field_name(name, [*kinds], DenoiserConfig.__name__)
    return {
        name: coerce(kinds[name], value, f"{DenoiserConfig.__name__}.{name}")
        for name, value in by_user.items()
    }


def _ids_within(ids: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """A family's ids, but for those beyond the embedding table: a checkpoint with fewer
    rows than the published ones has ids of its own, or none."""
    return {
        name: value
        for name, value in ids.items()
        if all(i < rows for i in (value if isinstance(value, tuple) else (value,)))
    }


def to_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as `from_dict` takes them."""
    return {
        name: value if isinstance(value, str | Mapping) else to_dict(value)
        for name, value in fields.items()
    }


def _read_ids(
    config: Mapping[str, Any], generation: Mapping[str, Any], by_user: Collection[str]
) -> dict[str, Any]:
    """Special ids that the files name, but for those that the user has set; -1 stands
    for none.

    Raises:
      InputError: for what is no id.
    """
    found: dict[str, Any] = {}
    for name in ("pad_token_id", "bos_token_id", *reversed(MASKS)):
        field = "mask_token_id" if name in MASKS else name
        value = config.get(name)
        if value is not None and value != -1 and field not in by_user:
            found[field] = _checked_id(value, name, "config.json")
    if "eos_token_ids" in by_user:
        return found
    ends: list[int] = []
    sources = {"config.json": config, "generation_config.json": generation}
    for where, source in sources.items():
        value = source.get("eos_token_id")
        listed = value if isinstance(value, list) else [value]
        ends += [
            _checked_id(one, "eos_token_id", where)
            for one in listed
            if not (one is value and value in (None, -1))
        ]
    if ends:
        found["eos_token_ids"] = tuple(dict.fromkeys(ends))
    return found


def _checked_id(value: Any, name: str, where: str) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise InputError(
            f"{where}: {name} is {brief(value)}; expected the id of a token"
        )
    return value


def _read_block_size(fields: Fields) -> dict[str, int]:
    """The block that the model was trained with, under the names of the families."""
    names = ("block_size", "bd_size", "block_length")
    found = {
        name: fields.integer(name, sets="block_size")
        for name in names
        if fields.get(name) is not None
    }
    if len(set(found.values())) > 1:
        raise InputError(f"config.json has the block sizes {found}; they must agree")
    return {"block_size": next(iter(found.values()))} if found else {}


def _check_window(window: int | None, denoiser: DenoiserConfig) -> None:
    """Raises `InputError` if a query would not see all positions."""
    if window is not None and window < denoiser.max_positions:
        raise InputError(
            f"config.json has sliding_window={window}, and seedjax has no windows; up "
            f"to {window} positions it computes the same: --set max_positions={window}"
        )


def _check_mask(denoiser: DenoiserConfig, origin: str, family: Family) -> None:
    """Raises `InputError` for a denoiser without a mask of its own."""
    if denoiser.attention == "causal":
        return
    if origin == "end of sequence":
        raise InputError(
            f"neither the files nor the family {family.name} say mask_token_id, an id "
            f"below {denoiser.vocab_size}, the rows of the embedding table, which "
            f"{denoiser.attention} attention needs; set it, or make the checkpoint the "
            "start of a denoiser (--as-denoiser)"
        )
    if denoiser.mask_token_id in denoiser.eos_token_ids:
        raise InputError(
            f"mask_token_id is {denoiser.mask_token_id}, which ends a sequence; set "
            "another"
        )


def _fill_ids(
    chosen: dict[str, tuple[Any, str]], vocab_size: int, family: Family
) -> None:
    """Gives ids that a checkpoint does without a harmless value: an end of sequence,
    which sampling never bans, stands for padding, beginning and the mask, which only a
    causal model does without (`_check_mask`)."""
    ends = chosen.get("eos_token_ids")
    if ends is None or not ends[0]:
        raise InputError(
            f"neither the files nor the family {family.name} say which id ends a "
            "sequence; set eos_token_ids"
        )
    for name in ("mask_token_id", "pad_token_id", "bos_token_id"):
        chosen.setdefault(name, (ends[0][0], "end of sequence"))
    for name in ("mask_token_id", "pad_token_id", "bos_token_id"):
        value = chosen[name][0]
        if not 0 <= value < vocab_size:
            raise InputError(
                f"{name} is {value}, outside of the {vocab_size} rows of the embedding "
                "table; set it"
            )
