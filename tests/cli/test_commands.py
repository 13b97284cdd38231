"""The command line as a user meets it: results, exit codes, one-line errors."""

import json
import subprocess
import sys

import jax
import pytest

import seedjax.cli
from seedjax.cli.source import name_in_diff, unified_diff
from seedjax.errors import RefusedError

FIELDS = {
    *("text", "finish_reason", "parses", "prompt_tokens", "new_tokens"),
    *("forwards", "tokens_per_forward"),
    *("seconds", "compile_seconds", "tokens_per_second"),
}


def test_generate_json_is_one_object(generate):
    given = ("--ignore-eos", "--temperature", 0.37)  # a recipe of its own
    code, out, _ = generate("def f(x):", "--json", *given)
    assert code == 0
    result = json.loads(out)
    assert result.keys() >= FIELDS
    assert result["new_tokens"] == 12
    assert result["tokens_per_forward"] == 12 / result["forwards"]
    assert result["compile_seconds"] > 0


@pytest.mark.slow
def test_prompt_from_argument_file_and_pipe_agree(generate, tmp_path):
    (tmp_path / "prompt.py").write_text("def f(x):")
    results = [
        generate("def f(x):", "--json"),
        generate("--file", tmp_path / "prompt.py", "--json"),
        generate("-", "--json", stdin=b"def f(x):"),
    ]
    texts = [json.loads(out)["text"] for _, out, _ in results]
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.slow
def test_seed_decides_what_is_drawn(generate):
    def text(seed):
        arguments = ("def f(x):", "--json", "--temperature", 1.0, "--ignore-eos")
        return json.loads(generate(*arguments, "--seed", seed)[1])["text"]

    assert text(1) == text(1) != text(2)


@pytest.mark.slow
def test_trace_replays_to_the_text(generate, model_directory, tmp_path):
    path = tmp_path / "steps.jsonl"
    code, out, _ = generate("def f(x):", "--json", "--ignore-eos", "--trace", path)
    assert code == 0
    steps = [json.loads(line) for line in path.read_text().splitlines()]
    decided = {
        p: t for s in steps for p, t in zip(s["positions"], s["tokens"], strict=True)
    }
    tokenizer = seedjax.load(str(model_directory)).tokenizer
    text = tokenizer.decode([decided[p] for p in sorted(decided)])
    assert text == json.loads(out)["text"]


@pytest.mark.slow
def test_watch_without_a_terminal_prints_steps_and_text(generate):
    code, out, err = generate("def f(x):", "--watch", "--ignore-eos")
    assert code == 0 and out.startswith("def f(x):") and "step 0 block 0" in err


@pytest.mark.slow
def test_a_profile_is_of_a_second_decode(generate, tmp_path):
    code, out, _ = generate("x", "--profile", tmp_path / "trace", "--json")
    assert code == 0 and json.loads(out)["text"]
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))
    (tmp_path / "file").write_text("")
    code, out, said = generate("x", "--profile", tmp_path / "file")
    assert (code, out) == (2, "") and "choose another" in said


def test_infill_prints_the_whole_text(run, model_directory):
    code, out, _ = run(
        *("infill", "def f(x): return <FILL>  # end", "--length", 3, "--json"),
        *("--model", model_directory, "--no-compile-cache", "--force"),
    )
    result = json.loads(out)
    assert code == 0 and result["new_tokens"] == 3
    assert result["completed"] == f"def f(x): return {result['text']}  # end"


@pytest.fixture
def edit(run, model_directory):
    def run_edit(*arguments, **keywords):
        return run(
            *("edit", "--model", model_directory, "--no-compile-cache"),
            *("--max-new-tokens", 12, "--force", *arguments),
            **keywords,
        )

    return run_edit


def test_edit_prints_the_program_or_a_diff(edit, tmp_path):
    code = "x = 1\ny = x\n"
    (tmp_path / "code.py").write_text(code)
    given = ("--file", tmp_path / "code.py", "--instruction", "Rename x")
    exit_code, out, _ = edit(*given, "--json", "--diff")
    result = json.loads(out)
    assert exit_code == 0 and result.keys() == FIELDS | {"diff"}
    assert result["new_tokens"] <= 12
    name = name_in_diff(tmp_path / "code.py")
    assert result["diff"] == unified_diff(code, result["text"], name)
    assert edit(*given, "--diff")[1] == result["diff"]
    # The program alone, from a pipe this time.
    exit_code, out, _ = edit("-", *given[2:], stdin=code.encode())
    assert exit_code == 0 and out.rstrip("\n") == result["text"].rstrip("\n")
    assert out.endswith("\n")
    assert (tmp_path / "code.py").read_text() == code


@pytest.mark.slow
def test_watching_an_edit(edit, tmp_path):
    path = tmp_path / "steps.jsonl"
    code, out, err = edit("x = 1", "--instruction", "Say y", "--watch", "--trace", path)
    assert code == 0 and "step 0 block" in err and out.endswith("\n")
    assert len(path.read_text().splitlines()) == err.count("step ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x = 1"], "Missing option '--instruction'"),
        (["x = 1", "--instruction", ""], "--instruction is empty"),
        (["", "--instruction", "Rename x"], "the code is empty"),
        (["x" * 400, "--instruction", "Rename x"], "the model holds 128"),
        (["x", "--instruction", "\udcff"], "half of a surrogate pair"),
        (["x", "--instruction", "y", "--diff", "--watch"], "--diff or --watch"),
        (["--file", "nowhere.py", "--instruction", "y"], "no file 'nowhere.py'"),
    ],
)
def test_bad_edits_are_one_line_and_exit_code_2(edit, arguments, message):
    code, out, err = edit(*arguments)
    assert (code, out) == (2, "")
    assert message in err and err.strip().count("\n") == 0


def test_models_and_doctor_report(run):
    code, out, _ = run("models", "--json")
    assert code == 0 and "stable_diffcoder_8b" in json.loads(out)["presets"]
    code, out, _ = run("doctor", "--json")
    report = json.loads(out)
    assert code == 0 and report["devices"]["backend"] == "cpu"
    assert report["versions"]["jax"] == jax.__version__
    assert run("doctor")[0] == run("models")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "the prompt is empty"),
        (["x", "--temperature", -1], "temperature is -1.0; it must be 0 or more"),
        (["x", "--top-p", 2], "top_p is 2.0"),
        (["x", "--threshold", 1.5], "threshold is 1.5; it must be in [0, 1]"),
        (["x", "--threshold", 0.5, "--steps", 2], "give steps, or threshold"),
        (["x", "--order", "right"], "one of 'confidence', 'left'"),
        (["x", "--mesh", "tensor=8"], "tensor=8, which does not divide num_heads=2"),
        (["x", "--mesh", "data=8", "--device", "cpu"], "a device or a mesh, not both"),
        (["x", "--block-size", 3], "block size 3 is one that the model cannot take"),
        (["x" * 400], "the model holds 128"),
        (["x", "--max-new-tokens", 0], "max_new_tokens is 0"),
        (["x", "--file", "y"], "given twice"),
        (["--file", "nowhere.py"], "no file 'nowhere.py'"),
        (["x", "--sede", 3], "No such option: --sede"),
        (["x", "--seed", "three"], "Invalid value for '--seed'"),
        (
            ["x", "--trace", "/nowhere/st"],
            "/nowhere is no folder",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(generate, arguments, message):
    code, out, err = generate(*arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.strip().count("\n") == 0


def test_other_bad_input(run, model_directory, tmp_path):
    faults = {
        ("generate", "x", "--model", "nope"): "model 'nope' is no directory",
        ("infill", "no hole", "--model", model_directory): "0 holes",
        ("infill", "<FILL> <FILL>", "--model", model_directory): "2 holes",
        ("train",): "no --config",
        ("train", "--config", "nowhere.py"): "no config file",
        ("train", "--resume", "--out", tmp_path): "nothing to resume",
        ("dance",): "No such command 'dance'",
    }
    for arguments, message in faults.items():
        code, out, err = run(*arguments)
        assert (code, out) == (2, ""), (arguments, err)
        assert message in err and err.strip().count("\n") == 0


def test_invalid_utf8_on_standard_input(generate):
    code, _, err = generate(stdin=b"def \xff\xfe")
    assert code == 2 and "byte 4 of the line is 0xff, which is not UTF-8" in err


@pytest.mark.parametrize(
    "command",
    [
        *("generate", "infill", "edit", "train", "models", "doctor"),
        *("data build", "data show", "compile", "eval compare", "bench"),
    ],
)
def test_help_has_an_example(run, command):
    code, out, _ = run(*command.split(), "--help")
    assert code == 0 and f"Example: seedjax {command}" in out


def test_help_starts_no_jax():
    """`seedjax --help` must be instant."""
    code = (
        "import sys; sys.argv = ['seedjax', '--help']\n"
        "import seedjax.cli\n"
        "try: seedjax.cli.main()\n"
        "except SystemExit: pass\n"
        "sys.exit('jax' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert run.returncode == 0


def test_a_refused_result_is_one_line_and_exit_code_3(run, monkeypatch):
    def refuse(*_):
        raise RefusedError("it does\nnot parse")

    monkeypatch.setattr("seedjax.cli.options.read_source", refuse)
    assert run("generate", "x") == (3, "", "seedjax: it does not parse\n")


@pytest.mark.slow
def test_line_ends_and_marks_are_the_files_own(
    generate, edit, run, model_directory, tmp_path
):
    """A file of Windows's is continued, filled in and edited as one."""
    unix, windows = tmp_path / "unix.py", tmp_path / "windows.py"

    def results(text, command, *arguments):
        unix.write_bytes(text.encode())
        windows.write_bytes(as_windows(text).encode())
        found = [command(*arguments, "--file", f, "--json") for f in (unix, windows)]
        return [json.loads(out) for _, out, _ in found]

    def as_windows(text):
        return "\ufeff" + text.replace("\n", "\r\n")

    # Draws among few tokens, so that there are line breaks among them.
    newline = ("--regex", r"(a|\n){6}")
    plain, other = results("x = 1\ny = 2\n", generate, *newline, "--temperature", 9)
    assert "\n" in plain["text"] and "\r" not in plain["text"]
    assert other["text"] == plain["text"].replace("\n", "\r\n")
    code, out, _ = generate("--file", windows, *newline, "--temperature", 9)
    assert out.rstrip("\n").startswith(as_windows("x = 1\ny = 2\n"))

    def infill(*arguments):
        more = ("--model", model_directory, "--no-compile-cache", "--length", 4)
        return run("infill", *arguments, *more, "--force")

    plain, other = results("x = 1\n<FILL>\ny = 2\n", infill)
    assert other["completed"] == as_windows(plain["completed"])
    program = ("--instruction", "Say y")
    plain, other = results("x = 1\ny = 2\n", edit, *program)
    assert other["text"] == as_windows(plain["text"])


def test_an_edit_that_does_not_parse_is_refused(run, model_directory, tmp_path):
    """Random weights write no program: nothing is printed to patch, unless forced."""
    (tmp_path / "code.py").write_text("x = 1\ny = x\n")
    given = ("edit", "--file", tmp_path / "code.py", "--instruction", "Rename x")
    given += ("--model", model_directory, "--no-compile-cache", "--diff")
    given += ("--max-new-tokens", 4)
    code, out, err = run(*given)
    assert (code, out) == (3, "")
    last = err.splitlines()[-1]  # behind the status line, if compiling took long
    assert "the result" in last and "--force prints it" in last
    code, out, err = run(*given, "--force")
    assert code == 0 and out.startswith("--- ") and "the result" in err
    code, out, _ = run(*given, "--force", "--json")
    assert json.loads(out)["parses"] in (True, False)


def test_a_completion_that_does_not_parse_is_said(generate):
    said = "the completion does not parse"
    for closing, parses in ((r"\)\)", False), (r"\)", True)):
        code, _, err = generate("print(1", "--regex", closing)
        assert code == 0 and (said in err) is not parses


@pytest.mark.slow
def test_what_is_not_checked_is_said(edit, generate, tmp_path):
    (tmp_path / "notes.txt").write_text("Hello\n")
    _, out, err = edit("--file", tmp_path / "notes.txt", "--instruction", "y", "--json")
    assert json.loads(out)["parses"] is None
    code, _, err = edit("x", "--instruction", "y", "--language", "cobol")
    assert code == 2 and "'cobol'" in err and "rust" in err
    _, out, _ = generate("Once upon a time", "--json")
    assert json.loads(out)["parses"] is None


def test_where_and_in_what_to_compute(generate, monkeypatch):
    loaded = []
    load = seedjax.inference.loading.load
    monkeypatch.setattr(
        seedjax.inference.loading,
        "load",
        lambda *given, **options: loaded.append(load(*given, **options)) or loaded[-1],
    )
    assert generate("def f(x):", "--device", "cpu:1", "--dtype", "float32")[0] == 0
    [model] = loaded
    assert model.config.dtype == "float32"
    places = {
        place for leaf in jax.tree.leaves(model.params) for place in leaf.devices()
    }
    assert places == {jax.devices("cpu")[1]}
