"""Model families: what a published checkpoint is, and what its files do not say.

    config.json ──recognise──▶ Family ──recipe.read_denoiser──▶ DenoiserConfig

A family is recognised by the architecture that `config.json` names. The meaning of a
checkpoint (which way positions see, whether logits are shifted, which id is the mask)
stands in no file or in remote code only; it comes from the table here, is printed, and
can be set otherwise. What is neither in the files nor in the table is refused.

The facts are those of the published configurations and reference samplers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from seedjax.convert.shapes import LayoutName
from seedjax.errors import InputError, did_you_mean

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
    checkpoints: tuple[str, ...]
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


_AUTOREGRESSIVE = {"attention": "causal", "logit_alignment": "shifted"}
_BIDIRECTIONAL = {"attention": "bidirectional", "logit_alignment": "same_position"}
_SHIFTED = {"attention": "bidirectional", "logit_alignment": "shifted"}


def _blocks(size: int, alignment: str = "same_position") -> dict[str, Any]:
    return {
        "attention": "block_causal",
        "logit_alignment": alignment,
        "block_size": size,
    }


def _threshold(threshold: float) -> dict[str, Any]:
    return {"policy": {"kind": "ConfidenceThreshold", "threshold": threshold}}


def _steps(steps: int, of: str) -> dict[str, Any]:
    return {"kind": "FixedCount", "steps_per_block": steps, "of": of}


_SDAR = {
    "max_new_tokens": 2048,
    "policy": {
        "kind": "AnyOf",
        "policies": [
            _steps(4, "block"),
            {"kind": "ConfidenceThreshold", "threshold": 0.85},
        ],
    },
    "temperature": 1.0,
    "certainty_of": "draw",
}


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="stable-diffcoder",
            checkpoints=("ByteDance-Seed/Stable-DiffCoder-8B-Instruct",),
            architecture="StableDiffcoderForCausalLM",
            model_type="llama",
            other_architectures=("SeedDiffcoderForCausalLM",),
            layout="llama",
            denoiser=_blocks(4),
            ids={
                "mask_token_id": 5,
                "bos_token_id": 0,
                "pad_token_id": 1,
                "eos_token_ids": (2,),
            },
            sampler={
                "max_new_tokens": 512,
                "policy": _steps(4, "masked"),
                "last_block": "cut",
            },
            source="model card: steps 512, gen_length 512, block_length 4",
        ),
        Family(
            name="llada",
            checkpoints=(
                "GSAI-ML/LLaDA-8B-Base",
                "GSAI-ML/LLaDA-8B-Instruct",
                "GSAI-ML/LLaDA-1.5",
                "GSAI-ML/iLLaDA-8B",
            ),
            architecture="LLaDAModelLM",
            model_type="llada",
            layout="llada",
            denoiser={**_BIDIRECTIONAL, "block_size": 32},
            ids={"mask_token_id": 126336, "eos_token_ids": (126081,)},
            sampler={
                "max_new_tokens": 128,
                "context": "canvas",
                "policy": _steps(32, "masked"),
            },
            source="reference generate.py: steps 128, gen_length 128, block_length 32",
        ),
        Family(
            name="llada-moe",
            checkpoints=(
                "inclusionAI/LLaDA-MoE-7B-A1B-Base",
                "inclusionAI/LLaDA-MoE-7B-A1B-Instruct",
            ),
            architecture="LLaDAMoEModelLM",
            model_type="llada_moe",
            other_architectures=("LLaDAMoEModel",),
            layout="llada-moe",
            denoiser={**_BIDIRECTIONAL, "block_size": 32},
            ids={"mask_token_id": 156895, "eos_token_ids": (156892,)},
            sampler={
                "max_new_tokens": 128,
                "context": "canvas",
                "policy": _steps(32, "masked"),
            },
            source="model card: steps 128, gen_length 128, block_length 32",
        ),
        Family(
            name="llada2",
            checkpoints=(
                "inclusionAI/LLaDA2.0-mini",
                "inclusionAI/LLaDA2.0-flash",
                "inclusionAI/LLaDA2.2-flash",
            ),
            architecture="LLaDA2MoeModelLM",
            model_type="llada2_moe",
            layout="llada2",
            denoiser=_blocks(32),
            ids={"mask_token_id": 156895, "eos_token_ids": (156892,)},
            sampler={
                "max_new_tokens": 2048,
                "certainty_of": "draw",
                **_threshold(0.95),
            },
            source="model card: block_length 32, steps 32, threshold 0.95",
        ),
        Family(
            name="llada2.1",
            checkpoints=("inclusionAI/LLaDA2.1-mini", "inclusionAI/LLaDA2.1-flash"),
            architecture="LLaDA2MoeModelLM",
            model_type="llada2_moe",
            layout="llada2",
            denoiser=_blocks(32),
            ids={"mask_token_id": 156895, "eos_token_ids": (156892,)},
            sampler={
                "max_new_tokens": 2048,
                "certainty_of": "draw",
                "revision": {
                    "kind": "TokenEdits",
                    "threshold": 0.5,
                    "extra_steps": 16,
                },
                **_threshold(0.7),
            },
            source="model card, quality mode: threshold 0.7, editing_threshold 0.5, "
            "max_post_steps 16",
        ),
        Family(
            name="dream",
            checkpoints=(
                "Dream-org/Dream-v0-Base-7B",
                "Dream-org/Dream-v0-Instruct-7B",
                "Dream-org/Dream-Coder-v0-Base-7B",
                "Dream-org/Dream-Coder-v0-Instruct-7B",
                "Dream-org/DreamOn-v0-7B",
                "apple/DiffuCoder-7B-Base",
                "apple/DiffuCoder-7B-cpGRPO",
            ),
            architecture="DreamModel",
            model_type="Dream",
            layout="qwen2",
            denoiser={**_SHIFTED, "block_size": 32},
            ids={
                "mask_token_id": 151666,
                "pad_token_id": 151643,
                "eos_token_ids": (151643,),
            },
            sampler={
                "max_new_tokens": 512,
                "temperature": 0.2,
                "top_p": 0.95,
                "context": "canvas",
                "block_size": "answer",
                "policy": {"kind": "TimeSchedule", "steps_per_block": 512},
                "certainty_of": "draw",
            },
            source="model card: steps 512, temperature 0.2, top_p 0.95, alg entropy",
        ),
        Family(
            name="fast-dllm-v2",
            checkpoints=(
                "Efficient-Large-Model/Fast_dLLM_v2_1.5B",
                "Efficient-Large-Model/Fast_dLLM_v2_7B",
            ),
            architecture="Fast_dLLM_QwenForCausalLM",
            model_type="Fast_dLLM_Qwen",
            layout="qwen2",
            denoiser=_blocks(32, "shifted"),
            ids={
                "mask_token_id": 151665,
                "bos_token_id": 151643,
                "pad_token_id": 151645,
                "eos_token_ids": (151645,),
            },
            sampler={
                "max_new_tokens": 2048,
                "policy": {"kind": "SubBlocks", "size": 8, **_threshold(0.9)},
            },
            source="published example: threshold 0.9, block 32, small_block_size 8",
        ),
        Family(
            name="sdar",
            checkpoints=(
                "JetLM/SDAR-1.7B-Chat",
                "JetLM/SDAR-4B-Chat",
                "JetLM/SDAR-8B-Chat",
                "Gen-Verse/TraDo-4B-Instruct",
                "Gen-Verse/TraDo-8B-Instruct",
            ),
            architecture="SDARForCausalLM",
            model_type="sdar",
            layout="qwen3",
            denoiser=_blocks(4),
            ids={"mask_token_id": 151669, "eos_token_ids": (151643, 151645)},
            sampler=_SDAR,
            source="reference generate.py: block_length 4, denoising_steps 4, "
            "low_confidence_dynamic, threshold 0.85, temperature 1",
        ),
        Family(
            name="sdar-moe",
            checkpoints=("JetLM/SDAR-30B-A3B-Chat",),
            architecture="SDARMoeForCausalLM",
            model_type="sdar_moe",
            layout="qwen3-moe",
            denoiser=_blocks(4),
            ids={"mask_token_id": 151669, "eos_token_ids": (151643, 151645)},
            sampler=_SDAR,
            source="reference generate.py: block_length 4, denoising_steps 4, "
            "low_confidence_dynamic, threshold 0.85, temperature 1",
        ),
        Family(
            name="a2d-llama",
            checkpoints=(),
            architecture="A2DLlamaLMHeadModel",
            model_type="a2d-llama",
            layout="llama",
            denoiser={"logit_alignment": "same_position", "block_size": 32},
            unsaid=("attention", "mask_token_id"),
            proof=("logits",),
        ),
        Family(
            name="a2d-qwen2",
            checkpoints=(),
            architecture="A2DQwen2LMHeadModel",
            model_type="a2d-qwen2",
            layout="qwen2",
            denoiser={"logit_alignment": "same_position", "block_size": 32},
            unsaid=("attention", "mask_token_id"),
            proof=("logits",),
        ),
        Family(
            name="a2d-qwen3",
            checkpoints=("dllm-hub/Qwen3-0.6B-diffusion-bd3lm-v0.1",),
            architecture="A2DQwen3LMHeadModel",
            model_type="a2d-qwen3",
            layout="qwen3",
            denoiser={"logit_alignment": "same_position", "block_size": 32},
            unsaid=("attention", "mask_token_id"),
            proof=("logits",),
        ),
        Family(
            name="llama",
            checkpoints=("HuggingFaceTB/SmolLM2-135M-Instruct",),
            architecture="LlamaForCausalLM",
            model_type="llama",
            layout="llama",
            denoiser=_AUTOREGRESSIVE,
            proof=("logits", "decode", "real weights"),
        ),
        Family(
            name="qwen2",
            checkpoints=("Qwen/Qwen2.5-Coder-0.5B", "Qwen/Qwen2.5-Coder-7B"),
            architecture="Qwen2ForCausalLM",
            model_type="qwen2",
            layout="qwen2",
            denoiser=_AUTOREGRESSIVE,
        ),
        Family(
            name="open-dcoder",
            checkpoints=("fredzzp/open-dcoder-0.5B",),
            architecture="Qwen2ForCausalLM",
            model_type="qwen2",
            layout="qwen2",
            denoiser={**_SHIFTED, "block_size": 32},
            unsaid=("mask_token_id",),
            proof=("logits",),
        ),
        Family(
            name="seed-coder",
            checkpoints=(
                "ByteDance-Seed/Seed-Coder-8B-Base",
                "ByteDance-Seed/Seed-Coder-8B-Instruct",
            ),
            architecture="LlamaForCausalLM",
            model_type="llama",
            layout="llama",
            denoiser=_AUTOREGRESSIVE,
            ids={"bos_token_id": 0, "pad_token_id": 1, "eos_token_ids": (2,)},
        ),
        Family(
            name="qwen3",
            checkpoints=("Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B"),
            architecture="Qwen3ForCausalLM",
            model_type="qwen3",
            layout="qwen3",
            denoiser=_AUTOREGRESSIVE,
        ),
        Family(
            name="qwen3-moe",
            checkpoints=("Qwen/Qwen3-30B-A3B",),
            architecture="Qwen3MoeForCausalLM",
            model_type="qwen3_moe",
            layout="qwen3-moe",
            denoiser=_AUTOREGRESSIVE,
        ),
    )
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
