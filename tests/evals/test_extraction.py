"""The answer is cut out of what a model wrote."""

import dataclasses

import pytest

from seedjax.errors import InputError
from seedjax.evals.extraction import extract
from seedjax.evals.suite import Problem
from seedjax.evals.suites import SUITES

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
    assert cut("fenced", first, entry_point="") == "pip install x\n"
    assert cut("fenced", code) == code
    assert cut("fenced", f"```python\n{code}") == code  # never closed
    assert cut("fenced", f"{code}```\n") == code  # opened in the question
    assert cut("fenced", f"~~~~\n{code}```\n~~~~\n") == f"{code}```\n"
    assert cut("fenced", f"1. So:\n   ```python\n{code}   ```\n") == code
    assert cut("last_fenced", code) == code
    assert cut("fenced", "") == ""


def test_whole_file():
    code = "import os\n\n\ndef add(): pass\n"
    assert cut("whole_file", code) == code
    assert cut("whole_file", f"add.py\n```\n{code}```\n") == code
    assert cut("whole_file", f"{code}## Next:", stop=("## Next",)) == code


def test_an_unknown_rule():
    with pytest.raises(InputError, match="no extraction rule 'half'"):
        cut("half", "")
