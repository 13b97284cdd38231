"""Compilers and interpreters: found, called, and said to be missing."""

import sys
from pathlib import Path

import pytest

from seedjax.errors import InputError
from seedjax.sandbox import runtimes
from seedjax.sandbox.runtimes import missing
from seedjax.sandbox.sandbox import Limits, Sandbox
from seedjax.sandbox.script import Script

# C++ is compiled in test_script.py as well.
SLOW = ("cpp", "kotlin", "scala", "swift")
# Language -> a program that prints 5, with the one digit that makes it another.
FIVE = {
    "python": "print(2 + 3)",
    "javascript": "console.log(2 + 3)",
    "typescript": "const two: number = 2;\nconsole.log(two + 3)",
    "java": "class Main { public static void main(String[] a) {"
    " System.out.println(2 + 3); } }",
    "go": "package main\nfunc main() { println(2 + 3) }",
    "cpp": '#include <cstdio>\nint main() { std::printf("%d\\n", 2 + 3); }',
    "csharp": "class P { static void Main() { System.Console.WriteLine(2 + 3); } }",
    "php": "<?php echo 2 + 3;",
    "ruby": "puts 2 + 3",
    "perl": "print 2 + 3",
    "kotlin": "fun main() { println(2 + 3) }",
    "scala": "object Main extends App { println(2 + 3) }",
    "swift": "print(2 + 3)",
    "rust": 'fn main() { println!("{}", 2 + 3); }',
}


def test_every_language_has_a_program_here():
    assert set(FIVE) == set(runtimes.runtimes())


@pytest.mark.parametrize(
    "language",
    [
        pytest.param(n, marks=pytest.mark.slow if n in SLOW else ())
        for n in runtimes.runtimes()
    ],
)
def test_programs_run(language):
    why = missing(language)
    if why is not None:
        pytest.skip(why)
    assert any(digit.isdigit() for digit in runtimes.version(language))
    limits = Limits(wall_seconds=60.0, cpu_seconds=60.0)
    # Python's way is another one without a command.
    known = runtimes.runtimes()[language]
    command = known.run if language == "python" else ()
    with Sandbox(1, limits) as sandbox:
        five, broken = sandbox.run(
            [
                Script(language=language, source=source, command=command)
                for source in (FIVE[language], FIVE[language] + "\n)(")
            ]
        )
    assert five.passed, (five.message, five.output)
    assert five.output.strip() == "5"
    assert not broken.passed and broken.reason in ("error", "failed")


@pytest.mark.slow
@pytest.mark.skipif(missing("cpp") is not None, reason="C++ is not here")
@pytest.mark.parametrize("usable", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_header_is_compiled_once_and_gives_the_same(monkeypatch, tmp_path, usable):
    """Also where the compiler cannot use what is there."""
    monkeypatch.setattr(runtimes.platformdirs, "user_cache_dir", lambda _: tmp_path)
    folder = runtimes.compiled_header("cpp")
    text, compiled = sorted(folder.rglob("*.*"))
    assert text == folder / "bits" / "stdc++.h"
    assert compiled == folder / "bits" / "stdc++.h.gch"
    if not usable:
        compiled.write_bytes(b"of another compiler")
    made = compiled.stat().st_mtime_ns
    source = """#include <bits/stdc++.h>
    #ifdef WRONG
    #error
    #endif
    int main() { std::vector<int> v{2, 3}; std::cout << v[0] + v[1]; }"""
    again = "\n#include <bits/stdc++.h>\n"  # an answer may repeat its prompt
    with Sandbox(1, Limits(wall_seconds=60.0, cpu_seconds=60.0)) as sandbox:
        texts = (source, "#define WRONG\n" + source, source.replace("\n", again, 1))
        five, wrong, twice = sandbox.run(
            [Script(language="cpp", source=text) for text in texts]
        )
        if sandbox.isolation != "rlimits":
            process = sandbox._all[0].scripts.runner.process
            assert str(folder) in " ".join(process.args)
    assert five.passed and five.output == "5", five
    assert twice.passed and twice.output == "5", twice
    assert wrong.message.startswith("it does not compile: main.cpp:4:"), wrong
    assert compiled.stat().st_mtime_ns == made


def test_a_header_that_cannot_be_kept_is_done_without(monkeypatch, tmp_path):
    full = tmp_path / "a_file"
    full.touch()
    monkeypatch.setattr(runtimes.platformdirs, "user_cache_dir", lambda _: full)
    assert runtimes.compiled_header("cpp") is None
    assert runtimes.compiled_header("python") is None


def test_commands_are_filled_in():
    words = runtimes.command("java", runtimes.runtime("java").run, "a.java", 256 << 20)
    assert words[1] == "-Xmx256m" and words[-1] == "Main"
    words = runtimes.command(
        "javascript", runtimes.runtime("javascript").run, "b.js", 1 << 20
    )
    assert words[-1] == "b.js"
    assert runtimes.variables("go", "/here")["GOCACHE"] == "/here/.cache"


def test_what_is_missing_is_said_with_a_hint(monkeypatch):
    monkeypatch.setattr(runtimes, "located", lambda program, root=(): None)
    assert missing("ruby") == (
        "Ruby: ruby is not on PATH; to install it, for example: apt-get install ruby"
    )
    with pytest.raises(InputError, match="no runtime of language 'cobol'"):
        missing("cobol")


def test_a_program_that_does_not_start_is_missing(monkeypatch, tmp_path):
    broken = tmp_path / "bin" / "ruby"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(broken.parent))
    runtimes.located.cache_clear()
    runtimes.version.cache_clear()
    try:
        said = missing("ruby")
    finally:
        monkeypatch.undo()
        runtimes.located.cache_clear()
        runtimes.version.cache_clear()
    assert said is not None and said.startswith("Ruby: it does not start: ")


def test_home_folders_are_not_shown(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home" / "user")
    assert runtimes.folder_of(str(tmp_path / "home" / "user" / "bin" / "go")) is None
    assert runtimes.folder_of(str(tmp_path / "home" / "bin" / "go")) is None
    tool = tmp_path / "home" / "user" / "tools" / "go"
    assert runtimes.folder_of(str(tool / "bin" / "go")) == str(tool)
    assert runtimes.folder_of("/usr/bin/env") == "/usr"


def test_python_is_the_one_that_runs_this():
    assert missing("python") is None
    assert runtimes.runtime("python").run[0] == sys.executable
