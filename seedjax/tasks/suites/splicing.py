"""Makes a whole program of a prompt and an answer, be the answer a continuation of the
prompt or, as chat models write, the whole function and what surrounds it."""

import re

from seedjax.tasks.languages import HEADERS, braces, closing_brace, definition
from seedjax.tasks.python_source import after_preamble, defines, parse

JAVA_PACKAGE = r"^\s*package [\w.]+;"
MAIN = r"^(?:int|void|fun|func)\s+main\s*\("


def as_whole_program(language: str, prompt: str, entry_point: str, answer: str) -> str:
    """Prompt and answer as one text, to which the test can be added."""
    defined = definition(language, entry_point).search(answer)
    if language == "python":
        return whole_python_program(prompt, entry_point, answer, defined is not None)
    if defined is None:
        return prompt + answer
    if language == "go":
        return with_go_imports(prompt, without_main(language, answer))
    lines = HEADERS.get(language)
    header = "".join(f"{line.strip()}\n" for line in headers(lines, prompt))
    if language in ("java", "csharp", "scala"):
        return in_class(language, prompt, header, answer, defined.start())
    if language == "php":
        answer = re.sub(r"<\?php|\?>", "", answer)
    return f"{header}{without_main(language, answer)}\n"


def whole_python_program(
    prompt: str, entry_point: str, answer: str, looks_whole: bool
) -> str:
    """A whole answer after what stands before the function in the prompt, a
    continuation after the prompt; which of them one is that Python cannot parse,
    `looks_whole` says."""
    parsed = parse(answer) is not None
    if not (defines(answer, entry_point) if parsed else looks_whole):
        return prompt + answer
    begun = definition("python", entry_point).search(prompt)
    return after_preamble(prompt[: begun.start()] if begun else prompt, answer)


def headers(pattern: str | None, text: str) -> list[str]:
    return re.findall(pattern, text, re.M) if pattern else []


def in_class(language: str, prompt: str, header: str, answer: str, place: int) -> str:
    """Where functions live in classes, of which the prompt opens the one that the test
    calls or, in C# and Scala, continues."""
    pattern = HEADERS[language]
    own = "".join(f"{line.strip()}\n" for line in headers(pattern, answer))
    opening = re.search(r"^.*\b(?:class|object) \w+[^{]*\{", prompt, re.M | re.S)
    around = prompt[: opening.end()] if opening else ""
    around = re.sub(pattern, "", around, flags=re.M)
    if language == "java":
        bare = re.sub(JAVA_PACKAGE + "|" + pattern, "", answer, flags=re.M)
        if re.search(r"\bclass \w+", bare[: bare.find("(")]):
            return header + in_one_java_file(answer)
        return f"{header}{own}{around}\n{bare}\n}}\n"
    return f"{header}{own}{around}\n{block_around(language, answer, place)}\n"


def in_one_java_file(code: str) -> str:
    """Imports first, no package, and no public type: the only one that a file may have
    would have to bear its name."""
    own = "".join(f"{line.strip()}\n" for line in headers(HEADERS["java"], code))
    bare = re.sub(JAVA_PACKAGE + "|" + HEADERS["java"], "", code, flags=re.M)
    public = (
        r"^public (?=(?:final |abstract |sealed )*(?:class|interface|enum|record)\b)"
    )
    return own + re.sub(public, "", bare, flags=re.M)


def block_around(language: str, text: str, place: int) -> str:
    """The text between the innermost braces around `place`; all of it if none do."""
    opened: list[int] = []
    for at, brace in braces(language, text):
        if at >= place:
            break
        if brace == "{":
            opened.append(at)
        elif opened:
            opened.pop()
    if not opened:
        return text
    return text[opened[-1] + 1 : closing_brace(language, text, opened[-1])]


def without_main(language: str, answer: str) -> str:
    """The test brings a main function of its own."""
    found = re.search(MAIN, answer, re.M)
    if found is None:
        return answer
    opening = answer.find("{", found.end())
    if opening < 0:
        return answer
    closing = closing_brace(language, answer, opening)
    return answer[: found.start()] + ("" if closing is None else answer[closing + 1 :])


GO_TEXTS = re.compile(  # literals and comments, in which nothing is used
    r'"(?:\\.|[^"\\\n])*"|`[^`]*`|'
    r"'(?:\\.|[^'\\\n])+'|"
    r"//[^\n]*|/\*.*?\*/",
    re.S,
)


def with_go_imports(prompt: str, answer: str) -> str:
    """Go allows only imports that are used: those of the prompt, which the test uses,
    and what the rest of the answer uses of its own."""
    block = r"^import\s*(?:\(([^)]*)\)|(.*))$"
    rest = re.sub(block + r"|^package .*$", "", answer, flags=re.M)
    used = GO_TEXTS.sub(" ", rest)
    needed: dict[str, None] = {}
    for text, kept in ((prompt, True), (answer, False)):
        for several, one in re.findall(block, text, re.M):
            for path in re.findall(r'"([^"]+)"', several or one):
                name = path.rpartition("/")[2]
                if kept or re.search(rf"\b{re.escape(name)}\.", used):
                    needed[path] = None
    imports = "".join(f'\t"{path}"\n' for path in needed)
    return f"package main\n\nimport (\n{imports})\n{rest}\n"
