"""Tensor names: published checkpoints and our tree, both ways, one table a layout.

    ours                                theirs (Llama layout)
    embedding                           model.embed_tokens.weight
    layers_0.attention.query.kernel     model.layers.0.self_attn.q_proj.weight
    layers_0.mlp.experts.gate           model.layers.0.mlp.experts.{0..E}.gate_proj...

Kernels are stored [out, in] on both sides and rotary pairs are half-split on both, so a
tensor of ours is one of theirs, some rows of one of theirs (fused projections), or a
stack of theirs (experts). Reading and writing follow the same table, which is what
makes a round trip exact.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from seedjax.config import DenoiserConfig
from seedjax.convert.shapes import LayoutName
from seedjax.errors import InputError

Shape = tuple[int, ...]


class Piece(NamedTuple):
    """Where a tensor of ours, or one layer of a stack, is found.

    Attributes:
      tensor: their name.
      rows: which rows of it; None for all.
    """

    tensor: str
    rows: tuple[int, int] | None = None


class Source(NamedTuple):
    """The parts of a tensor of ours.

    Attributes:
      pieces: one, or as many as its leading axis is long.
      stacked: whether the pieces lie along a leading axis of ours.
    """

    pieces: tuple[Piece, ...]
    stacked: bool = False


Layout = Mapping[str, Source]
"""Our names in order, each with its source."""


class _Names(NamedTuple):
    """Where the layouts of transformers differ in names."""

    embedding: str = "model.embed_tokens"
    final_norm: str = "model.norm"
    head: str = "lm_head"
    layer: str = "model.layers"
    attention_norm: str = "input_layernorm"
    mlp_norm: str = "post_attention_layernorm"
    query: str = "self_attn.q_proj"
    key: str = "self_attn.k_proj"
    value: str = "self_attn.v_proj"
    output: str = "self_attn.o_proj"
    query_norm: str = "self_attn.q_norm"
    key_norm: str = "self_attn.k_norm"
    fused: str = ""  # queries, keys and values in one, in this order
    gate: str = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"
    fused_mlp: str = ""  # gate and up in one, in this order
    router: str = "mlp.gate"
    router_bias: str = "mlp.gate.expert_bias"
    experts: str = "mlp.experts"
    shared: str = "mlp.shared_expert"


_TRANSFORMERS = _Names()

_NAMES: dict[LayoutName, _Names] = {
    "llama": _TRANSFORMERS,
    "qwen2": _TRANSFORMERS,
    "qwen3": _TRANSFORMERS,
    "qwen3-moe": _TRANSFORMERS,
    "llada-moe": _TRANSFORMERS._replace(shared="shared_expert"),
    "llada2": _TRANSFORMERS._replace(
        embedding="model.word_embeddings",
        fused="attention.query_key_value",
        output="attention.dense",
        query_norm="attention.query_layernorm",
        key_norm="attention.key_layernorm",
        shared="mlp.shared_experts",
    ),
    # The gate is called ff_proj here, the way down ff_out, and the head ff_out too.
    "llada": _Names(
        embedding="model.transformer.wte",
        final_norm="model.transformer.ln_f",
        head="model.transformer.ff_out",
        layer="model.transformer.blocks",
        attention_norm="attn_norm",
        mlp_norm="ff_norm",
        query="q_proj",
        key="k_proj",
        value="v_proj",
        output="attn_out",
        gate="ff_proj",
        up="up_proj",
        down="ff_out",
    ),
}

MOST_NAMED = 8  # tensors of a kind in a message
DERIVED = ("rotary_emb.inv_freq", "rope.inv_freq")
"""Ends of names of stored tensors that follow from the config."""


FUSED = {"fused": "self_attn.qkv_proj", "fused_mlp": "mlp.gate_up_proj"}
"""Names under which some checkpoints store projections as one, Phi-3's and vLLM's."""


def layout_of(
    name: LayoutName, config: DenoiserConfig, stored: Collection[str] = ()
) -> Layout:
    """The table of a layout for a denoiser of this shape.

    Args:
      name: of the layout.
      config: the denoiser.
      stored: the tensors of a checkpoint, which may be fused ones.
    """
    names = _NAMES[name]
    if names.layer == _TRANSFORMERS.layer:
        there = {".".join(tensor.split(".")[3:-1]) for tensor in stored}
        found = {field: tensor for field, tensor in FUSED.items() if tensor in there}
        names = names._replace(**found)
    table: dict[str, Source] = {
        "embedding": _whole(f"{names.embedding}.weight"),
        "final_norm.scale": _whole(f"{names.final_norm}.weight"),
    }
    if not config.tie_embeddings:
        table["head"] = _whole(f"{names.head}.weight")
    for number in range(config.num_layers):
        ours, theirs = f"layers_{number}", f"{names.layer}.{number}"
        table |= {
            f"{ours}.{key}": source
            for key, source in _layer(names, config, number, theirs)
        }
    return table


def _whole(tensor: str) -> Source:
    return Source((Piece(tensor),))


def _layer(
    names: _Names, config: DenoiserConfig, number: int, theirs: str
) -> Iterator[tuple[str, Source]]:
    yield "attention_norm.scale", _whole(f"{theirs}.{names.attention_norm}.weight")
    yield "mlp_norm.scale", _whole(f"{theirs}.{names.mlp_norm}.weight")
    yield "attention.output.kernel", _whole(f"{theirs}.{names.output}.weight")
    kinds = ["kernel", "bias"] if config.attention_bias else ["kernel"]
    suffixes = {"kernel": "weight", "bias": "bias"}
    counts = {
        "query": config.num_heads,
        "key": config.num_kv_heads,
        "value": config.num_kv_heads,
    }
    first = 0
    for role, count in counts.items():
        last = first + count * config.head_dim
        for kind in kinds:
            if names.fused:
                tensor, rows = f"{theirs}.{names.fused}", (first, last)
            else:
                tensor, rows = f"{theirs}.{getattr(names, role)}", None
            piece = Piece(f"{tensor}.{suffixes[kind]}", rows)
            yield f"attention.{role}.{kind}", Source((piece,))
        first = last
    if config.qk_norm:
        yield (
            "attention.query_norm.scale",
            _whole(f"{theirs}.{names.query_norm}.weight"),
        )
        yield "attention.key_norm.scale", _whole(f"{theirs}.{names.key_norm}.weight")
    moe = config.moe
    if moe is None or number < moe.num_dense_layers:
        size, fused = config.mlp_size, f"{theirs}.{names.fused_mlp}.weight"
        for role, first in (("gate", 0), ("up", size), ("down", 0)):
            source = _whole(f"{theirs}.{getattr(names, role)}.weight")
            if names.fused_mlp and role != "down":
                source = Source((Piece(fused, (first, first + size)),))
            yield f"mlp.{role}.kernel", source
        return
    yield "mlp.router.kernel", _whole(f"{theirs}.{names.router}.weight")
    if moe.expert_bias:
        yield "mlp.router.bias", _whole(f"{theirs}.{names.router_bias}")
    for role in ("gate", "up", "down"):
        pieces = tuple(
            Piece(f"{theirs}.{names.experts}.{expert}.{role}_proj.weight")
            for expert in range(moe.num_experts)
        )
        yield f"mlp.experts.{role}", Source(pieces, stacked=True)
        if moe.shared_size:
            yield (
                f"mlp.shared.{role}.kernel",
                _whole(f"{theirs}.{names.shared}.{role}_proj.weight"),
            )


def published_shapes(layout: Layout, ours: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shape of each of their tensors, for the shapes of ours.

    Raises:
      ValueError: if the table and the tree have different tensors.
    """
    if layout.keys() != ours.keys():
        raise ValueError(f"table and tree differ in {layout.keys() ^ ours.keys()}")
    shapes: dict[str, Shape] = {}
    for name, source in layout.items():
        shape = ours[name][1:] if source.stacked else ours[name]
        for piece in source.pieces:
            if piece.rows is None:
                shapes[piece.tensor] = shape
            else:
                rows = max(piece.rows[1], shapes.get(piece.tensor, (0,))[0])
                shapes[piece.tensor] = (rows, *shape[1:])
    return shapes


def check_tensors(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> None:
    """Compares a checkpoint's tensors with those that its recipe describes.

    Raises:
      InputError: if tensors are missing, left over, or of another shape, naming them.
    """
    derived = {name for name in found if name.endswith(DERIVED)}
    faults = {
        "missing": [name for name in expected if name not in found],
        "left over": [n for n in found if n not in expected and n not in derived],
        "of another shape": [
            f"{name} {list(found[name])} (expected {list(shape)})"
            for name, shape in expected.items()
            if name in found and found[name] != shape
        ],
    }
    listed = [
        f"{kind}: {', '.join(names[:MOST_NAMED])}"
        + (f" and {len(names) - MOST_NAMED} more" if names[MOST_NAMED:] else "")
        for kind, names in faults.items()
        if names
    ]
    if listed:
        raise InputError(
            "the checkpoint's tensors are not those that its config describes; "
            + "; ".join(listed)
        )
