"""The report: what is added up, and what the claims say."""

import dataclasses
import json

import pytest

from seedjax.errors import InputError
from seedjax.evaluate.score import Score
from seedjax.evaluate.statistics import wilson_interval
from seedjax.reproduce.arms import Arm, budget
from seedjax.reproduce.examine import Cell, read_scores, to_line
from seedjax.reproduce.report import (
    MEANINGS,
    Result,
    area_under,
    claims,
    difference_of_rates,
    page,
    rows_of_settings,
    speed_at_no_loss,
)
from seedjax.tasks.lab.stream import LabConfig


def score(passed: int, tasks: int = 100, speed: float = 1.0) -> Score:
    return Score(
        suite="lab",
        problems=tasks,
        samples=1,
        pass_at={1: passed / tasks},
        intervals={1: wilson_interval(passed, tasks)},
        reasons={},
        tokens_per_forward=speed,
        text_per_forward=speed / 2,
        tokens_per_second=10.0,
        valid_rate=1.0,
        repetition_rate=0.0,
        empty_rate=0.0,
    )


def result(label: str, name: str, rates: dict, tmp_path, seed: int = 2) -> Result:
    """An arm with the same pass count on every task: setting to (passed, speed)."""
    cells = tuple(
        Cell(
            order="left",
            threshold=threshold,
            slice="standard",
            task=task,
            tier=1,
            score=score(passed, speed=speed),
        )
        for threshold, (passed, speed) in rates.items()
        for task in ("generate", "repair")
    )
    return Result(arm=Arm(name, label, seed), folder=tmp_path, cells=cells)


def test_area_under_a_curve():
    """Nothing is gained below one token a forward; a slower setting that is worse than
    a faster one counts with the faster one's rate."""
    assert area_under([(1.0, 0.8)]) == 0.0
    assert area_under([(1.0, 0.8), (3.0, 0.5)]) == pytest.approx(2 * 50)
    assert area_under([(1.0, 0.8), (2.0, 0.2), (3.0, 0.5)]) == pytest.approx(100)
    assert area_under([(0.9, 0.9)]) == 0.0


def test_speed_at_no_loss(tmp_path):
    rates = {None: (80, 1.0), 0.95: (80, 1.5), 0.9: (79, 2.0), 0.6: (70, 4.0)}
    assert speed_at_no_loss(result("c", "substitute", rates, tmp_path)) == 2.0


def test_claims_compare_arms_over_their_seeds(tmp_path):
    found = [
        result("a", "ar", {None: (90, 1.0)}, tmp_path),
        result("b", "mask", {None: (60, 1.0)}, tmp_path),
        result("c", "substitute", {None: (88, 1.0)}, tmp_path),
        result("c", "substitute", {None: (84, 1.0)}, tmp_path, seed=3),
    ]
    text = "\n".join(claims(found))
    assert "(c) against (a) on generate, expected: -2 or more: -4.0 points" in text
    assert "(c) against (b) on repair, expected: +5 or more: +26.0 points" in text
    assert "(d)" not in text
    assert claims([]) == ["Not enough arms to compare."]


def test_orders_are_kept_apart(tmp_path):
    """Decisions by confidence are another curve, and no claim is about them."""
    left = result("c", "substitute", {None: (80, 1.0), 0.9: (79, 2.0)}, tmp_path)
    other = [
        dataclasses.replace(cell, order="confidence", score=score(10, speed=9.0))
        for cell in left.cells
    ]
    both = dataclasses.replace(left, cells=(*left.cells, *other))
    assert both.orders == ["left", "confidence"]
    assert both.total(None).pass_rate == 0.8
    assert both.total(None, "confidence").pass_rate == 0.1
    assert both.curve() == left.curve() == [(1.0, 0.8), (2.0, 0.79)]
    assert both.curve("confidence") == [(9.0, 0.1), (9.0, 0.1)]
    assert speed_at_no_loss(both) == 2.0
    assert [row[2] for row in rows_of_settings(both)] == ["left"] * 2 + [
        "confidence"
    ] * 2


def test_interval_of_a_difference():
    difference, half = difference_of_rates(score(60), score(50))
    assert difference == pytest.approx(0.1)
    assert half == pytest.approx(0.136, abs=0.003)


def test_lines_of_scores_survive_a_cut(tmp_path):
    place = {"slice": "standard", "task": "edit", "tier": 2}
    cell = Cell(order="left", threshold=0.9, **place, score=score(1))
    path = tmp_path / "scores.jsonl"
    path.write_text(to_line(cell) + to_line(cell)[:20])
    assert read_scores(path) == [cell]
    assert read_scores(tmp_path / "none") == []


def test_scores_of_before_are_read(tmp_path):
    """In the fields that they had; a line that is no score is refused in one line."""
    rates = {"valid_rate": 0.5, "repetition_rate": 0.0, "empty_rate": 0.25}
    speeds = {
        name: 2.0
        for name in ("tokens_per_forward", "text_per_forward", "tokens_per_second")
    }
    old = {"tasks": 4, "passed": 3} | rates | speeds
    place = {"slice": "standard", "task": "edit", "tier": 2}
    line = {"order": "left", "threshold": None, **place, "score": old}
    path = tmp_path / "scores.jsonl"
    path.write_text(json.dumps(line) + "\n")
    (cell,) = read_scores(path)
    assert (cell.score.problems, cell.score.pass_rate) == (4, 0.75)
    assert cell.score.intervals[1] == wilson_interval(3, 4)
    assert cell.score.tokens_per_forward == 2.0 and cell.score.empty_rate == 0.25
    path.write_text('{"order": "left"}\n')
    with pytest.raises(InputError, match="scores.jsonl:1: no score of an exam"):
        read_scores(path)


def test_every_arm_has_a_meaning():
    tokenizer = LabConfig().tokenizer()
    arms = [arm for name in ("smoke", "full") for arm in budget(name, tokenizer).arms]
    assert {arm.name for arm in arms} == MEANINGS.keys()


@pytest.mark.parametrize("name, proves", [("smoke", False), ("full", True)])
def test_a_smoke_run_says_that_it_proves_nothing(name, proves, tmp_path):
    tokenizer = LabConfig().tokenizer()
    text = page(tmp_path, budget(name, tokenizer), [])
    assert ("no number below proves anything" not in text) is proves
