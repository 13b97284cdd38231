"""A learned verifier: predicts from a model's own hidden states whether an answer
will pass its tests.

    prompt and answer ──frozen denoiser──▶ mean hidden state of the answer ──head──▶ p

The paper's verifier is "model-based" and not described further (Seed Diffusion, arXiv
2508.02193, section 3.3). This one is a head of two layers on the clean answer, trained
on answers whose tests were run, and calibrated afterwards by one temperature (arXiv
1706.04599) on answers that it was not trained on. Where tests can be run they are the
better judge; a critic is for answers that have none, and is cheaper.
"""

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from seedjax.checkpoints.model_directory import open_model
from seedjax.config import DenoiserConfig, check_fields, require, to_dict
from seedjax.errors import InputError
from seedjax.evaluate.examine import examine
from seedjax.files.output import writes
from seedjax.files.replacing import replaced_file
from seedjax.files.text import read_json_object, write_json
from seedjax.inference.model import Model
from seedjax.nn import denoiser
from seedjax.posttrain.trajectories import load_for_tasks
from seedjax.posttrain.verifiers import Submission
from seedjax.processes import is_first
from seedjax.sampling.canvas import bucket
from seedjax.sandbox.sandbox import Sandbox, require_isolation
from seedjax.tasks.lab.stream import LabConfig, task_prompt
from seedjax.tasks.lab.tasks import MOST_TESTS, Task
from seedjax.tasks.problems import ProblemConfig, draw
from seedjax.tasks.suites.lab import by_kind
from seedjax.train.fit import Step, fit
from seedjax.typing import Array, Bool, Float32, Int32, Params, PRNGKey

FILE = "critic.safetensors"
SETTINGS = "critic.json"


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """The recipe of a head, and of the answers that it learns from."""

    model: str = "mini"  # that answers, and whose hidden states are read
    tasks: LabConfig | ProblemConfig = LabConfig()  # where prompts come from
    num_tasks: int = 4096
    temperature: float = 0.8  # of answers, so that some are wrong
    max_new_tokens: int = 128
    width: int = 64
    num_steps: int = 500
    batch_size: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    held_out: float = 0.25  # share of the answers that it is calibrated and tested on
    seed: int = 0

    def __post_init__(self):
        require(0.0 < self.held_out < 1.0, self, "held_out", "between 0 and 1")
        for name in ("width", "num_steps", "batch_size", "num_tasks", "max_new_tokens"):
            require(getattr(self, name) >= 1, self, name, "at least 1")


class Head(NamedTuple):
    """The head's parameters."""

    mean: Float32[Array, "D"]  # of the features, and
    spread: Float32[Array, "D"]  # their standard deviation: they are normalised first
    first: Float32[Array, "D F"]
    bias: Float32[Array, "F"]
    second: Float32[Array, "F"]
    offset: Float32[Array, ""]
    temperature: Float32[Array, ""]


class CriticReport(NamedTuple):
    """How good a critic is, on answers that it was not trained on.

    Attributes:
      answers: how many.
      passed: share of them that passed.
      accuracy: share that it predicts correctly, at a threshold of a half.
      auc: probability that it ranks one that passed above one that failed.
      calibration_error: mean distance between prediction and outcome, in ten
        bins of equal width (expected calibration error).
    """

    answers: int
    passed: float
    accuracy: float
    auc: float
    calibration_error: float


@writes("posttrain critic", sources=("config.model",))
def learn_critic(
    config: CriticConfig,
    out: str | Path,
    *,
    accept_weak_isolation: bool = False,
    advance: Callable[[int], object] = lambda tasks: None,
) -> CriticReport:
    """Has a model answer tasks of the training split, runs their tests, trains a head
    on the outcomes and writes it to `out`. Several processes share the answering; all
    train the same head, and the first one writes it.

    Raises:
      InputError: if there is no such model, the tasks have another tokenizer, nearly
        all answers passed or failed, or only weak isolation can be had and is not
        accepted (see `Sandbox`).
    """
    require_isolation(accept_weak_isolation)
    model = load_for_tasks(config.model, config.tasks)
    tasks = [
        dataclasses.replace(
            draw(
                config.tasks,
                random.Random(f"critic/{config.seed}/{config.tasks.seed}/{n}"),
                "train",
                num_tests=MOST_TESTS,
            ),
            problem_id=f"critic/{n}",  # drawn ones may come twice
        )
        for n in range(config.num_tasks)
    ]
    sampler = model.sampler.vary(
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        trace=False,
    )
    with Sandbox(accept_weak_isolation=accept_weak_isolation) as sandbox:
        found = examine(
            model,
            by_kind(tasks),
            sampler,
            sandbox,
            seed=config.seed,
            advance=advance,
        )
    submissions = []
    for task, completion in zip(found.problems, found.completions, strict=True):
        assert isinstance(task, Task)
        text = model.tokenizer.encode(completion.text)
        tokens = [*task_prompt(task, model.tokenizer), *text]
        submissions.append(Submission(task, completion.text, tokens))
    features = answer_features(model, submissions)
    head, result = train_critic(features, np.array(found.passed), config)
    if is_first():
        digest = open_model(config.model).digest()
        save_critic(out, head, config, result, model_digest=digest)
    return result


class Critic:
    """A verifier made of a model and a head."""

    def __init__(self, model: Model, head: Head, *, rows: int = 64):
        self._model, self._head, self._rows = model, head, rows

    def judge(self, submissions: Sequence[Submission]) -> np.ndarray:
        features = answer_features(self._model, submissions, rows=self._rows)
        return np.asarray(chance(self._head, jnp.asarray(features)), np.float32)


def chance(head: Head, features: Float32[Array, "B D"]) -> Float32[Array, "B"]:
    """The probability that each answer passes."""
    return jax.nn.sigmoid(score(head, features) / head.temperature)


def score(head: Head, features: Float32[Array, "B D"]) -> Float32[Array, "B"]:
    """The logits of the head, before calibration."""
    normal = (features - head.mean[None]) / head.spread[None]
    hidden = jax.nn.silu(normal @ head.first + head.bias[None])
    return hidden @ head.second + head.offset


def answer_features(
    model: Model, submissions: Sequence[Submission], *, rows: int = 64
) -> np.ndarray:
    """The mean hidden state over each answer, float32 [B, D]; over the last token of
    the prompt where the answer is empty."""
    found = []
    for start in range(0, len(submissions), rows):
        chosen = submissions[start : start + rows]
        widest = bucket(max(len(each.tokens) for each in chosen))
        tokens = np.zeros((rows, widest), np.int32)
        present, answer = np.zeros((2, rows, widest), bool)
        for row, each in enumerate(chosen):
            length = len(each.tokens)
            written = len(model.tokenizer.encode(each.text))
            tokens[row, :length] = each.tokens
            present[row, :length] = True
            answer[row, min(length - written, length - 1) : length] = True
        states = _mean_states(model.params, tokens, present, answer, model.config)
        found.append(np.asarray(states)[: len(chosen)])
    return np.concatenate(found)


@jax.jit(static_argnames="config")
def _mean_states(
    params: Params,
    tokens: Int32[Array, "B L"],
    present: Bool[Array, "B L"],
    answer: Bool[Array, "B L"],
    config: DenoiserConfig,
) -> Float32[Array, "B D"]:
    layout = denoiser.simple_layout(tokens)
    layout = layout._replace(segments=jnp.where(present, layout.segments, 0))
    hidden = denoiser.hidden_states(params, config, tokens, layout).hidden
    share = answer.astype(jnp.float32)
    share = share / jnp.maximum(share.sum(axis=1, keepdims=True), 1.0)
    return jnp.einsum("bl,bld->bd", share, hidden.astype(jnp.float32))


def train_critic(
    features: np.ndarray, passed: np.ndarray, config: CriticConfig
) -> tuple[Head, CriticReport]:
    """Trains a head, calibrates it and reports how good it is.

    Half of the answers that are held out set the temperature; the report is of the
    other half.

    Args:
      features: [B, D], from `answer_features`.
      passed: [B], of bool.
      config: the recipe.

    Raises:
      InputError: if there are fewer than 16 answers, or all of them passed, or none.
    """
    if len(passed) < 16 or passed.all() or not passed.any():
        raise InputError(
            f"{int(passed.sum())} of {len(passed)} answers passed; a critic needs at "
            "least 16 answers, some that passed and some that failed"
        )
    order = np.random.default_rng(config.seed).permutation(len(passed))
    count = max(round(config.held_out * len(passed)), 4)
    tested, calibrated, trained = np.split(order, [count // 2, count])
    head = train_head(
        jax.random.key(config.seed),
        jnp.asarray(features[trained]),
        jnp.asarray(passed[trained]),
        config,
    )
    temperature = fit_temperature(
        np.asarray(score(head, jnp.asarray(features[calibrated]))), passed[calibrated]
    )
    head = head._replace(temperature=jnp.float32(temperature))
    predicted = np.asarray(chance(head, jnp.asarray(features[tested])))
    return head, report(predicted, passed[tested])


def train_head(
    key: PRNGKey,
    features: Float32[Array, "B D"],
    passed: Bool[Array, "B"],
    config: CriticConfig,
) -> Head:
    """A head trained on the outcomes of answers, with temperature 1."""
    width = features.shape[1]
    key_first, key_second, key_batches = jax.random.split(key, 3)
    head = Head(
        mean=features.mean(axis=0),
        spread=features.std(axis=0) + 1e-6,
        first=jax.random.normal(key_first, (width, config.width)) / width**0.5,
        bias=jnp.zeros(config.width),
        second=jax.random.normal(key_second, (config.width,)) / config.width**0.5,
        offset=jnp.float32(0.0),
        temperature=jnp.float32(1.0),
    )
    optimizer = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)
    keys = jax.random.split(key_batches, config.num_steps)

    def loss_of(head: Head, rows: Int32[Array, "b"]) -> Float32[Array, ""]:
        # Normalisation and temperature are no weights.
        head = head._replace(
            **{
                name: jax.lax.stop_gradient(getattr(head, name))
                for name in ("mean", "spread", "temperature")
            }
        )
        logits = score(head, features[rows])
        return optax.sigmoid_binary_cross_entropy(logits, passed[rows]).mean()

    @jax.jit
    def take(state: tuple[Head, Any], key: PRNGKey) -> tuple[tuple[Head, Any], Array]:
        head, moments = state
        rows = jax.random.randint(key, (config.batch_size,), 0, len(passed))
        loss, grads = jax.value_and_grad(loss_of)(head, rows)
        updates, moments = optimizer.update(grads, moments, head)
        fixed = {name: getattr(head, name) for name in ("mean", "spread")}
        head = optax.apply_updates(head, updates)._replace(**fixed)
        return (head, moments), loss

    def step_function(state: tuple[Head, Any], key: PRNGKey, step: int) -> Step:
        state, loss = take(state, key)
        return Step(state, {"loss": loss})

    fitted = fit(
        lambda: (head, optimizer.init(head)),
        step_function,
        lambda step: keys[step],
        num_steps=config.num_steps,
        log_every=100,
    )
    trained, _ = fitted.state
    return trained._replace(temperature=jnp.float32(1.0))


def fit_temperature(logits: np.ndarray, passed: np.ndarray) -> float:
    """The temperature under which logits predict outcomes best, by their likelihood,
    among 101 from 0.1 to 10."""
    temperatures = np.geomspace(0.1, 10.0, 101)
    scaled = logits[None] / temperatures[:, None]
    signs = np.where(passed, 1.0, -1.0)[None]
    losses = np.logaddexp(0.0, -signs * scaled).mean(axis=1)
    return float(temperatures[np.argmin(losses)])


def report(predicted: np.ndarray, passed: np.ndarray) -> CriticReport:
    """Compares a critic's predictions with the outcomes."""
    good, bad = predicted[passed], predicted[~passed]
    wins = (good[:, None] > bad[None]).mean() + 0.5 * (
        good[:, None] == bad[None]
    ).mean()
    bins = np.minimum((predicted * 10).astype(int), 9)
    gaps = [
        abs(predicted[bins == n].mean() - passed[bins == n].mean()) * np.mean(bins == n)
        for n in range(10)
        if (bins == n).any()
    ]
    return CriticReport(
        answers=len(passed),
        passed=float(passed.mean()),
        accuracy=float(((predicted >= 0.5) == passed).mean()),
        auc=float(wins) if len(good) and len(bad) else float("nan"),
        calibration_error=float(sum(gaps)),
    )


def save_critic(
    directory: str | Path,
    head: Head,
    config: CriticConfig,
    result: CriticReport,
    *,
    model_digest: str,
) -> None:
    """Writes a critic; it belongs to the model whose hidden states it reads."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    arrays = {k: np.asarray(v) for k, v in head._asdict().items()}
    with replaced_file(directory / FILE, force=True) as partial:
        partial.write_bytes(save(arrays))
    settings = {
        "model": model_digest,
        "recipe": to_dict(config),
        "report": result._asdict(),
    }
    write_json(directory / SETTINGS, settings)


def load_critic(directory: str | Path, model: Model, *, model_digest: str) -> Critic:
    """Reads a critic.

    Raises:
      InputError: if there is none, or it belongs to another model.
    """
    try:
        settings = read_json_object(Path(directory) / SETTINGS)
        arrays = load_file(Path(directory) / FILE)
        head = Head(**{name: jnp.asarray(x) for name, x in arrays.items()})
    except (OSError, SafetensorError, TypeError) as error:
        raise InputError(
            f"no critic can be read from {directory} ({error}); train one with "
            "`seedjax posttrain critic`"
        ) from None
    check_fields(settings, {"model": str}, str(Path(directory) / SETTINGS))
    if settings["model"] != model_digest:
        raise InputError(
            f"the critic {directory} reads another model's hidden states; train one "
            "for this model"
        )
    return Critic(model, head)
