"""Learning from accepted and rejected answers: DPO with likelihood bounds.

A masked denoiser cannot compute log p(answer | prompt), only estimate a bound of it.
DPO (arXiv 2305.18290) compares how much likelier an accepted answer has become than a
rejected one, against a reference; LLaDA 1.5 (arXiv 2505.19223) puts estimates of the
bound in, and lowers their variance:

* all of the budget goes into different states, one mask each (`samples`);
* model and reference, and the two answers of a pair, are scored with the same draws, so
  that most of the noise is in both and goes away in the difference.

    loss = -log sigmoid(beta * ((B(w) - B_ref(w)) - (B(l) - B_ref(l))))
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seedjax.batch import Batch
from seedjax.checkpoints.model_directory import open_model
from seedjax.config import DenoiserConfig, require, to_dict
from seedjax.data.batching import fill_block
from seedjax.diffusion.denoising import Denoising
from seedjax.diffusion.likelihood import block_elbo, mask_elbo
from seedjax.diffusion.loss import score_tokens
from seedjax.errors import InputError
from seedjax.files.output import writes
from seedjax.files.text import fill_markdown, read_json_lines
from seedjax.inference.requests import read_edits, read_holes
from seedjax.nn import denoiser
from seedjax.nn.attention_choice import platform_of
from seedjax.nn.layer_loop import with_layer_loop
from seedjax.progress import Stop, never
from seedjax.sampling.canvas import bucket
from seedjax.sharding import make_mesh
from seedjax.text.loading import load_tokenizer
from seedjax.text.prompts import continuation
from seedjax.text.tokenizer import Tokenizer
from seedjax.train.directory import claim_directory
from seedjax.train.export import export_model
from seedjax.train.fit import Fitted, Step, fit
from seedjax.train.optim import OptimizerConfig
from seedjax.train.placement import place, require_divisible
from seedjax.train.start import read_params
from seedjax.train.state import TrainState, create, shardings_from
from seedjax.train.step import apply_gradients, hidden_at_targets
from seedjax.typing import Array, Float32, Params, PRNGKey

CARD = """\
# {name}

{base} after {steps} steps of learning from {pairs} pairs of accepted and rejected
answers with seedjax.

Recipe: `run.json` beside this file, also under `provenance` in `config.json`.
"""


@dataclass(frozen=True, kw_only=True)
class PreferenceConfig:
    """The recipe of a run; pairs are gone through in an order that the seed draws."""

    init_from: str = "mini"
    feedback: str = "feedback.jsonl"
    num_steps: int = 100
    pairs: int = 8  # of a step
    samples: int = 4  # states of each answer
    beta: float = 0.1
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=5e-5, warmup_steps=5, weight_decay=0.0, ema_decay=0.9
    )
    seed: int = 0
    log_every: int = 5
    checkpoint_every_s: float = 180.0

    def __post_init__(self):
        for name in ("num_steps", "pairs", "samples", "log_every"):
            require(getattr(self, name) >= 1, self, name, "at least 1")
        require(self.beta > 0.0, self, "beta", "above 0")


class Preference(NamedTuple):
    """A prompt with an answer that was accepted and one that was rejected.

    Attributes:
      prompt: text to continue, text before a hole, or a program to edit; empty for a
        chat.
      accepted: an answer.
      rejected: another one.
      suffix: text after the hole; None if there is no hole.
      instruction: what to change in the program; None if it is no edit.
      messages: of a chat, as JSON; None if it is none.
    """

    prompt: str
    accepted: str
    rejected: str
    suffix: str | None = None
    instruction: str | None = None
    messages: str | None = None


def read_feedback(path: str | Path) -> list[Preference]:
    """The pairs in a file of feedback: one JSON object a line, each with `prompt`,
    `completion` and `accepted` (a boolean), as `seedjax feedback export` writes them,
    or with `prompt`, `accepted` and `rejected` (texts). `suffix` makes it a hole and
    `instruction` an edit; a chat has `messages` in place of `prompt`. Every accepted
    answer to a prompt is paired with every rejected one to it.

    Raises:
      InputError: naming the line that is wrong, or if there is no pair at all.
    """
    pairs: list[Preference] = []
    judged: dict[tuple[str, Any, Any, Any], tuple[list[str], list[str]]] = {}
    for line in read_json_lines(path, hint="give --feedback JSON lines"):
        values = line.values
        _check_feedback(values, line.where)
        prompt, accepted = values.get("prompt", ""), values["accepted"]
        messages = json.dumps(values["messages"]) if "messages" in values else None
        around = values.get("suffix"), values.get("instruction"), messages
        if isinstance(accepted, bool):
            good, bad = judged.setdefault((prompt, *around), ([], []))
            (good if accepted else bad).append(values["completion"])
        else:
            pairs.append(Preference(prompt, accepted, values["rejected"], *around))
    for (prompt, *rest), (good, bad) in judged.items():
        found = [(g, b) for g in good for b in bad if g != b]
        pairs += [Preference(prompt, *both, *rest) for both in found]
    if not pairs:
        raise InputError(
            f"{path} has no prompt with both an accepted and a rejected answer; "
            "preference takes pairs"
        )
    return pairs


def _check_feedback(values: dict[str, Any], where: str) -> None:
    if ("messages" in values) == isinstance(values.get("prompt"), str):
        raise InputError(f"{where}: give `prompt`, a text, or `messages` of a chat")
    accepted = values.get("accepted")
    other = "completion" if isinstance(accepted, bool) else "rejected"
    if not isinstance(accepted, bool | str) or not isinstance(values.get(other), str):
        raise InputError(
            f"{where}: give `completion` and `accepted` (true or false), or `accepted` "
            "and `rejected` (texts)"
        )
    for name in ("suffix", "instruction"):
        if not isinstance(values.get(name), str | None):
            raise InputError(f"{where}: `{name}` is no text; give one or leave it out")
    if not isinstance(values.get("messages", []), list):
        raise InputError(f"{where}: `messages` is no list; give the turns of a chat")
    names = ("suffix", "instruction", "messages")
    if len(kinds := [name for name in names if values.get(name) is not None]) > 1:
        raise InputError(f"{where}: has {' and '.join(kinds)}; give one")


def pair_batch(
    pairs: Sequence[Preference],
    tokenizer: Tokenizer,
    model: DenoiserConfig,
) -> tuple[Batch, Batch]:
    """The accepted and the rejected answers after their prompts, a document a row, all
    of one width; numpy arrays.

    Raises:
      InputError: for one that is longer than the model holds.
    """
    eos = tokenizer.special.require("eos", "close an answer")
    sides: list[list[tuple[int, np.ndarray]]] = [[], []]
    for pair in pairs:
        prompt = prompt_of(pair, tokenizer)
        for side, answer in zip(sides, (pair.accepted, pair.rejected), strict=True):
            whole = np.array([*prompt, *tokenizer.encode(answer), eos], np.int32)
            if len(whole) > model.max_positions:
                raise InputError(
                    f"a pair of {len(whole)} tokens is longer than the model's "
                    f"{model.max_positions} positions; shorten or drop it"
                )
            side.append((len(prompt), fill_block(whole, eos, model.block_size)))
    widest = max(len(tokens) for side in sides for _, tokens in side)
    width = bucket(-(-widest // model.block_size)) * model.block_size
    accepted, rejected = (_rows(side, width) for side in sides)
    return accepted, rejected


def prompt_of(pair: Preference, tokenizer: Tokenizer) -> list[int]:
    """The tokens of a pair's prompt, as the server lays them out.

    Raises:
      InputError: for a hole or an edit that the tokenizer has no tokens for, or a chat
        without a template.
    """
    if pair.messages is not None:
        return tokenizer.encode_chat(json.loads(pair.messages))
    if pair.instruction is not None:
        return read_edits(pair.prompt, pair.instruction, tokenizer)[1][0]
    if pair.suffix is not None:
        return read_holes(pair.prompt, pair.suffix, tokenizer).prompts(tokenizer)[0]
    return continuation(tokenizer.encode(pair.prompt), tokenizer.special)


def _rows(side: list[tuple[int, np.ndarray]], width: int) -> Batch:
    shape = (len(side), width)
    tokens, segments = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    supervised = np.zeros(shape, bool)
    for row, (given, whole) in enumerate(side):
        tokens[row, : len(whole)] = whole
        segments[row, : len(whole)] = 1
        supervised[row, given : len(whole)] = True
    positions = np.broadcast_to(np.arange(width, dtype=np.int32), shape)
    return Batch(tokens, segments, positions, supervised)  # type: ignore[arg-type]


def preference_loss(
    params: Params,
    reference: Params,
    pairs: tuple[Batch, Batch],
    key: PRNGKey,
    model: DenoiserConfig,
    config: PreferenceConfig,
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """The loss of some pairs, and the share of them in which the accepted answer is the
    one that has become likelier."""

    def bound(params: Params, batch: Batch) -> Float32[Array, "B"]:
        # The same draws for all four on purpose.
        same = jax.random.clone(key)
        return log_likelihood(params, batch, same, model, config.samples)

    accepted, rejected = pairs
    gains = [
        bound(params, side) - jax.lax.stop_gradient(bound(reference, side))
        for side in (accepted, rejected)
    ]
    margin = gains[0] - gains[1]
    loss = -jnp.mean(jax.nn.log_sigmoid(config.beta * margin))
    return loss, jnp.mean(margin > 0, dtype=jnp.float32)


def log_likelihood(
    params: Params,
    batch: Batch,
    key: PRNGKey,
    model: DenoiserConfig,
    samples: int,
) -> Float32[Array, "B"]:
    """An estimate of a lower bound of each answer's log-likelihood, in nats."""

    def denoise(inputs: Denoising) -> Float32[Array, "B A"]:
        return score_tokens(
            hidden_at_targets(params, inputs, model),
            inputs.targets,
            unembed=lambda hidden: denoiser.unembed(params, model, hidden),
            forbidden_token_id=model.mask_token_id,
        ).nll

    in_blocks = model.attention == "block_causal"
    bound = block_elbo if in_blocks else mask_elbo
    estimate = bound(key, batch, denoise=denoise, model=model, num_samples=samples)
    return -estimate.nll


class PreferenceMetrics(NamedTuple):
    """Metrics of a step, float32 scalars.

    Attributes:
      loss: mean over the pairs, nats.
      agreement: share of the pairs whose accepted answer gained more likelihood.
      grad_norm: global norm before clipping.
    """

    loss: Float32[Array, ""]
    agreement: Float32[Array, ""]
    grad_norm: Float32[Array, ""]


def preference_step(
    state: TrainState,
    reference: Params,
    pairs: tuple[Batch, Batch],
    *,
    model: DenoiserConfig,
    config: PreferenceConfig,
) -> tuple[TrainState, PreferenceMetrics]:
    """One optimizer step on some pairs."""
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    (loss, agreement), grads = jax.value_and_grad(preference_loss, has_aux=True)(
        state.params, reference, pairs, key, model, config
    )
    state = apply_gradients(state, grads, config.optimizer, config.num_steps)
    norm = optax.tree_utils.tree_norm(grads)
    return state, PreferenceMetrics(loss, agreement, norm)


@writes("train", sources=("config.init_from", "config.feedback"))
def learn_preferences(
    config: PreferenceConfig,
    out: str | Path,
    *,
    resume: bool = False,
    mesh: str = "",
    stop: Stop = never,
) -> Fitted:
    """Trains on the pairs of a file of feedback and writes the model to `out`.

    `stop` ends the run after the current step; `resume=True` continues it with the same
    pairs. Several processes share the mesh; all of them must call it.

    Raises:
      InputError: for feedback without pairs, a causal model, an `out` that holds
        another run, a loss that is not finite, or a mesh of several processes that does
        not divide the pairs.
    """
    out, directory = Path(out), open_model(config.init_from)
    device_mesh = make_mesh(mesh)
    platform = platform_of(device_mesh.devices.flat[0].platform)
    model = with_layer_loop(directory.denoiser, platform, "training")
    require(
        model.attention != "causal",
        model,
        "attention",
        "a denoiser's, whose likelihood has a bound",
    )
    tokenizer = load_tokenizer(directory.tokenizer)
    feedback = read_feedback(config.feedback)
    require_divisible(device_mesh, config.pairs, "pairs")
    claim_directory(out, config, resume=resume)
    in_full = replace(model, param_dtype="float32")
    reference = read_params(directory, in_full, device_mesh)
    optimizer, num_steps = config.optimizer, config.num_steps
    shardings = shardings_from(reference, model, optimizer, num_steps, device_mesh)
    initialize = jax.jit(
        partial(create, optimizer=optimizer, num_steps=num_steps),
        out_shardings=shardings,
    )
    program = jax.jit(
        partial(preference_step, model=model, config=config),
        donate_argnums=0,
        out_shardings=(shardings, None),
    )

    def pairs_of(step: int) -> tuple[Batch, Batch]:
        chosen = [feedback[n] for n in shuffled(len(feedback), config, step)]
        return pair_batch(chosen, tokenizer, model)

    def step_function(state: TrainState, pairs: tuple[Batch, Batch], step: int) -> Step:
        with jax.set_mesh(device_mesh):
            state, metrics = program(state, reference, place(pairs, device_mesh))
        return Step(state, metrics._asdict())

    fitted = fit(
        lambda: initialize(reference),
        step_function,
        pairs_of,
        num_steps=num_steps,
        log_every=config.log_every,
        out=out,
        resume=resume,
        stop=stop,
        checkpoint_every_s=config.checkpoint_every_s,
    )
    export_model(
        out,
        fitted.state.ema,
        config=model,
        tokenizer=tokenizer,
        base=config.init_from,
        recipe=to_dict(config),
        card=fill_markdown(
            CARD,
            name=out.name,
            base=config.init_from,
            steps=fitted.step,
            pairs=len(feedback),
        ),
    )
    return fitted


def shuffled(num_pairs: int, config: PreferenceConfig, step: int) -> Iterator[int]:
    """The pairs of a step: an epoch after another, each in an order of its own."""
    for number in range(step * config.pairs, (step + 1) * config.pairs):
        epoch, place = divmod(number, num_pairs)
        order = np.random.default_rng((config.seed, epoch)).permutation(num_pairs)
        yield int(order[place])
