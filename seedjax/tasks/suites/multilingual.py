"""MBXP and multilingual HumanEval (Athiwaratkun et al., "Multi-lingual Evaluation of
Code Generation Models", 2023): MBPP and HumanEval turned into twelve other languages.

A program is prompt, answer and test in one file, compiled within 100 s and run within
15 s, as the original harness does. What differs here: the program must print a secret
at the end of its test, so that an answer which ends the process early does not pass;
TypeScript passes where the emitted JavaScript does, however many errors its compiler
reports (the original wants the compiler to fail); C# is compiled by Mono, and the two
comparing libraries which tests import (lodash and CompareNetObjects), as well as Perl's
Data::Compare, are stood in for by what comparing.py holds.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedjax.sandbox.sandbox import Program
from seedjax.sandbox.script import Script
from seedjax.tasks.suite import Problem, Rule, Source, Suite
from seedjax.tasks.suites.exceptions import exceptions
from seedjax.tasks.suites.rows import read_rows
from seedjax.tasks.suites.splicing import as_whole_program
from seedjax.tasks.suites.stand_ins import comparing

PROJECT = "github.com/amazon-science/mxeval"
COMMIT = "e09974f990eeaf0c0e8f2b5eaff4be66effb2c86"
RAW = f"https://raw.githubusercontent.com/amazon-science/mxeval/{COMMIT}/data/"

END_MARK = "seedjax-end-of-test"
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")


@dataclass(frozen=True, kw_only=True)
class Language:
    """How the sets write one language. `closers` is what an answer ends with, `body`
    one that compiles and is wrong."""

    title: str
    mbxp: tuple[str, int, str]  # file, problems, SHA-256 of its contents
    humaneval: tuple[str, int, str] | None
    end: str = ""  # the statement that prints the secret
    # How many of the braces that end the test come after it.
    behind: int = 0
    body: str = ""
    closers: str = "}\n"
    extraction: Rule = "braces"
    stop: tuple[str, ...] = ()


LANGUAGES: dict[str, Language] = {
    "python": Language(
        title="Python",
        mbxp=(
            "mbpp_release_v1",
            974,
            "2ea7949f20ed5ecaacf4c9970d29430ec3f13772f4dd379665b1234f14b0ec3e",
        ),
        humaneval=(
            "HumanEval",
            164,
            "ee8ed1495a18a21d3c285c031d38940e3208f1616dc386a32a8d28e968fe94d8",
        ),
        extraction="function",
        stop=STOPS,
    ),
    "java": Language(
        title="Java",
        mbxp=(
            "mbjp_release_v1.2",
            966,
            "139a0fcdff2f4c6d456c546c82f43a1f389dfe3125f5f2c3f6a12f478483dffd",
        ),
        humaneval=(
            "HumanEval_java_v1.1",
            161,
            "2373bd083b7be445a5273add8a932e0fea3d1e3c1a59d55beba369e90e5d0d02",
        ),
        end='System.out.println("{mark}");',
        behind=2,
        body="        throw new RuntimeException();\n",
        closers="    }\n}\n",
    ),
    "cpp": Language(
        title="C++",
        mbxp=(
            "mbcpp_release_v1.2",
            848,
            "34a842515927e230eb2bd6e409a44c80a852b0afcbe1172786bd08cfef8b85b0",
        ),
        humaneval=None,
        end='puts("{mark}");',
        behind=1,
        body="    throw 1;\n",
    ),
    "csharp": Language(
        title="C#",
        mbxp=(
            "mbcsp_release_v1.2",
            968,
            "e11db33a6c5582a5c8d548ef75a23f0307540a765f889dcd2b7d13e99ea538e4",
        ),
        humaneval=(
            "HumanEval_csharp_v1",
            161,
            "fd8b4981c4ae4daadbe06f082cf0ef91b060851bf715faa461d0db23d20a2364",
        ),
        end='Console.WriteLine("{mark}");',
        behind=3,
        body="            throw new Exception();\n",
        closers="        }\n",
    ),
    "typescript": Language(
        title="TypeScript",
        mbxp=(
            "mbtsp_release_v1.2",
            968,
            "7c4fbf66cd8189d5f3f6a78ce201782571d083a1d89ee3730c0235317d44d769",
        ),
        humaneval=(
            "HumanEval_typescript_v1",
            161,
            "6039fe3b75bd1670702bab22ebb21b8c29ac29fa91211d7d9e59b13ae581b7a7",
        ),
        end='console.log("{mark}");',
        body="    throw new Error();\n",
    ),
    "javascript": Language(
        title="JavaScript",
        mbxp=(
            "mbjsp_release_v1.2",
            966,
            "9e443a1911bcedd8b5193f43d3217666fbf669cd00d54265941a8eb17e396f5a",
        ),
        humaneval=(
            "HumanEval_javascript_v1.1",
            161,
            "cbd4421a18387fcf791a047e2904e1ff8287b11fede50a7fb5e3cd3814cb1653",
        ),
        end='console.log("{mark}");',
        body='  return Symbol("wrong");\n',
    ),
    "php": Language(
        title="PHP",
        mbxp=(
            "mbphp_release_v1.2",
            966,
            "aec706039e49bc1bd1c9aaf4cf4815a34777b8387bdc59c1b274312071f3a605",
        ),
        humaneval=(
            "HumanEval_php_v1.1",
            161,
            "f1ef51aec5418c01bef60177ea3e3c907bcf55528c77e33a1ebbe83f739a67f5",
        ),
        end='echo "{mark}";',
        body="    throw new Exception();\n",
    ),
    "go": Language(
        title="Go",
        mbxp=(
            "mbgp_release_v1.1",
            939,
            "90f519222a4c45bdbed8309076433d2f573c6f37329a848581fa789839b67da8",
        ),
        humaneval=(
            "HumanEval_go_v1",
            160,
            "b3797a20b951627d67dec749cc1954e4a151cf0096d1649f96d62597a76a47af",
        ),
        end='println("{mark}")',
        behind=1,
        body='\tpanic("wrong")\n',
    ),
    "kotlin": Language(
        title="Kotlin",
        mbxp=(
            "mbkp_release_v1.2",
            966,
            "54969bac04fddaad74f78b7aa591348d3f010af2b2325f3db0e5a4f9b9154367",
        ),
        humaneval=(
            "HumanEval_kotlin_v1.1",
            161,
            "1324d829effc94e0cb603be8833537f00b5597fcd152fe2d06b623e622feb458",
        ),
        end='println("{mark}")',
        behind=1,
        body="    throw Exception()\n",
    ),
    "perl": Language(
        title="Perl",
        mbxp=(
            "mbplp_release_v1",
            966,
            "1293f40e442bda81f1d39ab3769ab8136dfc823f7b41420294c1a1d3bf1d2b2f",
        ),
        humaneval=(
            "HumanEval_perl_v1.1",
            161,
            "2d084582af233b5a0eeac1670c9e577915f61852dc974348e87f39425b031981",
        ),
        end='print "{mark}";',
        body='    die "wrong";\n',
    ),
    "ruby": Language(
        title="Ruby",
        mbxp=(
            "mbrbp_release_v1.2",
            966,
            "fe8c043b7d56f5d122c6aaf24e1dcb78816175a0687a73c03873043a6349b85d",
        ),
        humaneval=(
            "HumanEval_ruby_v1.1",
            161,
            "08562903613e277d36eb4d3d793c90ce2191ac9ccac96f1ff31d1550134be880",
        ),
        end='puts "{mark}"',
        body="  return :wrong\n",
        closers="end\n",
        extraction="continuation",
        stop=("\ndef ", "\nclass ", "\n#", "\nputs", "\nirb>"),
    ),
    "scala": Language(
        title="Scala",
        mbxp=(
            "mbscp_release_v1",
            966,
            "e690daa347855a0da4fcd0652894b1db4e6a561c24e9824c40c629158ed94bec",
        ),
        humaneval=(
            "HumanEval_scala_v1.1",
            161,
            "8fcd9ab950dfcd293d1acfd1d26f31b84e554926765a22c1375c6a0ffa82413b",
        ),
        end='println("{mark}")',
        behind=1,
        body="        throw new Exception()\n",
        closers="    }\n",
    ),
    "swift": Language(
        title="Swift",
        mbxp=(
            "mbswp_release_v1",
            966,
            "b390ee15df6170386e5f5771f227ef4df3ea7eb994b09d39ecec888e77daefc9",
        ),
        humaneval=(
            "HumanEval_swift_v1.1",
            161,
            "b0de1f4a223d9830c9ffc34eb313aa0a54d5565a6b71b2f88cab67f6db8ccfe0",
        ),
        end='print("{mark}")',
        body='    fatalError("wrong")\n',
    ),
}

# With what the ids of MBXP's problems begin.
PREFIXES = {
    "python": "MBPP",
    "java": "MBJP",
    "cpp": "MBCPP",
    "csharp": "MBCSP",
    "typescript": "MBTSP",
    "javascript": "MBJSP",
    "php": "MBPHP",
    "go": "MBGP",
    "kotlin": "MBKP",
    "perl": "MBPLP",
    "ruby": "MBRBP",
    "scala": "MBSCP",
    "swift": "MBSWP",
}

QUESTION = (
    "Complete this {title} function. Answer with the whole function in one fenced code "
    "block, without tests.\n\n```{language}\n{prompt}\n```"
)


def read(path: Path, language: str) -> list[Problem]:
    return [problem_of(row, language) for row in read_rows(path)]


def problem_of(row: dict[str, Any], language: str) -> Problem:
    title = LANGUAGES[language].title
    prompt = row["prompt"]
    return Problem(
        problem_id=row["task_id"],
        prompt=prompt,
        question=QUESTION.format(
            title=title, language=language, prompt=prompt.strip("\n")
        ),
        reference=row.get("canonical_solution"),
        language=language,
        data={"entry_point": row["entry_point"], "test": row["test"]},
    )


def program(problem: Problem, answer: str) -> Program | Script:
    entry, test = problem.data["entry_point"], problem.data["test"]
    source = as_whole_program(problem.language, problem.prompt, entry, answer)
    if problem.language == "python":
        # The helpers and imports of some tests are what stands before the function.
        before = re.split(rf"^def {entry}\b", problem.prompt, flags=re.M)[0]
        return Program(source=source, test=f"{before}\n{test}", entry_point=entry)
    return Script(
        language=problem.language,
        source=source + with_end_mark(test, LANGUAGES[problem.language]),
        files=comparing(problem.language),
        end_mark=END_MARK,
    )


def with_end_mark(test: str, language: Language) -> str:
    """The test, the last statement of which prints the mark."""
    statement = "\n" + language.end.format(mark=END_MARK) + "\n"
    place = len(test)
    for _ in range(language.behind):
        place = test.rindex("}", 0, place)
    # C++ returns before the brace.
    last = re.search(r"return 0;\s*$", test[:place])
    place = last.start() if last else place
    return test[:place] + statement + test[place:]


def wrong(problem: Problem) -> str:
    language = LANGUAGES[problem.language]
    if problem.language == "python":
        # Prompts indent by two or by four.
        indents = re.findall(r'^([ \t]+)(?:"""|\'\'\')', problem.prompt, re.M)
        return (indents[-1] if indents else "    ") + "return object()\n"
    return language.body + language.closers


def suite(
    name: str,
    title: str,
    family: str,
    language: str,
    folder: str,
    file: tuple[str, int, str],
    licence: str,
) -> Suite:
    known = LANGUAGES[language]
    stem, count, checksum = file
    path = f"{folder}/{stem}.jsonl.gz"
    return Suite(
        name=name,
        title=f"{title}, {known.title}",
        family=family,
        task="complete",
        source=Source(
            project=PROJECT,
            version=COMMIT,
            licence=licence,
            address=f"https://{PROJECT}/tree/{COMMIT}/data/{folder}",
            files={path: checksum},
            urls={path: f"{RAW}{folder}/{stem}.jsonl"},
        ),
        num_problems=count,
        language=language,
        stop=known.stop,
        extraction=known.extraction,
        wall_seconds=15.0,
        read=Reader(path, language),
        program=program,
        wrong=wrong,
        exceptions=exceptions(f"{folder}.{language}", f"{PREFIXES[language]}/"),
    )


@dataclass(frozen=True)
class Reader:
    path: str
    language: str

    def __call__(self, folder: Path) -> list[Problem]:
        return read(folder / self.path, self.language)


SUITES = tuple(
    [
        suite(
            f"mbxp_{name}",
            "MBXP",
            "MBXP",
            name,
            "mbxp",
            language.mbxp,
            "CC-BY-4.0",
        )
        for name, language in LANGUAGES.items()
    ]
    + [
        suite(
            f"humaneval_{name}",
            "Multilingual HumanEval",
            "Multilingual HumanEval",
            name,
            "multilingual_humaneval",
            language.humaneval,
            "MIT",
        )
        for name, language in LANGUAGES.items()
        if language.humaneval is not None
    ]
)
