"""Whether a text may be the beginning of a program, so that a sampler need not keep
what no continuation can mend.

Python's own parser is asked, in the mode in which the interactive prompt asks it
whether more lines are needed (`codeop`). It reads no further than it must: an error
that it reports before it has reached the end of the text stays one, whatever follows.
What it says of the end itself does not count.

Nothing is executed, and only the grammar is judged. What the compiler finds later, such
as a `return` outside of a function, passes.
"""

import ast
import re
import warnings
from codeop import PyCF_ALLOW_INCOMPLETE_INPUT  # type: ignore[attr-defined]

from seedjax.errors import InputError

# A line break behind a backslash does not end a line.
WHOLE_LINES = re.compile(r"(?:.*[^\\\r])?(?:\r\n?|\n)", re.DOTALL)
# Behind these no token goes on, except inside of a string.
ENDS_OF_TOKENS = re.compile(r".*[ \t()\[\]{},;]", re.DOTALL)


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
        raise InputError(f"language {language!r} cannot be checked; give 'python'")
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
    flags = ast.PyCF_ONLY_AST | PyCF_ALLOW_INCOMPLETE_INPUT
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, "<answer>", "exec", flags, dont_inherit=True)
    except SyntaxError as error:
        return error.msg == "incomplete input"
    except RecursionError:
        return True  # it was parsed, and is too deep for a tree of Python objects
    except (ValueError, MemoryError):
        return False  # a byte that no source may hold; deeper than the parser goes
    return True
