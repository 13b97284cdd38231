"""Everyday code: programs do what their checks say, tasks are what they claim, and none
comes near a held-out prompt."""

import ast
import random
import re

import pytest

from seedjax.data.decontaminate import (
    EVERYDAY,
    WORD,
    _installed,
    everyday_fingerprints,
)
from seedjax.tasks.lab.blocks import data_phrases
from seedjax.tasks.lab.everyday import edits, signature_edits
from seedjax.tasks.lab.everyday.concepts import (
    PACKAGE,
    choices_of,
    concepts,
    draw_snippet,
    read_concepts,
)
from seedjax.tasks.lab.everyday.draw import draw_everyday, is_held_out, split_of
from seedjax.tasks.lab.everyday.layouts import methods, third_person
from seedjax.tasks.lab.everyday.runs import fault_of, memory_open, raises
from seedjax.tasks.lab.tasks import TASKS, Task
from seedjax.tasks.suites import everyday as held_out

EVENLY = (1.0, 1.0, 1.0, 1.0)


def drawn(count, split="train", weights=EVENLY, seed=0):
    rngs = (random.Random(f"{seed}/{n}") for n in range(count))
    return [draw_everyday(rng, split, weights) for rng in rngs]


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return drawn(300)


def snippets(count):
    for concept in concepts().values():
        for number in range(count):
            rng = random.Random(f"{concept.name}/{number}")
            yield draw_snippet(concept, rng, choices_of(concept, rng), external=0.2)


def test_programs_do_what_their_checks_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for snippet in snippets(2):
        assert snippet.checks
        for body in (snippet.body, *(code for _, code in snippet.others)):
            source = snippet.head + body
            if not snippet.concept.real:
                files = dict(snippet.concept.files)
                assert fault_of(source, snippet.checks, files) is None, source
                continue
            for name, text in snippet.concept.files:
                (tmp_path / name).write_text(text)
            space: dict = {}
            exec(source, space)
            assert all(eval(check, space) for check in snippet.checks), source


def test_checks_tell_other_programs_apart():
    """A check that every program passes would prove nothing."""
    for snippet in snippets(2):
        if snippet.concept.kind == "function" and not snippet.concept.real:
            body = "    return 'something else'\n"
            files = dict(snippet.concept.files)
            assert fault_of(snippet.head + body, snippet.checks, files) is not None


def test_all_topics_and_kinds_come(tasks):
    topics = {task.composition[0].partition("/")[0] for task in tasks}
    assert topics == {
        *("strings", "numbers", "lists", "dicts"),
        *("files", "dates", "classes", "scripts"),
    }
    assert {task.task for task in tasks} == set(TASKS)
    prompts = [task.prompt for task in tasks if task.task == "generate"]
    for form in ('"""', "    # ", "Args:", ">>> ", ":param ", "def test_", "class "):
        assert any(form in prompt for prompt in prompts), form
    assert any(not prompt.endswith("\n") for prompt in prompts)
    assert any(prompt.startswith("# ") for prompt in prompts)
    assert any("->" not in p and re.search(r"\w+: list\[int\]", p) for p in prompts)


def test_tasks_are_python_and_ask_for_something(tasks):
    for task in tasks:
        ast.parse(task.source(task.reference))
        if task.before:
            assert task.before != task.reference and task.instruction
        else:
            assert task.reference.strip()
        if task.task == "edit":
            ast.parse(task.before)


def test_every_kind_of_edit_has_programs_and_every_table_a_kind():
    rng = random.Random(0)
    (other,) = (s for s in snippets(1) if s.concept.name == "lists/dot_product")
    made = set()
    for snippet in snippets(3):
        for name in sorted({edits.draw_kind(rng) for _ in range(6)}):
            edit = edits.draw_edit(rng, name, snippet, other)
            if edit is not None:
                assert edit.before != edit.after and edit.instruction
                made.add(edit.kind)
    named = [name for name in data_phrases(PACKAGE) if name.startswith("edit ")]
    assert made == {name.removeprefix("edit ") for name in named}


def test_a_task_is_a_function_of_its_seed():
    assert drawn(20, seed=3) == drawn(20, seed=3)
    assert drawn(20, seed=3) != drawn(20, seed=4)


def test_repairs_mend_what_fails():
    for task in drawn(60, weights=(0.0, 0.0, 1.0, 0.0)):
        (concept,) = (concepts()[name] for name in task.composition)
        if concept.kind == "function":
            assert fault_of(task.reference, (), {}) is None
            if "SyntaxError" in task.instruction:
                with pytest.raises(SyntaxError):
                    ast.parse(task.before)


def test_held_out_combinations_are_not_trained_on():
    held = [
        (concept, choices)
        for concept in concepts().values()
        for n in range(20)
        for choices in [choices_of(concept, random.Random(n))]
        if split_of(concept, choices) == "test"
    ]
    assert len(held) > 50
    train = {task.composition[0] for task in drawn(150)}
    assert train > {task.composition[0] for task in drawn(40, "test")} & train != set()


def words(*texts):
    return WORD.findall(" ".join(texts).lower())


def runs(text):
    found = words(text)
    return {tuple(found[n : n + 10]) for n in range(len(found) - 9)}


def test_no_held_out_prompt_is_trained_on(tasks):
    """Compared word by word, not by the fingerprints that the generator itself uses."""
    rows = held_out.rows()
    asked = {
        tuple(words(*(r.get(k, "") for k in ("prompt", "suffix", "before")), o))
        for r in rows
        for o in [r.get("instruction", "")]
    }
    known = set()
    for row in rows:
        whole = f"{row.get('prompt', '')}{row['answer']}{row.get('suffix', '')}"
        known |= runs(whole) | runs(row.get("before", ""))
    # Runs of digits alone are no leak.
    known = {run for run in known if sum(not w.isdigit() for w in run) >= 4}
    for task in tasks:
        prompt = words(task.prompt, task.suffix, task.before, task.instruction)
        assert tuple(prompt) not in asked
        shared = known & (runs(task.source(task.reference)) | runs(task.before))
        assert not shared, (shared, task.prompt, task.before)


def test_held_out_prompts_would_be_seen():
    for row in held_out.rows():
        fields = {k: row.get(k, "") for k in ("prompt", "suffix", "before")}
        task = Task(
            problem_id="",
            entry_point="",
            test="",
            reference=row["answer"],
            task="generate",
            tier=0,
            slice="standard",
            instruction=row.get("instruction", ""),
            **fields,
        )
        assert is_held_out(task), row["id"]


def test_fingerprints_are_those_of_the_prompts():
    """scripts/make_eval_fingerprints.py everyday"""
    made = everyday_fingerprints(held_out.rows())
    assert made.tolist() == _installed(EVERYDAY).tolist()


def test_files_that_cannot_be_read_say_where():
    with pytest.raises(ValueError, match="twice: cannot read 'what is this'"):
        read_concepts("== twice\nwhat is this\n")
    with pytest.raises(ValueError, match="rows of other lengths"):
        read_concepts("== twice\nlet a, b = 1 ~ 2 || 3\n")


@pytest.mark.parametrize(
    ("source", "renamed"),
    [
        ("def f(r):\n    return r * r\n", "def f(new):\n    return new * new\n"),
        ("x = r.r + rr\n", "x = new.r + rr\n"),
        ('print(f"r: {r}, {r + 1}")\n', 'print(f"r: {new}, {new + 1}")\n'),
        ('print("r")  # r\n', 'print("r")  # r\n'),
    ],
)
def test_renaming_keeps_to_names(source, renamed):
    assert signature_edits.rename(source, "r", "new") == renamed


def test_methods_are_found_with_what_precedes_them():
    body = (
        "    def a(self):\n        return 1\n\n"
        '    @property\n    def b(self):\n        """B."""\n        return 2\n'
    )
    parts = methods(body)
    assert "".join(before + inside for before, inside in parts) == body
    assert [inside.strip() for _, inside in parts] == ["return 1", "return 2"]


def test_verbs_are_put_into_the_third_person():
    assert third_person("push it") == "pushes it"
    assert third_person("copy") == "copies"
    assert third_person("display a") == "displays a"
    assert third_person("turn a") == "turns a"


def test_files_in_memory():
    files = {"a": "x\n"}
    open_file = memory_open(files)
    with open_file("a", "a") as file:
        file.write("y\n")
    assert files["a"] == "x\ny\n" and [*open_file("a")] == ["x\n", "y\n"]
    assert raises(OSError, lambda: open_file("a").write("z"))
    assert raises(FileNotFoundError, lambda: open_file("b"))
    assert raises(ValueError, lambda: open_file("b", "q"))
    assert not raises(ValueError, lambda: open_file("b", "w"))
