"""GGUF files, as if they were the Hugging Face checkpoint that they were made from.

Tensors are read one at a time, and the `gguf` package turns quantized ones into
float32. Names, the order of dimensions and, for the `llama` architecture, the order of
the rows of queries and keys become those of Hugging Face again: llama.cpp rotates
neighbouring channels (2i, 2i + 1), Hugging Face and seedjax channels half a head apart
(i, i + C/2).
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from seedjax.config import check_fields
from seedjax.convert.fields import is_number
from seedjax.convert.gguf_header import TensorEntry, read_header
from seedjax.convert.gguf_tokenizer import ADVICE, tokenizer_config, tokenizer_json
from seedjax.convert.reading import (
    READABLE,
    Tensor,
    how_to_fetch,
    reason_of,
    shortened,
)
from seedjax.errors import InputError
from seedjax.files.package import package_table
from seedjax.files.text import brief
from seedjax.text.huggingface import HuggingFaceTokenizer


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Names of a `general.architecture` elsewhere."""

    class_name: str  # in `architectures` of a config.json
    model_type: str
    permuted: bool  # whether llama.cpp reorders the rows of queries and keys


_NAMES = package_table("seedjax.convert", "gguf.toml")
ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {name: Architecture(**row) for name, row in _NAMES["architectures"].items()}
)
_MODULES: Mapping[str, str] = _NAMES["modules"]
_LAYER_MODULES: Mapping[str, str] = _NAMES["layer_modules"]
_USED_FIELDS = frozenset(_NAMES["used_fields"])
_NEUTRAL_FIELDS: Mapping[str, Any] = _NAMES["neutral_fields"]

# Types of the other fields that are used, where they are there.
METADATA: Mapping[str, Any] = MappingProxyType(
    {
        "general.architecture": str | None,
        "split.count": int | None,
        "tokenizer.chat_template": str | None,
        **dict.fromkeys(("tokenizer.ggml.model", "tokenizer.ggml.pre"), str | None),
        "tokenizer.ggml.tokens": list[str] | None,
        "tokenizer.ggml.merges": list[str] | None,
        "tokenizer.ggml.token_type": list[int] | None,
        **{
            f"tokenizer.ggml.{name}": bool | None
            for name in ("add_bos_token", "add_eos_token", "add_space_prefix")
        },
        **{
            f"tokenizer.ggml.{name}_token_id": int | None
            for name in ("bos", "eos", "padding", "unknown", "mask")
        },
    }
)


class _Place(NamedTuple):
    begin: int  # in the file, in bytes
    end: int
    heads: int = 0  # whose rows are permuted; 0 if they are not


class GGUFSource:
    """A `TensorSource` over one GGUF file, with the names and the layout of Hugging
    Face, and with its configuration and tokenizer."""

    def __init__(self, path: str | Path):
        """Reads the metadata and the list of tensors.

        Raises:
          InputError: if the file is missing, damaged, one of several parts, or of an
            architecture, a tensor name or a type that is not known here.
        """
        self.path = Path(path)
        self._metadata, found = _read_index(self.path)
        parts = self._metadata.get("split.count", 1)
        if parts > 1:
            raise InputError(
                f"{self.path} is one of {parts} parts; join them with "
                "`llama-gguf-split --merge` first"
            )
        self._tensors: dict[str, Tensor] = {}
        self._places: dict[str, _Place] = {}
        architecture = self._architecture
        self._check_fields()
        for name, (tensor, place) in sorted(found.items(), key=lambda e: e[1][1]):
            new_name = hugging_face_name(name)
            heads = 0
            if architecture.permuted and ".attn_q." in name:
                heads = self._number("attention.head_count")
            elif architecture.permuted and ".attn_k." in name:
                heads = self._num_kv_heads
            if heads and tensor.shape[0] != heads * self._head_dim:
                raise InputError(
                    f"{self.path}: {name} has {tensor.shape[0]} rows, expected {heads} "
                    f"heads of {self._head_dim}; convert the file from its source again"
                )
            self._tensors[new_name] = tensor
            self._places[new_name] = place._replace(heads=heads)
        self._bytes: np.ndarray | None = np.memmap(self.path, np.uint8, "r")

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return MappingProxyType(self._tensors)

    def read(self, name: str) -> np.ndarray:
        import gguf

        if self._bytes is None:
            raise ValueError(f"{self.path} is closed")
        tensor, place = self._tensors[name], self._places[name]
        values = np.array(self._bytes[place.begin : place.end])
        if tensor.dtype in READABLE:
            values = values.view(READABLE[tensor.dtype])
        else:
            kind = gguf.GGMLQuantizationType[tensor.dtype]
            rows = values.reshape(*tensor.shape[:-1], -1)
            values = gguf.quants.dequantize(rows, kind)
        values = values.reshape(tensor.shape)
        return half_split_rows(values, place.heads) if place.heads else values

    def close(self) -> None:
        self._bytes = None

    def config(self) -> dict[str, Any]:
        """The model's config.json, as far as the file has its fields.

        Raises:
          InputError: if a field is missing or differs between layers.
        """
        architecture = self._architecture
        embedding = self._tensors.get("model.embed_tokens.weight")
        if embedding is None:
            raise InputError(
                f"{self.path} has no token_embd.weight; give a file of a whole model"
            )
        config = {
            "architectures": [architecture.class_name],
            "model_type": architecture.model_type,
            "vocab_size": embedding.shape[0],
            "hidden_size": self._number("embedding_length"),
            "num_hidden_layers": self._number("block_count"),
            "num_attention_heads": self._number("attention.head_count"),
            "num_key_value_heads": self._num_kv_heads,
            "head_dim": self._head_dim,
            "intermediate_size": self._number("feed_forward_length"),
            "hidden_act": "silu",
            "attention_bias": "model.layers.0.self_attn.q_proj.bias" in self._tensors,
            "rms_norm_eps": self._number("attention.layer_norm_rms_epsilon"),
            # 10,000 is what the format means by leaving it out.
            "rope_theta": self._number("rope.freq_base", 10_000.0),
            "max_position_embeddings": self._number("context_length"),
            "tie_word_embeddings": "lm_head.weight" not in self._tensors,
        }
        if window := self._field("attention.sliding_window"):
            config["sliding_window"] = window
        ids = {"bos": "bos", "eos": "eos", "pad": "padding", "mask": "mask"}
        for name, key in ids.items():
            if (
                token := self._metadata.get(f"tokenizer.ggml.{key}_token_id")
            ) is not None:
                config[f"{name}_token_id"] = token
        return config

    def tokenizer_files(self) -> dict[str, Any]:
        """The contents of tokenizer.json and of tokenizer_config.json, which has the
        chat template.

        Raises:
          InputError: if the file holds no tokenizer, or one of an unknown kind.
        """
        content = tokenizer_json(self._metadata, self.path)
        if content is None:
            raise InputError(f"{self.path} holds no tokenizer; {ADVICE}")
        config = tokenizer_config(self._metadata)
        return {"tokenizer.json": content, "tokenizer_config.json": config}

    def tokenizer(self) -> HuggingFaceTokenizer:
        """The file's tokenizer.

        Raises:
          InputError: as `tokenizer_files`.
        """
        contents = self.tokenizer_files().items()
        try:
            return HuggingFaceTokenizer(
                {name: json.dumps(content).encode() for name, content in contents}
            )
        except InputError as error:
            raise InputError(f"tokenizer in {self.path}: {error}") from None

    @property
    def _architecture(self) -> Architecture:
        name: Any = self._metadata.get("general.architecture")
        if name not in ARCHITECTURES:
            raise InputError(
                f"{self.path} holds a model of architecture {name!r}; GGUF files are "
                f"read for {', '.join(ARCHITECTURES)}: take the safetensors of the "
                "original model"
            )
        return ARCHITECTURES[name]

    @property
    def _num_kv_heads(self) -> int:
        heads = self._number("attention.head_count")
        return self._number("attention.head_count_kv", heads)

    @property
    def _head_dim(self) -> int:
        heads = self._number("attention.head_count")
        default = self._number("embedding_length") // heads
        return self._number("attention.key_length", default)

    def _field(self, field: str) -> Any:
        """A field of the architecture, None if it is not there."""
        return self._metadata.get(f"{self._metadata['general.architecture']}.{field}")

    def _number(self, field: str, default: Any = None) -> Any:
        """A number that the architecture has. The file holds float32, of which the
        shortest decimal is meant: 1e-05, not 9.999999747378752e-06."""
        key = f"{self._metadata['general.architecture']}.{field}"
        value = self._metadata.get(key, default)
        if not is_number(value) or value <= 0:
            raise InputError(
                f"{self.path} has {key} = {brief(value)}, expected one positive "
                "number; take the safetensors of the original model"
            )
        if isinstance(value, float) and value < np.finfo(np.float32).max:
            return float(str(np.float32(value)))
        return value

    def _check_fields(self) -> None:
        """Refuses what would make the model another one than its config.json says."""
        prefix = self._metadata["general.architecture"] + "."
        neutral = {
            **_NEUTRAL_FIELDS,
            "rope.dimension_count": self._head_dim,
            "attention.value_length": self._head_dim,
            # Scaled by 1 is not scaled.
            "rope.scaling.type": "none"
            if self._field("rope.scaling.factor") != 1.0
            else self._field("rope.scaling.type"),
        }
        for key, value in self._metadata.items():
            field = key.removeprefix(prefix)
            if field == key or value == neutral.get(field):
                continue
            if field in neutral or field not in _USED_FIELDS:
                raise InputError(
                    f"{self.path} has {key} = {brief(value)}, which is not read from "
                    "GGUF; take the safetensors of the original model"
                )


def hugging_face_name(name: str) -> str:
    """A tensor's name in the layout of Hugging Face: blk.0.attn_q.weight becomes
    model.layers.0.self_attn.q_proj.weight.

    Raises:
      InputError: if the name is not known.
    """
    if match := re.fullmatch(r"(\w+)\.(weight|bias)", name):
        module = _MODULES.get(match[1])
    elif match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name):
        module = _LAYER_MODULES.get(match[2])
        module = module and f"model.layers.{match[1]}.{module}"
    else:
        module = None
    if match is None or module is None:
        raise InputError(
            f"tensor {name} is none that seedjax reads from GGUF files"
            + (" (rescaled rotary frequencies)" if "rope_freqs" in name else "")
            + "; take the safetensors of the original model"
        )
    return f"{module}.{match[match.lastindex or 0]}"


def half_split_rows(values: np.ndarray, heads: int) -> np.ndarray:
    """Undoes llama.cpp's order of the rows of a query or key matrix.

    In each head of C rows, llama.cpp's row 2i + j is row j * C/2 + i of Hugging Face.

    Args:
      values: [heads * C, ...], or a bias [heads * C].
      heads: K for keys.
    """
    pairs = values.reshape(heads, -1, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _is_readable(kind: str) -> bool:
    """Whether a tensor of a type of GGML can be read: what the package can."""
    import gguf

    if kind in READABLE:
        return True
    # Nothing of the package says so but trying; a block of zeros is a tensor.
    quantization = gguf.GGMLQuantizationType[kind]
    _, size = gguf.GGML_QUANT_SIZES[quantization]
    try:
        gguf.quants.dequantize(np.zeros((1, size), np.uint8), quantization)
    except NotImplementedError:
        return False
    return True


def _read_index(
    path: Path,
) -> tuple[dict[str, Any], dict[str, tuple[Tensor, _Place]]]:
    """Metadata as plain values, and form and place of each tensor by its name."""
    try:
        import gguf
    except ImportError:
        raise InputError(
            f"{path} is a GGUF file, which needs the package gguf to read; run "
            "`pip install 'seedjax[convert]'`"
        ) from None
    try:
        header = read_header(path)
        tensors = {}
        for entry in header.tensors:
            form = Tensor(entry.shape, gguf.GGMLQuantizationType(entry.kind).name)
            place = _Place(entry.offset, entry.offset + _num_bytes(entry))
            tensors[entry.name] = form, place
        size = path.stat().st_size
        if (end := max((p.end for _, p in tensors.values()), default=0)) > size:
            raise ValueError(f"{size} bytes, expected {end}")
    except ValueError as error:
        raise InputError(
            f"{path} is not a whole GGUF file ({reason_of(error)}); "
            f"{how_to_fetch(path)}"
        ) from None
    check_fields(header.metadata, METADATA, str(path))
    kinds = {form.dtype for form, _ in tensors.values()}
    if unread := sorted(kind for kind in kinds if not _is_readable(kind)):
        raise InputError(
            f"{path} holds tensors of type {shortened(unread)}, which the package gguf "
            "does not turn into numbers: take another quantization of the model, such "
            "as Q8_0"
        )
    return header.metadata, tensors


def _num_bytes(entry: TensorEntry) -> int:
    """How much of the file a tensor takes up.

    Raises:
      ValueError: for a type that is not known, or rows that are not whole blocks.
    """
    import gguf

    kind = gguf.GGMLQuantizationType(entry.kind)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    if entry.shape[-1] % block or not all(entry.shape):
        raise ValueError(f"{entry.name} of {kind.name} has the shape {entry.shape}")
    return math.prod(entry.shape) // block * size
