"""A suite of three tiny problems, and its sandbox."""

from seedjax.sandbox.sandbox import Program, Sandbox
from seedjax.tasks.suite import Problem, Source, Suite

PROBLEMS = [
    Problem(
        problem_id="toy/add",
        prompt="def add(a, b):\n",
        question="Write add(a, b), the sum.",
        reference="    return a + b\n",
        data={"test": "def check(f):\n    assert f(2, 3) == 5\n", "entry_point": "add"},
    ),
    Problem(
        problem_id="toy/twice",
        prompt='def twice(a):\n    """Two times a."""\n',
        question="Write twice(a), two times a.",
        reference="    return 2 * a\n",
        data={"test": "def check(f):\n    assert f(4) == 8\n", "entry_point": "twice"},
    ),
    Problem(
        problem_id="toy/one",
        prompt="def one():\n",
        question="Write one(), which is 1.",
        reference="    return 1\n",
        data={"test": "def check(f):\n    assert f() == 1\n", "entry_point": "one"},
    ),
]
SUITE = Suite(
    name="toy",
    title="Toy",
    family="Toy",
    task="complete",
    source=Source(
        project="tests", version="1", licence="Apache-2.0", address="here", files={}
    ),
    num_problems=len(PROBLEMS),
    stop=("\ndef ",),
    max_new_tokens=12,
    wall_seconds=20.0,
    read=lambda folder: PROBLEMS,
    program=lambda problem, answer: Program(
        source=problem.prompt + answer,
        test=problem.data["test"],
        entry_point=problem.data["entry_point"],
    ),
    wrong=lambda problem: "    return None\n",
)


def sandbox(suite: Suite) -> Sandbox:
    return Sandbox(1, suite.limits)
