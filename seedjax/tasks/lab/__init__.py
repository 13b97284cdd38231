"""Verifiable coding tasks, made by a generator, on which a small model can be trained
and tested in minutes.

    grammar ──▶ plan ──▶ program ──▶ task ──┬▶ stream    batches to train on
                                            └▶ file      JSON lines to test on

The `grammar` holds primitives, which `compose` chains where their types fit. A chain
with its forms, names and constants is a plan; `programs` writes it out as a function
with a docstring that says what it computes (`classes` makes small classes beside). Of
a program `tasks` makes a task: to write it, to fill one of its `holes`, to mend it
after a mutation (`mutate`), to change it by an instruction (`changes`). What the tests
expect was found by running the program (`checks`), and `structure` decides which split
it belongs to.

    task = make_task("repair", 0, split="test", tier=2)
    print(task.before, task.instruction, task.reference, task.test)
"""

from seedjax.tasks.lab.tasks import (
    TASKS,
    Task,
    make_task,
    make_tasks,
    read_tasks,
    write_tasks,
)

__all__ = ["TASKS", "Task", "make_task", "make_tasks", "read_tasks", "write_tasks"]
