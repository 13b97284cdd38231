"""What programs are said to do: no sentence can be read in two ways."""

import random

import pytest

from seedjax.tasks.lab.classes import draw_class
from seedjax.tasks.lab.compose import Names, Parameter, Plan, Step
from seedjax.tasks.lab.grammar.catalogue import primitives
from seedjax.tasks.lab.programs import describe
from seedjax.tasks.lab.wording import Wording


def plan_of(*names: str, **constants) -> Plan:
    """A plan of primitives; constants not given are their first."""
    steps = []
    for name in names:
        p = primitives()[name]
        chosen = {n: constants.get(n, values[0]) for n, values in p.constants.items()}
        steps.append(Step(p, p.forms[0], chosen))
    called = Names("solve", ("given",), "x", ("first", "second"), "result")
    return Plan(tuple(steps), called, (False,) * (len(steps) - 1), False, False)


def sentences(*names: str, **constants) -> set[str]:
    """What may be said about a composition."""
    words = Wording(random.Random(0), unseen=False)
    return {describe(words, plan_of(*names, **constants)) for _ in range(60)}


def test_a_phrase_stands_inside_another_where_it_is_clear():
    nested = sentences("keep_even_ints", "sum")
    assert any(text.startswith("Return the total of ") for text in nested)
    assert any(
        text.endswith("given, or zero") for text in sentences("steps", "largest")
    )
    # Not "... given, or zero times 2".
    assert not any(text.startswith("Return ") for text in sentences("largest", "times"))
    # Not "the first 2 elements of given in ascending order", whichever it is of.
    for text in sentences("take", "ascending") | sentences("ascending", "take"):
        assert text.endswith("given") or not text.startswith("Return "), text


def test_words_drawn_anew_move_no_other_draw():
    plan = plan_of("largest", "times")
    fallen_back = 0
    for seed in range(40):
        rng, twin = random.Random(seed), random.Random(seed)
        text = describe(Wording(rng, unseen=False), plan)
        if twin.random() < 0.35:  # a nested phrase is tried
            assert not text.startswith("Return ")
            fallen_back += 1
            for step in plan.steps:
                twin.choice(step.primitive.phrases[:-1])
            assert rng.getstate() == twin.getstate()
    assert fallen_back > 5


@pytest.mark.parametrize("name", ["any_even_ints", "rising", "palindrome"])
def test_truth_is_returned_and_not_computed(name):
    texts = sentences(name)
    assert {text.split()[0] for text in texts} == {"Return", "Give"}


def test_orders_say_what_there_is_if_there_is_nothing():
    names = (
        "first_even_ints",
        "last_odd_ints",
        "max_absolute_ints",
        "min_length_words",
    )
    for name in names:
        for text in primitives()[name].clauses:
            assert text.endswith((", or zero", ", or an empty string")), text


def test_a_parameter_that_is_a_text_stands_in_back_ticks():
    letter = Parameter("letter", "text", ("a", "b"))
    assert all("`letter`" in text for text in sentences("without", c=letter))
    limit = Parameter("limit", "int", (2, 3))
    assert not any("`" in text for text in sentences("plus", k=limit))


@pytest.mark.parametrize("unseen", [False, True])
def test_a_class_says_what_it_does_with_which_numbers(unseen):
    rng = random.Random(0)
    for n in range(300):
        made = draw_class(Wording(rng, unseen), 1 + n % 3)
        text = " ".join(made.head.split('"""')[1].split())
        changed = any(name.startswith("change_") for name in made.composition)
        assert not (changed and made.composition[0] == "class_count")
        if changed:
            gated = made.composition[1].startswith("gate_")
            assert ("each such number" if gated else "each number") in text
        feed, ask = made.protocol
        assert feed in text.split(".")[0] and ask in text.split(".")[0]
