"""The published samplers as plain Python loops over one row: what each of them decodes,
in our own words, from the code that its authors publish beside the weights.

    llada        ML-GSAI/LLaDA, generate.py; with threshold and caches that of
                 NVlabs/Fast-dLLM, v1/llada/generate.py
    dream        Dream-org's generation_utils.py
    dream_cached NVlabs/Fast-dLLM, v1/dream/model/generation_utils_block.py
    diffcoder    ByteDance-Seed/Stable-DiffCoder, modeling_stable_diffcoder.py
    sdar         JetAstra/SDAR, generate.py
    llada2       inclusionAI's modeling_llada2_moe.py, with editing as of LLaDA2.1
    fast_dllm_v2 NVlabs/Fast-dLLM, v2, `batch_sample` without the cache within a block

They differ from that code in three points, on purpose: ids that are never text (mask,
padding, beginning) are not drawn; SDAR's loop may overwrite tokens of the prompt when
fewer are masked than a step accepts, which this one does not; and what follows the
first end of sequence is dropped. `Setting.noise` stands for the random numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Logits = Callable[[list[int]], np.ndarray]
"""From tokens [T] to logits [T, V] of a model that sees all it is to see."""

Noise = Callable[[int, int, range, int], np.ndarray]
"""From a block, a step, its columns, counted from the block's first one, and the size
of the vocabulary to Gumbel noise."""


@dataclass(frozen=True)
class Setting:
    """Of a model and a draw.

    Attributes:
      mask: the mask's id.
      ends: ids that end an answer.
      never: ids that are not drawn.
      shifted: whether a position is predicted by the one before it.
      temperature: 0 takes the most probable token.
      noise: see above.
      top_p: share of the nucleus.
      count: tokens to generate.
    """

    mask: int
    ends: tuple[int, ...]
    never: tuple[int, ...]
    shifted: bool
    temperature: float
    noise: Noise
    top_p: float
    count: int


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def nucleus(logits: np.ndarray, share: float) -> np.ndarray:
    """Minus infinity on what the most probable tokens that hold the share leave out."""
    kept = np.full_like(logits, -np.inf)
    for row, source in zip(kept, logits, strict=True):
        order = np.argsort(-source, kind="stable")
        before = np.cumsum(softmax(source[order])) - softmax(source[order])
        chosen = order[before < share]
        row[chosen] = source[chosen]
    return kept


def predicted(setting: Setting, logits: np.ndarray, columns: range) -> np.ndarray:
    """Logits of the tokens in these columns, without what is never drawn."""
    rows = logits[[column - setting.shifted for column in columns]].astype(np.float64)
    rows[:, list(setting.never)] = -np.inf
    return rows


def drawn(setting: Setting, logits: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """A token a row."""
    if setting.temperature == 0.0:
        return logits.argmax(axis=-1)
    return (logits / setting.temperature + noise).argmax(axis=-1)


def shares(total: int, steps: int) -> list[int]:
    """`total` over the steps, the remainder over the first of them."""
    return [total // steps + (step < total % steps) for step in range(steps)]


def surest(scores: dict[int, float], count: int) -> list[int]:
    return sorted(scores, key=lambda column: (-scores[column], column))[:count]


def answer(setting: Setting, tokens: list[int], begin: int) -> list[int]:
    """What stands before the first end."""
    kept = tokens[begin : begin + setting.count]
    ends = [place for place, token in enumerate(kept) if token in setting.ends]
    return kept[: ends[0]] if ends else kept


def llada(
    logits: Logits,
    prompt: list[int],
    setting: Setting,
    *,
    block_length: int,
    steps: int,
    guidance: float = 0.0,
    threshold: float | None = None,
    late: tuple[int, ...] = (),
    cached: Callable[[list[int], range], np.ndarray] | None = None,
    cache: str = "",
) -> list[int]:
    """`steps` in all. `cached` computes a range of positions anew, the others as they
    were; `cache` is "prefix" or "dual"."""
    begin = len(prompt)
    x = prompt + [setting.mask] * setting.count
    blocks = setting.count // block_length
    assert setting.count % block_length == 0 and steps % blocks == 0
    for block in range(blocks):
        start = begin + block * block_length
        columns = range(start, start + block_length)
        counts = shares(block_length, steps // blocks)
        step = 0
        while any(x[c] == setting.mask for c in columns):
            if cached is not None:
                whole, after = range(len(x)), range(start, len(x))
                anew = {"prefix": after, "dual": columns}[cache] if step else whole
                all_logits = cached(x, anew)
            else:
                all_logits = logits(x)
            if guidance:
                free = logits([setting.mask] * begin + x[begin:])
                all_logits = free + (guidance + 1) * (all_logits - free)
            said = predicted(setting, all_logits, columns)
            noise = setting.noise(block, step, range(block_length), said.shape[1])
            x0 = drawn(setting, said, noise)
            said[:, list(late)] = -np.inf
            p = softmax(said)
            sure = {
                c: p[i, x0[i]] for i, c in enumerate(columns) if x[c] == setting.mask
            }
            if threshold is None:
                taken = surest(sure, counts[step])
            else:
                above = [c for c in sure if sure[c] >= threshold]
                taken = {*surest(sure, 1), *above}
            for c in taken:
                x[c] = int(x0[c - start])
            step += 1
    return answer(setting, x, begin)


def dream(
    logits: Logits,
    prompt: list[int],
    setting: Setting,
    *,
    steps: int,
    alg: str,
    eps: float = 1e-3,
    chance: Callable[[int, int], np.ndarray] | None = None,
    alg_temp: float = 0.0,
) -> list[int]:
    """`chance(step, n)`: uniform numbers of n positions for "origin", Gumbel noise for
    `alg_temp`."""
    begin = len(prompt)
    x = prompt + [setting.mask] * setting.count
    columns = range(begin, begin + setting.count)
    times = [np.float32(1 + (eps - 1) * i / steps) for i in range(steps + 1)]
    for step in range(steps):
        t, s = times[step], times[step + 1]
        masked = [c for c in columns if x[c] == setting.mask]
        if not masked:
            break
        said = predicted(setting, logits(x), columns)
        noise = setting.noise(0, step, range(setting.count), said.shape[1])
        if setting.temperature:
            said = said / setting.temperature
        said = nucleus(said, setting.top_p)
        p = softmax(said)
        x0 = (said + noise if setting.temperature else said).argmax(axis=-1)
        last = step == steps - 1
        if alg == "origin":
            share = 1.0 if last else float(np.float32(1) - s / t)
            lots = chance(step, setting.count)
            taken = [c for c in masked if lots[c - begin] < share]
        else:
            ordered = np.sort(p, axis=-1)
            scores = {
                "maskgit_plus": p[np.arange(len(p)), x0],
                "topk_margin": ordered[:, -1] - ordered[:, -2],
                "entropy": (p * np.log(p + 1e-10)).sum(axis=-1),
            }[alg]
            if alg_temp:
                scores = scores / alg_temp + chance(step, setting.count)
            count = len(masked)
            if not last:
                count = int(np.float32(count) * (np.float32(1) - s / t))
            taken = surest({c: scores[c - begin] for c in masked}, count)
        for c in taken:
            x[c] = int(x0[c - begin])
    return answer(setting, x, begin)


def dream_cached(
    cached: Callable[[list[int], range], np.ndarray],
    prompt: list[int],
    setting: Setting,
    *,
    block_length: int,
    threshold: float,
    cache: str,
) -> list[int]:
    begin = len(prompt)
    x = prompt + [setting.mask] * setting.count
    for block in range(setting.count // block_length):
        start = begin + block * block_length
        columns = range(start, start + block_length)
        whole = predicted(setting, cached(x, range(len(x))), columns)
        noise = setting.noise(block, 0, range(block_length), whole.shape[1])
        x[start] = int(drawn(setting, whole, noise)[0])
        step = 1
        while any(x[c] == setting.mask for c in columns):
            anew = columns if cache == "dual" else range(start, len(x))
            # Shifted among what is computed anew: the first column has no predictor.
            later = range(start + 1, start + block_length)
            said = predicted(setting, cached(x, anew), later)
            noise = setting.noise(block, step, range(1, block_length), said.shape[1])
            x0 = drawn(setting, said, noise)
            p = softmax(said)
            sure = {c: p[i, x0[i]] for i, c in enumerate(later) if x[c] == setting.mask}
            above = [c for c in sure if sure[c] >= threshold]
            for c in {*surest(sure, 1), *above}:
                x[c] = int(x0[c - start - 1])
            step += 1
    return answer(setting, x, begin)


def diffcoder(
    logits: Logits,
    prompt: list[int],
    setting: Setting,
    *,
    block_length: int,
    steps: int,
    threshold: float | None = None,
) -> list[int]:
    """`steps` a block. The first block is what the prompt leaves of one, the last one
    what the budget takes of one; nothing stands behind it."""
    begin, end = len(prompt), len(prompt) + setting.count
    x = prompt + [setting.mask] * setting.count
    first = begin // block_length * block_length
    for block, start in enumerate(range(first, end, block_length)):
        columns = range(start, min(start + block_length, end))
        counts = shares(sum(x[c] == setting.mask for c in columns), steps)
        step = 0
        while any(x[c] == setting.mask for c in columns):
            said = predicted(setting, logits(x[: columns.stop]), columns)
            noise = setting.noise(block, step, range(len(columns)), said.shape[1])
            x0 = drawn(setting, said, noise)
            p = softmax(said)
            sure = {
                c: p[i, x0[i]] for i, c in enumerate(columns) if x[c] == setting.mask
            }
            if threshold is None:
                taken = surest(sure, counts[step])
            else:
                taken = {*surest(sure, 1), *(c for c in sure if sure[c] >= threshold)}
            for c in taken:
                x[c] = int(x0[c - start])
            step += 1
        if any(x[c] in setting.ends for c in columns if c >= begin):
            break
    return answer(setting, x, begin)


def sdar(
    logits: Logits,
    prompt: list[int],
    setting: Setting,
    *,
    block_length: int,
    steps: int,
    strategy: str,
    threshold: float = 0.85,
) -> list[int]:
    """`steps` a block. Whole blocks, the last one too; certainty is that of what is
    drawn from."""
    begin = len(prompt)
    blocks = -(-(begin + setting.count) // block_length)
    x = prompt + [setting.mask] * (blocks * block_length - begin)
    counts = shares(block_length, steps)
    for number, block in enumerate(range(begin // block_length, blocks)):
        start = block * block_length
        columns = range(start, start + block_length)
        step = 0
        while any(x[c] == setting.mask for c in columns):
            said = predicted(setting, logits(x[: columns.stop]), columns)
            noise = setting.noise(number, step, range(block_length), said.shape[1])
            if setting.temperature:
                said = said / setting.temperature
            said = nucleus(said, setting.top_p)
            p = softmax(said)
            x0 = (said + noise if setting.temperature else said).argmax(axis=-1)
            sure = {
                c: p[i, x0[i]] for i, c in enumerate(columns) if x[c] == setting.mask
            }
            if strategy == "sequential":
                taken = sorted(sure)[: counts[step]]
            else:
                taken = surest(sure, counts[step])
                high = [c for c in sure if sure[c] > threshold]
                if strategy == "low_confidence_dynamic" and len(high) >= counts[step]:
                    taken = high
            for c in taken:
                x[c] = int(x0[c - start])
            step += 1
        generated = x[begin : (block + 1) * block_length]
        if any(token in setting.ends for token in generated):
            break
    return answer(setting, x, begin)


def llada2(
    logits: Logits,
    prompt: list[int],
    setting: Setting,
    *,
    block_length: int,
    threshold: float,
    steps: int | None = None,
    editing: float | None = None,
    post_steps: int = 16,
) -> list[int]:
    """Without `editing`, LLaDA2.0: at least the schedule's share a step. With it,
    LLaDA2.1: at least one, and edits of what the answer has in the block, for as many
    steps after the last mask is gone."""
    begin = len(prompt)
    blocks = -(-(begin + setting.count) // block_length)
    x = prompt + [setting.mask] * (blocks * block_length - begin)
    counts = shares(block_length, steps or block_length)
    for number, block in enumerate(range(begin // block_length, blocks)):
        start = block * block_length
        columns = range(start, start + block_length)
        step = post = 0
        while True:
            masked = [c for c in columns if x[c] == setting.mask]
            if not masked:
                post += 1
                if editing is None or post > post_steps:
                    break
            said = predicted(setting, logits(x[: columns.stop]), columns)
            noise = setting.noise(number, step, range(block_length), said.shape[1])
            x0 = drawn(setting, said, noise)
            p = softmax(said)
            sure = {c: p[i, x0[i]] for i, c in enumerate(columns)}
            least = counts[step] if editing is None else 1
            high = [c for c in masked if sure[c] > threshold]
            taken = high
            if len(high) < least:
                taken = surest({c: sure[c] for c in masked}, least)
            edited = []
            if editing is not None:
                edited = [
                    c
                    for c in columns
                    if c >= begin
                    and c not in masked
                    and sure[c] > editing
                    and x0[c - start] != x[c]
                ]
            for c in (*taken, *edited):
                x[c] = int(x0[c - start])
            if not masked and not edited:
                break
            step += 1
        if any(token in setting.ends for token in x[begin : columns.stop]):
            break
    return answer(setting, x, begin)


def fast_dllm_v2(
    logits: Logits,
    prompt: list[int],
    setting: Setting,
    *,
    block_length: int,
    part: int,
    threshold: float,
) -> list[int]:
    """The last position of a finished block gives the first token of the next one, the
    most probable; then the parts of the block from the left."""
    begin = len(prompt)
    x = list(prompt)
    for number in range(-(-(begin % block_length + setting.count) // block_length)):
        start = (begin // block_length + number) * block_length
        step = 0
        if len(x) == start:
            said = predicted(setting, logits(x), range(start, start + 1))
            x.append(int(said[0].argmax()))
            step = 1
        x += [setting.mask] * (start + block_length - len(x))
        for first in range(start, start + block_length, part):
            columns = range(first, first + part)
            while any(x[c] == setting.mask for c in columns):
                all_logits = logits(x)
                sure, x0 = {}, {}
                for c in columns:
                    if x[c] == setting.mask:
                        said = predicted(setting, all_logits, range(c, c + 1))
                        place = range(c - start, c - start + 1)
                        noise = setting.noise(number, step, place, said.shape[1])
                        x0[c] = int(drawn(setting, said, noise)[0])
                        sure[c] = softmax(said)[0, x0[c]]
                taken = {*surest(sure, 1), *(c for c in sure if sure[c] > threshold)}
                for c in taken:
                    x[c] = x0[c]
                step += 1
        if any(token in setting.ends for token in x[begin:]):
            break
    return answer(setting, x, begin)
