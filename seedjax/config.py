"""The denoiser's recipe, and how any recipe is written to and read from JSON.

Every recipe in seedjax is a frozen, hashable dataclass, passed to `jit` as a static
argument. A recipe lives beside the code that it steers; the denoiser's own stands here
because every room needs it. What is not here: state, which is always a pytree.
"""

import dataclasses
import functools
import importlib
import numbers
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from seedjax.errors import InputError, did_you_mean
from seedjax.files.text import brief, parse_json

Attention = Literal["bidirectional", "block_causal", "causal"]
LogitAlignment = Literal["same_position", "shifted"]
LayerLoop = Literal["unroll", "scan"]
DType = Literal["float32", "bfloat16"]
Remat = Literal["none", "layer", "dots_saved"]
Scoring = Literal["softmax", "sigmoid"]
AttentionBackend = Literal["auto", "dense", "chunked"]


LIMITS: Mapping[str, int] = types.MappingProxyType(
    {
        **dict.fromkeys(("vocab_size", "mlp_size", "expert_size"), 1 << 24),
        **dict.fromkeys(("hidden_size", "shared_size"), 1 << 24),
        **dict.fromkeys(("num_heads", "num_kv_heads", "head_dim"), 1 << 16),
        **dict.fromkeys(("num_layers", "num_dense_layers"), 1 << 10),
        "num_experts": 1 << 16,
        "block_size": 1 << 20,
        "max_positions": 1 << 31,
    }
)
"""The largest sizes of a model, well above all that are published: a damaged or hostile
file must not make a loop or an array of what it happens to hold."""
MOST_EXPERTS = 1 << 17  # over all layers; each is a tensor of a published checkpoint
RANGES: Mapping[str, tuple[float, float]] = types.MappingProxyType(
    {"rope_theta": (1e-3, 1e15), "norm_eps": (1e-20, 1.0), "init_scale": (0.0, 1e3)}
)
"""Numbers of a model with which float32 arithmetic stays finite."""


@dataclass(frozen=True, kw_only=True)
class MoEConfig:
    """A mixture of SwiGLU experts in place of the feed-forward layer: how many, how
    wide, and how tokens choose among them (`nn.moe.route`)."""

    num_experts: int  # E
    num_selected: int  # experts that each token is sent to
    expert_size: int  # F, width of one expert
    shared_size: int = 0  # F of the expert that every token takes; 0: there is none
    num_dense_layers: int = 0  # leading layers with a feed-forward of `mlp_size`
    scoring: Scoring = "softmax"
    normalize: bool = False  # divide the selected weights by their sum
    scale: float = 1.0  # factor of the selected weights, after that
    expert_bias: bool = False  # a bias on the scores, for selecting only
    num_groups: int = 1  # neighbouring experts form a group; selection stays in the
    num_selected_groups: int = 1  # best ones, by the sum of their two best scores

    def __post_init__(self):
        make_plain(self)
        for name in ("num_experts", "expert_size"):
            require_count(self, name)
        for name in ("shared_size", "num_dense_layers"):
            require_count(self, name, least=0)
        require(0 < self.scale <= 1e6, self, "scale", "above 0, at most 1e6")
        require(
            self.num_groups >= 1 and self.num_experts % self.num_groups == 0,
            self,
            "num_groups",
            f"a divisor of num_experts={self.num_experts}",
        )
        require(
            1 <= self.num_selected_groups <= self.num_groups,
            self,
            "num_selected_groups",
            f"from 1 to num_groups={self.num_groups}",
        )
        eligible = self.num_experts // self.num_groups * self.num_selected_groups
        require(
            1 <= self.num_selected <= eligible,
            self,
            "num_selected",
            f"from 1 to the {eligible} experts of the selected groups",
        )


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """Shape and semantics of a transformer denoiser, or of its autoregressive baseline
    (`attention="causal"`, `logit_alignment="shifted"`)."""

    vocab_size: int  # rows of the embedding table, special pieces included
    hidden_size: int  # D
    num_layers: int
    num_heads: int  # H
    num_kv_heads: int  # K, divides H
    head_dim: int  # C
    mlp_size: int  # F, width of the gated feed-forward layer
    max_positions: int = 2048  # longest document, in tokens
    rope_theta: float = 10_000.0  # base of the rotary frequencies
    rope_fraction: float = 1.0  # share of each head's channels that is rotated
    norm_eps: float = 1e-6
    qk_norm: bool = False  # RMSNorm on each head's queries and keys
    attention_bias: bool = False  # biases on the query, key and value projections
    tie_embeddings: bool = True  # the output head is the embedding table
    init_scale: float = 0.02  # standard deviation of the initial weights
    attention: Attention = "block_causal"
    block_size: int = (
        16  # B of block diffusion and of block-causal attention, in tokens
    )
    logit_alignment: LogitAlignment = "same_position"
    mask_token_id: int = 0
    pad_token_id: int = 1
    bos_token_id: int = 2
    eos_token_ids: tuple[int, ...] = (3,)
    dtype: DType = "float32"  # operands of matrix products; accumulation is float32
    activation_dtype: DType = "float32"  # between products; "bfloat16" on accelerators
    param_dtype: DType = "float32"
    layer_loop: LayerLoop = "unroll"  # "scan" on accelerators, "unroll" on CPU
    remat: Remat = "none"  # what the backward pass recomputes
    attention_backend: AttentionBackend = "auto"  # "auto": see `seedjax doctor`
    moe: MoEConfig | None = None  # experts instead of the feed-forward layer

    def __post_init__(self):
        make_plain(self)
        for name in (
            "vocab_size",
            "hidden_size",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "head_dim",
            "mlp_size",
            "max_positions",
            "block_size",
        ):
            require_count(self, name)
        require(
            self.num_heads % self.num_kv_heads == 0,
            self,
            "num_kv_heads",
            f"a divisor of num_heads={self.num_heads}",
        )
        require(
            0.0 < self.rope_fraction <= 1.0 and self.rotary_dim % 2 == 0,
            self,
            "rope_fraction",
            f"in (0, 1], rotating an even share of head_dim={self.head_dim}",
        )
        for name, (least, most) in RANGES.items():
            require(
                least <= getattr(self, name) <= most,
                self,
                name,
                f"from {least:g} to {most:g}",
            )
        for name in ("mask_token_id", "pad_token_id", "bos_token_id"):
            require(
                0 <= getattr(self, name) < self.vocab_size,
                self,
                name,
                f"a token id below vocab_size={self.vocab_size}",
            )
        require(
            all(0 <= i < self.vocab_size for i in self.eos_token_ids),
            self,
            "eos_token_ids",
            f"token ids below vocab_size={self.vocab_size}",
        )
        if self.moe is not None:
            require(
                self.moe.num_dense_layers < self.num_layers,
                self.moe,
                "num_dense_layers",
                f"below num_layers={self.num_layers}",
            )
            require(
                self.num_layers * self.moe.num_experts <= MOST_EXPERTS,
                self.moe,
                "num_experts",
                f"at most {MOST_EXPERTS} over all {self.num_layers} layers",
            )

    @property
    def rotary_dim(self) -> int:
        """Channels of each head that the rotary embedding turns."""
        return int(self.head_dim * self.rope_fraction)

    @property
    def num_leading_layers(self) -> int:
        """Layers that differ from the rest and stand apart from the stacked ones of
        `layer_loop="scan"`: the dense ones of a mixture of experts."""
        return 0 if self.moe is None else self.moe.num_dense_layers


def require(condition: bool, config: Any, field: str, rule: str) -> None:
    """Raises `InputError` naming the config, the field, its value and what was
    rule."""
    if not condition:
        got = getattr(config, field)
        raise InputError(
            f"{type(config).__name__}.{field} is {brief(got)}; it must be {rule}"
        )


def require_count(config: Any, field: str, *, least: int = 1) -> None:
    """Raises `InputError` unless a size is from `least` to its entry in `LIMITS`."""
    most = LIMITS[field]
    require(
        least <= getattr(config, field) <= most,
        config,
        field,
        f"at least {least} and at most {most}",
    )


ConfigT = TypeVar("ConfigT")


def to_dict(config: Any) -> Any:
    """A recipe as JSON-ready values. A dataclass becomes a mapping with its class name
    under "kind", so that `from_dict` can tell the members of a union apart; one of the
    user's own, for a field that takes any class with the methods of a Protocol, has
    "module:Class" there."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        hints = typing.get_type_hints(type(config))
        values: dict[str, Any] = {"kind": type(config).__name__}
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            values[field.name] = to_dict(value)
            if _is_of_own_class(value, hints[field.name]):
                kind = f"{type(value).__module__}:{type(value).__qualname__}"
                values[field.name]["kind"] = kind
        return values
    if isinstance(config, tuple | list):
        return [to_dict(v) for v in config]
    return config


def from_dict(
    cls: type[ConfigT], values: Mapping[str, Any], where: str = ""
) -> ConfigT:
    """Builds the recipe `cls` from what `to_dict` wrote, or from a part of it.

    Raises:
      InputError: for an unknown field (naming the nearest one), a missing field or a
        value of the wrong type.
    """
    where = where or cls.__name__
    if not isinstance(values, Mapping):
        raise InputError(f"{where} is {brief(values)}; it must be a mapping of fields")
    types_of_fields = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name == "kind":
            if value != cls.__name__:
                raise InputError(
                    f"{where}.kind is {brief(value)}; expected {cls.__name__!r}"
                )
            continue
        if (removed := getattr(cls, "REMOVED_FIELDS", {}).get(name)) is not None:
            if value is not None:
                raise InputError(f"{where}.{name} was removed: {removed}")
            continue
        check_field_name(name, names, where)
        given[name] = coerce(types_of_fields[name], value, f"{where}.{name}")
    try:
        return cls(**given)
    except TypeError as error:
        raise InputError(f"{where}: {error}") from None


def make_plain(config: Any) -> None:
    """Checks a new recipe's numbers, flags and texts for their types, and gives them
    Python's own in place of NumPy's. To be called first in `__post_init__`, for frozen
    recipes, too; fields that are recipes of their own check themselves.

    Raises:
      InputError: for a value of the wrong type.
    """
    cls: Any = type(config)
    for field, annotation in _plain_fields(cls):
        value = coerce(annotation, getattr(config, field), f"{cls.__name__}.{field}")
        object.__setattr__(config, field, value)


@functools.cache
def _plain_fields(cls: Any) -> list[tuple[str, Any]]:
    """Fields of a recipe that hold nothing but plain values, and their types."""

    def is_plain(annotation: Any) -> bool:
        if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple):
            return all(map(is_plain, typing.get_args(annotation)))
        is_literal = typing.get_origin(annotation) is Literal
        plain = (int, float, bool, str, type(None), Ellipsis)
        return is_literal or annotation in plain

    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)
    return [(f.name, hints[f.name]) for f in fields if is_plain(hints[f.name])]


def check_field_name(name: str, names: list[str], where: str) -> None:
    """Raises `InputError` with the nearest known name when `name` is unknown."""
    if name in names:
        return
    hint = did_you_mean(name, names) or f"; it has {', '.join(names) or 'none'}"
    raise InputError(f"{where} has no field {name!r}{hint}")


def check_fields(
    values: Mapping[str, Any], kinds: Mapping[str, Any], where: str
) -> None:
    """Checks the fields of a file that others write, too: fields that are not named are
    let be, and one that is not there counts as None.

    Args:
      values: a JSON object.
      kinds: annotations by field, such as `{"name": str, "ids": list[int] | None}`.
      where: what the file is called.

    Raises:
      InputError: for a value of another type, naming the field.
    """
    for name, kind in kinds.items():
        coerce(kind, values.get(name), f"{where}: {name}")


def coerce(annotation: Any, value: Any, where: str) -> Any:
    """`value`, as it came from JSON or the command line, as an `annotation`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    wrong = InputError(f"{where} is {brief(value)}; expected {_describe(annotation)}")
    if origin is Literal:
        if value not in arguments:
            raise wrong
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        members = [a for a in arguments if a is not type(None)]
        kind = value.get("kind") if isinstance(value, Mapping) else value
        if _is_protocol(members[-1]) and isinstance(kind, str) and ":" in kind:
            return _own_strategy(members[-1], value, where)
        if isinstance(value, Mapping) and "kind" in value:
            by_name = {m.__name__: m for m in members if not _is_protocol(m)}
            if not isinstance(value["kind"], str) or value["kind"] not in by_name:
                raise InputError(
                    f"{where}.kind is {brief(value['kind'])}; "
                    f"expected one of {', '.join(by_name)}"
                )
            return from_dict(by_name[value["kind"]], value, where)
        if len(members) == 1 and isinstance(value, Mapping):
            return coerce(members[0], value, where)  # its error names the field
        for member in members:
            try:
                return coerce(member, value, where)
            except InputError:
                continue
        raise wrong
    if origin is list:
        if not isinstance(value, list):
            raise wrong
        if arguments[0] is str and all(type(part) is str for part in value):
            return value  # a vocabulary is long
        return [coerce(arguments[0], v, where) for v in value]
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise wrong
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(coerce(arguments[0], v, where) for v in value)
        if len(arguments) != len(value):
            raise wrong
        return tuple(coerce(a, v, where) for a, v in zip(arguments, value, strict=True))
    if _is_protocol(annotation):
        return _own_strategy(annotation, value, where)
    if dataclasses.is_dataclass(annotation):
        if isinstance(value, annotation):  # type: ignore[arg-type]
            return value
        if not isinstance(value, Mapping):
            raise wrong
        return from_dict(annotation, value, where)  # type: ignore[arg-type]
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if annotation is float and is_number:
        # JSON of Python's makes Infinity, NaN and integers beyond all floats.
        if not -1e308 < value < 1e308:
            raise wrong
        return float(value)
    if annotation is int and is_number and isinstance(value, numbers.Integral):
        if abs(whole := int(value)) >= 1 << 64:
            raise wrong
        return whole
    if annotation in (int, str, bytes, bool, list, dict) and type(value) is annotation:
        return value
    raise wrong


def _is_protocol(annotation: Any) -> bool:
    return bool(getattr(annotation, "_is_protocol", False))


def _protocol_of(annotation: Any) -> Any:
    """The Protocol that a field's union ends with, if it does."""
    last = (typing.get_args(annotation) or (annotation,))[-1]
    if last is type(None):
        last = typing.get_args(annotation)[-2]
    return last if _is_protocol(last) else None


def _is_of_own_class(value: Any, annotation: Any) -> bool:
    """Whether a field holds an object of a class that the package does not know."""
    known = typing.get_args(annotation)
    return _protocol_of(annotation) is not None and type(value) not in known


def _own_strategy(protocol: Any, value: Any, where: str) -> Any:
    """A strategy of a user's own class: as it is, or named "module:Class", alone or
    under "kind" beside its fields. Its module must have been imported: a file that
    comes with a model must not be able to import one."""
    methods = ", ".join(sorted(m for m in vars(protocol) if not m.startswith("_")))
    given = value if isinstance(value, Mapping) else {"kind": value}
    kind = given.get("kind")
    if isinstance(kind, str):
        module, _, name = kind.partition(":")
        found: Any = getattr(sys.modules.get(module), name, None)
        if module not in sys.modules:
            raise InputError(
                f"{where} is of the class {kind!r}, and no module {module!r} is "
                "imported; import it first"
            )
        if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
            raise InputError(
                f"{where} names {kind!r}, and the module {module!r} has no dataclass "
                f"{name!r}; give module:Class"
            )
        fields = {field: v for field, v in given.items() if field != "kind"}
        value = from_dict(found, fields, where)
    try:
        hash(value)
        is_one = isinstance(value, protocol) and not isinstance(value, type)
    except TypeError:
        is_one = False
    if not is_one:
        raise InputError(
            f"{where} is {brief(value)}; it must be a frozen dataclass of seedjax or, "
            f"of your own, one with {methods}"
        )
    return value


def import_own_class(annotation: Any, value: Any) -> None:
    """Imports the module that "module:Class", given by hand for a field that takes any
    class with the methods of a Protocol, names; the current folder is searched last.

    Raises:
      InputError: if there is no such module, or it cannot be imported.
    """
    kind = value.get("kind") if isinstance(value, Mapping) else value
    if _protocol_of(annotation) is None or ":" not in (kind := str(kind)):
        return
    module = kind.partition(":")[0]
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        importlib.import_module(module)
    except Exception as error:
        raise InputError(
            f"{kind!r} names the module {module!r}, which cannot be imported "
            f"({type(error).__name__}: {error}); give module:Class of one that is "
            "installed or lies in the current folder"
        ) from error
    finally:
        sys.path.remove(folder)


def _describe(annotation: Any) -> str:
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Literal:
        return "one of " + ", ".join(repr(a) for a in arguments)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(_describe(a) for a in arguments)
    if annotation is type(None):
        return "null"
    return getattr(annotation, "__name__", str(annotation))


def override(config: ConfigT, assignments: Sequence[str]) -> ConfigT:
    """A copy of `config` with `"path.to.field=value"` applied in order, and checked
    when all are: fields that go together can be changed one by one.

    Values are JSON (`0.1`, `true`, `null`, `[3]`, `{"kind": "Cosine"}`); what is not
    JSON is taken as text.

    Raises:
      InputError: for an unknown field (naming the nearest one) or a value of the wrong
        type.
    """
    changes = parse_assignments(assignments)
    return _assign(config, changes, type(config).__name__) if changes else config


Change = tuple[list[str], Any]
"""A field, as the names on the way to it, and what it becomes."""


def parse_assignments(assignments: Sequence[str]) -> list[Change]:
    """What `"path.to.field=value"` says, in order; see `override`.

    Raises:
      InputError: for one without "=".
    """
    changes: list[Change] = []
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise InputError(f"{assignment!r} is not of the form path.to.field=value")
        try:
            value = parse_json(text, path)
        except InputError:
            value = text
        changes.append((path.strip().split("."), value))
    return changes


def merge_assignments(
    values: Mapping[str, Any], changes: Sequence[Change]
) -> dict[str, Any]:
    """The JSON values of a recipe, as `from_dict` takes them, after `changes`: what the
    user gives takes precedence over a value, which is then ignored.

    Example: `{"moe": {"scale": 1.0}}` after `moe.scale=2` is `{"moe": {"scale": 2}}`.
    """
    merged = dict(values)
    for (name, *rest), value in changes:
        if rest:
            inner = merged.get(name)
            inner = inner if isinstance(inner, Mapping) else {}
            value = merge_assignments(inner, [(rest, value)])
        merged[name] = value
    return merged


def _assign(config: Any, changes: Sequence[Change], where: str) -> Any:
    if not dataclasses.is_dataclass(config):
        raise InputError(
            f"{where} has no fields; {'.'.join(changes[0][0])!r} cannot be set in it"
        )
    names = [f.name for f in dataclasses.fields(config)]
    by_name: dict[str, list[Change]] = {}
    for (name, *rest), value in changes:
        check_field_name(name, names, where)
        by_name.setdefault(name, []).append((rest, value))
    annotations = typing.get_type_hints(type(config))
    new = {
        name: _change(getattr(config, name), annotations[name], its, f"{where}.{name}")
        for name, its in by_name.items()
    }
    return dataclasses.replace(config, **new)  # type: ignore[type-var]


def _change(old: Any, annotation: Any, changes: Sequence[Change], where: str) -> Any:
    """A field's value after changes of it or of fields within it."""
    inner: list[Change] = []
    for path, value in changes:
        if path:
            inner.append((path, value))
        else:  # replaces all that came before
            import_own_class(annotation, value)
            old, inner = coerce(annotation, value, where), []
    return _assign(old, inner, where) if inner else old
