"""Verdicts of a real sandbox, the numbers made of them, and files of other systems."""

import dataclasses
import gzip
import json

import pytest
from toy import PROBLEMS, SUITE, sandbox

from seedjax.errors import InputError
from seedjax.evaluate import rates, verify
from seedjax.evaluate.complete import Completion
from seedjax.evaluate.external import read_external
from seedjax.evaluate.rates import is_repetitive, speed
from seedjax.evaluate.score import Score, pool, score_completions
from seedjax.sandbox.sandbox import Program
from seedjax.sandbox.script import Script


def samples_of(*texts: str, problem=PROBLEMS[0], **more) -> list[Completion]:
    return [
        Completion(problem_id=problem.problem_id, sample=n, text=t, answer=t, **more)
        for n, t in enumerate(texts)
    ]


def scored(samples, problems=PROBLEMS, suite=SUITE, **more):
    more = {"measured": False} | more
    return score_completions(suite, problems, samples, lambda: sandbox(suite), **more)


@pytest.fixture(scope="module")
def result():
    """Of two samples each: both right, one right, none right."""
    right = [problem.reference for problem in PROBLEMS]
    made = [
        *samples_of(right[0], right[0], problem=PROBLEMS[0]),
        *samples_of(right[1], "    return 9\n", problem=PROBLEMS[1]),
        *samples_of("", "    return (\n", problem=PROBLEMS[2]),
    ]
    return scored(made)


def test_pass_at_k_is_over_problems(result):
    score, verdicts = result
    assert score.pass_at == {1: pytest.approx(0.5)}
    assert score.problems == 3 and score.samples == 2
    assert [verdict.passed for verdict in verdicts] == [True, True, True] + [False] * 3
    assert score.reasons == {"passed": 3, "failed": 1, "error": 2}
    low, high = score.intervals[1]
    assert 0.0 <= low < 0.5 < high <= 1.0


def test_rates(result):
    score, _ = result
    assert score.empty_rate == pytest.approx(1 / 6)
    # An empty body is no program, and neither is an open bracket.
    assert score.valid_rate == pytest.approx(4 / 6)
    assert score.tokens is None and score.tokens_per_forward is None


def test_a_score_is_read_back(result):
    score, _ = result
    again = Score.from_dict(json.loads(json.dumps(score.to_dict())))
    assert again == dataclasses.replace(score, intervals=again.intervals)
    assert again.intervals[1] == pytest.approx(score.intervals[1])


def test_second_tries_count_as_one_sample():
    first = samples_of("    return 0\n", problem=PROBLEMS[2])
    second = samples_of(PROBLEMS[2].reference, problem=PROBLEMS[2], turn=1)
    suite = dataclasses.replace(SUITE, tries=2)
    score, _ = scored(first + second, PROBLEMS[2:], suite)
    assert (score.first_try, score.pass_at[1]) == (0.0, 1.0)
    assert score.well_formed_rate is None
    suite = dataclasses.replace(suite, well_formed=lambda _, answer: "1" in answer)
    score, _ = scored(first + second, PROBLEMS[2:], suite)
    assert score.well_formed_rate == 0.5


def test_what_cannot_run_is_not_a_failure(monkeypatch):
    monkeypatch.setattr(verify, "missing", lambda language: "no such thing")
    score, verdicts = scored(samples_of("x"), PROBLEMS[:1])
    assert score.not_run == "no such thing"
    assert score.pass_at == {} and verdicts == []
    monkeypatch.undo()
    suite = dataclasses.replace(SUITE, absent=lambda: "no test framework")
    assert scored(samples_of("x"), PROBLEMS[:1], suite)[0].not_run == suite.absent()


def test_problems_whose_packages_are_absent_are_left_out():
    lame = dataclasses.replace(
        PROBLEMS[2], data=PROBLEMS[2].data | {"packages": ["json", "no_such_module"]}
    )
    made = samples_of(PROBLEMS[0].reference) + samples_of("", problem=lame)
    score, verdicts = scored(made, [PROBLEMS[0], lame])
    assert score.problems == 1 and score.pass_at == {1: 1.0}
    assert score.left_out == {"not installed: no_such_module": 1}
    assert [verdict.reason for verdict in verdicts] == ["passed", "not run"]
    with sandbox(SUITE) as opened:
        found = verify.verify(SUITE, [PROBLEMS[0], lame], opened)
    assert found.num_references == 1 and len(found.not_run) == 1


def test_all_problems_have_to_be_answered():
    with pytest.raises(InputError, match="problem 'toy/twice' has no sample"):
        scored(samples_of("x"))
    with pytest.raises(InputError, match="no problems"):
        scored([], [])


def test_speed_leaves_first_runs_out():
    made = [
        *samples_of("a", tokens=10, forwards=5, seconds=9.0, warm=False),
        *samples_of("b", tokens=20, forwards=5, seconds=2.0, finished=False),
    ]
    found = speed(made)
    assert found["tokens_per_second"] == 10.0  # not (10 + 20) / 11
    assert found["tokens_per_forward"] == (30 + 1) / 10
    assert (found["mean_tokens"], found["unfinished_rate"]) == (15.0, 0.5)
    assert speed(made[:1])["tokens_per_second"] == pytest.approx(10 / 9)


def test_white_space_and_ends_are_told_apart():
    made = samples_of("x", tokens=3, blank_tokens=2, forwards=2, seconds=1.0)
    found = speed(made)
    assert found["tokens_per_forward"] == pytest.approx(4 / 2)
    assert found["text_per_forward"] == pytest.approx(1 / 2)
    older = samples_of("y", tokens=3, forwards=2, seconds=1.0)
    assert speed(made + older)["text_per_forward"] is None


def test_repetition():
    def repeats(text, **more):
        return is_repetitive(samples_of(text, **more)[0])

    assert repeats("a = 1\na = 1\n\na = 1\n")
    assert not repeats("a = 1\na = 1\nb = 1\n")
    assert repeats("n " * 40, finished=False) and not repeats("n " * 40)


def test_scores_are_pooled_by_problems():
    def score(passed, problems, speed):
        return Score(
            suite="toy",
            problems=problems,
            samples=1,
            pass_at={1: passed / problems},
            intervals={},
            reasons={"passed": passed},
            tokens_per_forward=speed,
            empty_rate=0.0,
            repetition_rate=0.0,
        )

    total = pool([score(50, 100, 1.0), score(30, 300, 3.0)])
    assert (total.problems, total.pass_rate) == (400, 0.2)
    assert total.tokens_per_forward == pytest.approx(2.5)
    assert total.reasons == {"passed": 80} and total.text_per_forward is None
    assert total.intervals[1] == pytest.approx((0.1637, 0.2419), abs=1e-3)


def test_python_alone_is_parsed():
    go = dataclasses.replace(
        SUITE, program=lambda problem, answer: Script(language="go", source=answer)
    )
    assert rates.valid_rate(go, PROBLEMS, samples_of("x")) is None
    mixed = dataclasses.replace(
        SUITE, program=lambda p, a: Script(language="python", source=a)
    )
    found = rates.valid_rate(mixed, PROBLEMS, samples_of("x", "x ("))
    assert found == 0.5
    assert isinstance(SUITE.program(PROBLEMS[0], ""), Program)


def write(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def full(**first):
    return [
        {"task_id": "toy/add", "completion": "    return a + b\n"} | first,
        {"task_id": "toy/twice", "solution": "def twice(a):\n    return a\n"},
        {"problem_id": "toy/one", "text": "    return 1\n\ndef rest(): pass"},
    ]


def test_answers_of_other_systems(tmp_path):
    found = read_external(write(tmp_path / "a.jsonl", *full()), SUITE, PROBLEMS)
    assert [sample.problem_id for sample in found] == [p.problem_id for p in PROBLEMS]
    assert found[0].answer == "    return a + b\n"
    # What was said is cut; a completion is not, unless that is asked for.
    assert "rest" not in found[2].answer
    long = full(completion="    return 1\ndef f(): 0")
    kept = read_external(write(tmp_path / "b.jsonl", *long), SUITE, PROBLEMS)
    assert kept[0].answer.endswith("def f(): 0")
    cut = read_external(tmp_path / "b.jsonl", SUITE, PROBLEMS, raw=True)
    assert cut[0].answer == "    return 1"


def test_a_bare_number_names_the_problem_that_ends_in_it(tmp_path):
    problems = [dataclasses.replace(PROBLEMS[0], problem_id="Mbpp/11")]
    path = write(tmp_path / "a.jsonl", {"task_id": 11, "completion": ""})
    assert read_external(path, SUITE, problems)[0].problem_id == "Mbpp/11"
    path = write(tmp_path / "b.jsonl", {"task_id": 12, "completion": ""})
    with pytest.raises(InputError, match=":1: 12 is no problem"):
        read_external(path, SUITE, problems)


def test_compressed_files_and_several_samples(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    lines = [json.dumps(line) + "\n" for line in [*full(), *full()]]
    path.write_bytes(gzip.compress("".join(lines).encode()))
    found = read_external(path, SUITE, PROBLEMS)
    assert [sample.sample for sample in found] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (full(task_id=["toy/add"]), ":1: .* is no problem of toy"),
        (full(task_id="HumanEval/0"), ":1: 'HumanEval/0' is no problem of toy"),
        (full()[:2], "has no answer to 'toy/one'"),
        ([*full(), full()[0]], "1 answers to 'toy/twice' and 2 to 'toy/add'"),
        ([*full(sample=0), full(sample=0)[0]], ":4: a second answer to 'toy/add'"),
        (full(completion=None), ":1: the field 'completion' is not a text"),
        ([{"task_id": "toy/add"}], ":1: no answer in the line"),
        ([[]], ":1: it must be a JSON object"),
        ([], "holds no answers"),
    ],
)
def test_bad_files_are_told_of(tmp_path, lines, message):
    with pytest.raises(InputError, match=message):
        read_external(write(tmp_path / "a.jsonl", *lines), SUITE, PROBLEMS)


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="no file"):
        read_external(tmp_path / "none.jsonl", SUITE, PROBLEMS)
    (tmp_path / "a.jsonl").write_text("{]\n")
    with pytest.raises(InputError, match=":1: not JSON"):
        read_external(tmp_path / "a.jsonl", SUITE, PROBLEMS)
