"""Makes a whole program of a prompt and an answer, be the answer a continuation of the
prompt or, as chat models write, the whole function and what surrounds it."""

import re

# How a function's definition begins; NAME stands for its name.
TYPED = r"^[ \t]*(?!return\b|else\b|throw\b|new\b)(?:[\w:<>\[\],&?]+[ \t]+)+NAME\s*\("
DEFINITIONS = {
    "python": r"^(?:async )?def NAME\b|^class NAME\b",
    "javascript": r"\bfunction NAME\b|^(?:const|let|var) NAME\b",
    "typescript": r"\bfunction NAME\b|^(?:export )?(?:const|let|var) NAME\b",
    "php": r"\bfunction NAME\b",
    "ruby": r"^\s*def (?:self\.)?NAME\b",
    "perl": r"^\s*sub NAME\b",
    "go": r"^func NAME\b",
    "kotlin": r"^\s*fun (?:<.*> )?NAME\b",
    "scala": r"^\s*def NAME\b",
    "swift": r"^\s*func NAME\b",
    "java": TYPED,
    "csharp": TYPED,
    "cpp": TYPED,
}
# Lines that stand before everything else.
HEADERS = {
    "java": r"^\s*import (?:static )?[\w.* ]+;",
    "csharp": r"^\s*using [\w.]+;",
    "cpp": r"^\s*(?:#include.*|using namespace std;)",
    "typescript": r"^\s*import .*",
    "php": r"^\s*<\?php",
    "scala": r"^\s*import [\w._{}, ]+",
}
JAVA_PACKAGE = r"^\s*package [\w.]+;"
MAIN = r"^(?:int|void|fun|func)\s+main\s*\("


def as_whole_program(language: str, prompt: str, entry_point: str, answer: str) -> str:
    """Prompt and answer as one text, to which the test can be added."""
    pattern = DEFINITIONS[language].replace("NAME", re.escape(entry_point))
    defined = re.search(pattern, answer, re.M)
    if defined is None:
        return prompt + answer
    if language == "python":
        return f"{prompt}\n{answer}"  # a prompt is a whole function without a body
    if language == "go":
        return with_go_imports(prompt, without_main(answer))
    lines = HEADERS.get(language)
    header = "".join(f"{line.strip()}\n" for line in headers(lines, prompt))
    if language in ("java", "csharp", "scala"):
        return in_class(language, prompt, header, answer, defined.start())
    if language == "php":
        answer = re.sub(r"<\?php|\?>", "", answer)
    return f"{header}{without_main(answer)}\n"


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
    return f"{header}{own}{around}\n{block_around(answer, place)}\n"


def in_one_java_file(code: str) -> str:
    """Imports first, no package, and no public type: the only one that a file may have
    would have to bear its name."""
    own = "".join(f"{line.strip()}\n" for line in headers(HEADERS["java"], code))
    bare = re.sub(JAVA_PACKAGE + "|" + HEADERS["java"], "", code, flags=re.M)
    public = (
        r"^public (?=(?:final |abstract |sealed )*(?:class|interface|enum|record)\b)"
    )
    return own + re.sub(public, "", bare, flags=re.M)


def block_around(text: str, place: int) -> str:
    """What stands between the innermost braces around `place`; all of it if none do."""
    depth, start = 0, place
    while start > 0:
        start -= 1
        depth += (text[start] == "}") - (text[start] == "{")
        if depth < 0:
            return text[start + 1 : closing_brace(text, start)]
    return text


def closing_brace(text: str, opening: int) -> int:
    """The place of the brace that closes the one at `opening`."""
    depth = 0
    for place in range(opening, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return place
    return len(text)


def without_main(answer: str) -> str:
    """The test brings a main function of its own."""
    found = re.search(MAIN, answer, re.M)
    if found is None:
        return answer
    opening = answer.find("{", found.end())
    if opening < 0:
        return answer
    return answer[: found.start()] + answer[closing_brace(answer, opening) + 1 :]


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
    wanted: dict[str, None] = {}
    for text, kept in ((prompt, True), (answer, False)):
        for several, one in re.findall(block, text, re.M):
            for path in re.findall(r'"([^"]+)"', several or one):
                name = path.rpartition("/")[2]
                if kept or re.search(rf"\b{re.escape(name)}\.", used):
                    wanted[path] = None
    imports = "".join(f'\t"{path}"\n' for path in wanted)
    return f"package main\n\nimport (\n{imports})\n{rest}\n"
