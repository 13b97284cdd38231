"""The suites in many languages and those of whole programs, on tiny problems written
here in the formats of the originals, and on the originals where they are at hand."""

import base64
import json
import os
import pickle
import zlib
from datetime import date
from pathlib import Path

import pytest
from contained import REPOSITORY

from seedjax.errors import InputError
from seedjax.sandbox.outcome import Outcome
from seedjax.sandbox.runtimes import missing
from seedjax.sandbox.sandbox import Limits, Sandbox
from seedjax.tasks.suites import (
    aider,
    bigcodebench,
    livecodebench,
    multilingual,
    naturalcodebench,
)
from seedjax.tasks.suites.splicing import as_whole_program, with_go_imports

SLOW = ("kotlin", "scala", "swift", "csharp", "typescript", "java")
DATA = Path(os.environ.get("SEEDJAX_EVAL_DATA", REPOSITORY.parent / "shared" / "data"))


def run(*scripts, seconds: float = 60.0) -> list[Outcome]:
    limits = Limits(wall_seconds=seconds, cpu_seconds=seconds)
    with Sandbox(1, limits) as sandbox:
        return sandbox.run(scripts)


# Language -> prompt, right continuation, the statement that ends the process, test.
ADDING = {
    "python": (
        'def add(a, b):\n    """Adds."""\n',
        "    return a + b\n",
        "    import os; os._exit(0)\n",
        "\ndef check(candidate):\n    assert candidate(2, 3) == 5\n",
    ),
    "javascript": (
        "/** Adds. */\nfunction add(a, b) {\n",
        "  return [a + b];\n}\n",
        "  process.exit(0);\n",
        '\nconst _ = require("lodash")\n'
        "if (!_.isEqual(add(2, 3), [5])) {\n  throw 'wrong'\n}\n",
    ),
    "typescript": (
        "/** Adds. */\nconst add = function (a: number, b: number) : number {\n",
        "    return a + b\n}\n",
        "    (globalThis as any).process.exit(0)\n",
        "\nimport * as assert from 'assert'\n"
        "assert.deepEqual(add(2, 3), 5, 'wrong');\n",
    ),
    "java": (
        "import java.util.*;\n\nclass Add {\n    /** Adds. */\n"
        "    public static int add(int a, int b) {\n",
        "        return a + b;\n    }\n}\n",
        "        if (a > 0) System.exit(0);\n",
        "\nclass Main {\n"
        "    public static void main(String[] args) throws Exception {\n"
        '        if (Add.add(2, 3) != 5) {\n            throw new Exception("wrong");\n'
        "        }\n\n}\n}\n",
    ),
    "go": (
        'package main\n\nimport (\n\t"reflect"\n)\n// Adds.\n'
        "func add(a int, b int) int {\n",
        "\treturn a + b\n}\n",
        "\tprintln(1)\n",
        "\nfunc main() {\n\tif !reflect.DeepEqual(add(2, 3), 5) {\n"
        '\t\tpanic("wrong")\n\t}\n}\n',
    ),
    "cpp": (
        "#include <bits/stdc++.h>\nusing namespace std;\n\nint add(int a, int b) {\n",
        "    return a + b;\n}\n",
        "    exit(0);\n",
        "\nint main(int argc, char* argv[]) {\n    if (add(2, 3) != 5) {\n"
        '        throw runtime_error("wrong");\n    }\n\n    return 0;\n}\n',
    ),
    "csharp": (
        "using System;\nusing System.Collections.Generic;\n"
        "using KellermanSoftware.CompareNetObjects;\n\nnamespace Solution\n{\n"
        "    public class Program\n    {\n"
        "        public static List<int> add (int a, int b) \n        {\n",
        "            return new List<int> {a + b};\n        }\n",
        "            Environment.Exit(0);\n",
        "\n        public static void Main(string[] args)\n        {\n"
        "            var logic = new CompareLogic();\n"
        "            var result = logic.Compare(add(2, 3), new List<int> {5});\n"
        '            if (!result.AreEqual) {throw new Exception("wrong");}\n'
        "        }\n    }\n}\n",
    ),
    "php": (
        "<?php\n/** Adds. */\nfunction add($a, $b){\n",
        "    return $a + $b;\n}\n",
        "    exit();\n",
        "\nif (add(2, 3) != 5) {\n    throw new Exception('wrong');\n}\n",
    ),
    "ruby": (
        "# Adds.\ndef add(a, b)\n",
        "  a + b\nend\n",
        "  exit\n",
        '\nif add(2, 3) != 5\n    raise StandardError, "wrong"\nend\n',
    ),
    "perl": (
        "# Adds.\nsub add\n{\n  my ($a, $b) = @_;\n",
        "  return [$a + $b];\n}\n",
        "  exit 0;\n",
        "\nuse Data::Compare;\n"
        "unless(Compare(add(2, 3), [5])) {\n    die 'wrong';\n}\n",
    ),
    "kotlin": (
        "/** Adds. */\nfun add(a : Int, b : Int) : Int {\n",
        "  return a + b\n}\n",
        "  if (a > 0) System.exit(0)\n",
        "\nfun main() {\n    if (add(2, 3) != 5) {\n"
        '        throw Exception("wrong")\n    }\n\n}\n',
    ),
    "scala": (
        "object Main extends App {\n    /** Adds. */\n"
        "    def add(a : Int, b : Int) : Int = {\n",
        "        a + b\n    }\n",
        "        sys.exit(0)\n",
        '\n    assert(add(2, 3) == 5, "wrong")\n\n}\n',
    ),
    "swift": (
        "/** Adds. */\nfunc add(a : Int, b : Int) -> Int {\n",
        "  return a + b\n}\n",
        "  exit(0)\n",
        '\nassert(add(a : 2, b : 3) == 5, "wrong")\n',
    ),
}


def adding(language: str):
    prompt, body, leave, test = ADDING[language]
    row = {"task_id": "X/1", "prompt": prompt, "entry_point": "add", "test": test}
    problem = multilingual.problem_of(row | {"canonical_solution": body}, language)
    return problem, body, leave


@pytest.mark.representative("javascript", "perl", "python")
@pytest.mark.parametrize(
    "language",
    [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in ADDING],
)
def test_multilingual_answers(language):
    why = missing(language)
    if why is not None:
        pytest.skip(why)
    problem, body, leave = adding(language)
    prompt = problem.prompt
    chat = "import os\n" + prompt + body if language == "python" else prompt + body
    answers = {
        "continuation": body,
        "whole": chat,
        "wrong": multilingual.wrong(problem),
        "early end": leave + body,
    }
    if language == "go":
        del answers["early end"]  # `go run` has no builtin that ends a process
    outcomes = run(*(multilingual.program(problem, text) for text in answers.values()))
    passed = {name: o.passed for name, o in zip(answers, outcomes, strict=True)}
    expected = {name: name in ("continuation", "whole") for name in answers}
    assert passed == expected, [o.message for o in outcomes]


def test_whole_answers_take_the_place_of_the_prompt():
    prompt = ADDING["java"][0]
    method = "public static int add(int a, int b) { return a + b; }"
    whole = as_whole_program("java", prompt, "add", method)
    assert (
        whole.startswith("import java.util.*;\nclass Add {") or "class Add {" in whole
    )
    public = (
        "package x;\nimport java.io.File;\npublic class Add {\n  static int add(int a)"
    )
    whole = as_whole_program("java", prompt, "add", public + " { return a; }\n}\n")
    assert "public class" not in whole and "package" not in whole
    assert whole.index("import java.io.File;") < whole.index("class Add")

    go = 'package main\nimport (\n\t"fmt"\n\t"math"\n)\nfunc add(a int) int {\n'
    go += "\treturn int(math.Abs(1))\n}\nfunc main() {\n\tfmt.Println(add(1))\n}\n"
    whole = as_whole_program("go", ADDING["go"][0], "add", go)
    assert '"math"' in whole and '"reflect"' in whole and '"fmt"' not in whole
    assert "func main" not in whole and whole.count("import") == 1

    calls_itself = "    return n * add(n - 1);\n}\n"
    assert as_whole_program("cpp", "P", "add", calls_itself) == "P" + calls_itself


BCB = {
    "task_id": "BigCodeBench/0",
    "complete_prompt": 'import math\n\ndef task_func(x):\n    """Root."""\n',
    "instruct_prompt": "Write the root.\n",
    "code_prompt": "import math\ndef task_func(x):\n",
    "canonical_solution": "    return math.sqrt(x)\n",
    "test": "import unittest\nclass TestCases(unittest.TestCase):\n"
    "    def test_four(self):\n        self.assertEqual(task_func(4), 2)\n",
    "libs": "['math', 'pandas']",
}


def test_bigcodebench():
    problem = bigcodebench.problem_of(BCB, instruct=False)
    assert problem.prompt == BCB["complete_prompt"]
    assert problem.data["packages"] == ["pandas"]
    asked = bigcodebench.problem_of(BCB, instruct=True)
    assert asked.prompt == "" and asked.question.endswith(
        "code block:\nWrite the root.\n"
    )
    answers = [
        BCB["canonical_solution"],
        "def task_func(x):\n    return math.sqrt(x)\n",  # without an import
        "    return x\n",
        bigcodebench.wrong(problem),
        "    import sys\n    sys.exit(0)\n",
    ]
    outcomes = run(*(bigcodebench.program(asked, text) for text in answers))
    assert [o.passed for o in outcomes] == [True, True, False, False, False]


def test_bigcodebench_may_start_threads():
    """As many as TensorFlow does; most suites allow a handful."""
    threads = (
        "    import threading\n"
        "    last = threading.Barrier(65)\n"
        "    for _ in range(64):\n"
        "        threading.Thread(target=last.wait).start()\n"
        "    last.wait()\n"
        "    return math.sqrt(x)\n"
    )
    problem = bigcodebench.problem_of(BCB, instruct=False)
    program = bigcodebench.program(problem, threads)
    with Sandbox(1, bigcodebench.SUITES[0].limits) as sandbox:
        assert sandbox.run([program])[0].passed
    assert not run(program, seconds=10.0)[0].passed


def contest(**fields) -> dict:
    plain = [{"input": "5 6\n", "output": "11\n", "testtype": "stdin"}]
    packed = zlib.compress(pickle.dumps(json.dumps(plain)))
    return {
        "question_id": "sum",
        "question_content": "Add.",
        "starter_code": "",
        "contest_date": "2025-02-03T00:00:00",
        "difficulty": "easy",
        "platform": "atcoder",
        "metadata": "{}",
        "public_test_cases": json.dumps(
            [{"input": "1 2\n", "output": "3.0\n", "testtype": "stdin"}]
        ),
        "private_test_cases": base64.b64encode(packed).decode(),
    } | fields


METHOD = {
    "question_id": "method",
    "starter_code": "class Solution:\n    def add(self, a: int, b: int):\n        ",
    "metadata": '{"func_name": "add"}',
    "contest_date": "2024-05-01T00:00:00",
    "public_test_cases": json.dumps(
        [{"input": "1\n2", "output": "[3]", "testtype": "functional"}]
    ),
    "private_test_cases": "[]",
}


def test_livecodebench():
    reads = livecodebench.problem_of(contest())
    calls = livecodebench.problem_of(contest(**METHOD))
    assert reads.data["cases"] == [["1 2\n", "3.0\n"], ["5 6\n", "11\n"]]
    assert "stdin" in reads.question and "def add(self" in calls.question
    programs = [
        (reads, "a, b = map(int, input().split())\nprint(a + b)", True),
        (reads, "print(sum(map(int, open(0).read().split())))\nexit()", True),
        (
            reads,
            "import sys\ndef main():\n    a, b = sys.stdin.buffer.read().split()\n"
            "    sys.stdout.write(str(int(a) + int(b)))\n"
            "if __name__ == '__main__':\n    main()",
            True,
        ),
        (reads, "print(3)", False),
        (reads, "import os\nos._exit(0)", False),
        (reads, livecodebench.wrong(reads), False),
        (
            calls,
            "class Solution:\n    def add(self, a, b):\n        return (a + b,)",
            True,
        ),
        (calls, "class Solution:\n    def add(self, a, b):\n        return [a]", False),
        (calls, livecodebench.wrong(calls), False),
    ]
    outcomes = run(*(livecodebench.program(p, text) for p, text, _ in programs))
    messages = [o.message for o in outcomes]
    assert [o.passed for o in outcomes] == [good for *_, good in programs], messages


def test_livecodebench_by_date(tmp_path):
    (tmp_path / "livecodebench").mkdir()
    rows = [contest(), contest(**METHOD)]
    text = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / livecodebench.FILES[0]).write_text(text)
    one = {"files": livecodebench.FILES[:1], "count": 1}
    late = livecodebench.read(tmp_path, first=date(2025, 1, 1), **one)
    early = livecodebench.read(tmp_path, last=date(2024, 12, 31), **one)
    assert [p.problem_id for p in late + early] == ["sum", "method"]
    with pytest.raises(InputError, match="hold 2 problems of that window, 1 are"):
        livecodebench.read(tmp_path, **one)


class Dangerous:
    def __reduce__(self):
        return os.getcwd, ()


def test_pickles_with_code_are_not_loaded():
    packed = base64.b64encode(zlib.compress(pickle.dumps(Dangerous()))).decode()
    with pytest.raises(ValueError, match="a pickle of posix.getcwd"):
        livecodebench.private_tests(packed)
    with pytest.raises(ValueError, match="hidden tests cannot be read"):
        livecodebench.private_tests("!")


def test_naturalcodebench_python():
    pytest.importorskip("pytest")
    row = {
        "_id": 7,
        "prompt": "Say.",
        "testcases": "class TestSay:\n    @pytest.fixture\n    def two(self):\n"
        "        return 2\n    def test_say(self, two, capsys, tmp_path):\n"
        "        say(two)\n        assert capsys.readouterr().out == '4\\n'\n",
        "setup_code": "",
        "reference_solution": "Here:\n```python\ndef say(x):\n    print(x + x)\n```\n",
    }
    problem = naturalcodebench.problem_of(row, "python", "en")
    assert problem.problem_id == "python_en/7"
    answers = [
        problem.reference,
        naturalcodebench.wrong(problem),
        "import pytest\ndef say(x):\n    pytest.skip()\n",
        "import os\ndef say(x):\n    os._exit(0)\n",
    ]
    outcomes = run(
        *(naturalcodebench.python_program(problem, text) for text in answers)
    )
    assert [o.passed for o in outcomes] == [True, False, False, False]


@pytest.mark.slow
def test_naturalcodebench_java():
    row = {
        "_id": 8,
        "prompt": "Add.",
        "testcases": "import org.junit.jupiter.api.Test;\n"
        "import static org.junit.jupiter.api.Assertions.*;\n"
        "class AdderTest {\n"
        "  @Test void one() { assertEquals(3, Adder.add(1, 2)); }\n}\n",
        "setup_code": "",
        "reference_solution": "```java\npackage x;\npublic class Adder {\n"
        "  public static int add(int a, int b) { return a + b; }\n}\n```",
    }
    problem = naturalcodebench.problem_of(row, "java", "zh")
    answers = [
        problem.reference,
        naturalcodebench.wrong(problem),
        problem.reference.replace("return a", "System.exit(0); return a"),
    ]
    try:
        scripts = [naturalcodebench.java_program(problem, text) for text in answers]
        outcomes = run(*scripts)
    except InputError as fault:
        pytest.skip(str(fault))
    assert [o.passed for o in outcomes] == [True, False, False]


EXERCISE = {
    "slug": "two-fer",
    "introduction": "",
    "instructions": "Say it.",
    "instructions_append": "",
    "solution_files": {"two_fer.py": "def say():\n    pass\n"},
    "test_files": {
        "two_fer_test.py": "import unittest\nfrom two_fer import (say,)\n"
        "class TwoFerTest(unittest.TestCase):\n    def test_say(self):\n"
        "        self.assertEqual(say(), 'it')\n"
    },
    "editor_files": {},
    "example_files": {".meta/example.py": "def say():\n    return 'it'\n"},
}


def test_aider():
    problem = aider.problem_of(EXERCISE)
    assert problem.before == "def say():\n    pass\n"
    assert problem.instruction.startswith("Say it.\n####\n\nUse the above")
    right = "def say():\n    return 'it'"
    answers = {
        problem.reference: True,
        right: True,
        f"Sure:\n```python\n{right}\n```\n": True,
        f"**./two_fer.py**\n```\n{right}\n```\nnotes.txt\n```\nno\n```": True,
        f"two_fer_test.py\n```\n\n```\ntwo_fer.py\n```\n{right}!\n```": False,
        aider.wrong(problem): False,
        "import sys\nsys.exit(0)": False,
    }
    outcomes = run(*(aider.program(problem, text) for text in answers))
    messages = [o.message for o in outcomes]
    assert [o.passed for o in outcomes] == list(answers.values()), messages
    again = aider.second_question(problem, aider.wrong(problem), outcomes[5])
    assert "AssertionError: None != 'it'" in again
    assert again.endswith("Fix the code in two_fer.py to resolve the errors.\n")
    assert aider.is_well_formed(problem, problem.reference)
    assert not aider.is_well_formed(problem, right)


def test_aider_answers_write_no_tests_and_nothing_outside():
    problem = aider.problem_of(EXERCISE)
    listing = {"two_fer_test.py": "x", "../two_fer.py": "y", "more.py": "z"}
    assert aider.files_of(problem, aider.listed(listing)) == {"more.py": "z\n"}


ALL = [
    *multilingual.SUITES,
    *bigcodebench.SUITES,
    *aider.SUITES,
]


def at_hand(suite) -> Path:
    if not all((DATA / path).is_file() for path in suite.source.files):
        pytest.skip(f"the problems of {suite.name} are not here")
    return DATA


@pytest.mark.parametrize("suite", ALL, ids=lambda suite: suite.name)
def test_originals_are_read(suite):
    problems = suite.read(at_hand(suite))
    assert len(problems) == suite.num_problems
    assert len({problem.problem_id for problem in problems}) == len(problems)
    assert set(suite.exceptions) <= {problem.problem_id for problem in problems}


@pytest.mark.slow
@pytest.mark.parametrize("suite", ALL, ids=lambda suite: suite.name)
def test_original_references_pass(suite):
    problems = suite.read(at_hand(suite))
    why = missing(suite.language)
    if why is not None:
        pytest.skip(why)
    known = [p for p in problems if p.problem_id not in suite.exceptions]
    known = [p for p in known if not p.data.get("packages")][:: len(problems) // 8]
    right = [p for p in known if p.reference is not None]
    outcomes = run(
        *(suite.program(p, p.reference) for p in right),
        *(suite.program(p, suite.wrong(p)) for p in known),
        seconds=4 * suite.wall_seconds,
    )
    assert [o.passed for o in outcomes] == [True] * len(right) + [False] * len(known)


def test_go_imports_only_what_the_code_uses():
    answer = """import ("strings"; "sort"; "math"; "bytes")
// A list of strings. It isn't much.
/* math.Sqrt is for later. */
func f(x []string) string { sort.Strings(x); return "bytes.Buffer" + string('"') }
"""
    source = with_go_imports('import (\n"fmt"\n)', answer)
    imported = source[: source.index(")")]
    assert '"sort"' in imported and '"fmt"' in imported
    for unused in ("strings", "math", "bytes"):
        assert f'"{unused}"' not in imported
