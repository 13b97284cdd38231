"""The options of a call, by name and type, so that editors complete them and a type
checker knows them: the fields of `SamplerConfig`, and three words for a policy."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from seedjax.sampling.ahead import WorkAhead
from seedjax.sampling.policy import Policy
from seedjax.sampling.recipe import (
    Context,
    Distribution,
    LastBlock,
    Order,
    Speculation,
)
from seedjax.sampling.revision import AnyRevision
from seedjax.sampling.stopping import AnyEos

FromJson = Mapping[str, Any]
"""A recipe as `seedjax.config.to_dict` writes it: its class under "kind"."""


class SamplerOptions(TypedDict, total=False):
    """Arguments of `SamplerConfig.vary`; documented there."""

    threshold: float  # these three name a policy: `SamplerConfig.named_policy`
    order: Order
    steps: int
    block_size: int | Literal["answer"] | None
    context: Context
    max_new_tokens: int
    policy: Policy | FromJson
    temperature: float
    top_k: int | None
    top_p: float
    eos: AnyEos | FromJson
    last_block: LastBlock
    certainty_of: Distribution
    last_token_ids: Sequence[int]
    max_steps_per_block: int | None
    early_exit: bool
    guidance: float
    ahead: WorkAhead | FromJson | None
    revision: AnyRevision | FromJson | None
    speculation: Speculation | FromJson | None
    int8_cache: bool
    cache: bool
    trace: bool
    logprobs: bool
    forbidden_token_ids: Sequence[int]
    vocabulary_end: int | None
