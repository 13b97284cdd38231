"""Pictures in which each curve can be told apart."""

import json

import pytest

from seedjax.plotting import (
    Curve,
    draw_curves,
    open_pyplot,
    save,
    small_multiples,
    spread,
)
from seedjax.train.plot import loss_curve

FLAT = Curve(xs=[0.0, 1.0], ys=[1.0, 1.0], label="flat")
ALIKE = Curve(xs=[0.0, 1.0], ys=[1.0, 1.01], label="alike", colour=1)
STEEP = Curve(xs=[0.0, 2.0], ys=[1.0, 9.0], label="steep", colour=2)


@pytest.mark.parametrize(
    "heights, placed",
    [
        ([], []),
        ([3.0], [3.0]),
        ([0.0, 1.0, 20.0], [-4.0, 5.0, 20.0]),
        ([20.0, 1.0, 0.0], [20.0, 5.0, -4.0]),
        # The middle pair moves into the first, which then is one group of three.
        ([0.0, 8.0, 16.0], [-1.0, 8.0, 17.0]),
    ],
)
def test_names_are_moved_apart(heights, placed):
    assert spread(heights, 9.0) == pytest.approx(placed)


def boxes_of_texts(axes):
    renderer = axes.figure.canvas.get_renderer()
    texts = [text for text in axes.texts if text.get_text()]
    return [text.get_window_extent(renderer) for text in texts]


def test_curves_that_end_together_have_names_that_do_not_overlap():
    figure, axes = open_pyplot().subplots(dpi=140)
    draw_curves(axes, [FLAT, ALIKE, STEEP])
    figure.canvas.draw()
    first, second, third = boxes_of_texts(axes)
    assert not first.overlaps(second) and not second.overlaps(third)
    # Beside the data, not among them.
    assert all(box.x0 >= axes.get_window_extent().x1 for box in (first, second, third))
    assert axes.get_legend() is None


def test_every_group_has_a_panel_and_the_scales_of_all_data(tmp_path):
    figure = small_multiples(
        {"a": [FLAT], "b": [ALIKE], "c": [STEEP]}, xlabel="x", ylabel="y", columns=2
    )
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b", "c"]
    for axes in figure.axes:
        assert axes.get_xlim()[1] >= 2.0 and axes.get_ylim()[1] >= 9.0
        assert len(axes.lines) == 3  # its own, and the two others in grey
        assert axes.get_legend() is None
    save(figure, tmp_path / "made" / "picture.png")
    assert (tmp_path / "made" / "picture.png").stat().st_size > 1000


def test_the_edit_stage_is_marked(tmp_path):
    lines = [
        {"step": step, "loss": 1.0, "stage": "edit" if step >= 30 else "mask"}
        for step in (10, 20, 30, 40)
    ]
    assert loss_curve(lines, label="run", colour=0).edits_from == 30
    assert loss_curve(lines[:2], label="run", colour=0).edits_from is None
    figure, axes = open_pyplot().subplots()
    draw_curves(axes, [loss_curve(lines, label="run", colour=0)])
    assert sorted(text.get_text() for text in axes.texts) == ["edits", "run"]
    open_pyplot().close(figure)


def test_an_order_is_drawn_with_its_tokens(tmp_path):
    from seedjax.reproduce.figures import plot_orders

    trace = tmp_path / "trace.jsonl"
    trace.write_text(json.dumps({"positions": [0, 1], "pieces": ["\u2581a", "\n"]}))
    plot_orders({"left": trace}, tmp_path / "orders.png")
    assert (tmp_path / "orders.png").exists()


def test_a_name_may_hold_a_dollar(tmp_path):
    """It begins no formula."""
    name = "$a^{b$ $\\frac$"
    curve = Curve(xs=[0.0, 1.0], ys=[1.0, 2.0], label=name)
    figure = small_multiples({name: [curve]}, xlabel="x", ylabel="y")
    draw_curves(figure.axes[0], [curve])
    save(figure, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
