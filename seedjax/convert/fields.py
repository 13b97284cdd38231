"""The fields of a published `config.json`: each is used, known to do nothing, or
refused by name.

    fields = Fields(config)
    fields.integer("hidden_size")     used
    fields.finish()                   refuses what was not

A field that changes what the network computes must be read, or have a value at which it
does nothing. One that is not known may do so; the user may take it for harmless.
"""

import functools
import math
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from seedjax.config import LIMITS
from seedjax.errors import InputError
from seedjax.files.package import package_text
from seedjax.files.text import brief

NEUTRAL: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "hidden_act": ("silu", "swish", "swiglu", None),
        "activation_type": ("silu", "swiglu", None),
        "mlp_bias": (False, None),
        "use_bias": (False, None),
        "norm_head": (False, None),
        "norm_softmax": (False, None),
        "include_bias": (False, None),
        "bias_for_layer_norm": (False, None),
        "use_mrope": (False, None),
        "rope_interleave": (False, None),
        "clip_qkv": (None,),
        "alibi": (False, None),
        "rope": (True, None),
        "layer_norm_eps": (None,),
        "layer_norm_type": ("rms", None),
        "layer_norm_with_affine": (True, None),
        "use_rmsnorm": (True, None),
        "block_type": ("llama", None),
        "input_emb_norm": (False, None),
        "scale_logits": (False, None),
        "scale_emb_sqrt_depth": (False, None),
        "logit_scale": (None, 1.0),
        "logits_scaling": (None, 1.0),
        "embedding_multiplier": (None, 1.0),
        "residual_multiplier": (None, 1.0),
        "attention_multiplier": (None,),
        "query_pre_attn_scalar": (None,),
        "final_logit_softcapping": (None,),
        "attn_logit_softcapping": (None,),
        "quantization_config": (None, {}),
        "compression_config": (None, {}),
        "mlp_only_layers": (None, []),
        "decoder_sparse_step": (None, 1),
        "num_nextn_predict_layers": (None, 0),
        "score_function": (None, "sigmoid"),
        "router_dtype": (None, "fp32", "float32"),
        "moe_router_score_function": (None, "softmax"),
        "multi_query_attention": (None, False),
        "is_encoder_decoder": (None, False),
        "add_cross_attention": (None, False),
        "tie_encoder_decoder": (None, False),
        "cross_attention_hidden_size": (None,),
        "pruned_heads": (None, {}),
        "use_cab": (None, False),
        "use_loopholing": (None, False),
        "use_mlp_carry": (None, False),
        "spd_type": (None, "pard"),
    }
)
"""Fields that change the network, and the values at which they do not."""


@functools.cache
def harmless_fields() -> frozenset[str]:
    """Fields that say nothing about what the network computes."""
    lines = package_text("seedjax.convert", "harmless_fields.txt").splitlines()
    return frozenset(
        name for line in lines if not line.startswith("#") for name in line.split()
    )


MASKS = ("mask_token_id", "pard_token")
"""Names of the mask: a diffusion model's, and that of PARD's drafters (arXiv
2504.18583), which is shown in the places that are drafted."""
IDS = (*MASKS, "pad_token_id", "bos_token_id", "eos_token_id")
_ABSENT: Any = object()


class Fields:
    """A `config.json` that is read field by field.

    Attributes:
      where: what it is called in messages.
      ignored: names that the user takes for harmless, of those that are there.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        ignored: Collection[str] = (),
        by_user: Mapping[str, Any] = MappingProxyType({}),
        where: str = "config.json",
    ):
        """Begins to read `config`.

        Args:
          config: its values.
          ignored: names that the user takes for harmless.
          by_user: fields of `DenoiserConfig` that the user has set. They go before the
            fields of the file that say the same, which then may hold anything.
          where: what it is called in messages.

        Raises:
          InputError: for an ignored name that it does not have.
        """
        for name in ignored:
            if name not in config:
                raise InputError(f"{where} has no field {name!r} to ignore")
        self._config = {k: v for k, v in config.items() if k not in ignored}
        self._used: set[str] = set()
        self.by_user = by_user
        self.where, self.ignored = where, tuple(ignored)

    def get(self, name: str) -> Any:
        """A field's value as it is, None if it is not there."""
        self._used.add(name)
        return self._config.get(name)

    def integer(
        self, name: str, *, default: Any = _ABSENT, at_least: int = 1, sets: str = ""
    ) -> int:
        """An integer, of the size that the field of `DenoiserConfig` may have that it
        `sets`; what the user has set that to, if so."""
        value, most = self._value(name, default, sets), LIMITS.get(sets, 1 << 31)
        if type(value) is not int or not at_least <= value <= most:
            expected = f"an integer from {at_least} to {most}"
            raise self.fault(name, expected, sets=sets)
        return value

    def number(self, name: str, *, default: Any = _ABSENT, sets: str = "") -> float:
        """A number above 0."""
        value = self._value(name, default, sets)
        if not is_number(value) or value <= 0:
            raise self.fault(name, "a number above 0", sets=sets)
        return float(value)

    def boolean(self, name: str, *, default: Any = _ABSENT, sets: str = "") -> bool:
        value = self._value(name, default, sets)
        if not isinstance(value, bool):
            raise self.fault(name, "true or false", sets=sets)
        return value

    def require(self, name: str, *values: Any) -> None:
        """That a field has one of these values, or is not there.

        Raises:
          InputError: if it has another.
        """
        value = self.get(name)
        # By type as well: 1 is not true.
        if not any(same(value, one) for one in (None, *values)):
            said = " or ".join(brief(one) for one in values) or "null"
            raise InputError(
                f"{self.where} has {name}={brief(value)}, which seedjax does not "
                f"compute; it takes {said}" + self._remedy(name)
            )

    def finish(self) -> None:
        """Refuses what may change the network and was not read.

        Raises:
          InputError: naming the fields.
        """
        for name, neutral in NEUTRAL.items():
            if name in self._config and name not in self._used:
                self.require(name, *(one for one in neutral if one is not None))
        known = self._used | NEUTRAL.keys() | harmless_fields() | {*IDS}
        unknown = [name for name in self._config if name not in known]
        if unknown:
            said = ", ".join(f"{n}={brief(self._config[n])}" for n in unknown[:4])
            more = f" and {len(unknown) - 4} more" if len(unknown) > 4 else ""
            raise InputError(
                f"{self.where} has fields that seedjax does not know: {said}{more}; "
                "they may change what the model computes; "
                f"--ignore-field {unknown[0]} takes one for harmless"
            )

    def fault(self, name: str, expected: str, *, sets: str = "") -> InputError:
        """The error for a field's value, or for the user's instead of it."""
        if sets in self.by_user:
            return InputError(
                f"{sets} is {brief(self.by_user[sets])}; expected {expected}"
            )
        value = self._config.get(name)
        more = f", or --set {sets}" if sets and value is None else ""
        return InputError(
            f"{self.where}: {name} is {brief(value)}; expected {expected}{more}"
        )

    def _value(self, name: str, default: Any, sets: str) -> Any:
        value = self.get(name)
        if sets in self.by_user:
            return self.by_user[sets]
        return default if value is None and default is not _ABSENT else value

    def _remedy(self, name: str) -> str:
        return f"; --ignore-field {name} takes it for harmless"


def read_window(fields: Fields, num_layers: int) -> int | None:
    """How many positions back a query sees; None for all.

    Raises:
      InputError: for kinds of layers that seedjax does not have.
    """
    use, window = fields.get("use_sliding_window"), fields.get("sliding_window")
    if use not in (None, False, True):
        raise fields.fault("use_sliding_window", "true or false")
    if window is not None:
        window = fields.integer("sliding_window", at_least=0) or None
    kinds = fields.get("layer_types")
    if kinds is not None:
        if not isinstance(kinds, list) or len(kinds) != num_layers:
            raise fields.fault("layer_types", f"a list of {num_layers}, one a layer")
        for kind in kinds:
            if kind != "full_attention" and not (
                kind == "sliding_attention" and window is not None
            ):
                raise fields.fault(
                    "layer_types", "'full_attention' of each layer, which seedjax has"
                )
        return window if "sliding_attention" in kinds else None
    return None if use is False else window


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an integer beyond all floats
        return False


def same(value: Any, other: Any) -> bool:
    """Whether two JSON values are equal; numbers are by value, 1 is not true."""
    numbers = is_number(value) and is_number(other)
    return value == other and (numbers or type(value) is type(other))
