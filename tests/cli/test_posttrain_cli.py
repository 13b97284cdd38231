"""Post-training from the command line: every stage, and what is refused."""

import json

import lab_model
import pytest

from seedjax.data.trajectories import Trajectories
from seedjax.inference.loading import load
from seedjax.nn.denoiser import num_parameters
from seedjax.posttrain.prune import sparsity
from seedjax.tasks.lab.stream import LabConfig


@pytest.fixture(scope="module")
def tokenizer():
    return LabConfig().tokenizer()


@pytest.fixture(scope="module")
def base(tokenizer, tmp_path_factory) -> str:
    return lab_model.save(tmp_path_factory.mktemp("base") / "tiny", tokenizer)


SHORT = (
    *("--set", "num_steps=2", "--set", "eval_every=2", "--set", "log_every=1"),
    *("--set", "eval_batches=1", "--set", "eval_samples=1"),
)


@pytest.fixture
def decodes(run, base, tmp_path):
    """Recorded decodes of the random model, through the command line."""
    code, out, err = run(
        *("posttrain", "trajectories", "--model", base, "--out", tmp_path / "decodes"),
        *("--set", "num_prompts=48", "--set", "candidates=2", "--set", "rows=32"),
        *("--set", "verify=false", "--set", "temperature=2.0"),
        *("--set", "max_new_tokens=24", "--json"),
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["prompts"] == 48 and found["trajectories"] > 8
    return tmp_path / "decodes"


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage",
    ["constrained-order", pytest.param("sharpen", marks=pytest.mark.slow)],
)
def test_from_decodes_to_a_model(run, base, decodes, tmp_path, stage):
    out = tmp_path / stage
    given = ("--model", base, "--trajectories", decodes, "--out", out)
    code, text, err = run("posttrain", stage, *given, *SHORT, "--json")
    assert code == 0, err
    assert json.loads(text)["finished"]
    recipe = json.loads((out / "run.json").read_text())
    assert recipe["objective"]["kind"] == "ConstrainedOrder"
    assert (recipe["certainty"] is not None) == (stage == "sharpen")
    assert load(str(out)).generate("def f", max_new_tokens=4).forwards > 0
    # The decodes are of the base, not of what was made of it.
    wrong = ("--model", out, "--trajectories", decodes)
    code, _, err = run("posttrain", "sharpen", *wrong, "--out", tmp_path / "x", *SHORT)
    assert code == 2 and "of another model" in err and err.count("\n") == 1


@pytest.fixture
def problems(tmp_path):
    """Sixty problems, of which every other one passes whatever is written."""
    rows = [
        {
            "prompt": f"x_{n} = 1\n#",
            "test": f"assert {n} % 2 == 0",
            "entry_point": f"x_{n}",
        }
        for n in range(60)
    ]
    file = tmp_path / "problems.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.slow
def test_problems_of_a_users_file(run, base, problems, tmp_path):
    """Recorded and trained on, judged by their tests, in place of the lab's."""
    decodes = tmp_path / "decodes"
    given = ("--model", base, "--problems", problems, "--accept-weak-isolation")
    code, out, err = run(
        *("posttrain", "trajectories", *given, "--out", decodes, "--json"),
        *("--set", "rows=32", "--set", "temperature=2.0", "--set", "max_new_tokens=24"),
        *("--set", "candidates=8"),
    )
    assert code == 0, err
    found = json.loads(out)
    assert "line 1, line 3, line 5 and 27 more of" in err and "empty answer" in err
    assert 48 <= found["prompts"] < 60 and 0 < found["trajectories"] <= 30
    kept = list(Trajectories(decodes))
    tokenizer = load(base).tokenizer
    prompts = {tokenizer.decode(trajectory.prompt.tolist()) for trajectory in kept}
    assert all(int(prompt.split()[0][2:]) % 2 == 0 for prompt in prompts)
    code, _, err = run(
        *("posttrain", "critic", *given, "--out", tmp_path / "critic"),
        *("--set", "num_tasks=40", "--set", "max_new_tokens=8"),
    )
    assert code == 0, err


@pytest.mark.slow
def test_on_policy_with_problems_of_a_users_file(run, base, problems, tmp_path):
    settings = ["eval_tasks=4", "prompts=8", "candidates=8", "temperature=2.0"]
    settings += ["max_new_tokens=24", 'phases=[{"steps": 1}]']
    code, out, err = run(
        *("posttrain", "on-policy", "--model", base, "--problems", problems),
        *("--out", tmp_path / "fast", "--accept-weak-isolation", "--json"),
        *(word for setting in settings for word in ("--set", setting)),
    )
    assert code == 0, err
    assert 0.0 <= json.loads(out)["before"]["pass_at_1"] <= 1.0


@pytest.mark.parametrize("stage", ["trajectories", "on-policy", "critic"])
def test_problems_without_tests_are_refused(run, tmp_path, stage):
    file = tmp_path / "problems.jsonl"
    file.write_text('{"prompt": "x"}\n')
    out = tmp_path / "out"
    code, printed, err = run("posttrain", stage, "--problems", file, "--out", out)
    assert (code, printed) == (2, "") and err.count("\n") == 1
    assert "problems.jsonl:1: there are no tests" in err and not out.exists()


@pytest.mark.parametrize(
    "command",
    [("match-teacher",), ("average", "mini", "mini"), ("widen",)],
    ids=" ".join,
)
def test_what_runs_in_one_process_refuses_several(run, tmp_path, monkeypatch, command):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "job-0.svc:1234")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    code, printed, err = run("posttrain", *command, "--out", tmp_path / "out")
    assert (code, printed) == (2, "") and err.count("\n") == 1
    assert "runs in one process" in err and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_smaller_model(run, base, tmp_path):
    out = tmp_path / "sparse"
    given = ("--model", base, "--out", out, "--steps", 0, "--json")
    code, text, err = run("posttrain", "prune", *given)
    assert code == 0, err
    assert json.loads(text)["zeros"] == 0.5
    assert sparsity(load(str(out)).params) == pytest.approx(0.5, abs=0.01)
    code, _, err = run("posttrain", "prune", "--out", out, "--pattern", "3:4")
    assert code == 2 and "it must be 2:4 or magnitude" in err


@pytest.mark.slow
def test_a_wider_model(run, base, tmp_path):
    out = tmp_path / "wide"
    given = ("--model", base, "--out", out, "--factor", 3, "--json")
    code, text, err = run("posttrain", "widen", *given)
    assert code == 0, err
    wide = load(str(out)).config
    assert wide.hidden_size == 3 * load(base).config.hidden_size
    assert json.loads(text)["parameters"] == num_parameters(wide)
    code, _, err = run(
        "posttrain", "widen", "--model", base, "--out", out, "--factor", 1
    )
    assert code == 2 and "--factor" in err


@pytest.mark.slow
def test_a_student(run, base, tmp_path):
    given = ("--teacher", base, "--layers", 1, "--out", tmp_path / "student")
    more = ("--set", "data.vocabulary=mini", "--set", "data.batch_size=2")
    code, _, err = run("posttrain", "distill", *given, *more, *SHORT)
    assert code == 0, err
    recipe = json.loads((tmp_path / "student" / "run.json").read_text())
    assert recipe["teacher"] == recipe["init_from"] == base


@pytest.mark.slow
def test_an_adapter(run, base, decodes, tmp_path):
    out = tmp_path / "tuned"
    given = ("--model", base, "--trajectories", decodes, "--out", out)
    lora = ("--lora", "rank=2,alpha=4.0", "--set", "weights_dtype=float32")
    code, _, err = run("posttrain", "constrained-order", *given, *SHORT, *lora)
    assert code == 0, err
    adapter = ("--model", base, "--adapter", out / "adapter")
    short = ("--max-new-tokens", 4, "--no-compile-cache", "--json")
    code, put_on, err = run("generate", *adapter, *short, "def f(x):")
    assert code == 0, err
    code, merged, _ = run("generate", "--model", out, *short, "def f(x):")
    assert json.loads(put_on)["text"] == json.loads(merged)["text"]
    code, _, err = run("generate", "--model", "mini", *adapter[2:], *short, "def f(x):")
    assert code == 2 and "was trained for" in err


@pytest.mark.slow
def test_preferences(run, base, tmp_path):
    feedback = tmp_path / "feedback.jsonl"
    lines = [
        {"prompt": "def f(x):\n", "answer": "    return x\n", "accepted": True},
        {"prompt": "def f(x):\n", "answer": "    return 0\n", "accepted": False},
    ]
    feedback.write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = ("--model", base, "--feedback", feedback, "--out", tmp_path / "liked")
    small = ("--set", "num_steps=2", "--set", "pairs=1", "--set", "samples=1")
    code, out, err = run("posttrain", "preference", *given, *small, "--json")
    assert code == 0, err
    assert json.loads(out) == {
        "directory": str(tmp_path / "liked"),
        "step": 2,
        "finished": True,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("constrained-order",), "--trajectories is missing"),
        (("constrained-order", "--trajectories", "nowhere"), "no trajectories at"),
        (("preference",), "--feedback is missing"),
        (("preference", "--feedback", "nowhere"), "no file"),
        (("on-policy", "--model", "nowhere"), "model 'nowhere' is no directory"),
        (("on-policy", "--set", "candidates=1"), "at least 2"),
        (("on-policy", "--set", "phasez=1"), "did you mean 'phases'"),
        (("on-policy", "--set", "tests_weight=0"), "no other verifier has a weight"),
        (("match-teacher", "--teacher", "mini"), "'causal'"),
        (("critic", "--model", "nowhere"), "model 'nowhere' is no directory"),
        (("critic", "--set", "num_tasks=0"), "at least 1"),
        (("distill", "--teacher", "nowhere"), "model 'nowhere' is no directory"),
        (("sharpen", "--config", "nowhere.py"), "no config file"),
    ],
)
def test_faults(run, tmp_path, arguments, message):
    code, out, err = run("posttrain", *arguments, "--out", tmp_path / "x")
    assert code == 2 and out == ""
    assert message in err and err.count("\n") == 1


def test_lora_in_words(run, tmp_path):
    given = ("--config", "configs/mini.py", "--out", tmp_path / "x")
    code, _, err = run("train", *given, "--lora", "rank=two")
    assert code == 2 and "is not NAME=NUMBER" in err
    code, _, err = run("train", *given, "--lora", "rnak=2", "--init-from", "mini")
    assert code == 2 and "rnak" in err


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--steps", 0, "--set", "num_steps=3"], "--set"),
        (["--steps", 0, "--config", "x.py"], "--config"),
        (["--steps", 0, "--mesh", "data=2"], "--mesh"),
        (["--steps", 0, "--resume"], "--resume"),
        (["--share", 0.3], "--share"),
    ],
)
def test_prune_refuses_what_it_would_ignore(given, named, run, tmp_path):
    code, out, err = run("posttrain", "prune", "--out", tmp_path / "sparse", *given)
    assert code == 2 and not out
    assert err.count("\n") == 1 and f"drop {named}" in err
