"""The whole ablation, in miniature: train, branch off, examine, report, go on."""

import dataclasses
import json
from types import SimpleNamespace

import lab_model
import pytest

from seedjax.config import to_dict
from seedjax.errors import InputError
from seedjax.nn.layer_loop import with_layer_loop
from seedjax.reproduce.arms import (
    ON_POLICY_ROWS,
    POSTTRAINED,
    Arm,
    arm_recipe,
    budget,
    start_recipes,
)
from seedjax.reproduce.examine import SCORES, read_scores
from seedjax.reproduce.posttraining import on_policy_recipe
from seedjax.reproduce.run import (
    branch,
    choose_arms,
    finish_arm,
    finish_training,
    reproduce,
    run_budget,
)
from seedjax.tasks.lab.stream import LabConfig
from seedjax.train.directory import claim_directory
from seedjax.train.metrics import read_jsonl


@pytest.fixture(scope="module")
def tokenizer():
    return LabConfig().tokenizer()


@pytest.fixture(scope="module")
def plan(tokenizer):
    smoke = budget("smoke", tokenizer)
    model = dataclasses.replace(
        smoke.model, hidden_size=16, num_layers=1, head_dim=16, mlp_size=16
    )
    return dataclasses.replace(
        smoke,
        model=model,
        start_steps=2,
        arm_steps=5,
        batch_size=8,
        arms=(Arm("mask", "b", 2), Arm("substitute", "c", 2)),
        slice_tasks=0,
        thresholds=(),
        max_new_tokens=4,
    )


@pytest.mark.slow
def test_the_whole_ablation(plan, tmp_path):
    report = run_budget(plan, tmp_path, vocabulary="mini", workers=1)
    assert report is not None
    text = report.read_text()
    assert "(b) mask" in text and "(c) substitute" in text
    assert "(c) against (b) on repair" in text
    for name in ("quality.png", "losses.png", "orders.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    # The edit stage, one step, is all that the second arm did itself.
    trunk, branch = (
        read_jsonl(tmp_path / name / "metrics.jsonl")
        for name in ("mask_2", "substitute_2")
    )
    assert [x for x in branch if x["step"] <= 4] == [x for x in trunk if x["step"] <= 4]
    assert {x["stage"] for x in branch if "loss" in x and x["step"] > 4} == {"edit"}

    # What is there is taken as it is, even where a line was cut off.
    scores = tmp_path / "mask_2" / SCORES
    whole = scores.read_text()
    scores.write_text(whole[:-30])
    weights = (tmp_path / "mask_2" / "params").stat().st_mtime_ns
    assert run_budget(plan, tmp_path, vocabulary="mini", workers=1) == report
    keys = [cell.key for cell in read_scores(scores)]
    assert len(keys) == len(set(keys)) == len(whole.splitlines())
    assert (tmp_path / "mask_2" / "params").stat().st_mtime_ns == weights


def test_an_arm_branches_off_where_its_edit_stage_begins(plan, tokenizer, tmp_path):
    arm = Arm("substitute", "c", 2)
    recipe = arm_recipe(arm, plan, "mini", tmp_path / "start", tokenizer)
    trunk, out = tmp_path / arm.trunk, tmp_path / arm.folder
    branch(trunk, out, recipe)
    assert not out.exists()  # there is nothing to branch off from
    step = recipe.edit_step
    (trunk / "checkpoints" / str(step)).mkdir(parents=True)
    (trunk / "checkpoints" / str(step) / "state").write_text("weights")
    lines = [{"step": n, "tokens": n, "loss": 1.0} for n in range(1, step + 2)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (trunk / "metrics.jsonl").write_text(text)
    chosen = with_layer_loop(recipe.model, "cpu", "training")
    taken = dataclasses.replace(recipe, model=chosen)
    (trunk / "run.json").write_text(json.dumps(to_dict(taken)))
    branch(trunk, out, recipe)
    assert (out / "checkpoints" / str(step) / "state").read_text() == "weights"
    assert read_jsonl(out / "metrics.jsonl") == lines[:-1]
    claim_directory(out, taken, resume=True)  # as `train` claims it
    (out / "checkpoints" / str(step) / "state").write_text("further")
    branch(trunk, out, recipe)  # a run that has begun is left alone
    assert (out / "checkpoints" / str(step) / "state").read_text() == "further"


def test_a_run_cut_off_before_its_first_checkpoint_goes_on(
    plan, tokenizer, tmp_path, monkeypatch
):
    """Its folder holds a record and metrics, which only a resumed run may take over."""
    asked = []

    def train(recipe, out, *, resume, stop):
        claim_directory(out, recipe, resume=resume)
        asked.append(out)
        return SimpleNamespace(finished=True)

    monkeypatch.setattr("seedjax.reproduce.run.train", train)
    recipe = arm_recipe(plan.arms[0], plan, "mini", tmp_path / "start", tokenizer)
    out = tmp_path / "mask_2"
    claim_directory(out, recipe, resume=False)
    (out / "metrics.jsonl").write_text('{"step": 1, "tokens": 1, "loss": 1.0}\n')
    assert finish_training(recipe, out) and asked == [out]


def test_arms_differ_in_what_they_are_about(tokenizer, tmp_path):
    plan = budget("full", tokenizer)
    recipes = {
        arm.folder: arm_recipe(arm, plan, "mini", tmp_path / "start", tokenizer)
        for arm in plan.arms
        if not arm.before
    }
    mask = recipes["mask_2"]
    for name in ("substitute_2", "levenshtein_2"):
        other = recipes[name]
        same = dataclasses.replace(other, objective=mask.objective)
        assert same == mask and other != mask
    assert recipes["ar_2"].data == dataclasses.replace(mask.data, truncate=0.0)
    assert recipes["ar_3"].data.seed != recipes["ar_2"].data.seed
    assert recipes["scratch_2"].init_from == ""
    assert recipes["scratch_2"].num_steps == 3 * mask.num_steps
    # A checkpoint stands where the edit stage begins, so that arms can branch off.
    assert mask.num_steps * 4 // 5 % mask.eval_every == 0
    assert recipes["substitute_2"].edit_step == mask.num_steps * 4 // 5


def test_the_start_has_two_cycles(tokenizer, tmp_path):
    plan = budget("full", tokenizer)
    (first, one), (second, two) = start_recipes(plan, "mini", tmp_path)
    assert one.init_from == "" and two.init_from == str(first)
    assert second.name == "start" and one.data.seed != two.data.seed


def test_unknown_names(tokenizer, tmp_path):
    with pytest.raises(InputError, match="unknown budget 'huge'"):
        reproduce("huge", tmp_path)
    with pytest.raises(InputError, match="unknown arm 'mask_9'"):
        choose_arms(budget("smoke", tokenizer), ["mask_9"])


@pytest.mark.slow
def test_arms_of_post_training(plan, tokenizer, tmp_path, monkeypatch):
    """What each begins from and takes; that decodes are recorded once for both that
    learn from them is up to `record`, which goes on with what is there."""
    done = []
    monkeypatch.setattr(
        "seedjax.reproduce.run.record",
        lambda recipe, out, **_: done.append((recipe.model, out.name)),
    )
    monkeypatch.setattr(
        "seedjax.reproduce.run.finish_training",
        lambda recipe, out, **_: done.append((recipe, out.name)) or True,
    )
    monkeypatch.setattr(
        "seedjax.reproduce.posttraining.recipes.read_manifest",
        lambda folder: SimpleNamespace(block_size=8),
    )
    plan = dataclasses.replace(plan, ordered_steps=10, on_policy_steps=7)
    assert plan.posttraining_steps == 10 + 7 * 32 // 8
    arms = {name: Arm(name, "x", 2) for name in POSTTRAINED}
    with pytest.raises(InputError, match="begins from block_edit_2, which is not"):
        finish_arm(arms["ordered"], plan, "mini", tmp_path)
    for name, attention in (("block_edit_2", "block_causal"), ("ar_2", "causal")):
        lab_model.save(tmp_path / name, tokenizer, attention=attention)
    for name in ("ordered", "sharpened", "supervised", "ar_more"):
        assert finish_arm(arms[name], plan, "mini", tmp_path)
    start = str(tmp_path / "block_edit_2")
    assert done[0] == done[2] == (start, "decodes_2")
    recipes = {name: recipe for recipe, name in (done[1], *done[3:])}
    kinds = {name: type(r.objective).__name__ for name, r in recipes.items()}
    assert kinds == {
        "ordered_2": "ConstrainedOrder",
        "sharpened_2": "ConstrainedOrder",
        "supervised_2": "BlockDiffusion",
        "ar_more_2": "Autoregressive",
    }
    assert recipes["ordered_2"].num_steps == 10 and recipes["ordered_2"].seed == 2
    assert recipes["sharpened_2"].certainty is not None
    for name in ("sharpened_2", "supervised_2", "ar_more_2"):
        assert recipes[name].num_steps == plan.posttraining_steps
    assert recipes["ar_more_2"].init_from == str(tmp_path / "ar_2")
    on_policy = on_policy_recipe(arms["on_policy"], plan, "mini", tmp_path)
    assert on_policy.init_from == str(tmp_path / "ordered_2")
    assert on_policy.num_steps == 7
    assert on_policy.prompts * on_policy.candidates == ON_POLICY_ROWS
