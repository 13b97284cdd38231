"""Splits: no tested syntax tree occurs in training, and slices are what they say.

The proof has two halves. A tree is of one split by its hash; and whatever training
shows, references and faulty programs alike, has only trees of "train", whatever the
test split asks for has a tree of "test". The second half is checked here on samples;
in the code it is `is_allowed` and `_is_fair_mutant`, which all draws go through.
"""

import random
import re
from functools import cache

import numpy as np
import pytest
from samples import sample

from seedjax.tasks.lab import TASKS, Task, make_task, tasks, vocabulary
from seedjax.tasks.lab.classes import draw_class
from seedjax.tasks.lab.compose import LONGER, LONGEST_TRAINED, is_allowed
from seedjax.tasks.lab.grammar.catalogue import primitives
from seedjax.tasks.lab.structure import split_of_composition, split_of_tree, structure
from seedjax.tasks.lab.wording import Wording, phrases


@cache
def drawn(split, part, count: int) -> list[Task]:
    """The first tasks of each kind, with tests only where they cannot do without."""
    return [
        make_task(task, index, split=split, part=part, num_tests=0)
        for task in TASKS
        for index in range(count)
    ]


def reference(task: Task) -> str:
    return task.source(task.reference)


def shown(task: Task) -> list[str]:
    """Every program that a task shows."""
    return [reference(task), *([task.before] if task.before else [])]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["standard", "names"])
def test_training_shows_only_trees_of_its_own(part):
    for made in drawn("train", part, 100):
        assert is_allowed(made.composition, reference(made), "train")
        assert len(made.composition) <= LONGEST_TRAINED
        for source in shown(made):
            assert split_of_tree(structure(source)) == "train"


@pytest.mark.representative("standard")
@pytest.mark.parametrize("part", ["standard", "paraphrase", "names"])
def test_what_is_tested_has_a_tree_and_a_composition_of_the_test_split(part):
    for made in drawn("test", part, 8):
        assert is_allowed(made.composition, reference(made), "test")
        assert split_of_composition(made.composition) == "test"
        assert split_of_tree(structure(reference(made))) == "test"


def test_no_program_is_allowed_in_both_splits():
    for made in drawn("train", "standard", 100):
        assert not is_allowed(made.composition, reference(made), "test")
    for made in drawn("test", "standard", 8):
        assert not is_allowed(made.composition, reference(made), "train")


@pytest.mark.parametrize(
    ("trained", "tested"),
    [(100, 8), pytest.param(1000, 100, marks=pytest.mark.slow)],
)
def test_no_tested_tree_or_composition_was_seen_in_training(trained, tested):
    seen = drawn("train", "standard", trained)
    trees = {structure(source) for made in seen for source in shown(made)}
    compositions = {made.composition for made in seen}
    assert len(trees) > 3 * trained
    for part in ("standard", "paraphrase", "longer"):
        for made in drawn("test", part, tested):
            assert structure(reference(made)) not in trees
            assert made.composition not in compositions


@pytest.mark.parametrize("task", TASKS)
def test_the_longer_slice_is_longer_than_anything_trained(task):
    sizes = {name: primitive.size for name, primitive in primitives().items()}
    for made in sample(task, "test", "longer"):
        assert sum(sizes[name] for name in made.composition) == LONGER > LONGEST_TRAINED
        assert split_of_tree(structure(reference(made))) == "test"
    for made in sample(task, "train", "standard"):
        known = [name for name in made.composition if name in sizes]  # else of a class
        assert sum(sizes[name] for name in known) <= LONGEST_TRAINED


@pytest.fixture
def picked(monkeypatch):
    """Texts that were picked among paraphrases, as (text, whether it is held out)."""
    found = []

    class Watching(Wording):
        def pick(self, texts):
            chosen = super().pick(texts)
            found.append((chosen, chosen == texts[-1]))
            return chosen

    monkeypatch.setattr(tasks, "Wording", Watching)
    return found


@pytest.mark.representative("edit")
@pytest.mark.parametrize("task", TASKS)
def test_held_out_words_are_for_the_paraphrase_slice_alone(picked, task):
    for split, part in (("test", "paraphrase"), ("train", "standard")):
        picked.clear()
        for index in range(5):
            tasks.make_task(task, index, split=split, part=part, seed=5, num_tests=4)
        assert len(picked) >= 5
        assert {held for _, held in picked} == {part == "paraphrase"}


def test_instructions_of_the_paraphrase_slice_are_new():
    trained = {made.instruction for made in sample("repair", "train", "standard")}
    unseen = {made.instruction for made in sample("repair", "test", "paraphrase")}
    assert len(trained) >= 4 and len(unseen) == 1 and not trained & unseen
    changes = ("change constant", "change last step", "rename function")
    ways = [phrases(name) for name in (*changes, "append step", "remove step")]
    for made in sample("edit", "test", "paraphrase"):
        said = [matches(way, made.instruction) for way in ways]
        assert [[False] * 4 + [True]] == [way for way in said if any(way)]


def matches(templates, text: str) -> list[bool]:
    """Which of some templates a text may come from."""
    return [
        bool(re.fullmatch(re.sub(r"\\\{\w+\\\}", ".+", re.escape(template)), text))
        for template in templates
    ]


def test_the_slice_of_names_uses_those_of_others():
    """A name is in all places that speak of it, or the references would not pass."""
    texts = [made.source(made.reference) for made in drawn("test", "names", 8)]
    usual = [made.source(made.reference) for made in drawn("test", "standard", 8)]
    assert 0.6 < np.mean([is_foreign(text) for text in texts]) < 0.95
    assert not any(map(is_foreign, usual))


def is_foreign(source: str) -> bool:
    """Whether a function has a name that the lab does not give."""
    found = re.match(r"def (\w+)\(", source)
    if found is None:
        return False
    verb, _, noun = found[1].partition("_")
    joined = verb in vocabulary.names("verb") and noun in vocabulary.names("noun")
    return not joined and found[1] not in vocabulary.names("plain")


def test_classes_of_the_paraphrase_slice_are_described_anew():
    rng = random.Random(0)
    texts = {
        unseen: {
            draw_class(Wording(rng, unseen), 1 + n % 3).description for n in range(60)
        }
        for unseen in (False, True)
    }
    assert all(t.startswith("With ") and "it is fed" in t for t in texts[True])
    assert not any(t.startswith("With ") for t in texts[False])
