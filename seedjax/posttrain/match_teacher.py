"""From an autoregressive model to block diffusion, on the student's own decodes.

    prompts ─student─▶ completions, orders      the frozen teacher reads them, causally
                             │                            │  p(token | all before it)
                             ▼                            ▼
      one state of each block:  M x M M     KL(teacher || student) at the masked tokens

On-policy distillation of OPDLM (arXiv 2606.06712): the student starts from the
teacher's weights, decodes with its present ones, and learns the distributions that the
teacher has for what was written, in the states that the decode went through. So it is
trained on no other states than those that it meets, and by no other text than its own.
The teacher sees the tokens before a position alone; the student, some of those after
it, too, but fewer of those before it.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seedjax.batch import Batch, Layout
from seedjax.config import DenoiserConfig, LogitAlignment, require, to_dict
from seedjax.diffusion.constrained_order import masked_at_states
from seedjax.diffusion.inputs import find_maskable
from seedjax.diffusion.loss import Distillation, distill_tokens
from seedjax.errors import InputError
from seedjax.files.output import writes
from seedjax.files.text import fill_markdown
from seedjax.inference.model import Model
from seedjax.nn import denoiser
from seedjax.posttrain.held_out import held_out_tasks, score
from seedjax.posttrain.on_policy_batch import (
    draw_tasks,
    lay_out_rows,
    with_block_size,
)
from seedjax.posttrain.plot import plot_speedup
from seedjax.posttrain.policy_loss import corrupted_inputs
from seedjax.posttrain.trajectories import draw, load_for_tasks
from seedjax.progress import Stop, never
from seedjax.sampling.policy import ConfidenceThreshold, Policy
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.stopping import after_first, is_any_of
from seedjax.sandbox.sandbox import Sandbox, require_isolation
from seedjax.tasks.lab.stream import LabConfig, task_prompt
from seedjax.tasks.lab.tasks import Task
from seedjax.tasks.problems import ProblemConfig
from seedjax.train.directory import claim_directory
from seedjax.train.export import export_model
from seedjax.train.fit import Step, fit
from seedjax.train.metrics import Numbers, read_jsonl
from seedjax.train.optim import OptimizerConfig
from seedjax.train.state import TrainState, as_float32, create
from seedjax.train.step import apply_gradients, hidden_at_targets, in_compute_dtype
from seedjax.typing import Array, Float, Float32, Params, PRNGKey

CARD = """\
# {name}

{teacher} made a block diffusion model by on-policy distillation ({steps} steps) with
seedjax. It decodes blocks of {block_size} tokens.

| | before | after |
|---|---|---|
| pass@1, {tasks} held-out tasks | {pass_before:.3f} | {pass_after:.3f} |
| tokens per forward pass | {speed_before:.2f} | {speed_after:.2f} |

Recipe: `run.json` beside this file, also under `provenance` in `config.json`.
"""


@dataclass(frozen=True, kw_only=True)
class MatchTeacherConfig:
    """Everything that determines a run; written beside its checkpoints. The defaults
    are OPDLM's, but for the sizes of its 8 B runs."""

    teacher: str = "smollm2"  # an autoregressive model; frozen
    init_from: str = ""  # the student; none: the teacher's own weights
    tasks: LabConfig | ProblemConfig = LabConfig()  # where prompts come from
    block_size: int = 4
    logit_alignment: LogitAlignment = "same_position"
    mask_token_id: int | None = None  # of the student; None: the teacher's
    policy: Policy = ConfidenceThreshold(threshold=0.9)  # that the student decodes by
    temperature: float = 1.0  # that its tokens are drawn at
    prompts: int = 8  # of a step
    max_new_tokens: int = 128
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=1e-5, warmup_steps=5, weight_decay=0.0, ema_decay=0.9
    )
    num_steps: int = 200
    loss_chunk: int = 256  # positions whose logits are alive at once; 0 for all
    seed: int = 0
    log_every: int = 1
    eval_every: int = 50
    eval_tasks: int = 40  # held out
    checkpoint_every_s: float = 300.0

    def __post_init__(self):
        names = ("block_size", "prompts", "max_new_tokens", "num_steps", "log_every")
        for name in (*names, "eval_every", "eval_tasks"):
            require(getattr(self, name) >= 1, self, name, "at least 1")
        require(self.temperature >= 0.0, self, "temperature", "0 or more")

    def student(self, teacher: DenoiserConfig) -> DenoiserConfig:
        """The shape of a student that starts from the teacher's weights.

        Raises:
          InputError: if the teacher is not autoregressive, or has no token to mask by.
        """
        require(
            teacher.attention == "causal",
            teacher,
            "attention",
            "'causal': the teacher predicts next tokens",
        )
        mask = self.mask_token_id
        if mask is None:
            mask = teacher.mask_token_id
        taken = (teacher.pad_token_id, teacher.bos_token_id, *teacher.eos_token_ids)
        if mask in taken or not 0 <= mask < teacher.vocab_size:
            raise InputError(
                f"mask_token_id is {mask}, which {self.teacher!r} uses otherwise or "
                "does not have; set mask_token_id to a token that no text contains"
            )
        return replace(
            teacher,
            attention="block_causal",
            block_size=self.block_size,
            logit_alignment=self.logit_alignment,
            mask_token_id=mask,
        )


class MatchTeacherResult(NamedTuple):
    """How a run ended.

    Attributes:
      directory: the output directory, now a model directory.
      step: steps taken.
      finished: whether all were.
      before: what the student scored before the first step.
      after: what it scored at the end.
    """

    directory: Path
    step: int
    finished: bool
    before: dict[str, float]
    after: dict[str, float]


class MatchMetrics(NamedTuple):
    """Metrics of a step, float32 scalars.

    Attributes:
      loss: KL(teacher || student), nats per masked token.
      masked: masked tokens that have a target.
      grad_norm: global norm before clipping.
    """

    loss: Float32[Array, ""]
    masked: Float32[Array, ""]
    grad_norm: Float32[Array, ""]


@writes("train", sources=("config.teacher", "config.init_from"))
def match_teacher(
    config: MatchTeacherConfig,
    out: str | Path,
    *,
    resume: bool = False,
    accept_weak_isolation: bool = False,
    stop: Stop = never,
) -> MatchTeacherResult:
    """Distils the teacher into a block diffusion student and writes it to `out`.

    Args:
      config: the recipe.
      out: the run's directory, at the end a model directory.
      resume: continue the run in `out`, with the same prompts.
      accept_weak_isolation: for the tests of held-out tasks; see `Sandbox`.
      stop: ends the run after the current step.

    Raises:
      InputError: when `out` holds another run, the models do not take the tasks or fit
        each other, the loss is not finite, or only weak isolation can be had and is not
        accepted.
    """
    require_isolation(accept_weak_isolation)
    out = Path(out)
    teacher = load_for_tasks(config.teacher, config.tasks)
    start = student_of(config, teacher)
    claim_directory(out, config, resume=resume)
    frozen = as_float32(teacher.params)
    held_out = held_out_tasks(config.tasks, config.eval_tasks)
    program = jax.jit(
        partial(
            match_step, student=start.config, teacher=teacher.config, config=config
        ),
        donate_argnums=0,
    )
    with Sandbox(accept_weak_isolation=accept_weak_isolation) as sandbox:

        def step_function(state: TrainState, tasks: list[Task], step: int) -> Step:
            model = start.with_params(state.params)
            batch, tokens_per_step = rollouts(model, config, tasks, step)
            state, metrics = program(state, frozen, batch)
            numbers = {"tokens_per_step": tokens_per_step}
            return Step(state, metrics._asdict(), numbers)

        def evaluate(state: TrainState, step: int) -> Numbers:
            model = start.with_params(state.ema)
            return score(model, recipe(model, config, 0.0), held_out, sandbox)

        fitted = fit(
            lambda: create(
                as_float32(start.params), config.optimizer, config.num_steps
            ),
            step_function,
            lambda step: draw_tasks(config.tasks, config.prompts, config.seed, step),
            num_steps=config.num_steps,
            log_every=config.log_every,
            out=out,
            resume=resume,
            evaluate=evaluate,
            eval_every=config.eval_every,
            eval_first=True,
            stop=stop,
            checkpoint_every_s=config.checkpoint_every_s,
        )
    lines = read_jsonl(out / "metrics.jsonl")
    scored = [line for line in lines if "pass_at_1" in line]
    before, after = scored[0], scored[-1]
    export_model(
        out,
        fitted.state.ema,
        config=start.config,
        tokenizer=start.tokenizer,
        base=config.teacher,
        policy=config.policy,
        recipe=to_dict(config),
        card=fill_markdown(
            CARD,
            name=out.name,
            teacher=config.teacher,
            steps=fitted.step,
            block_size=config.block_size,
            tasks=config.eval_tasks,
            pass_before=before["pass_at_1"],
            pass_after=after["pass_at_1"],
            speed_before=before["tokens_per_forward"],
            speed_after=after["tokens_per_forward"],
        ),
    )
    plot_speedup({out.name: out / "metrics.jsonl"}, out / "speedup.png")
    return MatchTeacherResult(out, fitted.step, fitted.finished, before, after)


def student_of(config: MatchTeacherConfig, teacher: Model) -> Model:
    """The student before the first step.

    Raises:
      InputError: as `MatchTeacherConfig.student`; if `init_from` has another
        vocabulary or mask, or is itself autoregressive.
    """
    shape = config.student(teacher.config)
    if not config.init_from:
        sampler = SamplerConfig(policy=config.policy)
        return Model(teacher.params, shape, teacher.tokenizer, sampler)
    student = load_for_tasks(config.init_from, config.tasks)
    given = student.config
    for name in ("attention", "logit_alignment", "mask_token_id", "vocab_size"):
        found, expected = getattr(given, name), getattr(shape, name)
        if found != expected:
            raise InputError(
                f"{config.init_from!r} has {name} {found!r}, the student of this "
                f"recipe {expected!r}; set what differs, or drop init_from"
            )
    return with_block_size(student, config.block_size)


def recipe(
    model: Model, config: MatchTeacherConfig, temperature: float
) -> SamplerConfig:
    """The recipe that the student decodes with."""
    return model.sampler.vary(
        policy=config.policy,
        temperature=temperature,
        max_new_tokens=config.max_new_tokens,
        block_size=None,
    )


def rollouts(
    model: Model, config: MatchTeacherConfig, tasks: list[Task], step: int
) -> tuple[Batch, float]:
    """Completions that the student draws with its present weights, with the orders in
    which it unmasked them; and how many tokens a denoising step unmasked."""
    prompts = [task_prompt(task, model.tokenizer) for task in tasks]
    sampler = recipe(model, config, config.temperature).vary(trace=True)
    numbers = np.arange(len(prompts), dtype=np.int32) + step * len(prompts)
    drawn = draw(model, sampler, prompts, numbers, seed=config.seed)
    completions = [
        drawn.tokens[row, : drawn.lengths[row]] for row in range(len(prompts))
    ]
    eos = model.config.eos_token_ids[0]
    batch = lay_out_rows(
        prompts, completions, drawn.order, model.config.block_size, eos
    )
    return batch, int(drawn.lengths.sum()) / max(int(drawn.steps.sum()), 1)


def match_step(
    state: TrainState,
    frozen: Params,
    batch: Batch,
    *,
    student: DenoiserConfig,
    teacher: DenoiserConfig,
    config: MatchTeacherConfig,
) -> tuple[TrainState, MatchMetrics]:
    """One optimizer step on completions of the present weights."""
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    (loss, masked), grads = jax.value_and_grad(match_loss, has_aux=True)(
        state.params, frozen, batch, key, student, teacher, config.loss_chunk
    )
    state = apply_gradients(state, grads, config.optimizer, config.num_steps)
    norm = optax.tree_utils.tree_norm(grads)
    return state, MatchMetrics(loss=loss, masked=masked, grad_norm=norm)


def match_loss(
    params: Params,
    frozen: Params,
    batch: Batch,
    key: PRNGKey,
    student: DenoiserConfig,
    teacher: DenoiserConfig,
    loss_chunk: int,
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """KL(teacher || student), nats per masked token, in one state of each block; and
    the number of these tokens.

    Args:
      params: of the student.
      frozen: of the teacher.
      batch: prompts and completions with the order of the completions.
      key: draws the states.
      student: block causal.
      teacher: causal.
      loss_chunk: positions whose logits are alive at once; 0 for all.
    """
    assert batch.order is not None
    maskable = find_maskable(batch, student.logit_alignment)
    masked = masked_at_states(key, batch.order, maskable, block_size=student.block_size)
    # The teacher has no opinion on what comes after the end.
    after_end = after_first(is_any_of(batch.tokens, student.eos_token_ids) & maskable)
    counted = masked & ~after_end
    weights = counted.astype(jnp.float32)
    inputs = corrupted_inputs(batch, masked, maskable, student, weights=weights)
    hidden = hidden_at_targets(params, inputs, student)
    divergence = distill_tokens(
        hidden,
        teacher_at_targets(frozen, batch, teacher, student.logit_alignment),
        Distillation(weight=1.0),
        unembed=denoiser.gathered_head(params, student, hidden.shape[0]),
        unembed_teacher=denoiser.gathered_head(frozen, teacher, hidden.shape[0]),
        chunk_size=loss_chunk,
        forbidden_token_id=student.mask_token_id,
    )
    count = jnp.sum(weights)
    loss = jnp.sum(inputs.weights * divergence) / jnp.maximum(count, 1.0)
    return loss, count


def teacher_at_targets(
    frozen: Params,
    batch: Batch,
    teacher: DenoiserConfig,
    alignment: LogitAlignment,
) -> Float[Array, "B A D"]:
    """The teacher's hidden states from which it predicts the target of each of the
    student's positions: those of the position before the target's.

    Example: the clean row 5 6 7 8. The student's targets at the same position are
    5 6 7 8, so the states of _ 5 6 7 are returned; shifted they are 6 7 8 _ in each
    copy, and the states of 5 6 7 8 are returned twice.
    """
    layout = Layout(
        positions=batch.positions,
        segments=batch.segments,
        noisy=jnp.zeros(batch.tokens.shape, bool),
    )
    run = partial(denoiser.hidden_states, in_compute_dtype(frozen, teacher), teacher)
    hidden = jax.lax.stop_gradient(run(batch.tokens, layout).hidden)
    if alignment == "shifted":
        return jnp.concatenate([hidden, hidden], axis=1)
    return jnp.pad(hidden, ((0, 0), (1, 0), (0, 0)))[:, :-1]
