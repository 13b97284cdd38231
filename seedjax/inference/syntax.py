"""Whether a text is a program, where it is not, and whether it may still become one, so
that nobody is handed broken code without a word.

    fault             a whole text: the first place at which it does not parse
    can_be_continued  the beginning of a text: whether any continuation could parse

Python is judged by this interpreter's own compiler, other languages by the grammars of
tree-sitter (extra `[languages]`; https://tree-sitter.github.io). Nothing is executed.

To tell whether a text can be continued, Python's parser runs in the mode in which
the interactive prompt asks it whether more lines are needed (`codeop`). It reads no
further than it must: an error that it reports before it has reached the end of the text
stays one, whatever follows. What it says of the end itself does not count. Only the
grammar is judged then, not what the compiler finds later.
"""

import ast
import functools
import importlib
import re
import warnings
from codeop import PyCF_ALLOW_INCOMPLETE_INPUT  # type: ignore[attr-defined]
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, NamedTuple

from seedjax.errors import InputError

# A line break after a backslash does not end a line.
WHOLE_LINES = re.compile(r"(?:.*[^\\\r])?(?:\r\n?|\n)", re.DOTALL)
# After these no token goes on, except inside of a string.
ENDS_OF_TOKENS = re.compile(r".*[ \t()\[\]{},;]", re.DOTALL)
NOT_IN_SOURCE = re.compile(r"[\0\ud800-\udfff]")


class Grammar(NamedTuple):
    """Where tree-sitter's grammar of a language is: a module, and its function that
    returns the language."""

    module: str
    function: str = "language"


GRAMMARS = {
    "bash": Grammar("tree_sitter_bash"),
    "c": Grammar("tree_sitter_c"),
    "cpp": Grammar("tree_sitter_cpp"),
    "csharp": Grammar("tree_sitter_c_sharp"),
    "css": Grammar("tree_sitter_css"),
    "go": Grammar("tree_sitter_go"),
    "html": Grammar("tree_sitter_html"),
    "java": Grammar("tree_sitter_java"),
    "javascript": Grammar("tree_sitter_javascript"),
    "json": Grammar("tree_sitter_json"),
    "kotlin": Grammar("tree_sitter_kotlin"),
    "php": Grammar("tree_sitter_php", "language_php"),
    "ruby": Grammar("tree_sitter_ruby"),
    "rust": Grammar("tree_sitter_rust"),
    "swift": Grammar("tree_sitter_swift"),
    "tsx": Grammar("tree_sitter_typescript", "language_tsx"),
    "typescript": Grammar("tree_sitter_typescript", "language_typescript"),
}
LANGUAGES = ("python", *GRAMMARS)

SUFFIXES = {
    **dict.fromkeys((".py", ".pyi", ".pyw"), "python"),
    **dict.fromkeys((".sh", ".bash"), "bash"),
    ".c": "c",
    **dict.fromkeys((".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx"), "cpp"),
    ".cs": "csharp",
    ".css": "css",
    ".go": "go",
    **dict.fromkeys((".html", ".htm"), "html"),
    ".java": "java",
    **dict.fromkeys((".js", ".mjs", ".cjs", ".jsx"), "javascript"),
    ".json": "json",
    **dict.fromkeys((".kt", ".kts"), "kotlin"),
    ".php": "php",
    ".rb": "ruby",
    ".rs": "rust",
    ".swift": "swift",
    ".tsx": "tsx",
    **dict.fromkeys((".ts", ".mts", ".cts"), "typescript"),
}


class Fault(NamedTuple):
    """The first place at which a text does not parse.

    Attributes:
      message: what is wrong there.
      line: from 1.
      column: from 1, in characters.
    """

    message: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.message} (line {self.line}, column {self.column})"


def language_of(path: PurePath) -> str | None:
    """The language that a file's suffix stands for; None for one of none."""
    return SUFFIXES.get(path.suffix.lower())


def missing_parser(language: str) -> str | None:
    """Why texts in a language cannot be judged here, with what to install; None where
    they can.

    Raises:
      InputError: for a language that there is not.
    """
    if language not in LANGUAGES:
        raise InputError(
            f"language {language!r} cannot be checked; give one of "
            f"{', '.join(LANGUAGES)}, or text for no check"
        )
    if language == "python":
        return None
    try:
        _parser(language)
    except ImportError:
        return f"checking {language} needs `pip install seedjax[languages]`"
    return None


def fault(
    text: str, language: str = "python", *, compiles: bool = True
) -> Fault | None:
    """The first place at which a text does not parse; None if it does.

    Args:
      text: a whole program. A byte order mark may stand in front.
      language: of `LANGUAGES`, with its parser (`missing_parser`).
      compiles: whether Python has to accept more than the grammar, such as no `return`
        outside of a function.

    Raises:
      InputError: for a language that there is not.
      ImportError: if its parser is missing.
    """
    text = text.removeprefix("\ufeff")
    if language == "python":
        return _python_fault(text, 0 if compiles else ast.PyCF_ONLY_AST)
    if language not in GRAMMARS:
        missing_parser(language)
    return _tree_fault(text, language)


def _python_fault(text: str, flags: int) -> Fault | None:
    try:
        _compile(text, flags)
    except RecursionError:
        return None  # it was parsed, and is too deep for a tree of Python objects
    except MemoryError:
        return Fault("nested too deeply", 1, 1)
    except (SyntaxError, ValueError) as error:
        if isinstance(error, SyntaxError) and error.lineno:
            return Fault(error.msg, error.lineno, max(error.offset or 1, 1))
        match = NOT_IN_SOURCE.search(text)
        place = match.start() if match else 0
        line = text.count("\n", 0, place)
        message = f"no source may hold the character {text[place : place + 1]!r}"
        return Fault(message, line + 1, place - text.rfind("\n", 0, place))
    return None


def _compile(text: str, flags: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compile(text, "<answer>", "exec", flags, dont_inherit=True)


def _tree_fault(text: str, language: str) -> Fault | None:
    source = text.encode("utf-8", "surrogatepass")
    root = _parser(language).parse(source).root_node
    if not root.has_error:
        return None
    node = next(_faulty(root), root)
    row, column = node.start_point
    before = source.split(b"\n")[row][:column].decode("utf-8", "replace")
    found = source[node.start_byte : node.end_byte].decode("utf-8", "replace").split()
    if node.is_missing:
        message = f"{node.type!r} is missing"
    else:
        message = f"unexpected {found[0]!r:.40}" if found else "invalid syntax"
    return Fault(message, row + 1, len(before) + 1)


def _faulty(node: Any) -> Iterator[Any]:
    """The nodes at which tree-sitter gave up, innermost first."""
    for child in node.children:
        if child.has_error or child.is_missing:
            yield from _faulty(child)
    if node.is_error or node.is_missing:
        yield node


@functools.cache
def _parser(language: str) -> Any:
    """Raises ImportError without the grammar."""
    import tree_sitter

    module, function = GRAMMARS[language]
    grammar = getattr(importlib.import_module(module), function)()
    return tree_sitter.Parser(tree_sitter.Language(grammar))


def can_be_continued(text: str, language: str = "python") -> bool:
    """Whether a text may be the beginning of a program that parses, or be one.

    A prefix of a program that this Python parses is never refused. What is wrong in a
    whole line is found; of an unfinished last line, what stands in front of its last
    token, unless the line holds a quotation mark.

        "if x:\\n"     True: the body is to come
        "x = (1,\\n"   True: so is the bracket
        "x = retu"     True: the name may go on
        "x = 'abc"     True
        "x = 'abc\\n"  False
        "x = ) + "     False

    Args:
      text: from the beginning of the program.
      language: the only one that is known is "python".

    Raises:
      InputError: for another language.
    """
    if language != "python":
        raise InputError(
            f"whether {language!r} can be continued is not known; give 'python'"
        )
    text = text.removeprefix("\ufeff")
    match = WHOLE_LINES.match(text)
    whole = match[0] if match else ""
    if not _parses_so_far(whole):
        return False
    tail = text[len(whole) :]
    begun = ENDS_OF_TOKENS.match(tail)
    if begun is None or "'" in tail or '"' in tail:
        return True
    # A backslash and the end of the text: the line goes on, and nothing says how.
    return _parses_so_far(whole + begun[0] + "\\\n")


def _parses_so_far(text: str) -> bool:
    """Whether the parser gets to the end of a text."""
    try:
        _compile(text, ast.PyCF_ONLY_AST | PyCF_ALLOW_INCOMPLETE_INPUT)
    except SyntaxError as error:
        return error.msg == "incomplete input"
    except RecursionError:
        return True  # it was parsed, and is too deep for a tree of Python objects
    except (ValueError, MemoryError):
        return False  # a byte that no source may hold; deeper than the parser goes
    return True
