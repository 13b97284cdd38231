"""`seedjax lab reproduce`: trains the arms, examines them, writes the report.

    out/start/  out/ar_2/  out/mask_2/ ...   each a run and a model, with scores.jsonl
    out/report.md  out/*.png

Everything that is there already is taken as it is, so the command can be stopped at any
moment and given again, and several machines can share the arms of one folder.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from seedjax.config import to_dict
from seedjax.errors import InputError
from seedjax.files.output import writes
from seedjax.files.text import (
    format_json_line,
    read_json_object,
    write_json,
    write_text,
)
from seedjax.posttrain.on_policy import learn_on_policy
from seedjax.posttrain.recording import record
from seedjax.progress import Progress, Stop, never, silent
from seedjax.reproduce.arms import START, Arm, Budget, arm_recipe, budget, start_recipes
from seedjax.reproduce.examine import Examiner
from seedjax.reproduce.posttraining import (
    DECODED,
    decodes_of,
    on_policy_recipe,
    posttrained_recipe,
    record_recipe,
)
from seedjax.reproduce.report import write_report
from seedjax.sandbox.sandbox import Sandbox, require_isolation
from seedjax.tasks.lab.stream import LabConfig
from seedjax.train.config import RunConfig
from seedjax.train.metrics import read_jsonl
from seedjax.train.run import train

BUDGETS = ("smoke", "full")


def reproduce(
    budget_name: str,
    out: str | Path,
    *,
    vocabulary: str = "mini",
    arms: Sequence[str] = (),
    workers: int | None = None,
    accept_weak_isolation: bool = False,
    report: Progress = silent,
    stop: Stop = never,
) -> Path | None:
    """Trains and examines the arms of a budget and writes the report over all that are
    there.

    Args:
      budget_name: "smoke" or "full".
      out: folder for the arms and the report.
      vocabulary: whose tokenizer to use, see `LabConfig`.
      arms: folder names of the arms to work on; empty for all.
      workers: processes that run answers; None for one a core.
      accept_weak_isolation: see `Sandbox`.
      report: counts the answers of examinations.
      stop: ends it after the current step of a training, or the current decode setting
        of an examination, when it returns true.

    Returns:
      The report, or None if `stop` ended it.

    Raises:
      InputError: for an unknown budget or arm, or a folder that holds something else.
    """
    if budget_name not in BUDGETS:
        raise InputError(
            f"unknown budget {budget_name!r}; there are {' and '.join(BUDGETS)}"
        )
    tokenizer = LabConfig(vocabulary=vocabulary).tokenizer()
    return run_budget(
        budget(budget_name, tokenizer),
        Path(out),
        vocabulary=vocabulary,
        arms=arms,
        workers=workers,
        accept_weak_isolation=accept_weak_isolation,
        report=report,
        stop=stop,
    )


@writes("lab reproduce")
def run_budget(
    plan: Budget,
    out: Path,
    *,
    vocabulary: str,
    arms: Sequence[str] = (),
    workers: int | None = None,
    accept_weak_isolation: bool = False,
    report: Progress = silent,
    stop: Stop = never,
) -> Path | None:
    """`reproduce` for any budget."""
    chosen = choose_arms(plan, arms)
    require_isolation(accept_weak_isolation)
    for folder, recipe in start_recipes(plan, vocabulary, out):
        if not finish_training(recipe, folder, stop=stop):
            return None
    with Sandbox(workers, accept_weak_isolation=accept_weak_isolation) as sandbox:
        examiner = Examiner(plan, sandbox, report, stop)
        if not examiner.examine(out / START):
            return None
        for arm in chosen:
            trained = finish_arm(
                arm,
                plan,
                vocabulary,
                out,
                accept_weak_isolation=accept_weak_isolation,
                stop=stop,
            )
            if not trained or not examiner.examine(out / arm.folder):
                return None
    return write_report(out, plan)


def finish_arm(
    arm: Arm,
    plan: Budget,
    vocabulary: str,
    out: Path,
    *,
    accept_weak_isolation: bool = False,
    stop: Stop = never,
) -> bool:
    """Trains an arm to its end, from where it stands; False if `stop` ended it.

    Raises:
      InputError: if the arm that it begins from is not there.
    """
    folder = out / arm.folder
    if stop():
        return False
    if arm.before and not (out / arm.before / "config.json").exists():
        raise InputError(
            f"{arm.folder} begins from {arm.before}, which is not there; name that "
            "arm before it"
        )
    if arm.name == "on_policy":
        print(f"training {arm.folder}", file=sys.stderr)
        return learn_on_policy(
            on_policy_recipe(arm, plan, vocabulary, out),
            folder,
            resume=(folder / "run.json").exists(),
            accept_weak_isolation=accept_weak_isolation,
            stop=stop,
        ).finished
    if arm.before:
        if arm.name in DECODED:
            print(f"recording decodes for {arm.folder}", file=sys.stderr)
            record(
                record_recipe(arm, plan, vocabulary, out),
                decodes_of(arm, out),
                accept_weak_isolation=accept_weak_isolation,
            )
        recipe = posttrained_recipe(arm, plan, vocabulary, out)
        return finish_training(recipe, folder, stop=stop)
    tokenizer = LabConfig(vocabulary=vocabulary).tokenizer()
    recipe = arm_recipe(arm, plan, vocabulary, out / START, tokenizer)
    if arm.trunk:
        branch(out / arm.trunk, folder, recipe)
    return finish_training(recipe, folder, stop=stop)


def choose_arms(plan: Budget, names: Sequence[str]) -> tuple[Arm, ...]:
    """The arms of a budget with these folder names; all if there are none.

    Raises:
      InputError: for a name that no arm has.
    """
    known = {arm.folder: arm for arm in plan.arms}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"unknown arm {unknown[0]!r}; there are {', '.join(known)}")
    return tuple(known[name] for name in names) or plan.arms


def finish_training(recipe: RunConfig, out: Path, *, stop: Stop = never) -> bool:
    """Trains a run to its end, from where it stands; False if `stop` ended it."""
    if steps_taken(out) >= recipe.num_steps:
        return True
    if stop():  # before the run has begun
        return False
    print(f"training {out.name}", file=sys.stderr)
    return train(recipe, out, resume=True, stop=stop).finished


def branch(trunk: Path, out: Path, recipe: RunConfig) -> None:
    """Lets a run begin as a copy of another that is the same until its edit stage. Does
    nothing if the run has begun, or the other has no checkpoint from there."""
    checkpoint = trunk / "checkpoints" / str(recipe.edit_step)
    if out.exists() or not checkpoint.exists():
        return
    lines = [
        line
        for line in read_jsonl(trunk / "metrics.jsonl")
        if line["step"] <= recipe.edit_step
    ]
    shutil.copytree(checkpoint, out / "checkpoints" / checkpoint.name)
    write_text(out / "metrics.jsonl", "".join(map(format_json_line, lines)))
    # The trunk's model says how its layers are stored.
    model = read_json_object(trunk / "run.json")["model"]
    write_json(out / "run.json", to_dict(recipe) | {"model": model})


def steps_taken(directory: Path) -> int:
    """Steps that the model in a directory has taken; 0 if there is none."""
    config = directory / "config.json"
    if not config.exists():
        return 0
    return int(read_json_object(config)["provenance"].get("step", 0))
