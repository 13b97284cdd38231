"""`seedjax eval` as several real processes: the samples of one."""

import json

import pytest
from many_processes import Processes

from seedjax.evaluate.folder import all_completions


@pytest.mark.slow
def test_two_processes_complete_what_one_does(tmp_path):
    options = ["--suite", "lab_generate", "--limit", "6", "--rows", "2", "--json"]
    options += ["--traces", "0", "--accept-weak-isolation", "--recipe", "fast"]
    runs = []
    for name, count in (("two", 2), ("one", 1)):
        command = ["eval", "run", *options, "--out", str(tmp_path / name)]
        processes = Processes(tmp_path, name, count, *command)
        assert processes.wait(900) == [0] * count, processes.said(0)
        runs += json.loads(processes.printed(0))["runs"]
        if count == 2:
            assert processes.printed(1) == ""
    ours, theirs = runs
    assert ours["samples"] == theirs["samples"] == 6
    assert ours["score"]["pass@1"] == theirs["score"]["pass@1"]
    folders = [tmp_path / name / "lab_generate" for name in ("two", "one")]
    texts = [{c.key: c.text for c in all_completions(each)} for each in folders]
    assert texts[0] == texts[1] and len(texts[0]) == 6
