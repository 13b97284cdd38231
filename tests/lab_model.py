"""A model that is too small to solve anything, over the lab's vocabulary."""

import dataclasses
from pathlib import Path
from typing import Any

import compiled
import jax

from seedjax.checkpoints.model_directory import save_model
from seedjax.config import DenoiserConfig, to_dict
from seedjax.sampling.policy import LeftToRight
from seedjax.sampling.recipe import SamplerConfig
from seedjax.text.tokenizer import Tokenizer


def config_of(tokenizer: Tokenizer) -> DenoiserConfig:
    special = tokenizer.special
    return DenoiserConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        head_dim=16,
        mlp_size=16,
        max_positions=512,
        block_size=4,
        init_scale=0.3,
        logit_alignment="shifted",
        mask_token_id=special.mask,
        pad_token_id=special.pad,
        bos_token_id=special.bos,
        eos_token_ids=(special.eos,),
    )


def save(
    directory: Path, tokenizer: Tokenizer, *, seed: int = 3, **changes: Any
) -> str:
    config = dataclasses.replace(config_of(tokenizer), **changes)
    save_model(
        directory,
        params=compiled.init(jax.random.key(seed), config),
        denoiser=config,
        tokenizer=tokenizer,
        sampler=to_dict(
            SamplerConfig(
                policy=LeftToRight(),
                # So that answers come to an end now and then.
                forbidden_token_ids=tuple(range(40, config.vocab_size)),
            )
        ),
        provenance={},
        card="",
    )
    return str(directory)
