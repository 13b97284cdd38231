"""Samplers compiled ahead of time: a directory that runs without the model's code.

    sampler/
      program.bin           StableHLO for each platform, from prompt to answer
      params.safetensors    the weights, by name
      program.json          shapes, recipe, versions
      tokenizer/

The program takes a flat dictionary of weights, prompts [B, P] int32 padded at the end,
their lengths [B], the longest answer of each row [B], and a seed (uint32); it gives the
answers [B, W], their lengths [B], and the number of denoiser calls. Whoever has JAX can
call it (`jax.export.deserialize`); `load_exported` does so, and reads and writes text.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seedjax.config import to_dict
from seedjax.errors import InputError
from seedjax.model import Generation, Model
from seedjax.programs import sampling_of
from seedjax.prompts import continuation
from seedjax.sampling import loop
from seedjax.sampling.canvas import (
    block_size,
    check_length,
    lay_out,
    num_columns_in_front,
    num_working_columns,
    pad_prompts,
)
from seedjax.textfile import read_json_object, write_json
from seedjax.tokenizer import Tokenizer, load_tokenizer
from seedjax.typing import Array

FORMAT = 1
PLATFORMS = ("cpu", "cuda", "tpu", "rocm")
PROGRAM, WEIGHTS, RECORD, TOKENIZER = (
    "program.bin",
    "params.safetensors",
    "program.json",
    "tokenizer",
)


def export_sampler(
    model: Model,
    path: str | Path,
    *,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    batch_size: int = 1,
    max_prompt_tokens: int = 256,
    **overrides: Any,
) -> Path:
    """Writes a model's sampler, weights and tokenizer.

    Args:
      model: what to export.
      path: directory to write; it must not exist, or be empty.
      platforms: what to lower for; none of them needs to be here.
      batch_size: prompts that are answered together.
      max_prompt_tokens: longest prompt.
      **overrides: fields of `SamplerConfig`, `max_new_tokens` among them.

    Raises:
      InputError: for an unknown platform, a directory that holds something, sizes that
        the model cannot hold, a wrong override, or a missing package.
    """
    flatbuffers_or_fault()
    for platform in platforms:
        if platform not in PLATFORMS:
            raise InputError(
                f"unknown platform {platform!r}; there are {', '.join(PLATFORMS)}"
            )
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} holds something already; give another directory")
    from jax import export
    from safetensors.flax import save_file

    sampler = model.sampler.vary(**overrides, trace=False)
    config = model.config
    check_length(max_prompt_tokens, sampler.max_new_tokens, config)
    size = block_size(config, sampler)
    in_front = num_columns_in_front(max_prompt_tokens, size, sampler.context)
    leaves, tree = jax.tree_util.tree_flatten_with_path(model.params)
    names = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in leaves]
    tensors = {name: leaf for name, (_, leaf) in zip(names, leaves, strict=True)}

    def run(
        tensors: dict[str, Array],
        prompts: Array,
        lengths: Array,
        budgets: Array,
        seed: Array,
    ) -> tuple[Array, Array, Array]:
        params = jax.tree.unflatten(tree, [tensors[name] for name in names])
        canvas = lay_out(
            prompts,
            lengths,
            budgets,
            config=config,
            context=sampler.context,
            size=size,
            num_working=num_working_columns(config, sampler),
        )
        keys = loop.row_keys(jax.random.key(seed), batch_size)
        sampling = sampling_of(config, sampler)
        answer = sampling.generate(params, config, sampler, canvas, keys)
        return answer.tokens, answer.lengths, answer.forwards

    rows = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    prompts = jax.ShapeDtypeStruct((batch_size, in_front + size), jnp.int32)
    shapes = jax.eval_shape(lambda: tensors)
    program = export.export(jax.jit(run), platforms=tuple(platforms))(
        shapes, prompts, rows, rows, jax.ShapeDtypeStruct((), jnp.uint32)
    )
    path.mkdir(parents=True, exist_ok=True)
    (path / PROGRAM).write_bytes(program.serialize())
    save_file(tensors, path / WEIGHTS)
    (path / TOKENIZER).mkdir()
    model.tokenizer.save(path / TOKENIZER)
    record = {
        "format": FORMAT,
        "platforms": list(platforms),
        "batch_size": batch_size,
        "prompt_columns": prompts.shape[1],
        "max_prompt_tokens": max_prompt_tokens,
        "max_new_tokens": sampler.max_new_tokens,
        "jax": jax.__version__,
        "sampler": to_dict(sampler),
    }
    write_json(path / RECORD, record)
    return path


def flatbuffers_or_fault() -> None:
    """Raises `InputError` if what `jax.export` writes with is missing."""
    try:
        import flatbuffers  # noqa: F401
    except ImportError:
        raise InputError(
            "exported programs need flatbuffers; pip install 'seedjax[export]'"
        ) from None


class ExportedSampler:
    """A sampler from a directory that `export_sampler` wrote."""

    def __init__(
        self,
        program: Any,
        tensors: dict[str, Array],
        tokenizer: Tokenizer,
        record: dict[str, Any],
    ):
        """Joins the parts; `load_exported` reads them."""
        self.tokenizer, self.record = tokenizer, record
        self._program, self._tensors = jax.jit(program.call), tensors
        self._compiled: Any = None

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        max_new_tokens: int | None = None,
        seed: int = 0,
    ) -> Generation:
        """Continues prompts, as `Model.generate` did where this was exported.

        Raises:
          InputError: for more prompts, a longer prompt or a longer answer than it was
            exported for.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not texts or not all(texts):
            raise InputError("the prompt is empty; give it at least one character")
        budget = max_new_tokens or self.record["max_new_tokens"]
        special = self.tokenizer.special
        encoded = [continuation(t, special) for t in self.tokenizer.encode_batch(texts)]
        for name, got in (
            ("batch_size", len(texts)),
            ("max_prompt_tokens", max(map(len, encoded))),
            ("max_new_tokens", budget),
        ):
            if not 1 <= got <= self.record[name]:
                raise InputError(
                    f"{name} is {got}; this sampler was exported for "
                    f"{self.record[name]}"
                )
        # Rows that nobody asked for write one token.
        idle = self.record["batch_size"] - len(texts)
        rows = [*encoded, *encoded[:1] * idle]
        arguments = jax.device_put(
            (
                pad_prompts(rows, self.record["prompt_columns"]),
                np.array([len(row) for row in rows], np.int32),
                np.array([budget] * len(texts) + [1] * idle, np.int32),
                np.uint32(seed),
            )
        )
        began, compile_seconds = time.perf_counter(), 0.0
        if self._compiled is None:
            self._compiled = self._program.lower(self._tensors, *arguments).compile()
            compile_seconds = time.perf_counter() - began
        found = self._compiled(self._tensors, *arguments)
        answers, lengths, forwards = jax.device_get(found)
        tokens = [
            row[:length].tolist() for row, length in zip(answers, lengths, strict=True)
        ][: len(texts)]
        return Generation(
            texts=[self.tokenizer.decode(row) for row in tokens],
            tokens=tokens,
            new_tokens=[len(row) for row in tokens],
            steps=[],
            forwards=int(forwards),
            seconds=time.perf_counter() - began - compile_seconds,
            compile_seconds=compile_seconds,
        )


def load_exported(path: str | Path) -> ExportedSampler:
    """A sampler from its directory.

    Raises:
      InputError: if there is none, it was exported for other platforms, or a package is
        missing.
    """
    flatbuffers_or_fault()
    from jax import export
    from safetensors.flax import load_file

    path = Path(path)
    try:
        record = read_json_object(path / RECORD)
        program = export.deserialize(bytearray((path / PROGRAM).read_bytes()))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no exported sampler: {error}") from None
    if record.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {record.get('format')}; this version reads {FORMAT}"
        )
    here = jax.default_backend()
    here = {"gpu": "cuda"}.get(here, here)
    if here not in record["platforms"]:
        raise InputError(
            f"{path} was exported for {', '.join(record['platforms'])}, and this is "
            f"{here}; export it again with --platforms {here}"
        )
    tokenizer = load_tokenizer(path / TOKENIZER)
    return ExportedSampler(program, load_file(path / WEIGHTS), tokenizer, record)
