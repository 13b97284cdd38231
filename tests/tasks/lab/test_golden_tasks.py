"""The same seed makes the same tasks, byte for byte, from one version to the next.

Models are trained and examined on these tasks, so published scores hold for them alone.
Whoever changes what a set is made of replaces its digest, and says so in the changelog.
"""

import dataclasses
import hashlib
import json
import random
from collections.abc import Iterator

import pytest

from seedjax.tasks.lab.everyday.draw import draw_everyday
from seedjax.tasks.lab.grammar.catalogue import primitives
from seedjax.tasks.lab.stream import LabConfig, draw_sample
from seedjax.tasks.lab.tasks import TASKS, Task, exam, make_tasks


def text_of(task: Task) -> list:
    """Everything of a task, in a fixed order and free of the names of fields."""
    return [
        *(task.problem_id, task.task, task.tier, task.slice, [*task.composition]),
        *(task.before, task.instruction, task.fault),
        *(task.prompt, task.reference, task.suffix),
        *(task.entry_point, task.test),
    ]


def catalogue() -> Iterator[tuple]:
    """Every primitive with its phrases, forms and constants, in the order of draws."""
    for primitive in primitives().values():
        yield dataclasses.astuple(primitive)


def training(seed: str) -> Iterator[list]:
    """A training stream: the lab's tasks, some with external names, everyday code."""
    config = LabConfig(seed=int(seed), names=0.2, everyday=0.3)
    for index in range(60):
        rng = random.Random(f"{seed}/{index}")
        yield text_of(draw_sample(config, rng, "train"))


def examined(seed: str) -> Iterator[list]:
    """Tasks of every kind and tier of the test split, with their tests."""
    return map(text_of, exam(2, seed=int(seed)))


def sliced(part: str) -> Iterator[list]:
    """Tasks of every kind of a slice of the test split."""
    for task in TASKS:
        made = make_tasks(task, 4, split="test", tier=None, seed=5, part=part)
        yield from map(text_of, made)


def everyday(kind: str, split: str) -> Iterator[list]:
    """Everyday tasks of one kind."""
    weights = [float(name == kind) for name in TASKS]
    for index in range(120):
        rng = random.Random(f"{kind}/{index}")
        yield text_of(draw_everyday(rng, split, weights))


SETS = {
    made.__name__: made for made in (catalogue, training, examined, sliced, everyday)
}
DIGESTS = {
    "catalogue": "e5881e520f2e0999a99d91bde142fd0f",
    "training 1": "efb0daed473a4d5086d58f05cb47ae34",
    "training 2": "36c084bac207ff94c75d478cdf7b49ed",
    "training 3": "de6f192cce0d462e4ab1e8623f8b5f5b",
    "examined 0": "22cfd5abaab9f4773205631be19f1d11",
    "examined 7": "d6902d89b8f53a1ae006afe464d0465f",
    "sliced paraphrase": "86a949dad10cade384ded6c89f715040",
    "sliced longer": "0318fdc22b6004923f600425ab32500c",
    "sliced names": "e8a8212cb2c1fe65273127b060d43ef8",
    "everyday generate train": "286228b794887aaff854c7b95fb6f30d",
    "everyday generate test": "03e215a71eab7296f1943e2d391fa979",
    "everyday infill train": "448f0140774b76acf37850a119d18704",
    "everyday infill test": "31d2aa0713cdc983c583c3dcf1c2f304",
    "everyday repair train": "23bf83c68a07df2067e730d305a70077",
    "everyday repair test": "e6bf30f9aaee46e938d81bb4c4613011",
    "everyday edit train": "ec64c2cbbe37a2d071ad79f2f11935b0",
    "everyday edit test": "87aa4e618d511d4da4190eb981eba5fe",
}


@pytest.mark.parametrize("called", DIGESTS)
def test_the_same_seed_makes_the_same_tasks(called):
    name, *arguments = called.split()
    made = "\n".join(map(json.dumps, SETS[name](*arguments)))
    assert hashlib.sha256(made.encode()).hexdigest()[:32] == DIGESTS[called]
