"""`scripts/check_accelerator`: what it measures on which machine, and its report."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "scripts" / "accelerator"


def opened(name: str):
    spec = importlib.util.spec_from_file_location(f"accelerator_{name}", FOLDER / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check, report = opened("check.py"), opened("report.py")
PARAMETERS = {"base": 1e8, "qwen2_0.5b": 5e8, "stable_diffcoder_8b": 8e9}


def probed(platform: str, gibibytes: float | None) -> dict:
    memory = None if gibibytes is None else gibibytes * 2**30
    return {
        "machine": {"platform": platform},
        "memory_bytes": memory,
        "parameters": PARAMETERS,
    }


@pytest.mark.parametrize(
    ("gibibytes", "largest"),
    [(141, "stable_diffcoder_8b"), (15.75, "qwen2_0.5b"), (1, "base")],
)
def test_sizes_are_those_that_the_memory_holds(gibibytes, largest):
    found = check.benches(probed("gpu", gibibytes), on_cpu=False)
    assert [preset for preset, _ in found][-1] == largest
    arguments = found[-1][1]
    assert arguments[arguments.index("--steps") + 1] == "32,16,8,4,2"  # 1 to 16 tokens


def test_a_cpu_takes_the_same_path(monkeypatch):
    ((preset, arguments),) = check.benches(probed("cpu", None), on_cpu=True)
    assert preset == "tiny" and "decode,ar" in arguments[1]


def test_torch_is_compared_where_it_has_the_device(monkeypatch):
    monkeypatch.setattr(check, "is_installed", lambda name: True)
    (_, on_gpu), *_ = check.benches(probed("gpu", 80), on_cpu=False)
    (_, on_tpu), *_ = check.benches(probed("tpu", 80), on_cpu=False)
    assert "torch:decode" in on_gpu[1] and "torch" not in on_tpu[1]


def test_missing_packages_are_one_line(monkeypatch, capsys):
    monkeypatch.setattr(check, "is_installed", lambda name: "grain" not in name)
    monkeypatch.setattr(sys, "argv", ["check"])
    assert check.main() == 2
    assert capsys.readouterr().out.startswith(
        "check_accelerator: packages are missing: pip install 'grain>="
    )


def test_a_step_is_ended_at_its_time_with_what_it_started(tmp_path):
    script = "import subprocess; print(subprocess.Popen(['sleep', '99']).pid, flush=1);"
    script += "import time; time.sleep(99)"
    done = check.run([sys.executable, "-c", script], 3.0, tmp_path, "step")
    assert done["outcome"] == "out of time" and 2.5 < done["seconds"] < 30
    child = (tmp_path / "step.log").read_text().strip()
    assert ends(Path(f"/proc/{child}/stat"))


def ends(stat: Path) -> bool:
    """Whether a process that was killed is gone, or soon will be."""
    for _ in range(100):
        if not stat.exists() or stat.read_text().split()[2] == "Z":
            return True
        time.sleep(0.1)
    return False


def line(measure: str, library: str, per_forward: float | None, rate: float) -> dict:
    return {
        "measure": measure,
        "library": library,
        "tokens_per_forward": per_forward,
        "tokens_per_second": rate,
    }


def test_the_report_has_tests_decodes_and_what_failed(tmp_path):
    lines = [
        line("decode", "seedjax", 8.0, 800.0),
        line("decode", "seedjax", 1.0, 110.0),
        line("ar", "seedjax", 1.0, 100.0),
        line("ar", "torch", None, 50.0),
    ]
    (tmp_path / "bench-base").mkdir()
    (tmp_path / "bench-base" / "bench.json").write_text(
        json.dumps({"parameters": 100, "lines": lines})
    )
    (tmp_path / "tests.log").write_text(
        "tests/a.py::test_x[a b] PASSED [ 50%]\ntests/a.py::test_y FAILED [100%]\n"
    )
    (tmp_path / "plan.log").write_text("first\nseedjax: no such option\n")
    steps = [
        {"name": "tests", "outcome": "done", "seconds": 3.0},
        {"name": "plan", "outcome": "exit code 2", "seconds": 1.0},
        {"name": "bench-base", "outcome": "done", "seconds": 9.0, "preset": "base"},
    ]
    kernels = {"experts": "on: rows times the kernel of their expert"}
    given = {"steps": steps, "kernels": kernels}
    page = report.write_report(given, tmp_path).read_text()
    assert "* `experts` on: rows" in page
    assert "| blocks | 8.0 | 800.0 | 8.00 |" in page
    assert "| token by token, torch | 1.0 | 50.0 | 0.50 |" in page
    assert "| test_x[a b] | passed |" in page and "| test_y | failed |" in page
    assert "seedjax: no such option" in page
    assert (tmp_path / "decodes.png").stat().st_size > 5000
    kept = json.loads((tmp_path / "report.json").read_text())
    assert kept["bench"]["base"]["lines"] == lines


def test_the_report_says_what_it_does_not_say(tmp_path):
    (tmp_path / "tests.log").write_text("tests/a.py::test_x PASSED [ 50%]\n")
    steps = [{"name": "tests", "outcome": "out of time", "seconds": 3.0}]
    lines = report.summary_lines(
        {
            "steps": steps,
            "tests": report.read_log(tmp_path / "tests.log"),
            "machine": {"platform": "cpu"},
        }
    )
    assert "0 of 1 steps done; 1 tests passed, 0 failed, 0 skipped" in lines[0]
    assert "--minutes" in lines[1] and "No accelerator was found" in lines[2]


def test_the_report_compares_kernels(tmp_path):
    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite><testcase name="test_decode[8192]" time="1.5">'
        '<properties><property name="kernel" value="decode"/>'
        '<property name="difference" value="1.0e-02"/>'
        '<property name="off_ms" value="2.000"/><property name="on_ms" value="0.500"/>'
        "</properties></testcase></testsuite></testsuites>"
    )
    page = report.write_report({"steps": []}, tmp_path).read_text()
    assert "| decode | test_decode[8192] | 1.0e-02 | 2.000 | 0.500 |" in page


@pytest.mark.slow
def test_it_runs_to_its_end_on_a_cpu(tmp_path):
    command = [
        FOLDER.parent / "check_accelerator",
        "--minutes",
        "12",
        "--out",
        tmp_path,
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    kept = json.loads((tmp_path / "report.json").read_text())
    assert [step["name"] for step in kept["steps"]][:3] == ["probe", "tests", "plan"]
    assert kept["tests"] and kept["bench"]["tiny"]["lines"], done.stdout
