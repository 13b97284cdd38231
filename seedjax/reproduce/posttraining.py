"""The arms of post-training: their recipes, all from what the arm before them became.

supervised   more of the lab, blocks and masks: what the steps alone do
sharpened    certainty-forcing on its own decodes (dParallel)
ordered      constrained order, on the same decodes
on_policy    after that, shorter decodes that pass
ar_more      the autoregressive arm, with as many steps more
"""

import dataclasses
from pathlib import Path
from typing import Any

from seedjax.posttrain import recipes
from seedjax.posttrain.config import OnPolicyConfig, Phase
from seedjax.posttrain.recording import RecordConfig
from seedjax.reproduce.arms import Arm, Budget
from seedjax.sampling.policy import LeftToRight
from seedjax.tasks.lab.stream import LabConfig
from seedjax.train.config import RunConfig

DECODED = ("ordered", "sharpened")  # arms that learn from decodes
DATA_SEED = 100  # added to an arm's: samples that were not in its training


def decodes_of(arm: Arm, out: Path) -> Path:
    """Where the decodes of an arm's start are; arms of one seed share them."""
    return out / f"decodes_{arm.seed}"


def tasks_of(arm: Arm, plan: Budget, vocabulary: str) -> LabConfig:
    """Prompts and samples of post-training."""
    return LabConfig(
        vocabulary=vocabulary,
        batch_size=plan.batch_size,
        block_size=plan.model.block_size,
        seed=arm.seed + DATA_SEED,
    )


def record_recipe(arm: Arm, plan: Budget, vocabulary: str, out: Path) -> RecordConfig:
    """How decodes are recorded: one of each prompt, from the left. Where nothing passes
    yet, tokens are drawn: the likeliest would be the same for all and have no end."""
    drawn: dict[str, Any] = (
        {} if plan.verified else {"candidates": 4, "temperature": 1.0}
    )
    return RecordConfig(
        model=str(out / arm.before),
        tasks=tasks_of(arm, plan, vocabulary),
        num_prompts=plan.prompts,
        verify=plan.verified,
        policy=LeftToRight(),
        max_new_tokens=plan.max_new_tokens,
        seed=arm.seed,
        **drawn,
    )


def posttrained_recipe(arm: Arm, plan: Budget, vocabulary: str, out: Path) -> RunConfig:
    """The recipe of an arm that is a run of the trainer."""
    model, decodes = str(out / arm.before), str(decodes_of(arm, out))
    steps = plan.posttraining_steps
    if arm.name == "ordered":
        run, steps = recipes.constrained_order(model, decodes), plan.ordered_steps
    elif arm.name == "sharpened":
        run = recipes.sharpening(model, decodes)
    else:
        run = recipes.supervised(model)
        run = dataclasses.replace(run, data=tasks_of(arm, plan, vocabulary))
    return dataclasses.replace(
        run,
        data=dataclasses.replace(run.data, batch_size=plan.batch_size),
        optimizer=dataclasses.replace(
            run.optimizer, warmup_steps=min(run.optimizer.warmup_steps, steps // 5)
        ),
        num_steps=steps,
        seed=arm.seed,
        log_every=25 if steps > 100 else 5,
        eval_every=max(1, steps // 2),
    )


def on_policy_recipe(
    arm: Arm, plan: Budget, vocabulary: str, out: Path
) -> OnPolicyConfig:
    """The default recipe, for as many steps as the plan has."""
    return OnPolicyConfig(
        init_from=str(out / arm.before),
        tasks=tasks_of(arm, plan, vocabulary),
        phases=(Phase(steps=plan.on_policy_steps),),
        max_new_tokens=plan.max_new_tokens,
        seed=arm.seed,
    )
