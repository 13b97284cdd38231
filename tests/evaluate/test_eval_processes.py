"""`seedjax eval` as several real processes: the samples of one."""

import json
import os
import socket
import subprocess
import sys

import pytest

from seedjax.evaluate.folder import all_completions


@pytest.mark.slow
def test_two_processes_complete_what_one_does(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{probe.getsockname()[1]}"

    def start(out, *meeting):
        code = "from seedjax.cli import main; main()"
        options = ["--suite", "lab_generate", "--limit", "6", "--rows", "2", "--json"]
        return subprocess.Popen(
            [sys.executable, "-c", code, "eval", "run", "--recipe", "fast", *options]
            + ["--traces", "0", "--accept-weak-isolation", "--out", str(out), *meeting],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        )

    several = [
        start(
            tmp_path / "two",
            *("--coordinator", where, "--processes", "2", "--process-index", str(n)),
        )
        for n in range(2)
    ]
    (first, _), (second, said) = (each.communicate(timeout=300) for each in several)
    assert [each.returncode for each in several] == [0, 0], said
    alone = start(tmp_path / "one")
    whole, _ = alone.communicate(timeout=300)
    assert second == ""
    (ours,), (theirs,) = (json.loads(out)["runs"] for out in (first, whole))
    assert ours["samples"] == theirs["samples"] == 6
    assert ours["score"]["pass@1"] == theirs["score"]["pass@1"]
    folders = [tmp_path / name / "lab_generate" for name in ("two", "one")]
    texts = [{c.key: c.text for c in all_completions(each)} for each in folders]
    assert texts[0] == texts[1] and len(texts[0]) == 6
