"""Whole programs: which pass, what is said of the others."""

import pytest
from contained import RIGHT, adding, is_bare

from seedjax.errors import InputError
from seedjax.sandbox.runtimes import missing
from seedjax.sandbox.sandbox import Sandbox
from seedjax.sandbox.script import Script

ADDS = "assert add(2, 3) == 5\nassert add(10, -4) == 6\n"
CASES = """
import unittest
class TestAdd(unittest.TestCase):
    def test_small(self):
        self.assertEqual(add(1, 1), 2)
    @unittest.skip("for later")
    def test_large(self):
        self.fail()
"""


def python(source: str = RIGHT, test: str = ADDS, **more) -> Script:
    return Script(language="python", source=source, test=test, **more)


def test_right_and_wrong_scripts(sandbox):
    right, wrong, slip, fault, loading, late, hungry = sandbox.run(
        [
            python(),
            python("def add(a, b):\n    return a - b\n"),
            python("def add(a, b)\n    return a + b\n"),
            python("def add(a, b):\n    return a + undefined\n"),
            python("raise ValueError('\\x1b[31m\\ud800\\nred')"),
            python("while True: pass", wall_seconds=0.5),
            python("x = bytearray(10**10)"),
        ]
    )
    assert right[:3] == (True, "passed", "") and 0 < right.seconds < 10
    assert wrong.reason == "failed"
    assert wrong.message == (
        "AssertionError at line 1 of the test: assert add(2, 3) == 5"
    )
    assert slip.reason == "error" and slip.message.startswith("SyntaxError: ")
    assert fault.reason == "error" and "'undefined' is not defined" in fault.message
    assert loading.message == "ValueError: ?[31m? red"
    assert late.reason == "timeout" and late.seconds < 5
    assert hungry.reason == "memory"


def test_the_test_sees_the_namespace_of_the_program(sandbox):
    source = "kept = __name__\ndef name(): return __name__\n"
    outcomes = sandbox.run(
        [
            python(source, "assert kept == name() == __name__ == '__main__'"),
            python(
                source,
                "import sums\nassert sums.kept == kept == 'sums'",
                file_name="sums.py",
            ),
            # Its own end is the end of a script without a test.
            python("assert 1 + 1 == 2", ""),
            python("assert 1 + 1 == 3", ""),
        ]
    )
    assert [o.passed for o in outcomes] == [True, True, True, False]


def test_files_and_output(sandbox):
    if is_bare(sandbox):
        pytest.skip("programs may write no file")
    source = "print('said')\nimport sys\nsys.stderr.write('warned')\n"
    test = "assert open('a/b.txt').read() == 'x\\n'\nassert open(__file__).read()"
    (outcome,) = sandbox.run([python(source, test, files={"a/b.txt": "x\n"})])
    assert outcome.passed, outcome.message
    assert sorted(outcome.output.split()) == ["said", "warned"]


def test_test_cases_are_run(sandbox):
    wrong = "def add(a, b):\n    return 0\n"
    skips = "import unittest\ndef add(a, b):\n    raise unittest.SkipTest\n"
    right, failed, skipped, empty = sandbox.run(
        [python(source, CASES, test_cases=True) for source in (RIGHT, wrong, skips)]
        + [python(RIGHT, "import unittest", test_cases=True)]
    )
    assert right.passed, right.message
    assert failed.message.startswith("AssertionError: 1 of 2: test_small: ")
    assert skipped.reason == "failed"
    assert empty.message.startswith("AssertionError: there are no tests")


def test_scripts_and_programs_keep_their_order(sandbox):
    wrong = "def add(a, b):\n    return 0\n"
    outcomes = sandbox.run(
        [python(), adding(wrong), adding(RIGHT), python(wrong), adding(RIGHT)]
    )
    assert [o.passed for o in outcomes] == [True, False, True, False, True]


PERL = "sub add { return $_[0] + $_[1] } die 'wrong' if add(2, 3) != 5; print 'MARK';"


@pytest.mark.skipif(missing("perl") is not None, reason="Perl is not here")
def test_the_exit_status_and_the_mark_tell(sandbox):
    sources = [PERL, PERL.replace("+", "-"), f"exit 0; {PERL}", "print 'MARK';"]
    right, wrong, early, forged = sandbox.run(
        [Script(language="perl", source=s, end_mark="MARK") for s in sources]
    )
    if is_bare(sandbox):
        assert right.reason == "unsupported"
        pytest.skip("programs may write no file")
    assert right[:3] == (True, "passed", "")
    assert wrong.reason == "failed" and "wrong at main.pl" in wrong.message
    assert early.reason == "crashed"
    assert early.message == "the program ended before its test did: exit status 0"
    assert forged.passed  # it holds the mark itself


@pytest.mark.skipif(missing("cpp") is not None, reason="C++ is not here")
def test_compilers_run_inside():
    source = '#include <fstream>\nint main() { return ADDED; }\n#include "more.h"\n'
    right = "#include <cstdio>\nint main() { std::puts(TEXT); }\n"
    with Sandbox(1) as sandbox:
        passed, failed = sandbox.run(
            [
                Script(language="cpp", source=f'#include "more.h"\n{right}', files=more)
                for more in ({"more.h": '#define TEXT "x"\n'}, {"other.h": ""})
            ]
        )
        (wrong,) = sandbox.run([Script(language="cpp", source=source)])
    assert passed.passed and passed.output == "x\n"
    assert failed.reason == wrong.reason == "error"
    assert failed.message.startswith("it does not compile: main.cpp:1:")


@pytest.mark.slow
@pytest.mark.skipif(missing("cpp") is not None, reason="C++ is not here")
def test_a_failed_assertion_is_a_wrong_answer():
    source = "#include <cassert>\n#include <cstdlib>\nint main() { WHAT; }\n"
    with Sandbox(1) as sandbox:
        wrong, crashed = sandbox.run(
            [
                Script(language="cpp", source=source.replace("WHAT", what))
                for what in ("assert(1 == 2)", "std::abort()")
            ]
        )
    assert wrong.reason == "failed" and "1 == 2" in wrong.message
    assert crashed.reason == "crashed" and "SIGABRT" in crashed.message


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"files": {"../x": ""}}, "named '../x', a path below"),
        ({"file_name": "/x.py"}, "named '/x.py', a path below"),
        ({"language": "perl", "test": "1"}, "in perl has a `test`"),
        ({"test_cases": True}, "no `test` to define them"),
    ],
)
def test_bad_scripts_are_refused(fields, complaint):
    with pytest.raises(InputError, match=complaint):
        Script(**{"language": "python", "source": ""} | fields)


def test_unknown_and_absent_languages_are_refused(monkeypatch):
    monkeypatch.setattr(
        "seedjax.sandbox.sandbox.missing", lambda language: "no compiler"
    )
    with Sandbox(1) as sandbox, pytest.raises(InputError, match="no compiler"):
        sandbox.run([python()])
    monkeypatch.undo()
    with Sandbox(1) as sandbox, pytest.raises(InputError, match="language 'cobol'"):
        sandbox.run([Script(language="cobol", source="")])
