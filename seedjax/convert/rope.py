"""The rotary embedding of a published `config.json`: read, and written.

Base, rotated share and scaling stand at the top, in `rope_scaling`, or in
`rope_parameters`, where transformers 5 keeps all three. What is not said there is as
transformers has it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from seedjax.config import (
    DenoiserConfig,
    DynamicRope,
    LinearRope,
    Llama3Rope,
    RopeScaling,
    YarnRope,
)
from seedjax.convert.fields import Fields
from seedjax.errors import InputError
from seedjax.files.text import brief

NESTED = ("rope_scaling", "rope_parameters")
TYPES: Mapping[type[RopeScaling], str] = {
    LinearRope: "linear",
    DynamicRope: "dynamic",
    Llama3Rope: "llama3",
    YarnRope: "yarn",
}
SHARED = ("rope_type", "type", "rope_theta", "partial_rotary_factor", "factor")
ORIGINAL = "original_max_position_embeddings"
YARN = ("beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim")
KNOWN = {
    "linear": {*SHARED, ORIGINAL},
    "dynamic": {*SHARED, ORIGINAL},
    "llama3": {*SHARED, ORIGINAL, "low_freq_factor", "high_freq_factor"},
    "yarn": {*SHARED, ORIGINAL, *YARN, "truncate", "finetuned"},
}
"""Fields of a nested object, by kind. The plain kind may have any of them."""


def read_rope(fields: Fields, *, fraction: float = 1.0) -> dict[str, Any]:
    """Base, rotated share and scaling of the rotary embedding, as fields of
    `DenoiserConfig`.

    Args:
      fields: of the config.
      fraction: the rotated share where none is given.

    Raises:
      InputError: for a scaling that seedjax does not compute, or values that contradict
        each other.
    """
    found: dict[str, Any] = {}
    scalings: list[RopeScaling | None] = []
    for name in NESTED:
        nested = fields.get(name)
        if nested is None or "rope_scaling" in fields.by_user:
            continue
        if not isinstance(nested, dict):
            raise fields.fault(name, "an object")
        inner = Fields(nested, where=f"{fields.where}: {name}")
        scalings.append(_scaling(inner, nested, fields))
        for key, default in (("rope_theta", 1.0), ("partial_rotary_factor", 1.0)):
            value = inner.number(key, default=default)
            if key in nested and nested[key] is not None:
                found[key] = value
    fields.get(ORIGINAL)
    if len(scalings) == 2 and scalings[0] != scalings[1]:
        raise InputError(f"{fields.where}: {' and '.join(NESTED)} differ; remove one")
    theta = fields.number(
        "rope_theta", default=found.get("rope_theta", 10_000.0), sets="rope_theta"
    )
    share = fields.number(
        "partial_rotary_factor",
        default=found.get("partial_rotary_factor", fraction),
        sets="rope_fraction",
    )
    for key, value, sets in (
        ("rope_theta", theta, "rope_theta"),
        ("partial_rotary_factor", share, "rope_fraction"),
    ):
        if found.get(key, value) != value and sets not in fields.by_user:
            raise InputError(
                f"{fields.where} has {key} {value} and, nested, {found[key]}; they "
                "must agree"
            )
    rope = {"rope_theta": theta, "rope_fraction": share}
    return rope | ({"rope_scaling": scalings[0]} if scalings else {})


def write_rope(denoiser: DenoiserConfig, original: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary fields of a `config.json`, in the place where `original` has them."""
    scaling, nested = denoiser.rope_scaling, original.get("rope_parameters")
    written: dict[str, Any] = {}
    if scaling is not None:
        written = {"rope_type": TYPES[type(scaling)], **vars(scaling)}
        if positions := written.pop("original_positions", None):
            written[ORIGINAL] = positions
    if nested is not None:
        kept = {k: v for k, v in nested.items() if k == "partial_rotary_factor"}
        plain = {"rope_type": "default", "rope_theta": denoiser.rope_theta}
        return {"rope_parameters": kept | plain | written}
    is_given = written or original.get("rope_scaling") is not None
    return {"rope_scaling": written or None} if is_given else {}


def _scaling(
    inner: Fields, nested: Mapping[str, Any], outer: Fields
) -> RopeScaling | None:
    """The scaling of a nested object; None if it scales nothing."""
    kind = nested.get("rope_type", nested.get("type", "default"))
    allowed: Any = set().union(*KNOWN.values())
    if kind not in ("default", None):
        allowed = KNOWN.get(kind) if isinstance(kind, str) else None
    unknown = [name for name in nested if allowed is not None and name not in allowed]
    if allowed is None or unknown:
        raise InputError(
            f"{inner.where} is {brief(dict(nested))}; seedjax does not compute "
            + (", ".join(unknown) if unknown else f"the rotary type {brief(kind)}")
            + f"; it takes 'default', {', '.join(map(repr, KNOWN))}"
        )
    if kind in ("default", None):
        return None
    return _READERS[kind](inner, outer)


def _original(inner: Fields, outer: Fields) -> int:
    """The positions that the model was first trained on."""
    at_top = Fields(
        {ORIGINAL: outer.get(ORIGINAL), "context": outer.get(_context(outer))},
        where=outer.where,
    )
    whole = at_top.integer("context")
    return inner.integer(ORIGINAL, default=at_top.integer(ORIGINAL, default=whole))


def _context(outer: Fields) -> str:
    """The name of the field with the longest row: LLaDA has another."""
    llada = "max_sequence_length"
    return "max_position_embeddings" if outer.get(llada) is None else llada


def _read_linear(inner: Fields, outer: Fields) -> RopeScaling | None:
    factor = inner.number("factor")
    return None if factor == 1.0 else LinearRope(factor=factor)


def _read_dynamic(inner: Fields, outer: Fields) -> RopeScaling:
    """As transformers has it, which stretches from `max_position_embeddings` on."""
    context = Fields({"context": outer.get(_context(outer))}, where=outer.where)
    whole = context.integer("context")
    if _original(inner, outer) != whole:
        raise InputError(
            f"{inner.where}: {ORIGINAL} is {inner.get(ORIGINAL)!r}, and dynamic "
            f"scaling begins at {_context(outer)}, which is {whole}; make them equal"
        )
    return DynamicRope(factor=inner.number("factor"), original_positions=whole)


def _read_llama3(inner: Fields, outer: Fields) -> RopeScaling | None:
    factor = inner.number("factor")
    if factor == 1.0:
        return None
    return Llama3Rope(
        factor=factor,
        original_positions=_original(inner, outer),
        low_freq_factor=inner.number("low_freq_factor"),
        high_freq_factor=inner.number("high_freq_factor"),
    )


def _read_yarn(inner: Fields, outer: Fields) -> RopeScaling | None:
    factor = inner.number("factor")

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1.0 else 1.0

    attention = scale(1.0)
    if inner.get("mscale") and inner.get("mscale_all_dim"):
        whole = scale(inner.number("mscale_all_dim"))
        attention = scale(inner.number("mscale")) / whole
    attention = inner.number("attention_factor", default=attention)
    if factor == attention == 1.0:
        return None
    return YarnRope(
        factor=factor,
        original_positions=_original(inner, outer),
        beta_fast=inner.number("beta_fast", default=32.0),
        beta_slow=inner.number("beta_slow", default=1.0),
        attention_factor=attention,
        truncate=inner.boolean("truncate", default=True),
    )


_READERS: Mapping[str, Callable[[Fields, Fields], RopeScaling | None]] = {
    "linear": _read_linear,
    "dynamic": _read_dynamic,
    "llama3": _read_llama3,
    "yarn": _read_yarn,
}
