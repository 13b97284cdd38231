"""Suites in Python: on tiny problems of our own in upstream's format, and on the real
ones where they are at hand."""

import dataclasses
import gzip
import json
import os
from pathlib import Path

import pytest

from seedjax.errors import InputError
from seedjax.evaluate.verify import verify
from seedjax.sandbox.sandbox import Program, Sandbox
from seedjax.sandbox.script import Script
from seedjax.tasks.data import is_found, read_problems
from seedjax.tasks.extraction import extract
from seedjax.tasks.suites import SUITES, canitedit, cruxeval, evalplus, mbpp

DATA = Path(
    os.environ.get("SEEDJAX_EVAL_DATA")
    or Path(__file__).parents[2].parent / "shared" / "data"
)
NAMES = (
    "humaneval humaneval_plus humaneval_infill_single_line humaneval_infill_multi_line "
    "humaneval_infill_random_span humaneval_infill_random_span_light mbpp "
    "mbpp_sanitized mbpp_plus mbpp_plus_base quixbugs cruxeval_input cruxeval_output "
    "canitedit_descriptive canitedit_lazy humanevalfix_python"
).split()

TWICE = "def half(x):\n    return x / 2\n\n\ndef twice(x):\n"
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": f'{TWICE}    """Doubles x, of which half(x) is the half."""\n',
    "entry_point": "twice",
    "canonical_solution": "    return 2 * x\n",
    # The test uses a helper of the prompt.
    "test": "def check(candidate):\n    assert half(candidate(3)) == 3\n",
}
MBPP = [
    {
        "text": f"Write a function number {number}.",
        "code": f"def f{number}(x):\n    return [x, {number}]",
        "task_id": number,
        "test_setup_code": "",
        "test_list": [f"assert f{number}(1) == [1, {number}]"],
    }
    for number in (2, 3, 4, 11)
] + [
    {
        "text": "Count nodes.",
        "code": (
            "class Node:\n    def __init__(self, v):\n        self.v = v\n"
            "def count(node):\n    return 1 if isinstance(node, Node) else 0"
        ),
        "task_id": 12,
        "test_setup_code": "root = Node(1)\nroot.v = 2",
        "test_list": ["assert count(root) == 1"],
    }
]
SANITIZED = [
    {
        "prompt": row["text"],
        "code": row["code"],
        "task_id": row["task_id"],
        "test_imports": ["import math"],
        "test_list": [*row["test_list"], "assert math.pi > 3"],
    }
    for row in MBPP[:4]
]


def plus(number, entry_point, body, inputs, *, atol=0, task="Mbpp"):
    return {
        "task_id": f"{task}/{number}",
        "prompt": '"""\nDo it.\n"""\n'
        if task == "Mbpp"
        else f"def {entry_point}(x):\n",
        "entry_point": entry_point,
        "canonical_solution": f"def {entry_point}(*x):\n{body}"
        if task == "Mbpp"
        else body,
        "base_input": inputs[:1],
        "plus_input": inputs[1:],
        "atol": atol,
    }


MBPP_PLUS = [
    # Arguments are tuples, the answer counts as a set.
    plus(2, "similar", "    return tuple(set(x[0]) & set(x[1]))\n", [[[1, 2], [2, 3]]]),
    plus(3, "floats", "    return x[0] / 3\n", [[1], [2.5], [float("inf")]]),
    plus(80, "listed", "    return [x[0] / 3, 0.5]\n", [[1], [2]], atol=0.0001),
    # The reference calls itself, and must not come upon the candidate.
    plus(8, "down", "    return x[0] and down(x[0] - 1)\n", [[3], [4]]),
    plus(722, "named", "    return {(2,): 1}[x[0]['a']]\n", [[{"a": [2]}]]),
    plus(124, "angle", "    return x[1].imag + x[0]\n", [["0", "1j"], ["1", "3j"]]),
    plus(17, "changes", "    x[0].append(1)\n    return x[0]\n", [[[1, 2]], [[]]]),
]
HUMANEVAL_PLUS = [
    plus(32, "find_zero", "    return -x[0] / x[1]\n", [[[1, 2]], [[3, 4]]], atol=1e-4)
    | {"task_id": "HumanEval/32"},
]
HUMANEVAL_PLUS[0]["prompt"] = "def find_zero(x):\n"
HUMANEVAL_PLUS[0]["canonical_solution"] = "    return -x[0] / x[1]\n"
INFILLING = {
    "task_id": "SingleLineInfilling/HumanEval/0/L0",
    "prompt": f"{TWICE}    y = ",
    "suffix": "\n    return x + y\n",
    "canonical_solution": "x",
    "entry_point": "twice",
    "test": HUMANEVAL["test"],
}
QUIXBUGS = {
    "name": "walk",
    "buggy_program": "def walk(n):\n    while n:\n        n = n.next\n    return n",
    "solution": (
        "def walk(n):\n    s = []\n    while n:\n        s.append(n)\n"
        "        n = n.next\n    return s"
    ),
    "tests": (
        "class Node:\n    next = None\ndef main():\n    node = Node()\n"
        "    assert walk(node)[0] is node\nmain()"
    ),
}
CRUXEVAL = [
    {"id": "sample_0", "code": "def f(x):\n    return x + [{}]", "input": "[1]"}
    | {"output": "[1, {}]"},
    {"id": "sample_1", "code": "def f(a, b):\n    return a == b", "input": "'==', '=='"}
    | {"output": "True"},
]
CANITEDIT = {
    "full_name": "0_add",
    "before": "class A:\n    def get(self):\n        return 1",
    "after": (
        'class A:\n    """One."""\n\n    def get(self):\n        return 2\n\n'
        "    def unused(self):\n        return 3"
    ),
    "tests": (
        "### START TESTS ###\nif True:  # pragma: no cover\n    assert A().get() == 2"
    ),
    "instruction_descriptive": "Make `get` return 2.",
    "instruction_lazy": "2",
    "taxonomy": {},
}
FIX = {
    "task_id": "Python/0",
    "prompt": HUMANEVAL["prompt"],
    "declaration": TWICE,
    "canonical_solution": "    return 2 * x\n",
    "buggy_solution": "    return 3 * x\n",
    "entry_point": "twice",
    "test": "def check(twice):\n    assert half(twice(3)) == 3\n\ncheck(twice)",
}
ROWS = {
    "humaneval": [HUMANEVAL],
    "humaneval_plus": HUMANEVAL_PLUS,
    "mbpp": MBPP,
    "mbpp_plus": MBPP_PLUS,
    "mbpp_plus_base": MBPP_PLUS,
    "quixbugs": [QUIXBUGS],
    "cruxeval_input": CRUXEVAL,
    "cruxeval_output": CRUXEVAL,
    "canitedit_descriptive": [CANITEDIT],
    "canitedit_lazy": [CANITEDIT],
    "humanevalfix_python": [FIX],
} | {name: [INFILLING] for name in NAMES if "infill" in name}


def problems_of(name, folder):
    """The tiny problems of a suite, read from a file as upstream would write it."""
    (path,) = SUITES[name].source.files
    text = "".join(json.dumps(row) + "\n" for row in ROWS.get(name, []))
    if name == "mbpp_sanitized":
        text = json.dumps(SANITIZED)
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(text.encode()))
    return SUITES[name].read(folder)


@pytest.fixture(scope="module")
def sandbox():
    limits = SUITES["humaneval_plus"].limits
    with Sandbox(2, dataclasses.replace(limits, wall_seconds=30.0)) as opened:
        yield opened


@pytest.mark.parametrize("name", NAMES)
def test_references_pass_and_wrong_answers_do_not(name, tmp_path, sandbox):
    problems = problems_of(name, tmp_path)
    found = verify(SUITES[name], problems, sandbox)
    assert found.unexpected == ()
    assert found.references_passed == len(problems) > 0


@pytest.mark.parametrize("name", NAMES)
def test_other_formats_are_refused(name, tmp_path):
    (path,) = SUITES[name].source.files
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(b"{not JSON}\n"))
    with pytest.raises(InputError, match="not JSON"):
        SUITES[name].read(tmp_path)


def judge(sandbox, suite, problem, *answers):
    programs = [suite.program(problem, answer) for answer in answers]
    return [outcome.passed for outcome in sandbox.run(programs)]


def test_a_whole_function_is_taken_as_well(tmp_path, sandbox):
    suite = SUITES["humaneval"]
    (problem,) = problems_of("humaneval", tmp_path)
    whole = "Here:\n```python\ndef twice(x):\n    return x + x\n```\nIt adds.\n"
    raw = "    return x + x\n\nprint(twice(2)\n"
    answers = (
        extract(suite.chat_extraction, whole, suite, problem),
        extract(suite.extraction, raw, suite, problem),
        raw,
    )
    assert judge(sandbox, suite, problem, *answers) == [True, True, False]
    assert problem.question.count(HUMANEVAL["prompt"].strip()) == 1


def test_mbpp_prompts_show_three_solved_problems(tmp_path):
    first, second = problems_of("mbpp", tmp_path)
    assert [first.problem_id, second.problem_id] == ["Mbpp/11", "Mbpp/12"]
    assert first.prompt.count("[DONE]") == 3 and first.prompt.count("[BEGIN]") == 4
    assert first.prompt.endswith("\n\nassert f11(1) == [1, 11]\n[BEGIN]\n")
    assert MBPP[3]["code"] not in first.prompt and MBPP[2]["code"] in first.prompt
    assert isinstance(mbpp.program(first, ""), Program)
    # Its test builds objects of a class of the answer.
    assert isinstance(mbpp.program(second, ""), Script)


def test_plus_inputs_find_what_base_inputs_do_not(tmp_path, sandbox):
    answer = "def down(x):\n    return 0 if x == 3 else 1\n"
    base, all_of_them = [
        judge(sandbox, SUITES[name], problems_of(name, tmp_path)[3], answer)
        for name in ("mbpp_plus_base", "mbpp_plus")
    ]
    assert base == [True] and all_of_them == [False]


def test_plus_outputs_within_the_tolerance(tmp_path, sandbox):
    suite, problems = SUITES["mbpp_plus"], problems_of("mbpp_plus", tmp_path)
    floats, listed, down = problems[1], problems[2], problems[3]
    near, far = (
        f"def floats(x):\n    return x / 3 + {shift}\n" for shift in (5e-7, 5e-6)
    )
    assert judge(sandbox, suite, floats, near, far) == [True, False]
    near, far, other, short = (
        f"def listed(x):\n    return {value}\n"
        for value in (
            "[x / 3 + 5e-5, 0.5]",
            "[x / 3 + 5e-4, 0.5]",
            "(x / 3, 0.5)",
            "[x / 3]",
        )
    )
    expected = [True, False, False, False]
    assert judge(sandbox, suite, listed, near, far, other, short) == expected
    # Whole numbers must be exact.
    assert judge(sandbox, suite, down, "def down(x):\n    return 1e-9\n") == [False]


def test_any_zero_of_a_polynomial_is_right(tmp_path, sandbox):
    (problem,) = problems_of("humaneval_plus", tmp_path)
    answers = ("    return -x[0] / x[1] + 1e-6\n", "    return 0.0\n")
    assert judge(sandbox, SUITES["humaneval_plus"], problem, *answers) == [True, False]


def test_one_input_has_limited_time(tmp_path, sandbox, monkeypatch):
    monkeypatch.setattr(evalplus, "LEAST_SECONDS", 0.2)
    problem = problems_of("mbpp_plus", tmp_path)[3]
    endless = evalplus.program(problem, "def down(x):\n    while x: pass\n")
    (outcome,) = sandbox.run([endless])
    assert not outcome.passed and "out of time for one input" in outcome.message
    assert outcome.seconds < 20


@pytest.mark.parametrize(
    ("kind", "answer", "passes"),
    [
        ("output", "[1, {}]", True),
        ("output", "assert f([1]) == [1, {}]", True),
        ("output", "[ANSWER]\nassert f([1]) == [1, {}]\n[/ANSWER] so", True),
        ("output", "assert f([1]) == f([1])", False),
        ("output", "f([1])", False),
        ("output", "[1, {}] or 2) or (3", False),
        ("output", "[1, {}]\n    return 1", False),
        ("output", "", False),
        ("input", "f([1])", True),
        ("input", "assert f([1]) == [1, {}]", True),
        ("input", "Thought [ANSWER] f(x=[1])", True),
        ("input", "f([2])", False),
        ("input", "[1, {}]", False),
        ("input", "[1, {}] or f(", False),
        ("input", "[1, {}] if 'f(' else 0", False),
    ],
)
def test_cruxeval_answers(kind, answer, passes, tmp_path, sandbox):
    problem = problems_of(f"cruxeval_{kind}", tmp_path)[0]
    suite = SUITES[f"cruxeval_{kind}"]
    assert judge(sandbox, suite, problem, answer) == [passes]


def test_cruxeval_prompts_hold_the_problem(tmp_path):
    for kind, call in (("input", "f(??) == [1, {}]"), ("output", "f([1]) == ??")):
        problem = problems_of(f"cruxeval_{kind}", tmp_path)[0]
        for text, end in ((problem.prompt, "ANSWER"), (problem.question, "THOUGHT")):
            shown = f"[PYTHON]\n{CRUXEVAL[0]['code']}\nassert {call}\n[/PYTHON]\n"
            assert text.endswith(f"{shown}[{end}]\n")
    direct = cruxeval.prompts()["direct"]["input"]
    assert direct.startswith("You will be given a function f and an")


def test_both_instructions_of_an_edit(tmp_path):
    (descriptive,) = problems_of("canitedit_descriptive", tmp_path)
    (lazy,) = problems_of("canitedit_lazy", tmp_path)
    assert descriptive.instruction == "Make `get` return 2." and lazy.instruction == "2"
    before = CANITEDIT["before"]
    assert lazy.prompt == (
        f"## Code Before:\n{before}\n## Instruction:\n2\n## Code After:\n"
    )
    assert lazy.question.startswith(f"## Code Before\n```py\n{before}\n```\n\n")


def test_excess_code(tmp_path, sandbox):
    (problem,) = problems_of("canitedit_lazy", tmp_path)
    (outcome,) = sandbox.run([canitedit.coverage_script(problem, problem.reference)])
    # class, def get, return 2, def unused ran; return 3 did not.
    share = canitedit.covered_share(problem.reference, outcome)
    assert share == pytest.approx(4 / 5)
    (failed,) = sandbox.run([canitedit.coverage_script(problem, problem.before)])
    assert canitedit.covered_share(problem.before, failed) is None
    # The median of each problem, then the mean of those that have an answer.
    assert canitedit.excess_code([[0.5, 1.0, 0.9], [0.7], []]) == pytest.approx(20.0)


def test_which_lines_are_statements():
    source = (
        '"""Text."""\nimport os\n\n\n@staticmethod\n'
        'def f(\n    a,\n):\n    """Text."""\n'
        "    global b\n    if (a and\n        b):\n        return [\n            1]\n"
        "    match a:\n        case 1:\n            pass\n"
    )
    found = {
        (lines.start, lines.stop - 1) for lines in canitedit.statement_lines(source)
    }
    assert found == {(2, 2), (5, 8), (11, 12), (13, 14), (15, 15), (17, 17)}


def test_a_fix_is_asked_for_with_the_tests(tmp_path):
    (problem,) = problems_of("humanevalfix_python", tmp_path)
    assert problem.before == TWICE + "    return 3 * x\n"
    assert problem.instruction.startswith("Fix bugs in twice. These tests must pass:\n")
    assert "Doubles" not in problem.prompt + problem.question


def real(name):
    if not is_found(SUITES[name], DATA):
        pytest.skip(f"the problems of {name} are not at hand")
    return read_problems(SUITES[name], DATA)


# The others' solutions take seconds.
@pytest.mark.representative(
    *(
        set(NAMES)
        - {"quixbugs", "humaneval_plus", "mbpp_plus"}
        - {"canitedit_lazy", "humanevalfix_python"}
    )
)
@pytest.mark.parametrize("name", NAMES)
def test_some_real_problems(name):
    suite, problems = SUITES[name], real(name)
    chosen = problems[:: len(problems) // 3][:3]
    with Sandbox(1, dataclasses.replace(suite.limits, wall_seconds=20.0)) as sandbox:
        found = verify(suite, chosen, sandbox)
    assert found.is_good, found.unexpected
    assert all(problem.prompt or problem.before for problem in problems)
    assert len({problem.problem_id for problem in problems}) == len(problems)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_all_real_problems(name):
    suite = SUITES[name]
    with Sandbox(limits=suite.limits) as sandbox:
        found = verify(suite, real(name), sandbox)
    assert found.is_good, found.unexpected
