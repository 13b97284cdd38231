"""Task files: what is written comes back, and faults are told with their line."""

import json

import pytest
from samples import all_tasks

from seedjax.errors import InputError
from seedjax.tasks.lab import read_tasks, write_tasks

HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": "def f(x):\n",
    "entry_point": "f",
    "test": "def check(candidate):\n    assert candidate(1) == 1\n",
    "canonical_solution": "    return x\n",
}


def test_tasks_come_back(tmp_path):
    tasks = all_tasks("train", "standard", 6)
    assert write_tasks(tmp_path / "tasks.jsonl", tasks) == 24
    assert read_tasks(tmp_path / "tasks.jsonl") == tasks
    lines = (tmp_path / "tasks.jsonl").read_text(encoding="utf-8").splitlines()
    for line, task in zip(lines, tasks, strict=True):
        fields = json.loads(line)
        assert fields.keys() >= HUMANEVAL.keys() | {"tier", "slice", "task"}
        assert ("suffix" in fields) == bool(task.suffix)
        assert ("before" in fields) == (task.task in ("repair", "edit"))


def test_humanevals_own_lines_are_read(tmp_path):
    path = tmp_path / "tasks.jsonl"
    odd = {**HUMANEVAL, "prompt": "# é \u2028 \u0085\n"}
    more = {**HUMANEVAL, "something": "else"}
    lines = [json.dumps(fields, ensure_ascii=False) for fields in (odd, more)]
    path.write_text("\n\n".join(lines), encoding="utf-8")
    first, second = read_tasks(path)
    assert (first.task, first.tier, first.slice) == ("generate", 0, "standard")
    assert first.prompt == odd["prompt"]
    assert second.source("    return 1\n") == "def f(x):\n    return 1\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": None}, "the field 'test' is not a text"),
        ({"suffix": 3}, "the field 'suffix' is not a text"),
        ({"tier": "2"}, "the field 'tier' is not a number"),
        ({"composition": "sum"}, "the field 'composition' is not a list"),
        ({"task": "write"}, "unknown task 'write'; there are generate, infill"),
        ({"slice": "easy"}, "unknown slice 'easy'; there are standard"),
        ({"task": "repair"}, "the field 'before' is missing"),
    ],
)
def test_unfit_fields_are_told_with_their_line(tmp_path, change, message):
    path = tmp_path / "tasks.jsonl"
    lines = [json.dumps(HUMANEVAL), json.dumps(HUMANEVAL | change)]
    path.write_text("\n".join(lines))
    with pytest.raises(InputError) as caught:
        read_tasks(path)
    assert str(caught.value).startswith(f"{path}:2: ") and message in str(caught.value)


@pytest.mark.parametrize("field", sorted(HUMANEVAL))
def test_missing_fields_are_told_with_their_line(tmp_path, field):
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps({k: v for k, v in HUMANEVAL.items() if k != field}))
    with pytest.raises(InputError, match=f"jsonl:1: the field {field!r} is missing"):
        read_tasks(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{]\n", ":1: not JSON"),
        (b"[1, 2]\n", r":1: it must be a JSON object, got \[1, 2\]"),
        (b"", "holds no tasks"),
        (b"\n\n", "holds no tasks"),
        (
            b'{"task_id": "\xe9"}\n',
            ":1: byte 13 of the line is 0xe9",
        ),
    ],
)
def test_what_is_no_task_file_is_refused(tmp_path, content, message):
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_tasks(path)


def test_missing_files_and_folders_are_told(tmp_path):
    with pytest.raises(InputError, match="no file .* `seedjax lab make`"):
        read_tasks(tmp_path / "nothing.jsonl")
    with pytest.raises(InputError, match="is no folder; make it first"):
        write_tasks(tmp_path / "nowhere" / "tasks.jsonl", [])
    with pytest.raises(InputError, match="is a folder; name a file"):
        write_tasks(tmp_path, [])
