"""Every feature on every surface: equal to `generate` alone, or refused in one line."""

import dataclasses
import re
from pathlib import Path

import jax
import pytest
from surfaces import FEATURES, SURFACES, table
from text_model import CONFIG, RECIPE, params_of

from seedjax.errors import InputError
from seedjax.evaluate.complete import Request, batches, complete_batches, seed_of
from seedjax.evaluate.recipes import Recipe
from seedjax.evaluate.run import Choices, setup_for
from seedjax.inference.engine import Engine
from seedjax.inference.exported import export_sampler, load_exported
from seedjax.inference.model import Model
from seedjax.nn import denoiser
from seedjax.sampling.check import check_recipe
from seedjax.sampling.stopping import IgnoreEos, StopAtEos
from seedjax.sharding import make_mesh, tree_shardings
from seedjax.tasks.suite import Problem, Source, Suite

# Of many lengths, in one width of canvas; answers end at many places.
PROMPTS = ["def gcd(a, b):\n", "import", "x = 1\n"]
SEEDS = [7, 3, 1000]
ENDED = dataclasses.replace(CONFIG, eos_token_ids=(3, *range(120, 160)))
DRAWN = dataclasses.replace(RECIPE, eos=StopAtEos(min_new_tokens=4))
CHANGES = {
    "block": {},
    "shifted": {"logit_alignment": "shifted"},
    "free": {"attention": "bidirectional"},
    "causal": {"attention": "causal", "logit_alignment": "shifted"},
}
SUITE = Suite(
    name="prompts",
    title="Prompts",
    family="Prompts",
    task="complete",
    source=Source(
        project="tests", version="1", licence="Apache-2.0", address="here", files={}
    ),
    num_problems=len(PROMPTS),
    stop=(),
    max_new_tokens=RECIPE.max_new_tokens,
    wall_seconds=20.0,
    read=lambda folder: [],
    program=lambda problem, answer: None,
    wrong=lambda problem: "",
)
PROBLEMS = [
    Problem(
        problem_id=f"prompts/{number}",
        prompt=prompt,
        question="",
        reference="",
        data={},
    )
    for number, prompt in enumerate(PROMPTS)
]


@pytest.fixture(scope="module")
def models(tokenizer):
    """One of each kind, the weights the same."""
    configs = {
        name: dataclasses.replace(ENDED, **change) for name, change in CHANGES.items()
    }
    params = params_of(CONFIG)
    return {name: Model(params, c, tokenizer, DRAWN) for name, c in configs.items()}


@pytest.fixture(scope="module")
def alone(models):
    """What `generate` writes to a prompt alone, tokens and text, made once."""
    made = {}

    def alone(name: str, prompt: str, seed: int) -> tuple[list[int], str]:
        if (name, prompt, seed) not in made:
            feature = FEATURES[name]
            out = models[feature.model].generate(
                prompt, seed=[seed], **feature.options, **feature.recipe
            )
            made[name, prompt, seed] = out.tokens[0], out.texts[0]
        return made[name, prompt, seed]

    return alone


def in_a_batch(model, feature, tmp_path):
    return model.generate(
        PROMPTS, seed=SEEDS, **feature.options, **feature.recipe
    ).tokens


def streamed(model, feature, tmp_path):
    """Texts."""
    return [
        "".join(model.stream(prompt, seed=[seed], **feature.options, **feature.recipe))
        for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
    ]


def through_slots(model, feature, tmp_path):
    """Two slots, so that one of them is used again."""
    engine = Engine(model, num_slots=2, max_prompt_tokens=24, **feature.recipe)
    for prompt, seed in zip(PROMPTS, SEEDS, strict=True):
        engine.submit(prompt, seed=seed, **feature.options)
    return worked_off(engine)


def worked_off(engine: Engine) -> list[list[int]]:
    """The answers to what waits, in order."""
    found = {}
    while engine.num_waiting or engine.num_running:
        found |= {c.number: c.tokens for c in engine.step()}
    return [found[number] for number in range(len(found))]


def exported(model, feature, tmp_path):
    """Four rows, of which three are prompts and one is padding."""
    options = dict(feature.options)
    later = {"stop": options.pop("stop")} if "stop" in options else {}
    export_sampler(
        model,
        tmp_path / "s",
        platforms=["cpu"],
        batch_size=4,
        max_prompt_tokens=24,
        **options,
        **feature.recipe,
    )
    sampler = load_exported(tmp_path / "s")
    return sampler.generate(PROMPTS, seed=SEEDS, **later).tokens


def evaluated(model, feature, tmp_path):
    """Texts."""
    sampler = model.sampler.vary(**feature.recipe)
    if feature.options:
        options = {name: True for name in feature.options}
        check_recipe(model.config, sampler, "evaluation", **options)
    recipe = Recipe(name="as-is", title="as is", temperature="model")
    setup = setup_for(
        Model(model.params, model.config, model.tokenizer, sampler),
        SUITE,
        PROBLEMS,
        Choices(model_name="m", recipe=recipe, rows=len(PROMPTS)),
    )
    assert setup.sampler == sampler.vary(trace=False)  # texts need no trace
    questions = [Request(problem=problem, sample=0) for problem in PROBLEMS]
    found = {}
    for samples in complete_batches(
        model, setup, batches(model, setup, questions), set()
    ):
        found |= {sample.problem_id: sample.text for sample in samples}
    return [found[problem.problem_id] for problem in PROBLEMS]


def over_a_mesh(model, feature, tmp_path):
    """`generate`, and slots where these take the feature."""
    mesh = make_mesh("data=2,fsdp=2,tensor=2")
    shardings = tree_shardings(mesh, denoiser.logical_axes(model.config), model.params)
    spread = model.with_params(jax.device_put(model.params, shardings))
    four = [*PROMPTS, PROMPTS[0]]
    out = spread.generate(four, seed=[*SEEDS, 5], **feature.options, **feature.recipe)
    if "engine" not in feature.refused:
        found = through_slots(spread, feature, tmp_path)
        assert found == out.tokens[: len(PROMPTS)]
    return out.tokens[: len(PROMPTS)]


ASK = {
    "batch": in_a_batch,
    "stream": streamed,
    "engine": through_slots,
    "exported": exported,
    "evaluation": evaluated,
    "mesh": over_a_mesh,
}


CELLS = [
    pytest.param(
        name,
        surface,
        id=f"{name}-{surface}",
        marks=() if surface in (*feature.quick, *feature.refused) else pytest.mark.slow,
    )
    for name, feature in FEATURES.items()
    for surface in SURFACES
]


@pytest.mark.representative(
    "plain-batch",
    "forced-stream",
    "stop-engine",
    "plain-evaluation",
    "logprobs-exported",
    "trace-stream",
    "trace-exported",
    "trace-engine",
    "stop-evaluation",
    "logprobs-stream",
    "grammar-evaluation",
    "forced-evaluation",
)
@pytest.mark.parametrize(("name", "surface"), CELLS)
def test_cell(models, alone, tmp_path, name, surface):
    if surface == "exported":
        pytest.importorskip("flatbuffers", reason="needs the extra export")
    feature = FEATURES[name]
    model = models[feature.model]
    if name == "int8":
        pytest.importorskip("qwix", reason="needs the extra quant")
    if surface in feature.refused:
        line, _ = feature.refused[surface]
        with pytest.raises(InputError, match=line) as fault:
            ASK[surface](model, feature, tmp_path)
        assert "\n" not in str(fault.value)
        return
    seeds = SEEDS
    if surface == "evaluation":
        keys = [(problem.problem_id, 0, 0) for problem in PROBLEMS]
        seeds = [seed_of(SUITE.name, key, 0) for key in keys]
    wanted = [alone(name, p, s) for p, s in zip(PROMPTS, seeds, strict=True)]
    is_text = surface in ("stream", "evaluation")
    assert ASK[surface](model, feature, tmp_path) == [row[is_text] for row in wanted]


@pytest.mark.representative("remask")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if feature.quick else pytest.mark.slow)
        for name, feature in FEATURES.items()
    ],
)
def test_cells_can_fail(alone, name):
    """Rows differ, most of them in length, and from those without the feature."""
    rows, plain = (
        [alone(n, p, s)[0] for p, s in zip(PROMPTS, SEEDS, strict=True)]
        for n in (name, "plain")
    )
    assert len({tuple(row) for row in rows}) == len(PROMPTS)
    assert name == "whole" or len({len(row) for row in rows}) > 1
    assert not FEATURES[name].changes or rows != plain


@pytest.mark.slow
def test_an_answer_that_is_one_block_takes_the_steps_of_one(models):
    feature = FEATURES["time-schedule"]
    for budget in (9, 20):
        out = models["free"].generate(
            PROMPTS, max_new_tokens=budget, eos=IgnoreEos(), **feature.recipe
        )
        assert out.forwards == 6
        assert out.new_tokens == [budget] * 3


def test_the_docs_show_the_matrix():
    docs = (
        Path(__file__).parent.parent / "docs" / "concepts" / "exactness.md"
    ).read_text()
    assert table() in docs


@pytest.mark.slow
def test_requests_with_and_without_a_grammar_share_an_engine(models, alone):
    """The first is at work before the slots know of any grammar."""
    engine = Engine(models["block"], num_slots=2, max_prompt_tokens=24)
    names = ("plain", "grammar", "plain")
    engine.submit(PROMPTS[0], seed=SEEDS[0])
    assert engine.step() == []
    for name, prompt, seed in list(zip(names, PROMPTS, SEEDS, strict=True))[1:]:
        engine.submit(prompt, seed=seed, **FEATURES[name].options)
    wanted = [alone(*row)[0] for row in zip(names, PROMPTS, SEEDS, strict=True)]
    assert worked_off(engine) == wanted
    edits = Engine(models["block"], num_slots=1, **FEATURES["edits"].recipe)
    with pytest.raises(InputError, match="drop the recipe's revision"):
        edits.submit("x", **FEATURES["grammar"].options)


@pytest.mark.slow
def test_a_run_of_an_engine_is_a_call_of_generate(models):
    model = models["block"]
    found = {
        c.number: c.tokens for c in Engine(model, num_slots=2).run(PROMPTS, seed=4)
    }
    wanted = model.generate(PROMPTS, seed=4).tokens
    assert [found[number] for number in range(len(PROMPTS))] == wanted
    with pytest.raises(InputError, match=re.escape("2 seeds for 3 prompts")):
        list(Engine(model, num_slots=2).run(PROMPTS, seed=[1, 2]))
    with pytest.raises(InputError, match="give a list"):
        list(Engine(model, num_slots=2).run("ab"))
