"""The comparison of policies, on a small random model."""

import json
from functools import partial

import pytest
from text_model import CONFIG, RECIPE, params_of

from seedjax.errors import InputError
from seedjax.evaluate.policies import compare_policies, curves_of
from seedjax.inference.model import Model
from seedjax.tasks.lab.stream import LabConfig
from seedjax.tasks.lab.tasks import exam


@pytest.fixture(scope="module")
def coder() -> Model:
    import dataclasses

    tokenizer = LabConfig().tokenizer()
    config = dataclasses.replace(
        CONFIG, vocab_size=tokenizer.vocab_size, max_positions=1024
    )
    return Model(params_of(config), config, tokenizer, RECIPE)


def test_curves_name_every_setting_once():
    curves = curves_of(8)
    for name, settings in curves.items():
        titles = [title for title, _ in settings]
        assert len(titles) == len(set(titles)) > 1, name
        recipes = [RECIPE.vary(**recipe) for _, recipe in settings]
        assert len(set(recipes)) == len(recipes), name


@pytest.mark.slow
def test_what_is_measured_is_kept(coder, tmp_path):
    few = partial(compare_policies, out=tmp_path, count=1, curves=["fixed count"])
    report = few(coder, identity="first")
    lines = [json.loads(x) for x in (tmp_path / "policies.jsonl").open()]
    assert {line["curve"] for line in lines} == {"fixed count"}
    assert {line["score"]["tasks"] for line in lines} == {len(exam(1))} == {12}
    assert report.read_text().count("\n") == 2 + len(lines)
    assert (tmp_path / "policies.png").stat().st_size > 10_000
    # A line that was cut off is measured again, and nothing else.
    text = (tmp_path / "policies.jsonl").read_text()
    (tmp_path / "policies.jsonl").write_text(text[:-20])
    few(coder, identity="first")
    again = [json.loads(x) for x in (tmp_path / "policies.jsonl").open()]
    assert again[:-1] == lines[:-1]
    assert again[-1]["setting"] == lines[-1]["setting"]
    with pytest.raises(InputError, match="over another number of tasks"):
        few(coder, identity="first", count=2)


@pytest.mark.slow
def test_faults(coder, causal, tmp_path):
    with pytest.raises(InputError, match="unknown policy 'magic'; there are left"):
        compare_policies(coder, tmp_path, identity="", curves=["magic"])
    # Its logits are not shifted, so there is nothing to check drafts with.
    with pytest.raises(InputError, match="unknown policy 'speculation'"):
        compare_policies(coder, tmp_path, identity="", curves=["speculation"])
    with pytest.raises(InputError, match="a causal model has no policies"):
        compare_policies(causal, tmp_path, identity="")
    line = '{"model": "first", "curve": "left to right", "setting": ""}\n'
    (tmp_path / "policies.jsonl").write_text(line)
    with pytest.raises(
        InputError, match="is of another model or precision; give another --out"
    ):
        compare_policies(coder, tmp_path, identity="second")
