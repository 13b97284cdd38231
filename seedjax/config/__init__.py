"""Recipes: the denoiser's own, and what all of them share."""

from seedjax.config.denoiser import (
    LIMITS,
    Attention,
    AttentionBackend,
    DenoiserConfig,
    DType,
    LayerLoop,
    LogitAlignment,
    MoEConfig,
)
from seedjax.config.recipes import (
    check_field_name,
    check_fields,
    coerce,
    from_dict,
    make_plain,
    merge_assignments,
    override,
    parse_assignments,
    require,
    to_dict,
)
from seedjax.config.rope import (
    DynamicRope,
    LinearRope,
    Llama3Rope,
    RopeScaling,
    YarnRope,
)

__all__ = [
    "LIMITS",
    "Attention",
    "AttentionBackend",
    "DType",
    "LayerLoop",
    "DenoiserConfig",
    "DynamicRope",
    "LinearRope",
    "Llama3Rope",
    "LogitAlignment",
    "MoEConfig",
    "RopeScaling",
    "YarnRope",
    "check_field_name",
    "check_fields",
    "coerce",
    "from_dict",
    "make_plain",
    "merge_assignments",
    "override",
    "parse_assignments",
    "require",
    "to_dict",
]
