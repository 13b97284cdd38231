"""Blocks after which no program can follow are decoded again."""

import pytest

from seedjax.errors import InputError
from seedjax.inference import frames
from seedjax.inference.checked import (
    SyntaxCheck,
    edit_checked,
    generate_checked,
    infill_checked,
)
from seedjax.inference.frames import frame_of_program, frame_of_prompt
from seedjax.inference.generation import Generation
from seedjax.inference.model import Model
from seedjax.inference.syntax import can_be_continued, fault
from seedjax.sampling.policy import LeftToRight
from seedjax.sampling.trace import TraceStep

RECIPE = {"max_new_tokens": 24, "temperature": 0.0}
PROMPT = "def f(a):\n"


@pytest.mark.slow
@pytest.mark.parametrize("which", ["model", "causal"])
def test_what_is_never_refused_is_what_generate_gives(which, request, monkeypatch):
    model = request.getfixturevalue(which)
    monkeypatch.setattr(frames, "can_be_continued", lambda text: True)
    found = generate_checked(model, [PROMPT, "import"], **RECIPE, logprobs=True)
    plain = [
        model.generate(text, **RECIPE, logprobs=True) for text in (PROMPT, "import")
    ]
    assert found.texts == [one.texts[0] for one in plain]
    for row, one in zip(found.logprobs, plain, strict=True):
        assert row == pytest.approx(one.logprobs[0], abs=1e-4)
    assert found.forwards == sum(one.forwards for one in plain)
    assert found.fits == [True, True]


@pytest.mark.slow
def test_a_refused_block_is_decoded_again(model, monkeypatch):
    plain = model.generate(PROMPT, **RECIPE)
    seen = []

    def refuse_the_first_block(text):
        seen.append(text)
        return len(seen) != 2  # the prompt, then the first attempt

    monkeypatch.setattr(frames, "can_be_continued", refuse_the_first_block)
    found = generate_checked(model, PROMPT, **RECIPE)
    careful = model.generate(PROMPT, **RECIPE, policy=LeftToRight(threshold=None))
    # The second attempt decides the same block, from what was there before it.
    block = len(seen[2]) - len(PROMPT)
    assert seen[2] == PROMPT + careful.texts[0][:block]
    assert found.fits == [True]
    assert found.forwards > plain.forwards


def test_what_cannot_be_mended_stays(model, monkeypatch):
    calls = []

    def refuse(text):
        calls.append(text)
        return text == PROMPT

    monkeypatch.setattr(frames, "can_be_continued", refuse)
    found = generate_checked(model, PROMPT, check=SyntaxCheck(attempts=2), **RECIPE)
    judged = len(calls)
    plain = model.generate(PROMPT, **RECIPE)
    assert found.texts == plain.texts and found.fits == [False]
    # All attempts at the first block, and then no more than one a block, and the whole.
    blocks = -(-(len(plain.tokens[0]) + 7) // 8)
    assert 1 + 3 < judged <= 1 + 3 + blocks + 1
    assert found.forwards > plain.forwards


def test_it_helps(model):
    """Random weights seldom write Python: more of their blocks can be continued."""
    prompts = [f"x{n} = {n}\n" for n in range(4)]
    found = generate_checked(model, prompts, check=SyntaxCheck(attempts=6), **RECIPE)
    for text, prompt, fits in zip(found.texts, prompts, found.fits, strict=True):
        assert can_be_continued(prompt + text) or not fits


def test_faults(model):
    with pytest.raises(InputError, match="attempts"):
        SyntaxCheck(attempts=0)
    with pytest.raises(InputError, match="temperature"):
        SyntaxCheck(temperature=0.0)
    with pytest.raises(InputError, match="did you mean"):
        generate_checked(model, PROMPT, temprature=1.0)


CODES = ["x = 1\ny = x\n", "def f(a):\n    return a\n", "a = [1, 2]\n"]


class Scripted(Model):
    """A model whose completions are known: `written` by attempt and row."""

    def __init__(self, model, written, cut_off=()):
        super().__init__(model.params, model.config, model.tokenizer, model.sampler)
        self.written, self.cut_off, self.calls = written, cut_off, []

    def edit(self, code, instruction, **options):
        rows = [CODES.index(text) for text in code]
        attempt = len(self.calls)
        self.calls.append((rows, options))
        reasons = [
            "length" if (attempt, row) in self.cut_off else "stop" for row in rows
        ]
        return Generation(
            texts=[self.written[attempt][row] for row in rows],
            tokens=[[attempt, row] for row in rows],
            new_tokens=[2 for _ in rows],
            steps=[attempt for _ in rows],
            forwards=10,
            seconds=1.0,
            compile_seconds=0.0,
            finish_reason=reasons,
            prompt_tokens=[5 for _ in rows],
            fits=[True for _ in rows],
            trace=[step(rows.index(row), attempt, row) for row in rows],
        )


def step(place, attempt, row):
    shape = {"positions": (0, 1), "tokens": (attempt, row), "confidences": (1.0, 1.0)}
    return TraceStep(row=place, block=0, step=0, **shape)


def test_only_rows_at_fault_are_decoded_again(model):
    """The first is right, the second mended by care, the third by a draw."""
    written = [
        ["z = 1\n", "def f(:\n", "a = [1,"],
        [None, "def g(a):\n    return a\n", "a = ]"],
        [None, None, "a = (\n"],
        [None, None, "b = [1, 2]\n"],
    ]
    scripted = Scripted(model, written)
    options = {"temperature": 0.0, "trace": True, "seed": 7}
    found = edit_checked(scripted, CODES, "Rename", **options)
    assert found.texts == [written[0][0], written[1][1], written[3][2]]
    assert found.parses == [True, True, True]
    assert found.tokens == [[0, 0], [1, 1], [3, 2]] and found.steps == [0, 1, 3]
    assert found.forwards == 40 and found.seconds == 4.0
    assert [rows for rows, _ in scripted.calls] == [[0, 1, 2], [1, 2], [2], [2]]
    assert scripted.calls[1][1]["policy"] == LeftToRight(threshold=None)
    assert scripted.calls[1][1]["seed"] == [8, 9]
    assert [c[1]["temperature"] for c in scripted.calls[1:]] == [0.0, 0.4, 0.8]
    # The trace is that of the completions that are handed out.
    assert sorted((s.row, s.tokens) for s in found.trace) == [
        *((0, (0, 0)), (1, (1, 1)), (2, (3, 2))),
    ]


def test_what_cannot_be_mended_is_the_first_attempt(model):
    scripted = Scripted(model, [["def f(:\n"] * 3] * 4)
    found = edit_checked(scripted, CODES[:1], "Rename", trace=True)
    assert found.texts == ["def f(:\n"] and found.parses == [False]
    assert found.tokens == [[0, 0]] and found.forwards == 40
    # A program that did not parse need not, and nobody tries.
    scripted = Scripted(model, [["def f(:\n"] * 3])
    found = edit_checked(scripted, CODES[:1], "Rename", language="text")
    assert len(scripted.calls) == 1 and found.parses == [None]


def test_nothing_and_a_part_are_no_edits(model):
    written = [["", "def f(a): pass\n", " \n"], ["y = 1\n"] * 3]
    scripted = Scripted(model, written, cut_off=[(0, 1)])
    found = edit_checked(scripted, CODES, "Rename")
    assert scripted.calls[1][0] == [0, 1, 2] and found.texts == ["y = 1\n"] * 3
    frame = frame_of_program(CODES[0])
    assert "nothing" in frame.objection("")
    assert "cut off" in frame.objection("y = 1\n", cut_off=True)
    assert frame.objection("y = 1\n") is None
    assert "line 1, column 5" in frame.objection("y = )")
    # Whatever the language: nobody wants half of a text.
    assert "cut off" in frame_of_program("Hello", "text").objection("H", cut_off=True)


@pytest.mark.parametrize("which", ["model", "causal"])
def test_a_completion_that_parses_costs_nothing_more(which, request):
    model = request.getfixturevalue(which)
    given = ("x = [", "]\n")
    plain = model.infill(*given, seed=3, **RECIPE)
    same = infill_checked(model, *given, language="text", seed=3, **RECIPE)
    assert same.texts == plain.texts and same.forwards == plain.forwards
    assert plain.parses == [True if parses(f"x = [{plain.texts[0]}]\n") else False]


@pytest.mark.slow
@pytest.mark.parametrize("length", [None, 5])
def test_random_weights_are_tried_again_and_never_worse(model, length):
    prefixes, suffixes = ["x = [", "y = (1,\n", "z = "], ["]\n", ")\n", "\n"]
    recipe = RECIPE | {"max_new_tokens": 8}
    plain = model.infill(prefixes, suffixes, length=length, **recipe)
    found = infill_checked(model, prefixes, suffixes, length=length, **recipe)
    for row, (before, after) in enumerate(zip(prefixes, suffixes, strict=True)):
        assert found.parses[row] is parses(before + found.texts[row] + after)
        assert found.parses[row] >= plain.parses[row]
        if plain.parses[row] or not found.parses[row]:
            assert found.texts[row] == plain.texts[row]
    if not all(plain.parses):
        assert found.forwards > plain.forwards
    edits = edit_checked(model, CODES[:1], "Rename x", **recipe)
    assert edits.texts == model.edit(CODES[:1], "Rename x", **recipe).texts


def test_generate_says_whether_it_parses(model):
    prompts = ["x = 1\n", "Once upon a time"]
    found = model.generate(prompts, **RECIPE)
    assert found.parses[1] is None
    if found.finish_reason[0] == "stop":
        assert found.parses[0] is parses(prompts[0] + found.texts[0])
    frame = frame_of_prompt("def f(a):")
    assert frame.parses("\n    return (a", cut_off=True) is None
    assert frame.parses("\n    return (a") is False
    assert frame.parses("\nReturn a a\n", cut_off=True) is False


def parses(text):
    return fault(text, compiles=False) is None
