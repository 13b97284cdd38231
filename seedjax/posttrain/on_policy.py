"""On-policy learning, to be read top to bottom.

    state (resume or start) ─▶ phase by phase: draw, judge, step ─▶ best model kept

The output directory is a model directory, as a training run's; it holds the weights of
the evaluation with the most tokens per forward among those whose pass@1 has not fallen.
`speedup.png` shows all of them.
When pass@1 has fallen at several evaluations in a row, the run stops itself.
"""

import functools
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from seedjax.checkpoints.model_directory import open_model
from seedjax.config import to_dict
from seedjax.errors import InputError
from seedjax.files.output import writes
from seedjax.files.text import fill_markdown
from seedjax.inference.loading import load
from seedjax.inference.model import Model
from seedjax.posttrain.config import OnPolicyConfig, Phase
from seedjax.posttrain.critic import load_critic
from seedjax.posttrain.held_out import held_out_tasks, score
from seedjax.posttrain.on_policy_batch import (
    draw_judged,
    draw_tasks,
    with_block_size,
)
from seedjax.posttrain.plot import plot_speedup
from seedjax.posttrain.policy_loss import on_policy_step
from seedjax.posttrain.trajectories import load_for_tasks
from seedjax.posttrain.verifiers import Syntax, UnitTests, Verifier, Weighted
from seedjax.processes import is_first, share
from seedjax.progress import Stop, never
from seedjax.sandbox.sandbox import Sandbox, require_isolation
from seedjax.sharding import make_mesh
from seedjax.tasks.lab.tasks import Task
from seedjax.train.directory import claim_directory
from seedjax.train.export import export_model
from seedjax.train.fit import Step, fit
from seedjax.train.metrics import Numbers, read_jsonl
from seedjax.train.placement import place, require_divisible
from seedjax.train.start import read_params
from seedjax.train.state import (
    TrainState,
    create,
    on_local_devices,
    params_shardings,
    shardings_from,
)
from seedjax.typing import Params

CARD = """\
# {name}

{base} after on-policy step reduction ({steps} steps) with seedjax.

| | before | after |
|---|---|---|
| pass@1, {tasks} held-out lab tasks | {pass_before:.3f} | {pass_after:.3f} |
| tokens per forward | {speed_before:.2f} | {speed_after:.2f} |

Recipe: `run.json` beside this file, also under `provenance` in `config.json`.
"""


class OnPolicyResult(NamedTuple):
    """How a run ended.

    Attributes:
      directory: the output directory, now a model directory.
      step: steps taken.
      finished: whether the run came to its end, or stopped itself.
      collapsed: whether it stopped itself.
      before: what the start scored.
      after: what the model that was kept scored.
    """

    directory: Path
    step: int
    finished: bool
    collapsed: bool
    before: dict[str, float]
    after: dict[str, float]


@writes("train", sources=("config.init_from",))
def learn_on_policy(
    config: OnPolicyConfig,
    out: str | Path,
    *,
    resume: bool = False,
    mesh: str = "",
    accept_weak_isolation: bool = False,
    stop: Stop = never,
) -> OnPolicyResult:
    """Runs on-policy learning and writes the best model to `out`.

    `stop` ends the run after the current step; `resume=True` continues it with the same
    prompts. Several processes share the mesh, by which the weights are trained; each
    draws and judges a part of the answers on its own devices.

    Raises:
      InputError: when `out` holds another run, the model does not take the tasks, a
        verifier fails, every answer of a step fails, the loss is not finite, or only
        weak isolation can be had and is not accepted (see `Sandbox`), or a mesh of
        several processes does not divide the rows.
    """
    require_isolation(accept_weak_isolation)
    out = Path(out)
    device_mesh = make_mesh(mesh)
    num_rows = config.prompts * config.candidates
    require_divisible(device_mesh, num_rows, "prompts x candidates")
    own_mesh = device_mesh.local_mesh
    start = load_for_tasks(config.init_from, config.tasks, mesh=own_mesh)
    claim_directory(out, config, resume=resume)
    in_full = replace(start.config, param_dtype="float32")
    reference = read_params(open_model(config.init_from), in_full, device_mesh)
    optimizer, num_steps = config.optimizer, config.num_steps
    shardings = shardings_from(
        reference, start.config, optimizer, num_steps, device_mesh
    )
    initialize = jax.jit(
        partial(create, optimizer=optimizer, num_steps=num_steps),
        out_shardings=shardings,
    )
    on_own_mesh = params_shardings(start.config, own_mesh)
    held_out, keeper = (
        held_out_tasks(config.tasks, config.eval_tasks),
        Keeper(out, config, start),
    )
    programs: dict[Phase, Any] = {}

    @functools.cache
    def model_of(block_size: int | None) -> Model:
        """The start with blocks of another size; it keeps compiled programs."""
        return with_block_size(start, block_size)

    with Sandbox(accept_weak_isolation=accept_weak_isolation) as sandbox:
        verifier = verifier_of(config, sandbox)

        def step_function(state: TrainState, tasks: list[Task], step: int) -> Step:
            phase = config.phase(step)
            params = on_local_devices(state.params, on_own_mesh)
            model = model_of(phase.block_size).with_params(params)
            drawn, statistics = draw_judged(model, config, phase, step, tasks, verifier)
            require_accepted(np.asarray(drawn.values), step)
            if phase not in programs:
                programs[phase] = jax.jit(
                    partial(
                        on_policy_step, model=model.config, config=config, phase=phase
                    ),
                    donate_argnums=0,
                    out_shardings=(shardings, None),
                )
            with jax.set_mesh(device_mesh):
                placed = place(drawn, device_mesh)
                state, metrics = programs[phase](state, reference, placed)
            numbers = statistics._asdict() | {"phase": config.phases.index(phase)}
            return Step(state, metrics._asdict(), numbers)

        def evaluate(state: TrainState, step: int) -> Numbers:
            params = on_local_devices(state.ema, on_own_mesh)
            model = model_of(config.phase(step).block_size).with_params(params)
            sampler = model.sampler.vary(
                policy=config.phases[-1].policy,
                max_new_tokens=config.max_new_tokens,
                trace=False,
            )
            scores = score(model, sampler, held_out, sandbox)
            keeper.consider(step, scores, state.ema)
            return scores

        fitted = fit(
            lambda: initialize(reference),
            step_function,
            lambda step: draw_tasks(config.tasks, config.prompts, config.seed, step),
            num_steps=num_steps,
            log_every=config.log_every,
            out=out,
            resume=resume,
            evaluate=evaluate,
            eval_every=config.eval_every,
            eval_first=True,
            stop=lambda: keeper.collapsed or stop(),
            checkpoint_every_s=config.checkpoint_every_s,
        )
    if is_first():
        plot_speedup({out.name: out / "metrics.jsonl"}, out / "speedup.png")
    if keeper.collapsed and is_first():
        print(
            f"pass@1 has fallen by more than {config.tolerance} at {config.patience} "
            f"evaluations; the model of step {keeper.best_step} is kept",
            file=sys.stderr,
        )
    return OnPolicyResult(
        out,
        fitted.step,
        fitted.finished or keeper.collapsed,
        keeper.collapsed,
        keeper.history[0],
        keeper.best,
    )


def verifier_of(config: OnPolicyConfig, sandbox: Sandbox) -> Verifier:
    """The verifier of a recipe: the weighted mean of those that have a weight.

    Raises:
      InputError: if its critic cannot be read, or belongs to another model.
    """
    parts: list[tuple[float, Verifier]] = [
        (config.tests_weight, UnitTests(sandbox)),
        (config.syntax_weight, Syntax()),
    ]
    if config.critic:
        # A model of its own: the weights in training move away from what it has read.
        frozen = load(config.init_from)
        digest = open_model(config.init_from).digest()
        critic = load_critic(config.critic, frozen, model_digest=digest)
        parts.append((config.critic_weight, critic))
    return Weighted([(weight, part) for weight, part in parts if weight])


def require_accepted(values: np.ndarray, step: int) -> None:
    """Checks that there is something to learn from.

    Raises:
      InputError: if the verifier gives all completions of a step 0.
    """
    if values.max() == 0.0:
        raise InputError(
            f"every answer of step {step} fails; start from a model that solves some "
            "of the tasks, take easier ones (tasks.tiers), or lower temperature"
        )


class Keeper:
    """Keeps the best model: the fastest of those that still pass."""

    def __init__(self, out: Path, config: OnPolicyConfig, start: Model):
        """Reads the evaluations of a run that is resumed."""
        self._out, self._config, self._start = out, config, start
        self.history: list[dict[str, float]] = []
        self.best: dict[str, float] = {}
        self.best_step = 0
        for line in share(read_jsonl(out / "metrics.jsonl") if is_first() else []):
            if "pass_at_1" in line:
                scores = {k: v for k, v in line.items() if k not in ("step", "time")}
                self._note(line["step"], scores)

    @property
    def collapsed(self) -> bool:
        """Whether pass@1 was too low at each of the last evaluations."""
        last = self.history[-self._config.patience :]
        full = len(self.history) > self._config.patience
        return full and not any(map(self._good, last))

    def consider(self, step: int, scores: dict[str, float], params: Params) -> None:
        """Takes note of an evaluation, and writes the model if it is the best so
        far."""
        if self._note(step, scores):
            self._write(params)

    def _good(self, scores: dict[str, float]) -> bool:
        floor = self.history[0]["pass_at_1"] - self._config.tolerance
        return scores["pass_at_1"] >= floor

    def _note(self, step: int, scores: dict[str, float]) -> bool:
        self.history.append(scores)
        faster = scores["tokens_per_forward"] > self.best.get("tokens_per_forward", 0)
        if not (faster and self._good(scores)):
            return False
        self.best, self.best_step = scores, step
        return True

    def _write(self, params: Params) -> None:
        config, phase, before = self._config, self._config.phases[-1], self.history[0]
        start = self._start.config
        export_model(
            self._out,
            params,
            config=replace(start, block_size=phase.block_size or start.block_size),
            tokenizer=self._start.tokenizer,
            base=config.init_from,
            policy=phase.policy,
            recipe=to_dict(config),
            card=fill_markdown(
                CARD,
                name=self._out.name,
                base=config.init_from,
                steps=self.best_step,
                tasks=config.eval_tasks,
                pass_before=before["pass_at_1"],
                pass_after=self.best["pass_at_1"],
                speed_before=before["tokens_per_forward"],
                speed_after=self.best["tokens_per_forward"],
            ),
        )
