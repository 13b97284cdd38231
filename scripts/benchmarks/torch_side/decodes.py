"""The same forward passes and decodes in PyTorch, step for step as ours: the same
prefill, the same commits (a finished block goes into the cache with the first step of
the next one), the same number of steps. In float32 the tokens are the same."""

import math
from typing import Any

import numpy as np

from seedjax.bench.measure import Produced, Run
from seedjax.bench.source import Source
from seedjax.bench.subject import Subject
from seedjax.bench.sweep import Line, padded
from seedjax.config import DenoiserConfig, DType
from seedjax.errors import InputError
from seedjax.machine import num_threads
from seedjax.sampling.policy import FixedCount
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.vocabulary import table_of_ids
from torch_side.network import (
    Tensor,
    TorchCache,
    TorchNetwork,
    import_torch,
    torch_device,
)


class TorchSide:
    """Subjects in PyTorch; lines of one dtype share a network."""

    def __init__(self, source: Source, num_columns: int):
        """Sets PyTorch's number of threads.

        Args:
          source: of weights and prompts.
          num_columns: of the longest canvas.

        Raises:
          InputError: if PyTorch is missing or cannot use this device.
        """
        torch = import_torch()
        torch.set_num_threads(num_threads())
        self.source = source
        self._num_columns = num_columns
        self._networks: dict[DType, TorchNetwork] = {}

    def subject(self, line: Line) -> Subject:
        """A line's program.

        Raises:
          InputError: for a recipe that the loops here do not follow.
        """
        build = {
            "prefill": self._prefill,
            "block": self._block,
            "decode": self._decode,
            "no_cache": self._decode,
            "ar": self._token_by_token,
        }
        return Subject(line, self._without_gradients(build[line.measure](line)))

    def _without_gradients(self, run: Run) -> Run:
        torch, on_gpu = import_torch(), torch_device() == "cuda"

        def timed() -> Produced | None:
            with torch.inference_mode():
                produced = run()
                if on_gpu:
                    torch.cuda.synchronize()
                return produced

        return timed

    def _network(self, line: Line) -> TorchNetwork:
        if line.dtype not in self._networks:
            self._networks[line.dtype] = TorchNetwork(
                self.source.params(line.dtype, None),
                self.source.given_config(line),
                num_columns=self._num_columns,
            )
        return self._networks[line.dtype]

    def _prefill(self, line: Line) -> Run:
        config = self.source.prefill_config(line)
        network = self._network(line)
        tokens = as_tensor(self.source.prompts(line))
        bias = network.bias_of(visibility(config, line.prefix))

        def run() -> None:
            cache = network.empty_cache(*tokens.shape)
            network.hidden_states(tokens, 0, cache, bias=bias, entries_only=True)

        return run

    def _block(self, line: Line) -> Run:
        assert line.block is not None
        config, sampler = self.source.block_config(line), self.source.recipe(line)
        width = line.prefix + line.block
        network = self._network(line)
        prompt = as_tensor(self.source.prompts(line))
        cache = network.empty_cache(line.batch, width)
        with import_torch().inference_mode():
            network.hidden_states(prompt, 0, cache)  # what it holds does not matter
        block = as_tensor([[config.mask_token_id] * line.block] * line.batch)
        banned = banned_ids(config, sampler)

        def run() -> None:
            hidden = network.hidden_states(block, line.prefix, cache)
            candidates(network.logits(hidden), banned)

        return run

    def _decode(self, line: Line) -> Run:
        config, sampler = self.source.block_config(line), self.source.recipe(line)
        policy = sampler.policy
        plain = SamplerConfig(
            block_size=sampler.block_size,
            max_new_tokens=sampler.max_new_tokens,
            policy=policy,
            eos=sampler.eos,
            cache=sampler.cache,
            forbidden_token_ids=sampler.forbidden_token_ids,
            vocabulary_end=sampler.vocabulary_end,
        )
        if not isinstance(policy, FixedCount) or sampler != plain:
            raise InputError(
                "the PyTorch decode knows a fixed number of steps and nothing else of "
                "a recipe, and this one says more; give --steps, or a preset"
            )
        assert line.new is not None
        prompt = as_tensor(self.source.prompts(line))
        decode = BlockDecode(
            network=self._network(line),
            config=config,
            prompt=prompt,
            num_new=line.new,
            policy=policy,
            banned=banned_ids(config, sampler),
            cached=line.measure == "decode",
        )
        return decode.run

    def _token_by_token(self, line: Line) -> Run:
        torch = import_torch()
        config, sampler = self.source.causal_config(line), self.source.recipe(line)
        if sampler.temperature > 0.0:
            raise InputError("the PyTorch decode takes temperature 0; give a preset")
        assert line.new is not None
        width = line.prefix + line.new
        network = self._network(line)
        prompt = as_tensor(self.source.prompts(line))
        banned = banned_ids(config, sampler)
        in_front = line.prefix - 1
        bias = network.bias_of(visibility(config, in_front))

        def run() -> Produced:
            cache = network.empty_cache(line.batch, width)
            if in_front:
                network.hidden_states(
                    prompt[:, :in_front], 0, cache, bias=bias, entries_only=True
                )
            last, drawn = prompt[:, in_front:], []
            for column in range(in_front, width - 1):
                logits = network.logits(network.hidden_states(last, column, cache))
                logits.index_fill_(-1, banned, -math.inf)
                last = logits.argmax(dim=-1)
                drawn.append(last)
            tokens = torch.cat(drawn, dim=1).tolist()
            return Produced(tokens, len(drawn) + (in_front > 0))

        return run


class BlockDecode:
    """Block diffusion with a fixed number of steps a block."""

    def __init__(
        self,
        *,
        network: TorchNetwork,
        config: DenoiserConfig,
        prompt: Tensor,
        num_new: int,
        policy: FixedCount,
        banned: Tensor,
        cached: bool,
    ):
        """Prepares what does not change.

        Args:
          network: of the denoiser.
          config: of the denoiser, block-causal.
          prompt: [B, P].
          num_new: tokens to write.
          policy: how many positions each step accepts, the surest first.
          banned: ids that are never drawn.
          cached: whether what is decided is kept in a cache, or the whole canvas is
            computed anew at every step (logits only where they are wanted).
        """
        self.network, self.prompt, self.banned = network, prompt, banned
        self.mask = config.mask_token_id
        self.policy, self.cached = policy, cached
        self.size = config.block_size
        self.shift = int(config.logit_alignment == "shifted")
        self.batch, self.num_given = prompt.shape
        self.end = self.num_given + num_new
        self.width = padded(self.end, self.size)
        self.visible = visibility(config, self.width)
        self.bias = network.bias_of(self.visible)
        self.first = self.num_given // self.size * self.size
        # All but the block before the first one, which that one's first step commits.
        self.in_front = self.first - self.size
        in_front = slice(0, max(0, self.in_front))
        self.prefill_bias = network.bias_of(self.visible[in_front, in_front])

    def run(self) -> Produced:
        """A whole decode."""
        torch, size = import_torch(), self.size
        canvas = torch.full(
            (self.batch, self.width), self.mask, device=self.prompt.device
        )
        canvas[:, : self.num_given] = self.prompt
        cache = self.network.empty_cache(self.batch, self.width)
        forwards = 0
        if self.cached and self.in_front > 0:
            self.network.hidden_states(
                canvas[:, : self.in_front],
                0,
                cache,
                bias=self.prefill_bias,
                entries_only=True,
            )
            forwards += 1
        for start in range(self.first, self.width, size):
            first, stop = max(start, self.num_given), start + size
            # What follows the budget is unmasked as well, and cut off.
            wanted = slice(first, min(stop, self.end))
            counts = self.policy.counts(size, stop - first)
            opening = None
            for step, count in enumerate(counts):
                if stop > self.end and not (canvas[:, wanted] == self.mask).any():
                    break
                if not self.cached:
                    hidden = self._whole(canvas, cache, start)
                elif step == 0:
                    hidden = self._opening(canvas, cache, start)
                    opening = hidden[:, : self.shift]
                else:
                    block = canvas[:, start : start + size]
                    hidden = self.network.hidden_states(block, start, cache)
                    if self.shift:
                        hidden = torch.cat([opening, hidden[:, :-1]], dim=1)
                self._accept(canvas[:, first:stop], hidden[:, first - start :], count)
                forwards += 1
        return Produced(canvas[:, self.num_given : self.end].tolist(), forwards)

    def _opening(self, canvas: Tensor, cache: TorchCache, start: int) -> Tensor:
        """The first step sees the block before as well, and so commits it."""
        first = max(0, start - self.size)
        stop = start + self.size
        hidden = self.network.hidden_states(
            canvas[:, first:stop],
            first,
            cache,
            bias=self.network.bias_of(self.visible[first:stop, :stop]),
        )
        return self._answering(hidden, start - first)

    def _whole(self, canvas: Tensor, cache: TorchCache, start: int) -> Tensor:
        hidden = self.network.hidden_states(canvas, 0, cache, bias=self.bias)
        return self._answering(hidden, start)

    def _answering(self, hidden: Tensor, start: int) -> Tensor:
        """The hidden states that answer for the block at `start`."""
        if start < self.shift:  # nothing answers for the first token, which is given
            hidden = import_torch().cat([hidden[:, :1], hidden], dim=1)
            start += 1
        return hidden[:, start - self.shift : start - self.shift + self.size]

    def _accept(self, block: Tensor, hidden: Tensor, count: int) -> None:
        """Decides the `count` surest candidates of a part of the canvas, in place."""
        torch = import_torch()
        confidence, tokens = candidates(self.network.logits(hidden), self.banned)
        undecided = block == self.mask
        confidence = confidence.masked_fill(~undecided, -1.0)
        surest = confidence.topk(count, dim=1).indices
        chosen = torch.zeros_like(undecided).scatter_(1, surest, True)
        block[...] = torch.where(chosen & undecided, tokens, block)


def candidates(logits: Tensor, banned: Tensor) -> tuple[Tensor, Tensor]:
    """Confidence and token of the most probable candidate of each position, [B, L]."""
    logits.index_fill_(-1, banned, -math.inf)
    # One pass over the vocabulary was faster than maximum and log-sum-exp apart.
    probabilities = logits.softmax(dim=-1, dtype=import_torch().float32)
    found = probabilities.max(dim=-1)
    return found.values, found.indices


def banned_ids(config: DenoiserConfig, sampler: SamplerConfig) -> Tensor:
    """What is never drawn, ends of sequence included."""
    banned = table_of_ids(
        config.vocab_size,
        (*sampler.banned_ids(config), *config.eos_token_ids),
        vocabulary_end=sampler.vocabulary_end,
    )
    return as_tensor(np.flatnonzero(banned).tolist())


def visibility(config: DenoiserConfig, num_columns: int) -> Tensor:
    """Who sees whom, bool [S, S], for a causal or block-causal network."""
    torch = import_torch()
    size = 1 if config.attention == "causal" else config.block_size
    blocks = torch.arange(num_columns, device=torch_device()) // size
    return blocks[None, :] <= blocks[:, None]


def as_tensor(values: Any) -> Tensor:
    """Token ids as a tensor on the device."""
    return import_torch().tensor(values, device=torch_device())
