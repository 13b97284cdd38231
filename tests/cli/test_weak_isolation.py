"""No command runs a model's programs unasked where only weak isolation can be had."""

import pytest

from seedjax.sandbox.containment import launch

COMMANDS = {
    "eval verify": ["lab_repair", "--limit", "1"],
    "eval run": ["--model", "mini", "--suite", "lab_repair", "--limit", "1"],
    "lab reproduce": ["--budget", "smoke", "--out", "OUT"],
    "eval compare": ["--against", "mini", "--limit", "1", "--out", "OUT"],
    "posttrain trajectories": ["--model", "mini", "--out", "OUT"],
    "posttrain on-policy": ["--model", "mini", "--out", "OUT"],
    "posttrain match-teacher": ["--teacher", "mini", "--out", "OUT"],
    "posttrain critic": ["--model", "mini", "--out", "OUT"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_weak_isolation_is_refused_alike(command, run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    words = [word.replace("OUT", str(out)) for word in COMMANDS[command]]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        launch, "unavailable", lambda kind: "" if kind == "rlimits" else "not here"
    )
    code, printed, said = run(*command.split(), *words)
    assert code == 2 and printed == ""
    assert said.count("\n") == 1 and "Traceback" not in said
    assert "--accept-weak-isolation" in said and "programs could" in said
    assert not out.exists() or not list(out.glob("**/*.safetensors"))
