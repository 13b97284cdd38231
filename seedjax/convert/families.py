"""Model families: what a published checkpoint is, and what its files do not say.

    config.json ──recognise──▶ Family ──recipe.read_denoiser──▶ DenoiserConfig

A family is recognised by the architecture that `config.json` names. The meaning of a
checkpoint (which way positions see, whether logits are shifted, which id is the mask)
stands in no file or in remote code only; it comes from `families.toml`, is printed, and
can be set otherwise. What is neither in the files nor in the table is refused.

The facts are those of the published configurations and reference samplers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from seedjax.convert.shapes import LayoutName
from seedjax.errors import InputError, did_you_mean
from seedjax.files.package import package_table

Proof = Literal["logits", "decode", "real weights"]
"""Proofs for a family: equal logits on random weights, decodes equal to its
published loop's on random weights, a published checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A table row.

    Attributes:
      name: as the command line knows it.
      checkpoints: published ones, on the Hugging Face Hub.
      architecture: that names it in `config.json`. Where several families have one,
        the first of the table is meant unless the user names another.
      model_type: that goes with it.
      other_architectures: older names.
      layout: names and shapes of the tensors, see `layouts`.
      denoiser: fields of `DenoiserConfig` that no file says.
      ids: special ids that hold where the files are silent.
      sampler: the published decode settings, fields of `SamplerConfig`.
      source: where those settings stand.
      unsaid: fields that not even the family settles; the user must.
      proof: what the tests show.
    """

    name: str
    checkpoints: tuple[str, ...] = ()
    architecture: str
    model_type: str
    layout: LayoutName
    denoiser: Mapping[str, Any]
    ids: Mapping[str, Any] = field(default_factory=dict)
    sampler: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    unsaid: tuple[str, ...] = ()
    proof: tuple[Proof, ...] = ("logits", "decode")
    other_architectures: tuple[str, ...] = ()


def _family(name: str, row: Mapping[str, Any]) -> Family:
    """A row of `families.toml`, whose lists are tuples here, but for the sampler's."""
    fields = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in row.items()
    }
    ids = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in row.get("ids", {}).items()
    }
    return Family(name=name, **fields | {"ids": ids})


FAMILIES: dict[str, Family] = {
    name: _family(name, row)
    for name, row in package_table("seedjax.convert", "families.toml").items()
}

SEED_VOCABULARY = 155136  # rows that Seed-Coder and Stable-DiffCoder share


def family_named(name: str) -> Family:
    """Raises:
    InputError: if there is none of that name.
    """
    if name not in FAMILIES:
        hint = did_you_mean(name, FAMILIES) or f"; there are {', '.join(FAMILIES)}"
        raise InputError(f"unknown family {name!r}{hint}")
    return FAMILIES[name]


def recognise(config: Mapping[str, Any], name: str = "") -> Family:
    """The family of a checkpoint by its `config.json` and, where several families have
    one architecture, by a checkpoint of the table that its name or folder names.

    Raises:
      InputError: for an architecture that no family has, or that several have.
    """
    named = config.get("architectures") or []
    if not isinstance(named, list) or len(named) != 1:
        raise InputError(
            f"config.json names the architectures {named!r}; expected one, or name "
            "the family"
        )
    architecture = named[0]
    if architecture == "LlamaForCausalLM":
        if config.get("vocab_size") == SEED_VOCABULARY:
            raise _ambiguous(architecture, "seed-coder", "stable-diffcoder")
    elif architecture == "Qwen2ForCausalLM" and config.get("mask_token_id") is not None:
        raise _ambiguous(architecture, "qwen2", "open-dcoder")
    found = [
        family
        for family in FAMILIES.values()
        if architecture in (family.architecture, *family.other_architectures)
    ]
    if found:
        name = name.lower()
        named = [
            family
            for family in found
            for checkpoint in family.checkpoints
            if checkpoint.rpartition("/")[2].lower() in name
        ]
        return (named or found)[0]
    known = sorted({family.architecture for family in FAMILIES.values()})
    raise InputError(
        f"architecture {architecture!r} is unknown; there are {', '.join(known)}; if "
        "the tensors are laid out as one of these families', name the family"
    )


def _ambiguous(architecture: str, *families: str) -> InputError:
    return InputError(
        f"config.json says {architecture}, which may be {' or '.join(families)}; name "
        "the family"
    )
