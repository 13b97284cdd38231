"""The shapes in which models give the answer to a HumanEval problem: what they write
before it, after it, around it and instead of it.

`SHAPES` maps a name to a `Shape`, which makes such a text of a problem and its right
answer. scripts/compare_extraction.py and tests/tasks/test_extraction.py use them.
"""

import ast
import re
import textwrap
from collections.abc import Callable
from typing import NamedTuple


class Given(NamedTuple):
    """A problem: `prompt` ends in the function `entry`, which `body` completes."""

    prompt: str
    body: str
    entry: str

    @property
    def head(self) -> str:
        """What stands before the function."""
        return re.split(rf"^def {self.entry}\b", self.prompt, flags=re.M)[0]

    @property
    def whole(self) -> str:
        return self.prompt + self.body

    @property
    def signature(self) -> str:
        return f"def {self.entry}({', '.join(self.arguments)}):\n"

    @property
    def arguments(self) -> list[str]:
        node = ast.parse(self.whole).body[-1]
        assert isinstance(node, ast.FunctionDef)
        return [argument.arg for argument in node.args.args]

    @property
    def wrong(self) -> str:
        """A whole function that gives what equals nothing."""
        return f"{self.signature}    return object()\n"

    def renamed(self, name: str) -> str:
        """The function under another name, which it calls itself by, too."""
        return re.sub(rf"\b{self.entry}\b", name, self.whole)

    def call(self, name: str) -> str:
        return f"{name}({', '.join(self.arguments)})"


class Shape(NamedTuple):
    """How an answer is given.

    Attributes:
      write: makes the text.
      chat: whether it is a reply to the question, not what follows the prompt.
      right: whether the text holds a right answer.
    """

    write: Callable[[Given], str]
    chat: bool
    right: bool = True


def fenced(code: str, marks: str = "```python", end: str = "") -> str:
    return f"{marks}\n{code}{end or re.match('[`~]+', marks)[0]}\n"  # type: ignore[index]


def quoted(text: str) -> str:
    return "".join(f"> {line}\n" for line in text.splitlines())


NEXT = "\n\ndef next_one(x):\n    return x + 1\n"
WORDS = "\nThis goes through the input once, so it's linear.\n"

# Name: what is written behind the prompt.
BASE: dict[str, Callable[[Given], str]] = {
    "the body": lambda g: g.body,
    "then another function": lambda g: g.body + NEXT,
    "then another function, cut off": lambda g: f"{g.body}\n\ndef other(x):\n    if (x",
    "then a class": lambda g: f"{g.body}\n\nclass Other:\n    pass\n",
    "then a decorated function": lambda g: (
        f"{g.body}\n\n@nothing\ndef other():\n    0\n"
    ),
    "then a main block": lambda g: (
        f'{g.body}\n\nif __name__ == "__main__":\n    input()\n'
    ),
    "then prints and a failing assert": lambda g: f"{g.body}\nprint(1)\nassert False\n",
    "then a fence and words": lambda g: f"{g.body}```\n{WORDS}",
    "then an end token": lambda g: f"{g.body}<|endoftext|>\n",
    "then a helper that it calls": lambda g: (
        f"    return {g.call('_solve')}\n\n\n{g.renamed('_solve')}"
    ),
    "then a constant that it reads": lambda g: f"    ZERO\n{g.body}\n\nZERO = 0\n",
    "then itself, wrong": lambda g: f"{g.body}\n\n{g.wrong}",
    "a string with lines at the margin": lambda g: (
        f'    note = """\ndef draft():\n# no code\nprint(1)\n"""\n{g.body}'
    ),
    "a comment at the margin": lambda g: f"    zero = 0\n# At the margin.\n{g.body}",
    "a line continued at the margin": lambda g: f"    two = 1 + \\\n1\n{g.body}",
    "a bracket closed at the margin": lambda g: f"    two = (\n1,\n)\n{g.body}",
    "a form feed": lambda g: f"\f\n{g.body}",
    "CRLF": lambda g: (g.body + NEXT).replace("\n", "\r\n"),
    "the first line without indentation": lambda g: g.body.lstrip(),
    "no indentation": lambda g: textwrap.dedent(g.body),
    "a tag in a string": lambda g: f'    tag = """\n</think>\n"""\n{g.body}',
    "the whole function again": lambda g: g.whole,
    "the whole with a future import": lambda g: (
        f"from __future__ import annotations\n\n{g.whole}"
    ),
    "the whole in a fence": lambda g: fenced(g.whole) + WORDS,
    "thoughts, then the body": lambda g: (
        f"<think>\nPerhaps:\n    return None\n</think>\n{g.body}"
    ),
}

# Name: what a chat model replies.
CHAT: dict[str, Callable[[Given], str]] = {
    "a fence": lambda g: f"Here is the code:\n\n{fenced(g.whole)}{WORDS}",
    "a fence, py": lambda g: fenced(g.whole, "```py"),
    "a fence, python3": lambda g: fenced(g.whole, "```python3"),
    "a fence, Python": lambda g: fenced(g.whole, "```Python"),
    "a fence with a blank": lambda g: fenced(g.whole, "``` python"),
    "a fence without language": lambda g: f"So:\n{fenced(g.whole, '```')}{WORDS}",
    "a fence of tildes": lambda g: fenced(g.whole, "~~~python") + WORDS,
    "a fence of four": lambda g: fenced(g.whole, "````python") + WORDS,
    "a fence with attributes": lambda g: fenced(g.whole, '```python title="a.py"'),
    "a fence with braces": lambda g: fenced(g.whole, "```{.python .numberLines}"),
    "a fence in a fence of four": lambda g: fenced(fenced(g.whole), "````markdown"),
    "a fence in a fence of three": lambda g: fenced(fenced(g.whole), "```markdown"),
    "a fence never closed": lambda g: f"So:\n```python\n{g.whole}",
    "a fence opened in the prompt": lambda g: f"{g.whole}```\n{WORDS}",
    "a fence closed behind code": lambda g: (
        f"```python\n{g.whole.rstrip()}```\n{WORDS}"
    ),
    "a fence closed with words": lambda g: (
        f"```python\n{g.whole}``` It's linear now.\n"
    ),
    "a fence in mid-line": lambda g: f"The code: {fenced(g.whole)}{WORDS}",
    "a fence behind **words:**": lambda g: f"**Solution:** {fenced(g.whole)}{WORDS}",
    "code in the fence's line": lambda g: f"```python {g.whole}```\n{WORDS}",
    "two fences in a row": lambda g: f"```python\n{fenced(g.whole)}{WORDS}",
    "an empty fence first": lambda g: f"```\n```\n{fenced(g.whole)}{WORDS}",
    "a fence in a list": lambda g: (
        f"1. So:\n\n{textwrap.indent(fenced(g.whole), '   ')}\n2. Done.\n"
    ),
    "a fence as a list item": lambda g: (
        "- " + textwrap.indent(fenced(g.whole), "  ").lstrip() + "- Done.\n"
    ),
    "a fence in a list, code outside": lambda g: (
        f"1. So:\n   ```python\n{g.whole}   ```\n2. Done.\n"
    ),
    "a fence in a nested list": lambda g: (
        f"1. So:\n    - code\n\n{textwrap.indent(fenced(g.whole), '      ')}\n"
    ),
    "a fence in a quotation": lambda g: f"So:\n{quoted(fenced(g.whole))}\nDone.\n",
    "a fence in a quotation, code outside": lambda g: (
        f"> ```python\n{g.whole}> ```\n\nDone.\n"
    ),
    "a fence in <details>": lambda g: f"<details>\n{fenced(g.whole)}</details>\n",
    "a fence in <answer>": lambda g: f"<answer>\n{fenced(g.whole)}</answer>\n",
    "a fence, CRLF": lambda g: f"So:\n{fenced(g.whole)}".replace("\n", "\r\n"),
    "a fence, tabs": lambda g: fenced(g.whole.replace("    ", "\t")),
    "a fence with a fence in a string": lambda g: fenced(
        g.head + g.signature + f'    doc = """\n```\nx\n```\n"""\n{g.body}'
    ),
    "a fence with a fence in a comment": lambda g: fenced(
        f"{g.head}{g.signature}    # ```python\n    # x\n    # ```\n{g.body}"
    ),
    "a fence, then usage": lambda g: (
        f"{fenced(g.whole)}Use it:\n{fenced(f'print({g.entry}(1)) # 1{chr(10)}')}"
    ),
    "a shell fence first": lambda g: (
        fenced("pip install x\n", "```sh") + fenced(g.whole)
    ),
    "the prompt in a fence first": lambda g: (
        f"You ask for:\n{fenced(g.prompt)}Here:\n{fenced(g.whole)}"
    ),
    "a wrong one, then the right": lambda g: (
        f"First try:\n{fenced(g.wrong)}That fails. Corrected:\n{fenced(g.whole)}"
    ),
    "imports in a fence of their own": lambda g: (
        "First:\n"
        + fenced("from functools import partial as applied\n")
        + "Then:\n"
        + fenced(f"{g.renamed('_solve')}\n\n{g.entry} = applied(_solve)\n")
    ),
    "a helper in a later fence": lambda g: (
        fenced(f"{g.signature}    return {g.call('_solve')}\n")
        + "with\n"
        + fenced(g.renamed("_solve"))
    ),
    "the body in a fence": lambda g: f"The body:\n{fenced(g.body)}",
    "the body in a fence, no indentation": lambda g: fenced(textwrap.dedent(g.body)),
    "no fence": lambda g: f"Here is the code:\n\n{g.whole}{WORDS}",
    "no fence, a language": lambda g: f"python\n{g.whole}",
    "no fence, [PYTHON]": lambda g: f"[PYTHON]\n{g.whole}[/PYTHON]\n",
    "a future import": lambda g: fenced(
        f'"""A module."""\nfrom __future__ import annotations\n\n{g.whole}'
    ),
    "a main block": lambda g: fenced(
        f"{g.whole}\n\nif __name__ == '__main__':\n    input()\n"
    ),
    "failing tests behind": lambda g: fenced(f"{g.whole}\nassert {g.entry} == 0\n"),
    "a test function behind": lambda g: fenced(
        f"{g.whole}\n\ndef test():\n    assert False\n\n\ntest()\n"
    ),
    "reads its input behind": lambda g: fenced(
        f"{g.whole}\nn = int(input())\nprint(n)\n"
    ),
    "Python 2 behind": lambda g: fenced(f"{g.whole}\nprint {g.entry}\n"),
    "decorated": lambda g: fenced(
        f"def same(f):\n    return f\n\n\n{g.head}@same\n{g.whole[len(g.head) :]}"
    ),
    "a method, then its name": lambda g: fenced(
        f"{g.head}class Solver:\n    @staticmethod\n"
        + textwrap.indent(g.signature + g.body, "    ")
        + f"\n\n{g.entry} = Solver.{g.entry}\n"
    ),
    "a name for another function": lambda g: fenced(
        f"{g.renamed('_solve')}\n\n{g.entry} = lambda *given: _solve(*given)\n"
    ),
    "a table filled by a loop": lambda g: fenced(
        f"TABLE = []\nfor n in range(3):\n    TABLE.append(n)\n{g.head}{g.signature}"
        f"    assert len(TABLE) == 3\n{g.body}"
    ),
    "defined twice, the second right": lambda g: fenced(f"{g.wrong}\n\n{g.whole}"),
    "thoughts with a draft": lambda g: (
        f"<think>\nPerhaps\n{fenced(g.wrong)}\n</think>\n\n{fenced(g.whole)}"
    ),
    "thoughts begun in the prompt": lambda g: (
        f"Perhaps\n{fenced(g.wrong)}No.\n</think>\n\n{fenced(g.whole)}"
    ),
    "thoughts twice": lambda g: (
        f"<think>\n{fenced(g.wrong)}</think>\n{fenced(g.whole)}\n"
        f"<think>\n{fenced(g.wrong)}</think>\nDone.\n"
    ),
    "thoughts, [THINK]": lambda g: f"[THINK]{fenced(g.wrong)}[/THINK]{fenced(g.whole)}",
    "thoughts, <seed:think>": lambda g: (
        f"<seed:think>\n{fenced(g.wrong)}</seed:think>{fenced(g.whole)}"
    ),
    "thoughts, no fence": lambda g: (
        f"<thinking>\n{g.wrong}</thinking>\n\n{g.whole}{WORDS}"
    ),
    "a draft after the answer in thoughts": lambda g: (
        f"{fenced(g.whole)}\n<think>\nOr rather\n{fenced(g.wrong)}"
    ),
}

# Where there is no right answer: name, text, whether in a chat.
NOT_RIGHT: dict[str, tuple[Callable[[Given], str], bool]] = {
    "wrong": (lambda g: f"    return object()\n{NEXT}", False),
    "wrong, the right one later": (
        lambda g: f"    return object()\n\n\n{g.whole}",
        False,
    ),
    "a fault in the body": (lambda g: f"    x = (\n{g.body}", False),
    "a body cut off": (lambda g: f"{g.body.rstrip()} + (", False),
    "words in the body": (lambda g: f"    so this is it\n{g.body}", False),
    "wrong, in a fence": (lambda g: fenced(g.wrong), True),
    "cut off, in a fence": (lambda g: f"```python\n{g.whole.rstrip()} + (", True),
    "right only in thoughts": (
        lambda g: f"<think>\n{fenced(g.whole)}</think>\n{fenced(g.wrong)}",
        True,
    ),
    "thoughts that never end": (lambda g: f"<think>\n{fenced(g.whole)}But", True),
    "words only": (lambda g: f"I would use a loop in {g.entry}.\n", True),
}

SHAPES: dict[str, Shape] = {
    **{f"base: {name}": Shape(write, False) for name, write in BASE.items()},
    **{f"chat: {name}": Shape(write, True) for name, write in CHAT.items()},
    **{
        f"{'chat' if chat else 'base'}: {name}": Shape(write, chat, False)
        for name, (write, chat) in NOT_RIGHT.items()
    },
}
