"""The answer is cut out of what a model wrote, in whatever shape it is there."""

import builtins
import dataclasses
import importlib.util
import sys
from pathlib import Path

import pytest

from seedjax.errors import InputError
from seedjax.tasks.extraction import extract
from seedjax.tasks.suite import Problem
from seedjax.tasks.suites import SUITES, humaneval
from seedjax.tasks.suites.splicing import as_whole_program

ROOT = Path(__file__).parents[2]

PROMPT = 'def add(a, b):\n    """Adds."""\n'


def cut(rule, text, *, prompt=PROMPT, stop=(), language="python", entry_point="add"):
    suite = dataclasses.replace(SUITES["humaneval"], stop=stop)
    problem = Problem(
        problem_id="1",
        prompt=prompt,
        language=language,
        data={"entry_point": entry_point} if entry_point else {},
    )
    return extract(rule, text, suite, problem)


def test_continuation_ends_at_the_first_stop():
    text = "    return a + b\n\ndef main():\n    pass\n# end\n"
    assert cut("continuation", text) == text
    assert cut("continuation", text, stop=("\n#", "\ndef")) == "    return a + b\n"
    assert cut("continuation", "", stop=("\n#",)) == ""


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("    return a + b\n", None),
        ("    return a + b\nprint(1)\n", "    return a + b\n"),
        ("    return a + b\n\n\nassert add(1, 2) == 3", "    return a + b\n\n\n"),
        ("    return a + b\n```\nThis adds.", "    return a + b\n"),
        ("\n    # both\n\n    return a + b\nfoo", "\n    # both\n\n    return a + b\n"),
        # At the margin, but inside a string or a bracket.
        ('    s = """\nx"""\n    return s\nfoo', '    s = """\nx"""\n    return s\n'),
        ("    return (\na +\nb)\nfoo", "    return (\na +\nb)\n"),
        # Nothing parses: the first line at the margin ends it.
        ("    return a +\nfoo\nbar", "    return a +\n"),
        ("print(1)", ""),
        ("", ""),
    ],
)
def test_function_ends_where_its_indentation_does(text, kept):
    assert cut("function", text) == (text if kept is None else kept)


def test_function_that_goes_on_in_the_line_of_the_prompt():
    text = "a + b\nfoo\n"
    assert cut("function", text, prompt="def add(a, b):\n    return ") == "a + b\n"


@pytest.mark.parametrize(
    ("language", "text", "kept"),
    [
        ("go", "  if x {\n  }\n}\nfunc main() {}\n", "  if x {\n  }\n}\n"),
        ("go", '  x := "}" // }\n}\nrest', '  x := "}" // }\n}\n'),
        ("go", "  c := '}'\n  /* } */\n}\nrest", "  c := '}'\n  /* } */\n}\n"),
        ("go", "  return 1\n", "  return 1\n"),
        ("javascript", "  return `${x}`;\n}\nf();", "  return `${x}`;\n}\n"),
        ("java", "  return 1;\n  }\n}\nclass X {}", "  return 1;\n  }\n}\n"),
        ("java", "  return 1;\n  }\n  int f() {\n  }\n}\nx", None),
        # The class is not closed.
        ("java", "  return 1;\n  }\n  // more", "  return 1;\n  }\n}\n"),
    ],
)
def test_braces(language, text, kept):
    if kept is None:
        kept = text[:-1]
    assert cut("braces", text, language=language) == kept


def test_fenced():
    code = "def add(a, b):\n    return a + b\n"
    use = "Sure:\n```python\n{}```\nUse it so:\n```python\nprint(add(1, 2))\n```\n"
    assert cut("fenced", use.format(code)) == code
    assert cut("last_fenced", use.format(code)) == "print(add(1, 2))\n"
    first = "```sh\npip install x\n```\n```py\ndef add(): pass\n```"
    assert cut("fenced", first) == "def add(): pass\n"
    assert cut("fenced", first, entry_point="") == "def add(): pass\n"
    assert cut("last_fenced", f"{use.format(code)}```\n3\n```") == "print(add(1, 2))\n"
    assert cut("fenced", code) == code
    assert cut("fenced", f"```python\n{code}") == code  # never closed
    assert cut("fenced", f"{code}```\n") == code  # opened in the question
    assert cut("fenced", f"~~~~\n{code}```\n~~~~\n") == code
    assert cut("fenced", f"1. So:\n   ```python\n{code}   ```\n") == code
    assert cut("last_fenced", code) == code
    assert cut("fenced", "") == ""


def load_shapes():
    path = ROOT / "scripts" / "answer_shapes.py"
    spec = importlib.util.spec_from_file_location("answer_shapes", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its classes look their annotations up
    spec.loader.exec_module(module)
    return module


shapes = load_shapes()
GIVEN = (
    (
        shapes.Given(
            'def area(w, h):\n    """The area.\n\n    >>> area(2, 3)\n    6\n    """\n',
            "    if w < 0:\n        return 0\n    return w * h\n",
            "area",
        ),
        [((2, 3), 6), ((-1, 3), 0)],
    ),
    (
        shapes.Given(
            "from typing import List\n\n\ndef double(x):\n    return 2 * x\n\n\n"
            "def doubled(values: List[int]) -> List[int]:\n    ''' Each twice. '''\n",
            "    made = []\n    for value in values:\n        made += [double(value)]\n"
            "    return made\n",
            "doubled",
        ),
        [(([1, 2],), [2, 4]), (([],), [])],
    ),
    (
        shapes.Given(
            'def depth(tree):\n  """Of nested lists, by two blanks."""\n',
            "  if not isinstance(tree, list):\n    return 0\n"
            "  inner = [depth(one) for one in tree]\n  return 1 + max([0, *inner])\n",
            "depth",
        ),
        [(([[1], 2],), 2), ((7,), 0)],
    ),
)


def is_right(program: str, entry: str, cases) -> bool:
    """Whether a program, one of ours, gives what is wanted. Reading input is a fault,
    as it is in the sandbox."""
    names = {"__name__": "program", "__builtins__": vars(builtins) | {"input": None}}
    try:
        exec(compile(program, "<answer>", "exec", dont_inherit=True), names)
        return all(names[entry](*given) == wanted for given, wanted in cases)
    except Exception:
        return False


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_an_answer_in_any_shape(name):
    shape = shapes.SHAPES[name]
    suite = SUITES["humaneval"]
    rule = suite.chat_extraction if shape.chat else suite.extraction
    for given, cases in GIVEN:
        assert is_right(given.whole, given.entry, cases)
        text = shape.write(given)
        other = text.replace(given.body, "").replace(given.prompt, "")
        if given.entry == "depth" and ("\t" in other or "    " in other):
            continue  # a text that indents otherwise than this function
        problem = Problem(
            problem_id="1", prompt=given.prompt, data={"entry_point": given.entry}
        )
        answer = extract(rule, text, suite, problem)
        program = as_whole_program("python", given.prompt, given.entry, answer)
        assert is_right(program, given.entry, cases) == shape.right, (text, program)


def test_shapes_are_enough_for_the_comparison():
    assert len(shapes.SHAPES) > 90
    assert sum(not shape.right for shape in shapes.SHAPES.values()) >= 10


PROMPTLESS = "def add(a, b):\n"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        # As models of other families mark what they think.
        ("<|channel|>analysis<|message|>?<|channel|>final<|message|>CODE", "CODE"),
        ("\u25c1think\u25b7 ? \u25c1/think\u25b7CODE", "CODE"),
        ("<|START_THINKING|>?\n```\nx\n```\n<|END_THINKING|>\nCODE", "CODE"),
        ("<Thought>\n?\n</Thought>\n\nCODE", "CODE"),
        ("?\n[BEGIN FINAL RESPONSE]\nCODE", "CODE"),
        ("<think>\n\n</think>\n\n    CODE", "    CODE"),  # the indentation stays
        ("<think>one <think> again</think>\nCODE", "CODE"),
        ("CODE\n<think>?", "CODE\n"),
        ("<think>?", ""),
        # Not these.
        ('x = text.split("</think>")[1]\nCODE', None),
        ("Put it between `<think>` and `</think>`.\nCODE", None),
        ("CODE a <think> b", None),
    ],
)
def test_thoughts_are_no_answer(text, kept):
    assert cut("continuation", text) == (text if kept is None else kept)


def test_a_hole_is_filled_with_the_text_as_it_is():
    suite = SUITES["humaneval_infill_single_line"]
    problem = Problem(problem_id="1", prompt="", data={"entry_point": "add"})
    text = "<think>\r\n```\n</think>\n"
    assert extract("continuation", text, suite, problem) == text


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (PROMPTLESS, "    return a + b\n\ndef other():\n    pass\n"),
        (PROMPTLESS, "return a + b\n"),
        (PROMPTLESS, "So:\n\n    def add(a, b):\n        return a + b\n\nDone.\n"),
        (PROMPTLESS, "add = lambda a, b: a + b\n"),
        (PROMPTLESS.rstrip("\n"), "\n    return a + b\nprint(add)\n"),
        (PROMPTLESS.rstrip("\n"), " return a + b\ndef add(a, b): return 0\n"),
        (f"{PROMPTLESS}    return ", "a + b\nfoo\n"),
        (f"from __future__ import annotations\n{PROMPTLESS}", "    return a + b\n"),
        (f"import math\n\n@id\n{PROMPTLESS}", "    return math.floor(a + b)\n"),
    ],
)
def test_prompts_without_words(prompt, text):
    answer = cut("function", text, prompt=prompt)
    program = as_whole_program("python", prompt, "add", answer)
    program = program.replace("@id", "")
    assert is_right(program, "add", [((2, 3), 5)]), program


def test_an_asynchronous_function_and_a_class():
    body = "    return a + b\n"
    assert cut("function", f"{body}run()\n", prompt=f"async {PROMPTLESS}") == body
    text = "A class:\n```\nclass add:\n    x = 1\n```\nfor you.\n```\nadd().x\n```\n"
    assert cut("fenced", text, prompt="") == "class add:\n    x = 1\n"


GO = "package main\n\n// add adds.\nfunc add(a int, b int) int {\n"
BODY = '\tx := "}" // }\n\treturn a + b + len(x) - 1\n}\n'


@pytest.mark.parametrize(
    ("rule", "text", "kept"),
    [
        ("braces", f"{BODY}\nfunc main() {{\n}}\n", BODY),
        ("braces", f"{BODY}```\nThat's it {{.\n", BODY),
        ("braces", f"```go\n{GO}{BODY}```\nThat's it.\n", GO + BODY),
        ("braces", f"{GO}{BODY}\nThat's it.\n", GO[GO.index("func") :] + BODY),
        ("braces", f"<think>\n}}\n</think>\n{BODY}", BODY),
        ("fenced", f"It's:\n```\nadd(1)\n```\n```go\n{GO}{BODY}```\n", GO + BODY),
        ("fenced", f"It's:\n1. ```golang\n   {BODY[1:]}```\n", BODY),
        ("fenced", f"So:\n\n{GO}{BODY}\nThat's it.\n", GO[GO.index("func") :] + BODY),
    ],
)
def test_other_languages_in_any_shape(rule, text, kept):
    found = cut(rule, text, prompt=GO, language="go")
    assert [line.strip() for line in found.strip().splitlines()] == [
        line.strip() for line in kept.strip().splitlines()
    ]


def test_what_answers_import_from_the_future():
    """Stands before all that suites put before an answer."""
    code = "from __future__ import (annotations,\n    division)\nx = 1\n"
    code += "def task_func(): return 1\n"
    data = {"setup": "import math", "tests": ["assert task_func() == 1"], "test": "0"}
    data |= {"entry_point": "task_func", "code_prompt": "def task_func():"}
    data |= {"prompt": "", "complete_prompt": "", "number": 1, "testcases": ""}
    data |= {"setup_code": "", "func_name": "task_func", "cases": []}
    problem = Problem(problem_id="1", prompt="import os\n", data=data)
    for name in (
        *("humaneval", "mbpp", "bigcodebench", "humanevalfix_python", "mbxp_python"),
        *("livecodebench", "naturalcodebench_python_en"),
    ):
        source = SUITES[name].program(problem, code).source
        compile(source, name, "exec", dont_inherit=True)
    assert "import os" in humaneval.program(problem, code).source


def test_whole_file():
    code = "import os\n\n\ndef add(): pass\n"
    assert cut("whole_file", code) == code
    assert cut("whole_file", f"add.py\n```\n{code}```\n") == code
    assert cut("whole_file", f"{code}## Next:", stop=("## Next",)) == code
    # A fence in the documentation of a file is the file's.
    documented = f'"""\n```python\nx\n```\n"""\n{code}'
    assert cut("whole_file", documented) == documented
    assert cut("whole_file", f"```python\n{documented}```\nDone.") == documented


def test_the_block_with_the_program_that_was_to_be_changed():
    text = "```py\nx = 1\n```\nthen\n```py\ndef add(): pass\n```\n```py\nadd()\n```\n"
    problem = Problem(problem_id="1", before="def add(): 0\n", data={})
    assert extract("fenced", text, SUITES["humaneval"], problem) == "def add(): pass\n"


def test_an_unknown_rule():
    with pytest.raises(InputError, match="no extraction rule 'half'"):
        cut("half", "")
