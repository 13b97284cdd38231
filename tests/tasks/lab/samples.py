"""Tasks that several tests look at, made once."""

from functools import cache

from seedjax.tasks.lab import TASKS, Task, make_tasks

PARTS = [
    ("train", "standard"),
    ("test", "standard"),
    ("test", "paraphrase"),
    ("test", "longer"),
    ("train", "names"),
    ("test", "names"),
]


@cache
def sample(task, split, part, count: int = 9) -> list[Task]:
    """The first tasks of a set, all tiers in turns."""
    return [*make_tasks(task, count, split=split, tier=None, seed=0, part=part)]


def all_tasks(split, part, count: int = 9) -> list[Task]:
    """The first tasks of each kind."""
    return [made for task in TASKS for made in sample(task, split, part, count)]
