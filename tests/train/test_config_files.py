"""Configuration files are programs of the user's; a bad one is a line, no success."""

import os
import subprocess
import sys
import time

import pytest

from seedjax.deadline import OutOfTimeError, deadline
from seedjax.errors import InputError
from seedjax.train import config as config_module
from seedjax.train.config import RunConfig, run_config_file

BAD = {
    "leaves at once": ("import sys\nsys.exit(0)", "leaves the program"),
    "leaves later": ("def get_config():\n    raise SystemExit", "leaves the program"),
    "raises": ("def get_config():\n    return {}['x']", "failed: KeyError: 'x'"),
    "syntax": ("def get_config(:", "failed: SyntaxError"),
    "nothing": ("", "failed: AttributeError"),
    "another type": ("def get_config():\n    return 3", "did not return a RunConfig"),
    "loops": ("while True:\n    pass", "not come to an end after"),
    "loops and catches": (
        "while True:\n    try:\n        x = 1\n    except Exception:\n        pass",
        "not come to an end after",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_clear_error(name, tmp_path, monkeypatch):
    text, said = BAD[name]
    monkeypatch.setattr(config_module, "CONFIG_SECONDS", 0.3)
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(InputError, match=said):
        run_config_file(tmp_path / "config.py", RunConfig)


def test_what_a_file_prints_goes_to_standard_error(tmp_path, capsys):
    (tmp_path / "config.py").write_text("print('hello')\ndef get_config(): return 3")
    with pytest.raises(InputError):
        run_config_file(tmp_path / "config.py", RunConfig)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "hello\n"


def test_a_deadline_ends_with_its_block():
    for _ in range(3):
        with pytest.raises(OutOfTimeError), deadline(0.05):
            while True:
                pass
        with deadline(0.05):
            pass
        time.sleep(0.1)  # nothing comes later


@pytest.mark.representative("variables0-generate x-JAX_PLATFORMS is 'nonsense'")
@pytest.mark.parametrize(
    ("variables", "command", "said"),
    [
        ({"JAX_PLATFORMS": "nonsense"}, "generate x", "JAX_PLATFORMS is 'nonsense'"),
        ({"JAX_PLATFORMS": "cuda"}, "doctor", "JAX_PLATFORMS is 'cuda'"),
        ({"JAX_ENABLE_X64": "maybe"}, "generate x", "JAX_ENABLE_X64"),
        ({}, "train --config CONFIG --out OUT", "leaves the program"),
    ],
)
def test_the_command_line_says_so_in_a_line(tmp_path, variables, command, said):
    (tmp_path / "config.py").write_text("import sys\nsys.exit(0)")
    words = {"CONFIG": str(tmp_path / "config.py"), "OUT": str(tmp_path / "out")}
    code = "from seedjax.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *(words.get(w, w) for w in command.split())],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )
    if variables.get("JAX_PLATFORMS") == "cuda" and done.returncode == 0:
        pytest.skip("there is a GPU here")
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()
