"""A gated adapter that drafts: a causal model learns to say several tokens at once.

    text                 t0  t1  t2  t3  t4  t5      the model as it is
    anchor t1: rows          [m2  m3]                see t0 t1, predict t3 and t4
    anchor t3: rows                  [m4  m5]        see t0..t3, predict t5 and t6

Each drafted row stands in the place of a text position and learns the distribution that
the frozen model has there, which has seen the tokens that the row has not (one-step
distillation, Uno, arXiv 2609.04010). Its own next token the model knows in the same
pass, so a block begins after it. The adapter acts on drafted rows alone: nothing is
computed backwards for the text, whose keys, values and hidden states are made once a
step and serve all of its anchors.

The text is the model's own (`posttrain completions`), for that is what it will draft.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from seedjax.batch import Layout
from seedjax.checkpoints.adapters import DraftFacts, save_adapter
from seedjax.checkpoints.model_directory import open_model
from seedjax.config import DenoiserConfig, require
from seedjax.errors import InputError
from seedjax.files.output import writes
from seedjax.nn import denoiser
from seedjax.nn.adapted import adapt
from seedjax.nn.cache import KVCache
from seedjax.nn.lora import Adapter, LoRA, init_adapter, unstack_adapter
from seedjax.nn.precision import in_compute_dtype
from seedjax.posttrain.completions import (
    FILE,
    OwnCompletion,
    read_own_completions,
)
from seedjax.progress import Stop, never
from seedjax.train.directory import claim_directory
from seedjax.train.fit import Fitted, Step, fit
from seedjax.train.optim import OptimizerConfig
from seedjax.train.start import read_params
from seedjax.train.state import TrainState, create
from seedjax.train.step import apply_gradients
from seedjax.typing import Array, Bool, Float32, Int32, Params

HELD_OUT = 20
"""Every so many-th completion is kept out of training."""

MOST_HELD_OUT = 8
"""Completions of an evaluation."""

ROWS_AT_ONCE = 256
"""Drafted rows whose logits are alive at once."""


@dataclass(frozen=True, kw_only=True)
class DraftConfig:
    """The recipe of a run; completions are gone through in an order that the seed
    draws."""

    model: str = "smollm2"
    completions: str = "completions"  # folder of `posttrain completions`
    lora: LoRA = LoRA(rank=12, alpha=192.0, merge=False, gated=True)
    blocks: tuple[int, ...] = (3,)  # drafted tokens, each for an equal part of the run
    keep: float = 0.7  # share of the anchors of a depth that the next one has, too
    anchors: int = 96  # of a completion
    batch_size: int = 4  # completions
    sequence_length: int = 256  # of prompt and completion; what is longer is cut
    noise: Literal["token", "random"] = "token"  # shown in drafted places
    draft_token_id: int | None = None  # the token; None is the model's mask
    # Weights of the losses against the frozen model's distribution, or its token.
    total_variation: float = 1.0
    divergence: float = 0.01  # Kullback-Leibler, frozen to drafted
    cross_entropy: float = 0.2
    num_steps: int = 800
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=5e-4, warmup_steps=30, weight_decay=0.0, ema_decay=0.98
    )
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    seed: int = 0
    log_every: int = 10
    eval_every: int = 100
    checkpoint_every_s: float = 180.0

    def __post_init__(self):
        for name in ("anchors", "batch_size", "num_steps", "log_every", "eval_every"):
            require(getattr(self, name) >= 1, self, name, "at least 1")
        require(
            len(self.blocks) > 0 and min(self.blocks) >= 1,
            self,
            "blocks",
            "one number of at least 1, or several",
        )
        require(0.0 < self.keep <= 1.0, self, "keep", "in (0, 1]")
        longest = max(self.blocks) + 2
        require(
            self.sequence_length > longest,
            self,
            "sequence_length",
            f"more than {longest}, for a block and what it predicts",
        )
        require(self.lora.gated, self, "lora", "gated, to act on drafts alone")
        weights = (self.total_variation, self.divergence, self.cross_entropy)
        require(
            min(weights) >= 0.0 and sum(weights) > 0.0,
            self,
            "total_variation",
            "0 or more, as divergence and cross_entropy, and not all of them 0",
        )

    def block(self, step: int) -> int:
        """Drafted tokens of a step, from 0."""
        part = step * len(self.blocks) // self.num_steps
        return self.blocks[min(part, len(self.blocks) - 1)]


class DraftBatch(NamedTuple):
    """Completions and the places of drafts in them.

    Attributes:
      tokens: prompt and completion, padded.
      lengths: of each row.
      anchors: the last position that the block of a drafted row sees; -1 for none.
      depth: place of the drafted row in its block, from 0.
      noise: tokens that are shown in drafted places.
    """

    tokens: Int32[Array, "B L"]
    lengths: Int32[Array, "B"]
    anchors: Int32[Array, "B R"]
    depth: Int32[Array, "R"]
    noise: Int32[Array, "B R"]


def draft_batch(
    rows: list[OwnCompletion],
    config: DraftConfig,
    model: DenoiserConfig,
    block: int,
    draws: np.random.Generator,
) -> DraftBatch:
    """The batch of some completions, with anchors drawn from their positions."""
    size = config.sequence_length
    tokens = np.full((len(rows), size), model.pad_token_id, np.int32)
    lengths = np.zeros(len(rows), np.int32)
    depth, of_anchor = draft_rows(config.anchors, block, config.keep)
    anchors = np.full((len(rows), config.anchors), -1, np.int32)
    for i, row in enumerate(rows):
        # Of a long prompt its end.
        given = row.prompt[-max(size - len(row.tokens), size // 2) :]
        whole = np.array([*given, *row.tokens], np.int32)[:size]
        tokens[i, : len(whole)] = whole
        lengths[i] = len(whole)
        # An anchor's first row predicts the token two places on.
        places = np.arange(len(given) - 1, len(whole) - 2)
        drawn = draws.permutation(places)[: config.anchors]
        anchors[i, : len(drawn)] = drawn
    shape = (len(rows), len(depth))
    shown = (
        model.mask_token_id if config.draft_token_id is None else config.draft_token_id
    )
    noise = np.full(shape, shown, np.int32)
    if config.noise == "random":
        noise = draws.integers(0, model.vocab_size, shape, np.int32)
    arrays = (tokens, lengths, anchors[:, of_anchor], depth, noise)
    return DraftBatch(*jax.device_put(arrays))


def draft_rows(anchors: int, block: int, keep: float) -> tuple[np.ndarray, np.ndarray]:
    """Depth and anchor of each drafted row: of 10 anchors, blocks of 2 and `keep` 0.7,
    10 rows of depth 0 and 7 of depth 1 (PARD, arXiv 2504.18583, section 3.2)."""
    counts = [max(round(anchors * keep**depth), 1) for depth in range(block)]
    depth = np.repeat(np.arange(block), counts)
    return depth.astype(np.int32), np.concatenate([*map(np.arange, counts)])


class Drafts(NamedTuple):
    """Hidden states of drafted rows and of the frozen model.

    Attributes:
      hidden: of the drafted rows, normalised.
      frozen: of the frozen model in their places.
      targets: the token that comes next there.
      weights: 1 where there is one, else 0.
    """

    hidden: Array
    frozen: Array
    targets: Int32[Array, "B R"]
    weights: Float32[Array, "B R"]


def run_drafts(
    adapter: Adapter, base: Params, batch: DraftBatch, model: DenoiserConfig, lora: LoRA
) -> Drafts:
    """Both models in the places of a batch's drafts."""
    columns = jnp.broadcast_to(
        jnp.arange(batch.tokens.shape[1], dtype=jnp.int32)[None], batch.tokens.shape
    )
    present = columns < batch.lengths[:, None]
    clean = Layout(columns, present.astype(jnp.int32), jnp.zeros(present.shape, bool))
    text = denoiser.hidden_states(base, model, batch.tokens, clean)
    cache = lax.stop_gradient(KVCache(text.entries, clean))

    places = batch.anchors + 1 + batch.depth[None, :]
    exists = (batch.anchors >= 0) & (places + 1 < batch.lengths[:, None])
    drafts = Layout(
        positions=jnp.maximum(places, 0),
        segments=exists.astype(jnp.int32),
        noisy=jnp.ones(places.shape, bool),
        anchors=batch.anchors,
    )
    found = denoiser.hidden_states(
        adapt(base, adapter, lora),
        model,
        batch.noise,
        drafts,
        cache=cache,
        cache_in_front=False,
    )
    inside = jnp.clip(places, 0, batch.tokens.shape[1] - 2)
    frozen = jnp.take_along_axis(text.hidden, inside[:, :, None], axis=1)
    targets = jnp.take_along_axis(batch.tokens, inside + 1, axis=1)
    return Drafts(
        found.hidden,
        lax.stop_gradient(frozen),
        targets,
        exists.astype(jnp.float32),
    )


def row_losses(
    unembed: Any, hidden: Array, frozen: Array, targets: Array, config: DraftConfig
) -> tuple[Float32[Array, "N"], Bool[Array, "N"]]:
    """The loss of each drafted row, and whether its most probable token is the frozen
    model's."""
    theirs = lax.stop_gradient(unembed(frozen))
    ours = unembed(hidden)
    log_p, log_q = jax.nn.log_softmax(theirs), jax.nn.log_softmax(ours)
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    loss = config.total_variation * 0.5 * jnp.sum(jnp.abs(p - q), axis=-1)
    if config.divergence:
        loss += config.divergence * jnp.sum(p * (log_p - log_q), axis=-1)
    if config.cross_entropy:
        own = jnp.take_along_axis(log_q, targets[:, None], axis=-1)[:, 0]
        loss -= config.cross_entropy * own
    return loss, jnp.argmax(ours, axis=-1) == jnp.argmax(theirs, axis=-1)


def draft_loss(
    adapter: Adapter,
    base: Params,
    batch: DraftBatch,
    model: DenoiserConfig,
    config: DraftConfig,
) -> tuple[Float32[Array, ""], tuple[Bool[Array, "B R"], Float32[Array, "B R"]]]:
    """The mean loss of a batch's drafted rows; which of them agree with the frozen
    model; and which exist."""
    drafts = run_drafts(adapter, base, batch, model, config.lora)
    count = drafts.targets.size
    chunks = -(-count // ROWS_AT_ONCE)

    def cut(x: Array) -> Array:
        flat = x.reshape(count, *x.shape[2:])
        widths = [(0, chunks * ROWS_AT_ONCE - count)] + [(0, 0)] * (flat.ndim - 1)
        return jnp.pad(flat, widths).reshape(chunks, ROWS_AT_ONCE, *flat.shape[1:])

    def unembed(hidden: Array) -> Array:
        return denoiser.unembed(base, model, hidden[None])[0]

    def losses(part: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        # The gradient of each row is taken at once, so that no logits are made twice.
        hidden, frozen, targets = part
        loss, pull, agrees = jax.vjp(
            lambda rows: row_losses(unembed, rows, frozen, targets, config),
            lax.stop_gradient(hidden),
            has_aux=True,
        )
        (slope,) = pull(jnp.ones_like(loss))
        change = hidden - lax.stop_gradient(hidden)  # 0, whose gradient is 1
        return lax.stop_gradient(loss) + jnp.sum(change * slope, axis=-1), agrees

    loss, agrees = lax.map(losses, jax.tree.map(cut, drafts[:3]))
    loss, agrees = (
        x.reshape(-1)[:count].reshape(drafts.targets.shape) for x in (loss, agrees)
    )
    total = jnp.maximum(jnp.sum(drafts.weights), 1.0)
    return jnp.sum(loss * drafts.weights) / total, (agrees, drafts.weights)


def acceptance(
    agrees: Bool[Array, "B R"], weights: Float32[Array, "B R"], depth: np.ndarray
) -> Float32[Array, "block"]:
    """How often a drafted token and all before it are the frozen model's, by depth.

    Three anchors, of whose blocks of two the first agrees in one place, the second in
    both and the third in none: 2/3, 1/3.
    """
    counts = np.bincount(depth)
    found, so_far, start = [], None, 0
    for number in counts:
        # Rows of the same anchor stand in the same place of their depth's run.
        here = slice(start, start + number)
        kept = (
            agrees[:, here] if so_far is None else agrees[:, here] & so_far[:, :number]
        )
        weight = weights[:, here]
        found.append(jnp.sum(kept * weight) / jnp.maximum(jnp.sum(weight), 1.0))
        so_far, start = kept, start + number
    return jnp.stack(found)


def draft_step(
    state: TrainState,
    base: Params,
    batch: DraftBatch,
    *,
    model: DenoiserConfig,
    config: DraftConfig,
    block: int,
) -> tuple[TrainState, dict[str, Float32[Array, ""]]]:
    """One optimizer step on some completions."""
    (loss, (agrees, weights)), grads = jax.value_and_grad(draft_loss, has_aux=True)(
        state.params, base, batch, model, config
    )
    state = apply_gradients(state, grads, config.optimizer, config.num_steps)
    depth, _ = draft_rows(config.anchors, block, config.keep)
    rates = acceptance(agrees, weights, depth)
    metrics = {
        "loss": loss,
        "grad_norm": optax.tree_utils.tree_norm(grads),
        "rows": jnp.sum(weights),
    }
    return state, metrics | {f"accept_{i + 1}": rate for i, rate in enumerate(rates)}


@writes("train", sources=("config.model", "config.completions"))
def learn_drafts(
    config: DraftConfig,
    out: str | Path,
    *,
    resume: bool = False,
    stop: Stop = never,
) -> Fitted:
    """Trains a gated adapter on a model's own completions, and writes it to
    `out/adapter`.

    `stop` ends the run after the current step; `resume=True` continues it with the same
    batches.

    Raises:
      InputError: for a model that is not causal, a file without completions, an `out`
        that holds another run, or a loss that is not finite.
    """
    out, directory = Path(out), open_model(config.model)
    model = replace(directory.denoiser, dtype=config.dtype, layer_loop="scan")
    if model.attention != "causal":
        raise InputError(
            f"{config.model} has {model.attention} attention; drafts are for a causal "
            "model, which they save from writing token by token"
        )
    shown = config.draft_token_id
    require(
        shown is None or 0 <= shown < model.vocab_size,
        config,
        "draft_token_id",
        f"an id from 0 to {model.vocab_size - 1}, or None",
    )
    file = Path(config.completions) / FILE
    found = read_own_completions(file, model.vocab_size)
    found = [row for row in found if len(row.tokens) >= max(config.blocks) + 2]
    training = [row for i, row in enumerate(found) if i % HELD_OUT]
    held_out = found[::HELD_OUT][:MOST_HELD_OUT]
    if len(training) < config.batch_size:
        raise InputError(
            f"{config.completions} has {len(training)} completions of more than "
            f"{max(config.blocks) + 1} tokens to train on; give at least "
            f"{config.batch_size}"
        )
    claim_directory(out, config, resume=resume)
    base = in_compute_dtype(read_params(directory, model), model)

    def initialize() -> TrainState:
        adapter = init_adapter(jax.random.key(config.seed), base, config.lora)
        return create(adapter, config.optimizer, config.num_steps)

    def batch_of(step: int) -> DraftBatch:
        size = config.batch_size
        numbers = range(step * size, (step + 1) * size)
        rows = []
        for number in numbers:
            epoch, place = divmod(number, len(training))
            order = np.random.default_rng((config.seed, epoch)).permutation(
                len(training)
            )
            rows.append(training[order[place]])
        draws = np.random.default_rng((config.seed, step, 1))
        return draft_batch(rows, config, model, config.block(step), draws)

    take = jax.jit(
        partial(draft_step, model=model, config=config),
        static_argnames="block",
        donate_argnums=0,
    )

    def step_function(state: TrainState, batch: DraftBatch, step: int) -> Step:
        block = config.block(step)
        state, metrics = take(state, base, batch, block=block)
        return Step(state, metrics, program=str(block))

    judge = jax.jit(partial(draft_loss, model=model, config=config))

    def evaluate(state: TrainState, step: int) -> dict[str, float]:
        block = max(config.blocks)
        depth, _ = draft_rows(config.anchors, block, 1.0)
        whole = replace(config, keep=1.0)
        rates = []
        for first in range(len(held_out) // config.batch_size):
            rows = held_out[first * config.batch_size :][: config.batch_size]
            draws = np.random.default_rng((config.seed, first, 2))
            batch = draft_batch(rows, whole, model, block, draws)
            _, (agrees, weights) = judge(state.ema, base, batch)
            rates.append(acceptance(agrees, weights, depth))
        mean = np.mean(jax.device_get(rates), axis=0) if rates else []
        scores = {f"accept_{i + 1}": float(rate) for i, rate in enumerate(mean)}
        return scores | {"tokens_per_pass": 1.0 + float(np.sum(mean))}

    fitted = fit(
        initialize,
        step_function,
        batch_of,
        num_steps=config.num_steps,
        log_every=config.log_every,
        out=out,
        resume=resume,
        evaluate=evaluate if len(held_out) >= config.batch_size else None,
        eval_every=config.eval_every,
        stop=stop,
        checkpoint_every_s=config.checkpoint_every_s,
    )
    save_adapter(
        out / "adapter",
        unstack_adapter(fitted.state.ema),
        config.lora,
        base=config.model,
        drafts=DraftFacts(
            [
                float(fitted.scores[f"accept_{i + 1}"])
                for i in range(max(config.blocks))
                if fitted.scores
            ],
            None if config.noise == "random" else config.draft_token_id,
        ),
        # What it drafts is checked: its own rounding costs nothing but a draft.
        weights_dtype="bfloat16",
    )
    return fitted
