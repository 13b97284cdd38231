"""The public `Model`: text in, text out, with small random weights."""

import dataclasses
import json

import numpy as np
import pytest
from published_tokenizers import CHATML, byte_level, qwen, seed_coder
from text_model import CONFIG, PROMPTS, RECIPE, params_of

import seedjax
from seedjax.checkpoints.model_directory import save_model
from seedjax.config import to_dict
from seedjax.errors import InputError
from seedjax.inference.model import Generation, Model
from seedjax.nn.quantize import num_bytes
from seedjax.sampling.grammar.build import JsonSchema, Regex
from seedjax.sampling.policy import FixedCount
from seedjax.sampling.revision import TokenEdits
from seedjax.sampling.stopping import IgnoreEos
from seedjax.sampling.trace import replay
from seedjax.text.huggingface import HuggingFaceTokenizer


@pytest.fixture
def fresh(model):
    """The model, with nothing compiled."""
    return Model(model.params, model.config, model.tokenizer, model.sampler)


def test_an_answer_agrees_with_itself(fresh):
    model = fresh
    out = model.generate(PROMPTS, seed=3)
    assert out.texts == [model.tokenizer.decode(row) for row in out.tokens]
    assert out.new_tokens == [len(row) for row in out.tokens]
    assert out.compile_seconds > 0 and out.seconds > 0
    assert out.forwards >= max(out.steps) > 1
    assert out.tokens_per_forward == sum(out.new_tokens) / out.forwards
    assert out.tokens_per_second == sum(out.new_tokens) / out.seconds
    assert out.trace is None and out.logprobs is None
    again = model.generate(PROMPTS, seed=3)
    assert again.tokens == out.tokens and again.compile_seconds == 0
    assert model.generate(PROMPTS, seed=4).tokens != out.tokens
    # Budgets that need the same blocks share a program.
    shorter = model.generate(PROMPTS, seed=3, max_new_tokens=18)
    assert shorter.compile_seconds == 0
    assert max(shorter.new_tokens) <= 18


@pytest.mark.slow
def test_a_prompt_may_come_alone(model):
    together = model.generate(PROMPTS, seed=3)
    alone = model.generate(PROMPTS[0], seed=3)
    assert alone.texts == together.texts[:1]
    # Rows with one prompt draw apart; the first draws what a single one would.
    twice = model.generate([PROMPTS[0]] * 2, seed=3)
    assert twice.texts[0] == alone.texts[0] != twice.texts[1]


@pytest.mark.slow
def test_overrides(model):
    one_step = FixedCount(steps_per_block=1)
    out = model.generate(
        PROMPTS, eos=IgnoreEos(), max_new_tokens=90, policy=one_step, seed=1
    )
    assert out.new_tokens == [90, 90]
    assert out.steps[1] == 12  # blocks: 90 tokens and a shared one
    # Only what has text behind it is drawn.
    drawn = {token for row in out.tokens for token in row}
    assert len(drawn) > 50
    assert all(token < model.tokenizer.vocab_size for token in drawn)
    assert all(model.tokenizer.byte_lengths[token] > 0 for token in drawn)
    with pytest.raises(InputError, match="did you mean 'temperature'"):
        model.generate("x", temprature=0.5)
    with pytest.raises(InputError, match="block size 16 is one that the model cannot"):
        model.generate("x", block_size=16)


@pytest.mark.slow
def test_new_lengths_do_not_compile(fresh):
    """Prompts of 48 to 71 tokens and budgets of 33 to 41 are on one rung each."""
    model = fresh
    draws = np.random.default_rng(0)
    before, compiled = model.num_programs, 0
    for _ in range(200):
        tokens = draws.integers(8, 300, int(draws.integers(48, 72))).tolist()
        sampler = model.sampler.vary(
            max_new_tokens=int(draws.integers(33, 42)), temperature=0.0
        )
        compiled += model._continue([tokens], sampler, 0).compile_seconds > 0
    assert model.num_programs - before == compiled == 1


@pytest.mark.slow
def test_a_grammar_holds(model):
    schema = JsonSchema(schema='{"type": "array", "items": {"enum": [1, 22]}}')
    out = model.generate(PROMPTS, grammar=schema, seed=5, max_new_tokens=24)
    assert out.fits == [True, True]
    for text in out.texts:
        assert set(json.loads(text)) <= {1, 22}
    assert model.generate(PROMPTS, seed=5, max_new_tokens=24).texts != out.texts
    with pytest.raises(InputError, match="max_new_tokens is 3; give [0-9]+ or more"):
        model.generate("x", grammar=Regex(pattern="a{60}"), max_new_tokens=3)
    with pytest.raises(InputError, match="drop the recipe's revision"):
        model.generate("x", grammar=Regex(pattern="a"), revision=TokenEdits())


@pytest.mark.slow
def test_guidance_and_forced_tokens(model):
    plain = model.generate(PROMPTS, temperature=0.0)
    guided = model.generate(PROMPTS, temperature=0.0, guidance=2.0, trace=True)
    assert len(guided.texts) == len(guided.steps) == 2 and guided.texts != plain.texts
    for row, wanted in enumerate(guided.tokens):
        assert replay(guided.trace, CONFIG.eos_token_ids, row=row) == wanted
    forced = model.generate(PROMPTS, forced_tokens={0: 50, 3: 60}, eos=IgnoreEos())
    assert {(row[0], row[3]) for row in forced.tokens} == {(50, 60)}
    with pytest.raises(InputError, match="give an integer from 0 to 19"):
        model.generate(PROMPTS, forced_tokens={20: 50})


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["int8", "int8_weights"])
def test_quantized(model, tmp_path, mode):
    pytest.importorskip("qwix", reason="needs the extra quant")
    save_model(
        tmp_path / "m",
        params=model.params,
        denoiser=CONFIG,
        tokenizer=model.tokenizer,
        sampler=to_dict(RECIPE),
        provenance={},
        card="",
    )
    small = seedjax.load(str(tmp_path / "m"), quantization=mode)
    assert num_bytes(small.params) < 0.45 * num_bytes(model.params)
    recipe = {"temperature": 0.0, "eos": IgnoreEos(), "int8_cache": True}
    out = small.generate(PROMPTS, **recipe)
    wanted = model.generate(PROMPTS, **recipe | {"int8_cache": False})
    agree = sum(
        a == b
        for got, want in zip(out.tokens, wanted.tokens, strict=True)
        for a, b in zip(got, want, strict=True)
    )
    assert agree >= 10  # of 40; a random model would agree on none
    with pytest.raises(InputError, match="quantization is 'int4'; it must be one of"):
        seedjax.load(str(tmp_path / "m"), quantization="int4")


@pytest.mark.slow
def test_a_trace_replays(model):
    out = model.generate(PROMPTS, seed=3, trace=True)
    for row, wanted in enumerate(out.tokens):
        assert replay(out.trace, CONFIG.eos_token_ids, row=row) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("which", ["model", "causal"])
def test_a_stream_is_the_answer_in_pieces(which, request):
    model = request.getfixturevalue(which)
    recipe = {"max_new_tokens": 40, "seed": 1}
    pieces = list(model.stream(PROMPTS[0], **recipe))
    assert len(pieces) > 1 and all(pieces)
    assert "".join(pieces) == model.generate(PROMPTS[0], **recipe).texts[0]


class Spelling:
    """The tokenizer, but n tokens stand for the first n bytes of a text in which every
    character has several."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def decode(self, tokens) -> str:
        text = ("é漢字🙂" * 10).encode()[: len(list(tokens))]
        return text.decode(errors="replace")


@pytest.mark.slow
def test_a_stream_holds_back_half_characters(model):
    spelled = Model(model.params, CONFIG, Spelling(model.tokenizer), RECIPE)
    pieces = list(spelled.stream(PROMPTS[0], max_new_tokens=40, eos=IgnoreEos()))
    assert len(pieces) > 3
    # The last piece closes the answer, whole or not.
    assert "\ufffd" not in "".join(pieces[:-1])
    assert "".join(pieces) == spelled.tokenizer.decode(range(40))


@pytest.mark.slow
def test_a_causal_model_generates(causal):
    out = causal.generate(PROMPTS, seed=3)
    assert out.texts == [causal.tokenizer.decode(row) for row in out.tokens]
    assert out.forwards == 1 + max(out.steps)


@pytest.mark.slow
def test_infill_after_the_text(model):
    """Suffix, prefix, middle: the same as continuing the reordered text."""
    special, encode = model.tokenizer.special, model.tokenizer.encode
    out = model.infill("return ", "\n", seed=2)
    prompt = [special.bos, special.fim_suffix, *encode("\n")]
    prompt += [special.fim_prefix, *encode("return "), special.fim_middle]
    assert out.tokens == model._continue([prompt], model.sampler, 2).tokens
    assert model.infill("return ", "\n", length=5).new_tokens == [5]


@pytest.mark.slow
def test_infill_in_place(tokenizer):
    config = dataclasses.replace(CONFIG, attention="bidirectional")
    model = Model(params_of(config), config, tokenizer, RECIPE)
    out = model.infill(["def f(", "x"], ["): pass\n", ""], length=6, seed=1)
    assert out.new_tokens == [6, 6]
    # The suffix is seen.
    other = model.infill(["def f(", "x"], ["]= pass\n", ""], length=6, seed=1)
    assert other.tokens[0] != out.tokens[0]
    steps = model.infill("a", "b", length=6, policy=FixedCount(steps_per_block=3))
    assert steps.forwards == 3


NOTHING = Generation(
    **{"texts": [], "tokens": [], "new_tokens": [], "steps": []},
    **{"forwards": 1, "seconds": 1.0, "compile_seconds": 0.0},
)
CODES = ["def f(r):\n    return r\n", "x = 1\n"]


@pytest.mark.slow
def test_an_edit_is_the_answer_to_its_layout(model):
    """One instruction for all programs, with room for the longest of them."""
    special, encode = model.tokenizer.special, model.tokenizer.encode
    out = model.edit(CODES, instruction="Rename r", seed=2)
    prompts = [
        [special.bos, special.user, *encode(f"Rename r\n{code}")]
        + [special.end_of_turn, special.assistant]
        for code in CODES
    ]
    sampler = model.sampler.vary(max_new_tokens=len(encode(CODES[0])) + 64)
    assert out.tokens == model._continue(prompts, sampler, 2).tokens
    assert out.texts == [model.tokenizer.decode(row) for row in out.tokens]
    again = model.edit(CODES, ["Rename r", "Rename r"], seed=2)
    assert again.tokens == out.tokens and again.compile_seconds == 0


@pytest.mark.parametrize(
    ("code", "default", "budget"),
    [
        (CODES[1], 20, "the code and 64 more"),
        (CODES[1], 90, "the default"),
        ("x = 1\n" * 9, 20, "what is left"),
        (CODES[1], 200, "what is left"),
    ],
)
def test_how_long_an_edit_may_be(model, monkeypatch, code, default, budget):
    """Unless it is said."""
    asked = []

    def stand_in(self, prompts, sampler, seed, **_):
        asked.append(sampler.max_new_tokens)
        return NOTHING

    monkeypatch.setattr(Model, "_continue", stand_in)
    monkeypatch.setattr("seedjax.inference.model.judged", lambda result, frames: result)
    recipe = dataclasses.replace(RECIPE, max_new_tokens=default)
    other = Model(model.params, CONFIG, model.tokenizer, recipe)
    other.edit([code, "x"], "Halve x")
    other.edit(code, "Halve x", max_new_tokens=7)
    encode = model.tokenizer.encode
    budgets = {
        "the code and 64 more": len(encode(code)) + 64,
        "the default": default,
        "what is left": 128 - 4 - len(encode(f"Halve x\n{code}")),
    }
    assert asked == [budgets[budget], 7]


def test_faults_of_an_edit(model):
    with pytest.raises(InputError, match="the code is empty"):
        model.edit(["x", ""], instruction="Rename x")
    with pytest.raises(InputError, match="the instruction is empty"):
        model.edit("x", instruction="")
    with pytest.raises(InputError, match="2 programs and 1 instructions"):
        model.edit(["x", "y"], instruction=["Rename x"])
    with pytest.raises(InputError, match="no prompts"):
        model.edit([], instruction="Rename x")
    with pytest.raises(InputError, match="the model holds 128"):
        model.edit("x = 1\n" * 100, instruction="Rename x")
    with pytest.raises(InputError, match="did you mean 'temperature'"):
        model.edit("x", instruction="Rename x", temprature=0.5)


@pytest.fixture(scope="module")
def foreign(model) -> Model:
    """With a tokenizer of Qwen's kind: a chat template, no BOS, no mask."""
    config = dataclasses.replace(CONFIG, eos_token_ids=(402, 400))
    return Model(model.params, config, HuggingFaceTokenizer(qwen()), RECIPE)


CHAT = [{"role": "user", "content": "Say <|im_end|>"}]


def test_a_chat_is_the_answer_to_its_layout(foreign):
    encode, eos = foreign.tokenizer.encode, foreign.tokenizer.special.eos
    start = foreign.tokenizer.encode_chat(CHAT)[0]
    prompt = [start, *encode("user\nSay <|im_end|>"), eos, *encode("\n")]
    prompt += [start, *encode("assistant\n")]
    out = foreign.chat([CHAT, [*CHAT, *CHAT]], seed=2)
    prompts = [prompt, foreign.tokenizer.encode_chat([*CHAT, *CHAT])]
    assert out.tokens == foreign._continue(prompts, foreign.sampler, 2).tokens
    assert out.texts == [foreign.tokenizer.decode(row) for row in out.tokens]


def test_a_chat_has_variables(foreign, monkeypatch):
    asked = []

    def stand_in(self, *given, **_):
        asked.append(given)
        return NOTHING

    monkeypatch.setattr(Model, "_continue", stand_in)
    monkeypatch.setattr("seedjax.inference.model.judged", lambda result, frames: result)
    template = "{{ 'aloud' if loud }}{{ messages[0].content }}"
    library = byte_level()
    files = {"tokenizer.json": library.to_str().encode()}
    tokenizer = HuggingFaceTokenizer(files | {"chat_template.jinja": template.encode()})
    other = Model(foreign.params, CONFIG, tokenizer, RECIPE)
    other.chat(CHAT, template_variables={"loud": True}, max_new_tokens=7, seed=5)
    ((prompts, sampler, seed),) = asked
    assert tokenizer.decode(prompts[0]) == "aloudSay <|im_end|>"
    assert (sampler.max_new_tokens, seed) == (7, 5)


def test_prompts_of_foreign_tokenizers(foreign, model, monkeypatch):
    asked = []

    def stand_in(self, prompts, sampler, seed, **_):
        asked.extend(prompts)
        return NOTHING

    monkeypatch.setattr(Model, "_continue", stand_in)
    monkeypatch.setattr("seedjax.inference.model.judged", lambda result, frames: result)
    foreign.generate("x = 1")
    foreign.infill("f(", ")")
    coder = Model(model.params, CONFIG, HuggingFaceTokenizer(seed_coder()), RECIPE)
    coder.generate("x = 1")
    coder.infill("f(", ")")
    names = ["<[begin\u2581of\u2581sentence]>", "<[fim-suffix]>", "<[fim-prefix]>"]
    bos, suffix, prefix = names
    assert [foreign.tokenizer.spell(prompt) for prompt in asked[:2]] == [
        "x = 1",
        "<|fim_prefix|>f(<|fim_suffix|>)<|fim_middle|>",
    ]
    assert [coder.tokenizer.spell(prompt) for prompt in asked[2:]] == [
        f"{bos}x = 1",
        f"{bos}{suffix}){prefix}f(<[fim-middle]>",
    ]


def test_faults_of_foreign_tokenizers(foreign, model):
    with pytest.raises(InputError, match="no user token, so it cannot edit"):
        foreign.edit("x = 1\n", "Rename x")
    with pytest.raises(InputError, match="no chat template, so it cannot chat"):
        model.chat(CHAT)
    with pytest.raises(InputError, match="the chat is empty"):
        foreign.chat([])
    with pytest.raises(InputError, match="no critics"):
        foreign.chat([{"role": "critic", "content": "Hm"}])
    with pytest.raises(InputError, match="the model holds 128"):
        foreign.chat([{"role": "user", "content": "x = 1\n" * 100}])
    plain = HuggingFaceTokenizer({"tokenizer.json": byte_level().to_str().encode()})
    other = Model(model.params, CONFIG, plain, RECIPE)
    with pytest.raises(InputError, match="no fim_prefix token, so it cannot infill"):
        other.infill("a", "b")


def test_faults_of_the_input(model, tokenizer):
    with pytest.raises(InputError, match="the prompt is empty"):
        model.generate("")
    with pytest.raises(InputError, match="the prompt is empty"):
        model.generate(["a", ""])
    with pytest.raises(InputError, match="no prompts"):
        model.generate([])
    with pytest.raises(InputError, match="the model holds 128"):
        model.generate("x = 1\n" * 100)
    with pytest.raises(InputError, match="seed is -1"):
        model.generate("x", seed=-1)
    with pytest.raises(InputError, match="2 prefixes and 1 suffixes"):
        model.infill(["a", "b"], ["c"])
    with pytest.raises(InputError, match="length is 0"):
        model.infill("a", "b", length=0)
    small = dataclasses.replace(CONFIG, vocab_size=300)
    with pytest.raises(InputError, match="400 ids and the model 300"):
        Model(model.params, small, tokenizer)


def test_a_model_directory_is_loaded(model, tmp_path):
    """Also one whose layers are stacked, which weight files never are."""
    config = dataclasses.replace(CONFIG, layer_loop="scan")
    save_model(
        tmp_path,
        params=model.params,
        denoiser=config,
        tokenizer=model.tokenizer,
        sampler=to_dict(RECIPE),
        provenance={},
        card="",
    )
    loaded = seedjax.load(str(tmp_path))
    wanted = model.generate(PROMPTS, seed=3)
    assert loaded.generate(PROMPTS, seed=3).tokens == wanted.tokens
    narrow = seedjax.load(str(tmp_path), dtype="bfloat16")
    assert narrow.config.dtype == "bfloat16"


def test_a_foreign_tokenizer_is_saved_with_its_model(foreign, tmp_path):
    """Files as they were, and what only we know of them."""
    tokenizer = foreign.tokenizer.with_special({"mask": 401})
    save_model(
        tmp_path,
        params=foreign.params,
        denoiser=foreign.config,
        tokenizer=tokenizer,
        sampler=to_dict(RECIPE),
        provenance={},
        card="",
    )
    loaded = seedjax.load(str(tmp_path))
    assert loaded.tokenizer.special == tokenizer.special
    assert loaded.tokenizer.chat_template == CHATML
    assert loaded.tokenizer.encode_chat(CHAT) == foreign.tokenizer.encode_chat(CHAT)
    written = (tmp_path / "tokenizer" / "tokenizer.json").read_bytes()
    assert written == qwen()["tokenizer.json"]


def test_an_unknown_model_is_refused():
    with pytest.raises(InputError, match="no-such-model"):
        seedjax.load("no-such-model")


def test_a_row_may_have_a_seed_of_its_own(model):
    """What it draws then depends on nothing else."""
    together = model.generate(PROMPTS, seed=[5, 9]).texts
    assert model.generate(PROMPTS[::-1], seed=[9, 5]).texts == together[::-1]
    assert model.generate(PROMPTS, seed=[5, 8]).texts[0] == together[0]
    assert model.generate(PROMPTS, seed=[6, 9]).texts[0] != together[0]
    with pytest.raises(InputError, match="3 seeds for 2 prompts"):
        model.generate(PROMPTS, seed=[1, 2, 3])
    with pytest.raises(InputError, match=r"seed\[1\] is -1"):
        model.generate(PROMPTS, seed=[1, -1])


@pytest.mark.slow
@pytest.mark.parametrize("which", ["model", "causal"])
def test_stop_strings(which, request):
    """The text up to the first of them, wherever tokens and blocks end; other stop
    strings of about the length are the same program."""
    model = request.getfixturevalue(which)
    recipe = {"seed": 1, "max_new_tokens": 40, "eos": IgnoreEos()}
    whole = model.generate(PROMPTS, **recipe)
    text = whole.texts[0]
    programs = []
    spelled = [n for n in range(len(text) - 4) if "\ufffd" not in text[n : n + 4]]
    for place in (spelled[1], spelled[len(spelled) // 2], spelled[-2]):
        stop = [text[place : place + 4], "\x00 not in any"]
        out = model.generate(PROMPTS, stop=stop, **recipe)
        assert out.texts[0] == text[: text.index(stop[0])]
        assert out.texts[0].startswith(model.tokenizer.decode(out.tokens[0][:-1]))
        needed = out.new_tokens[0]
        assert out.tokens[0] == whole.tokens[0][:needed] and needed < 40
        assert out.finish_reason[0] == "stop"
        row_one = whole.texts[1].split(stop[0])
        assert out.texts[1] == row_one[0]
        assert out.finish_reason[1] == ("stop" if len(row_one) > 1 else "length")
        assert out.forwards <= whole.forwards
        pieces = list(model.stream(PROMPTS[0], stop=stop, **recipe))
        assert "".join(pieces) == out.texts[0]
        programs.append(model.num_programs)
    assert programs[0] == programs[-1]
    first = model.generate(PROMPTS[0], stop=text[0], **recipe)
    assert (first.texts, first.tokens, first.new_tokens) == ([""], [[]], [0])
    assert first.forwards < whole.forwards / 2
    assert list(model.stream(PROMPTS[0], stop=text[0], **recipe)) == []


def test_why_an_answer_ended_and_what_it_followed(model):
    out = model.generate(PROMPTS, eos=IgnoreEos(), max_new_tokens=5)
    encode = model.tokenizer.encode
    assert out.prompt_tokens == [1 + len(encode(prompt)) for prompt in PROMPTS]
    assert out.finish_reason == ["length", "length"] and out.new_tokens == [5, 5]
    end = model.config.eos_token_ids[0]
    out = model.generate(PROMPTS, forced_tokens={6: end}, max_new_tokens=20)
    assert out.finish_reason == ["stop", "stop"] and max(out.new_tokens) <= 6
