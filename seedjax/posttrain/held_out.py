"""The held-out tasks that a post-training run is watched by, and their scores."""

from seedjax.evaluate.examine import examine
from seedjax.inference.model import Model
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sandbox.sandbox import Sandbox
from seedjax.tasks.lab.tasks import TASKS, TIERS, Task, make_task
from seedjax.tasks.problems import ProblemConfig, TaskSource
from seedjax.tasks.suites.lab import by_kind

EVAL_SEED = 1  # the ablation's exam has another


def held_out_tasks(source: TaskSource, count: int) -> list[Task]:
    """The first held-out tasks of a file, at most `count`; of the lab the kinds that
    are trained on, and the tiers, in turns."""
    if isinstance(source, ProblemConfig):
        return source.problems("heldout")[:count]
    weights = zip(TASKS, source.weights, strict=True)
    kinds = [kind for kind, weight in weights if weight]
    return [
        make_task(
            kinds[n % len(kinds)],
            n,
            split="test",
            tier=TIERS[n // len(kinds) % len(TIERS)],
            seed=EVAL_SEED,
        )
        for n in range(count)
    ]


def score(
    model: Model, sampler: SamplerConfig, tasks: list[Task], sandbox: Sandbox
) -> dict[str, float]:
    """Scores of tasks under a recipe: pass@1, speed and signs of collapse."""
    found = examine(model, by_kind(tasks), sampler, sandbox).score()
    return {
        "pass_at_1": found.pass_rate,
        "tokens_per_forward": found.tokens_per_forward or 0.0,
        "tokens_per_second": found.tokens_per_second or 0.0,
        "valid_rate": found.valid_rate or 0.0,
        "empty_rate": found.empty_rate,
        "repetition_rate": found.repetition_rate,
    }
