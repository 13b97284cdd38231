"""The report over runs: numbers, Markdown, and a page that nothing can break out of."""

import dataclasses
import html.parser
import json

import pytest
from toy import PROBLEMS, SUITE

from seedjax.errors import InputError
from seedjax.evaluate.complete import Completion
from seedjax.evaluate.folder import keep_external, to_line, write_run, write_score
from seedjax.evaluate.report.paper import columns
from seedjax.evaluate.report.pictures import policies_picture
from seedjax.evaluate.report.report import (
    browsed,
    curves,
    find_runs,
    report,
    write_report,
)
from seedjax.evaluate.report.table import cells
from seedjax.evaluate.score import Score, Verdict
from seedjax.evaluate.statistics import wilson_interval
from seedjax.files.text import write_text
from seedjax.plotting import open_pyplot

EVIL = "</script><img src=x onerror=alert(1)>\u2028<!-- "


def make_score(suite="humaneval", rate=0.5, speed=2.0, **more) -> Score:
    return Score(
        suite=suite,
        problems=2,
        samples=1,
        pass_at={1: rate},
        intervals={1: (max(0.0, rate - 0.1), min(1.0, rate + 0.1))},
        reasons={"passed": 1, "failed": 1},
        tokens_per_forward=speed,
        empty_rate=0.0,
        repetition_rate=0.0,
        scoring_seconds=1.0,
        isolation="bubblewrap",
        **more,
    )


def make_run(folder, *, recipe="paper", score=None, model="some/model", traces=True):
    score = score or make_score()
    settings = {"suite": score.suite, "recipe": recipe}
    machine = {"device": "cpu", "devices": 1, "cpus": 2, "jax": "0"}
    write_run(folder, settings, model=model, title="as it is", machine=machine)
    samples = [
        Completion(problem_id=n, sample=0, text=EVIL, answer=EVIL) for n in ("a", "b")
    ]
    write_text(folder / "samples.jsonl", "".join(map(to_line, samples)))
    asked = [{"problem_id": n, "prompt": f"def {n}(): {EVIL}"} for n in ("a", "b")]
    write_text(folder / "problems.jsonl", "".join(json.dumps(p) + "\n" for p in asked))
    verdicts = [
        Verdict(
            problem_id=n,
            sample=0,
            turn=0,
            passed=n == "a",
            reason="failed",
            message=EVIL,
            seconds=0.1,
        )
        for n in ("a", "b")
    ]
    write_score(folder, score, verdicts)
    step = {"problem_id": "a", "block": 0, "step": 0, "positions": [0, 1]}
    if traces:
        line = step | {"pieces": ["x", EVIL], "confidences": [1.0, 0.5]}
        write_text(folder / "traces.jsonl", json.dumps(line) + "\n")
    return folder


class Reader(html.parser.HTMLParser):
    """Every tag with its attributes, and what stands in scripts."""

    def __init__(self):
        super().__init__()
        self.tags, self.scripts, self.inside = [], [], False

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag == "script"

    def handle_data(self, data):
        if self.inside:
            self.scripts.append(data)

    def handle_endtag(self, tag):
        self.inside = False


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_run(root / "one" / "humaneval")
    for recipe, rate, speed in (("single", 0.5, 1.0), ("threshold-0.9", 0.4, 3.0)):
        score = make_score(rate=rate, speed=speed)
        make_run(root / recipe / "humaneval", recipe=recipe, score=score, traces=False)
    return write_report([root], root / "report")


def test_the_page_is_one_file_that_loads_nothing(page):
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    tags = {tag for tag, _ in reader.tags}
    assert not tags & {"link", "img", "iframe", "object", "base"}
    named = [a for _, attributes in reader.tags for a in attributes]
    assert not {"src", "onerror", "onclick"} & set(named)
    links = [a["xlink:href"] for _, a in reader.tags if "xlink:href" in a]
    assert all(link.startswith("#") for link in links)
    assert "default-src 'none'" in page.read_text()


def test_what_models_wrote_stays_text(page):
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    data = next(s for s in reader.scripts if s.startswith("["))
    runs = json.loads(data)
    assert len(runs) == 3
    problem = runs[0]["problems"][0]
    assert problem["answers"][0]["text"] == EVIL
    assert [
        answer["passed"] for p in runs[0]["problems"] for answer in p["answers"]
    ] == [True, False]
    assert runs[0]["problems"][0]["steps"] == [[0, 0, [0, 1], ["x", EVIL]]]


def test_pictures_take_the_colours_of_the_page(page):
    text = page.read_text()
    assert text.count("<svg") == 2 and "currentColor" in text
    assert "#010203" not in text


def test_a_sweep_has_a_panel_per_policy_with_intervals():
    points = {"left": [(3.0, 8, 10), (1.0, 9, 10)], "confidence": [(2.0, 0, 10)]}
    figure = policies_picture(points)
    try:
        assert [axes.get_title(loc="left") for axes in figure.axes] == [*points]
        left, _ = figure.axes
        (drawn,) = [line for line in left.lines if len(line.get_xdata()) == 2]
        assert drawn.get_xdata().tolist() == [1.0, 3.0]
        assert drawn.get_ydata().tolist() == [90.0, 80.0]
        bars = [b.get_segments()[0][:, 1] for b in left.collections]
        low, high = wilson_interval(8, 10)
        assert bars[0].tolist() == pytest.approx([100 * low, 100 * high])
    finally:
        open_pyplot().close(figure)


def test_the_numbers(page):
    found = json.loads((page.parent / "report.json").read_text())
    assert [r["recipe"] for r in found["runs"]] == ["paper", "single", "threshold-0.9"]
    (curve,) = found["curves"]
    # Ten points below the slowest: only the slowest counts.
    assert curve["aup"] == pytest.approx(50.0)
    (column,) = found["beside"]
    assert column["printed"]["Seed Diffusion Preview"] == 82.8
    assert column["ours"]["model, paper"] == {
        **{"score": 50.0, "problems": 2, "suite_problems": 2}
    }
    text = (page.parent / "report.md").read_text()
    assert "| humaneval | model | paper | 50.0 % | 40.0 to 60.0 | 2 | 2.00 |" in text
    assert "| **model, paper** | 50.0 | here, 2 problems |" in text


def test_a_part_of_a_suite_is_marked(tmp_path):
    """In the table, beside it, among printed scores, and in JSON."""
    part = dataclasses.replace(make_score(), problems=64, suite_problems=164)
    make_run(tmp_path / "a", score=part)
    page = write_report([tmp_path], tmp_path / "report")
    text = (page.parent / "report.md").read_text()
    assert "| first 64 of 164 |" in text
    assert "of first 64 of 164 problems, so not to be compared" in text
    assert "| here, first 64 of 164 problems |" in text
    found = json.loads((page.parent / "report.json").read_text())
    assert found["runs"][0]["score"]["is_part"] is True
    assert "first 64 of 164" in page.read_text()
    lacking = dataclasses.replace(part, left_out={"no package": 100})
    assert cells({**found["runs"][0], "score": lacking.to_dict()})[5] == "64 of 164"
    whole = dataclasses.replace(part, problems=164)
    assert not whole.is_part and Score.from_dict(whole.to_dict()) == whole


def test_the_page_shows_what_the_model_was_given(tmp_path):
    make_run(tmp_path / "a")
    lines = [
        {"problem_id": n, "question": "?", "prompt_text": f"<s>{n}"} for n in ("a", "b")
    ]
    file = tmp_path / "a" / "problems.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run,) = browsed(find_runs([tmp_path]))
    assert run["problems"][0]["prompt"] == {"the prompt of the model ()": "<s>a"}


def test_a_mean_takes_all_its_suites(tmp_path):
    make_run(tmp_path / "a", score=make_score("canitedit_lazy", 0.2))
    assert report(find_runs([tmp_path]))["beside"] == []
    make_run(tmp_path / "b", score=make_score("canitedit_descriptive", 0.6))
    (column,) = report(find_runs([tmp_path]))["beside"]
    assert column["title"] == "CanItEdit"
    assert column["ours"]["model, paper"]["score"] == pytest.approx(40.0)


def test_curves_weigh_by_the_best_of_all(tmp_path):
    for model, rate in (("weak", 0.4), ("strong", 0.8)):
        for recipe, speed in (("single", 1.0), ("threshold-0.9", 2.0)):
            score = make_score(rate=rate, speed=speed)
            folder = tmp_path / model / recipe
            make_run(folder, recipe=recipe, score=score, model=model)
    weak, strong = sorted(curves(find_runs([tmp_path])), key=lambda c: c["aup"])
    assert strong["aup"] == pytest.approx(160.0)
    assert weak["aup"] < 80.0  # what it would be beside nobody better


def test_what_cannot_be_reported(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        find_runs([tmp_path / "none"])
    with pytest.raises(InputError, match="no scored run"):
        find_runs([tmp_path])
    make_run(tmp_path / "a")
    (tmp_path / "a" / "problems.jsonl").write_text("{]\n")
    with pytest.raises(InputError, match="problems.jsonl:1: not JSON"):
        find_runs([tmp_path])


def test_answers_of_others_are_runs_too(tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_text("x")
    samples = [
        Completion(problem_id=p.problem_id, sample=0, text="", answer="")
        for p in PROBLEMS
    ]
    score = dataclasses.replace(make_score("toy"), tokens_per_forward=None)
    rest = (SUITE, PROBLEMS, samples, score, [])
    keep_external(tmp_path / "toy", *rest, name="other", file=file)
    page = write_report([tmp_path], tmp_path / "report")
    assert "answers of another system" in page.read_text()
    file.write_text("y")
    with pytest.raises(InputError, match="other answers"):
        keep_external(tmp_path / "toy", *rest, name="other", file=file)


def test_the_papers_own_means():
    """Printed means agree with the columns that they are of."""
    by_title = {column.title: column for column in columns()}
    mean = by_title["MBXP, mean of 13"]
    for system, printed in mean.scores.items():
        parts = [
            c.scores[system]
            for c in columns()
            if c.title.startswith("MBXP ") and len(c.suites) == 1
        ]
        assert len(parts) == 13
        assert sum(parts) / 13 == pytest.approx(printed, abs=0.2)
    natural = by_title["NaturalCodeBench"]
    for system, printed in natural.scores.items():
        parts = [
            c.scores[system]
            for c in columns()
            if c.title.startswith("NaturalCodeBench ")
        ]
        assert sum(parts) / 4 == pytest.approx(printed, abs=0.1)


def test_the_papers_suites_are_there():
    from seedjax.tasks.suites import SUITES

    named = {suite for column in columns() for suite in column.suites}
    assert named - set(SUITES) == set()


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "a|b\n\n# heading",
        "![x](https://example.org/x)",
        "`code` **bold** _it_",
        "$a^{b$ $\\frac$",
    ],
)
def test_a_name_is_text_in_every_part_of_the_report(tmp_path, name):
    """`--name` and `--model` are the user's; `$` would begin a formula in a picture."""
    from markdown_it import MarkdownIt

    # A path of one part, so that the whole of it is shown.
    name = name.replace("/", ":")
    make_run(tmp_path / "a", model=name)
    make_run(tmp_path / "b", model=name, recipe="single")
    page = write_report([tmp_path], tmp_path / "report")
    text = (page.parent / "report.md").read_text()
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    assert (
        sum(token.type == "heading_open" for token in tokens) == text.count("\n#") + 1
    )
    kinds = {c.type for t in tokens for c in t.children or ()}
    assert kinds <= {"text", "text_special", "strong_open", "strong_close"} | {
        "code_inline",
        "softbreak",
    }
    shown = ["".join(c.content for c in t.children or ()) for t in tokens]
    assert " ".join(name.split()) in shown
    reader = Reader()
    reader.feed(page.read_text())
    assert "alert" not in [tag for tag, *_ in reader.tags]
    assert len(reader.scripts) == 2
