"""Samplers compiled ahead of time: a directory that runs without the model's code.

    sampler/
      program.bin           StableHLO for each platform, from prompt to completion
      params.safetensors    the weights, by name
      program.json          shapes, recipe, versions
      tokenizer/

The program takes a flat dictionary of weights, prompts [B, P] int32 padded at the end,
their lengths [B], the longest completion of each row [B], and a random key for each row
(`jax.random.key_data`, [B, 2] uint32); it gives the completions [B, W], their lengths
[B], the number of denoiser calls, the denoising steps of each row [B], and which of
them the grammar admits [B]. `jax.export.deserialize` reads it without this package;
`load_exported` adds the tokenizer.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from seedjax.config import check_fields, to_dict
from seedjax.errors import InputError
from seedjax.files.output import writes
from seedjax.files.replacing import replaced_directory
from seedjax.files.text import read_json_object, write_json
from seedjax.inference.compiled import keys_of_rows
from seedjax.inference.generation import Generation, Seeds, Stop
from seedjax.inference.model import Model
from seedjax.sampling import arguments, loop
from seedjax.sampling.canvas import (
    block_size,
    check_length,
    forced_array,
    lay_out,
    num_prefill_columns,
    num_working_columns,
    pad_prompts,
    with_forced,
)
from seedjax.sampling.check import check_recipe
from seedjax.sampling.grammar.build import Grammar
from seedjax.sampling.options import SamplerOptions
from seedjax.sampling.stop_strings import conclude
from seedjax.text.loading import load_tokenizer
from seedjax.text.prompts import continuation
from seedjax.text.tokenizer import Tokenizer
from seedjax.typing import Array

FORMAT = 2
PLATFORMS = ("cpu", "cuda", "tpu", "rocm")
PROGRAM, WEIGHTS, RECORD, TOKENIZER = (
    "program.bin",
    "params.safetensors",
    "program.json",
    "tokenizer",
)


@writes("compile", out="path")
def export_sampler(
    model: Model,
    path: str | Path,
    *,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    batch_size: int = 1,
    max_prompt_tokens: int = 256,
    grammar: Grammar | None = None,
    forced_tokens: Mapping[int, int] | None = None,
    **overrides: Unpack[SamplerOptions],
) -> Path:
    """Exports a model's sampler, weights and tokenizer.

    Args:
      model: what to export.
      path: directory to write: a new, an empty or an exported one.
      platforms: to lower for; this machine needs none of them.
      batch_size: rows of the program.
      max_prompt_tokens: longest prompt.
      grammar: what each completion has to match, as in `Model.generate`.
      forced_tokens: ids at certain places of each completion.
      **overrides: fields of `SamplerConfig`, `max_new_tokens` among them.

    Raises:
      InputError: for an unknown platform, a directory that holds something else,
        sizes that the model cannot hold, a wrong override, or a missing package.
    """
    require_flatbuffers()
    for platform in arguments.several(platforms, "platforms"):
        if platform not in PLATFORMS:
            raise InputError(
                f"unknown platform {platform!r}; there are {', '.join(PLATFORMS)}"
            )
    batch_size = arguments.integer(batch_size, "batch_size", least=1)
    max_prompt_tokens = arguments.integer(
        max_prompt_tokens, "max_prompt_tokens", least=1
    )
    path = Path(arguments.path(path, "path"))
    from jax import export
    from safetensors.flax import save_file

    sampler, config = model.sampler.vary(**overrides), model.config
    check_recipe(
        config,
        sampler,
        "exported",
        grammar=grammar is not None,
        forced_tokens=bool(forced_tokens),
    )
    check_length(max_prompt_tokens, sampler.max_new_tokens, config)
    size = block_size(config, sampler)
    in_front = num_prefill_columns(max_prompt_tokens, size, sampler.context)
    budget = sampler.max_new_tokens
    forced = forced_array(forced_tokens or {}, config, budget=budget, width=budget)
    automaton = None if grammar is None else model.automaton(grammar, sampler)
    leaves, tree = jax.tree_util.tree_flatten_with_path(model.params)
    names = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in leaves]
    tensors = {name: leaf for name, (_, leaf) in zip(names, leaves, strict=True)}

    def run(
        tensors: dict[str, Array],
        prompts: Array,
        lengths: Array,
        budgets: Array,
        key_data: Array,
    ) -> tuple[Array, ...]:
        params = jax.tree.unflatten(tree, [tensors[name] for name in names])
        canvas = lay_out(
            prompts,
            lengths,
            budgets,
            config=config,
            sampler=sampler,
            size=size,
            num_working=num_working_columns(config, sampler),
        )
        rows = jnp.broadcast_to(jnp.asarray(forced), (batch_size, budget))
        canvas = with_forced(canvas, rows, config)._replace(automaton=automaton)
        keys = jax.random.wrap_key_data(key_data)
        completion = loop.generate(params, config, sampler, canvas, keys)
        return (
            completion.tokens,
            completion.lengths,
            completion.forwards,
            completion.steps,
            completion.fits,
        )

    rows = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    prompts = jax.ShapeDtypeStruct((batch_size, in_front + size), jnp.int32)
    shapes = jax.eval_shape(lambda: tensors)
    key_data = jax.eval_shape(lambda: jax.random.key_data(keys_of_rows(0, batch_size)))
    # Of a Triton kernel only the JAX that made it is sure to read it; the record names
    # that version.
    triton = export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")
    exporting = export.export(
        jax.jit(run), platforms=tuple(platforms), disabled_checks=[triton]
    )
    program = exporting(shapes, prompts, rows, rows, key_data)
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
    with replaced_directory(path, "compile") as staged:
        (staged / PROGRAM).write_bytes(program.serialize())
        save_file(tensors, staged / WEIGHTS)
        (staged / TOKENIZER).mkdir()
        model.tokenizer.save(staged / TOKENIZER)
        write_json(staged / RECORD, record)
    return path


def require_flatbuffers() -> None:
    """Imports flatbuffers, which `jax.export` needs.

    Raises:
      InputError: if it is not installed.
    """
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
        """Wraps the parts that `load_exported` reads."""
        self.tokenizer, self.record = tokenizer, record
        self._program, self._tensors = jax.jit(program.call), tensors
        self._compiled: Any = None

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        max_new_tokens: int | None = None,
        seed: Seeds = 0,
        stop: Stop = None,
    ) -> Generation:
        """Continues prompts, as `Model.generate` did where this was exported. The
        program has no stop strings: the text is cut at the first one after all of it
        was decoded.

        Raises:
          InputError: for more prompts, a longer prompt or a longer completion than it
            was exported for.
        """
        texts = arguments.texts(prompts, "prompts")
        if not texts or not all(texts):
            raise InputError("the prompt is empty; give it at least one character")
        strings = arguments.stop_strings(stop)
        most = self.record["max_new_tokens"]
        budget = arguments.integer(
            most if max_new_tokens is None else max_new_tokens, "max_new_tokens"
        )
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
        # Padding rows have a budget of one token.
        idle = self.record["batch_size"] - len(texts)
        rows = [*encoded, *encoded[:1] * idle]
        keys = keys_of_rows(seed, len(texts))
        key_data = np.asarray(jax.random.key_data(keys))
        key_data = np.concatenate([key_data, key_data[:1].repeat(idle, axis=0)])
        inputs = jax.device_put(
            (
                pad_prompts(rows, self.record["prompt_columns"]),
                np.array([len(row) for row in rows], np.int32),
                np.array([budget] * len(texts) + [1] * idle, np.int32),
                key_data,
            )
        )
        began, compile_seconds = time.perf_counter(), 0.0
        if self._compiled is None:
            self._compiled = self._program.lower(self._tensors, *inputs).compile()
            compile_seconds = time.perf_counter() - began
        found = self._compiled(self._tensors, *inputs)
        completions, lengths, forwards, steps, fits = jax.device_get(found)
        concluded = [
            conclude(row[:length].tolist(), self.tokenizer, strings, budget)
            for row, length in zip(completions, lengths, strict=True)
        ][: len(texts)]
        return Generation(
            texts=[row.text for row in concluded],
            tokens=[row.tokens for row in concluded],
            new_tokens=[len(row.tokens) for row in concluded],
            steps=steps[: len(texts)].tolist(),
            forwards=int(forwards),
            seconds=time.perf_counter() - began - compile_seconds,
            compile_seconds=compile_seconds,
            finish_reason=[row.finish_reason for row in concluded],
            prompt_tokens=list(map(len, encoded)),
            fits=fits[: len(texts)].tolist(),
        )


def load_exported(path: str | Path) -> ExportedSampler:
    """A sampler from its directory.

    Raises:
      InputError: if there is none, it was exported for other platforms, or a package is
        missing.
    """
    require_flatbuffers()
    from jax import export
    from safetensors.flax import load_file

    path = Path(arguments.path(path, "path"))
    try:
        record = read_json_object(path / RECORD)
        program = export.deserialize(bytearray((path / PROGRAM).read_bytes()))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no exported sampler: {error}") from None
    if record.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {record.get('format')}; this version reads {FORMAT}: "
            "export it again"
        )
    sizes = ("batch_size", "prompt_columns", "max_prompt_tokens", "max_new_tokens")
    kinds = {"platforms": list[str], **dict.fromkeys(sizes, int)}
    check_fields(record, kinds, str(path / RECORD))
    here = jax.default_backend()
    here = {"gpu": "cuda"}.get(here, here)
    if here not in record["platforms"]:
        raise InputError(
            f"{path} was exported for {', '.join(record['platforms'])}, and this is "
            f"{here}; export it again with --platforms {here}"
        )
    tokenizer = load_tokenizer(path / TOKENIZER)
    return ExportedSampler(program, load_file(path / WEIGHTS), tokenizer, record)
